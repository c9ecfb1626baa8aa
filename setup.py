"""The package is described in setup.cfg; here is only what it cannot say."""

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


setup(cmdclass={"sdist": SdistWithTests})
