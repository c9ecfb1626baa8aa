"""Tables as text and as HTML."""

from __future__ import annotations

import html
from collections.abc import Sequence

# More rows are unreadable; the middle is omitted, `to_dict()` has them all.
MAX_ROWS = 24


def number(value: float) -> str:
    """Four digits, without an exponent unless needed."""
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def plus_minus(value: float, standard_error: float) -> str:
    """`value ± standard error`."""
    return f"{number(value)} ± {standard_error:.2g}"


def as_text(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns, the first flush left, the others flush right."""
    cells = [list(header), *map(list, rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in cells
    ]
    return "\n".join(lines)


def as_html(
    header: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str]
) -> str:
    """A table with `notes` as paragraphs below; all text is escaped."""

    def line(tag: str, cells: Sequence[str]) -> str:
        inner = "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)
        return f"<tr>{inner}</tr>"

    body = "".join(line("td", row) for row in rows)
    below = "".join(f"<p>{html.escape(note)}</p>" for note in notes)
    return f"<table><thead>{line('th', header)}</thead><tbody>{body}</tbody></table>{below}"
