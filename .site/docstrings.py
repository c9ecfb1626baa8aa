"""Griffe extension of the site: the package's docstring sections, in the parser's words."""

import re
from typing import Any

import griffe

# Only those of `Call arguments` that are a list of arguments.
SECTIONS = (
    (re.compile(r"^Example:$", re.MULTILINE), "Examples:"),
    (
        re.compile(r"^Call arguments:$(?=\n +[\w`, ]+:)", re.MULTILINE),
        "Other Parameters: Call arguments:",
    ),
)


class Sections(griffe.Extension):
    """Renames the sections that Keras has and Google's style does not."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            for pattern, words in SECTIONS:
                obj.docstring.value = pattern.sub(words, obj.docstring.value)
