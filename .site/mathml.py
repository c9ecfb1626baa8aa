"""Hook of the site: formulas become MathML when it is built, so pages need no renderer."""

import html
import re

from latex2mathml.converter import convert

# What pymdownx.arithmatex writes with `generic: true`.
FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<tex>.*?)\\[)\]]</(?P=tag)>',
    re.DOTALL,
)
# Names that latex2mathml does not know, in words that it does.
SPELLED_OUT = (
    (re.compile(r"\\operatorname\*\{(\w+)\}_"), r"\\mathop{\\mathrm{\1}}\\limits_"),
    (re.compile(r"\\textstyle\b"), ""),
    # Written as a letter, it would touch what it is taken of.
    (re.compile(r"\\log\b"), r"\\,\\log\\,"),
)


def to_mathml(formula: re.Match[str]) -> str:
    tex = html.unescape(formula["tex"]).strip()
    for pattern, replacement in SPELLED_OUT:
        tex = pattern.sub(replacement, tex)
    tag = formula["tag"]
    mathml = convert(tex, display="block" if tag == "div" else "inline")
    return f'<{tag} class="formula">{mathml}</{tag}>'


def on_page_content(content: str, **_: object) -> str:
    return FORMULA.sub(to_mathml, content)
