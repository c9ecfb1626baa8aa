"""The fenced blocks of a Markdown page: what they are, and how they run.

A comment on the line before a fence, as `<!-- raises=TypeError -->`, holds options. A
block fenced as `text` right after a block of Python is what that block must print.
"""

import contextlib
import io
import re
from dataclasses import dataclass

FENCE = re.compile(
    r"^(?:<!-- ([^\n]*) -->\n)?```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass
class Block:
    """A fenced block of Python with what its page says of it."""

    code: str
    options: dict
    output: str
    line: int

    def run(self, page, namespace):
        """What the block prints, run at its own place, so that a traceback names it."""
        code = compile("\n" * self.line + self.code, str(page), "exec")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, namespace)
        return printed.getvalue()


def python_blocks(page):
    """The page's blocks of Python, in order."""
    text = page.read_text(encoding="utf-8")
    fences = list(FENCE.finditer(text))
    for fence, follower in zip(fences, [*fences[1:], None]):
        if fence[2] != "python":
            continue
        options = dict(option.split("=") for option in (fence[1] or "").split())
        output = ""
        if follower is not None and follower[2] == "text":
            between = text[fence.end() : follower.start()]
            output = follower[3] if not between.strip() else ""
        yield Block(fence[3], options, output, text.count("\n", 0, fence.start(3)))
