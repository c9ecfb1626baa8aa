"""The package is described in setup.cfg; here is only what it cannot say."""

import os
import re
import runpy
from pathlib import Path

from setuptools import setup
from setuptools.command.sdist import sdist

HERE = Path(__file__).parent
BESIDE_THE_PACKAGE = (".ci", ".mkdocs.yml", ".ruff.toml", ".site", "docs", "tests")


class SdistWithTests(sdist):
    """A source distribution with all that its own tests and pages need."""

    def make_distribution(self) -> None:
        for name in BESIDE_THE_PACKAGE:
            path = HERE / name
            found = path.rglob("*") if path.is_dir() else [path]
            files = (file.relative_to(HERE) for file in sorted(found) if file.is_file())
            self.filelist.extend(
                [str(file) for file in files if "__pycache__" not in file.parts]
            )
        super().make_distribution()


def published_at(url: str) -> dict[str, object]:
    """What a release says of the address of its repository.

    The README is its page at a package index, too, where links to files lead nowhere and
    pictures are not shown: there they lead to the files of this version.

    Args:
        url: Such as `https://host/owner/addloss_kit`, where `blob/TAG/FILE` shows a file
            and `raw/TAG/FILE` is its content, as at most hosts.
    """
    version = runpy.run_path(str(HERE / "addloss_kit" / "_version.py"))["__version__"]
    files, contents = f"{url}/blob/v{version}", f"{url}/raw/v{version}"
    readme = (HERE / "README.md").read_text(encoding="utf-8")
    readme = re.sub(r"(!\[[^]]*\]\()(?!https?:)", rf"\g<1>{contents}/", readme)
    readme = re.sub(r"((?<!!)\[[^]]*\]\()(?!https?:)", rf"\g<1>{files}/", readme)
    return {
        "url": url,
        "long_description": readme,
        "project_urls": {
            "Source": url,
            "Documentation": f"{files}/docs/index.md",
            "Changelog": f"{files}/docs/changelog.md",
            "Issues": f"{url}/issues",
        },
    }


URL = os.environ.get("PROJECT_URL", "").rstrip("/")
setup(cmdclass={"sdist": SdistWithTests}, **(published_at(URL) if URL else {}))
