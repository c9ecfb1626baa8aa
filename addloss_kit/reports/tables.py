"""Tables as text and as HTML."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from typing import Any

# More rows are unreadable; the middle is omitted, `to_dict()` has them all.
MAX_ROWS = 24
# Where the normal approximation begins to hold.
FEW_ROWS = 30


def number(value: float) -> str:
    """Four digits, without an exponent unless needed; a dash for NaN."""
    if math.isnan(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def plus_minus(value: float, standard_error: float) -> str:
    """`value ± standard error`, or what there is of it."""
    if math.isnan(value):
        return "–"
    if math.isnan(standard_error):
        return number(value)
    return f"{number(value)} ± {standard_error:.2g}"


def percent(value: float, standard_error: float) -> str:
    """`+value ± standard error %` of a relative change, or a dash."""
    if not math.isfinite(value):
        return "–"
    noise = "" if math.isnan(standard_error) else f" ± {100 * standard_error:.2g}"
    return f"{100 * value:+.1f}{noise} %"


def estimate(numbers: Sequence[float]) -> str:
    """`value [low, high]`; a dash if there is no value."""
    value, low, high = map(number, numbers)
    return value if math.isnan(numbers[0]) else f"{value} [{low}, {high}]"


def p_value(p: float) -> str:
    """Two digits; what is below a thousandth only so."""
    if math.isnan(p):
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def listed(names: Sequence[str]) -> str:
    """Names joined by commas; of very many, the first ones."""
    shown = ", ".join(names[:MAX_ROWS])
    more = len(names) - MAX_ROWS
    return f"{shown} and {more} more" if more > 0 else shown


def few_rows(counted: Iterable[tuple[str, int]], what: str) -> list[str]:
    """A warning of the intervals of groups with few rows, or none.

    Args:
        counted: Names and numbers of rows, or of clusters.
        what: `"row"` or `"cluster"`.
    """
    few = [name for name, number in counted if 1 < number < FEW_ROWS]
    if not few:
        return []
    return [
        f"of fewer than {FEW_ROWS} {what}s, so with intervals that may be too narrow: "
        f"{listed(few)}"
    ]


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


def as_markdown(
    header: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str]
) -> str:
    """A table of GitHub's Markdown, with `notes` as a list below."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    ruler = "|" + "---|" + "---:|" * (len(header) - 1)
    below = [f"- {note}" for note in notes]
    return "\n".join([line(header), ruler, *map(line, rows), "", *below, ""])


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


def import_pandas() -> Any:
    """The module pandas, for `to_pandas`.

    Raises:
        ImportError: If it is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise ImportError(
            "`to_pandas` needs pandas. Install it: `pip install pandas`."
        ) from error
    return pandas
