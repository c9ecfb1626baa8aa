"""Shown: how a report prints, and the pages that it makes of itself."""

from __future__ import annotations

import html
import io
import os
import pathlib
from typing import Any

from addloss_kit._checks import as_path
from addloss_kit._types import Path
from addloss_kit.atomic import replacing
from addloss_kit.reports import tables

# Tables scroll by themselves on a narrow screen; nothing comes from another host.
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.5rem; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .75rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
tbody tr:nth-child(even) { background: var(--soft); }
figure { margin: 1.5rem 0; background: #fff; overflow-x: auto; }
svg { display: block; width: 100%; min-width: 34rem; height: auto; }
"""


class Shown:
    """What has a table, notes and a plot, and so prints and writes itself."""

    title: str  # of its page

    def _table(self) -> tuple[list[str], list[list[str]]]:
        """The header and the rows, first cells being names."""
        raise NotImplementedError

    def _notes(self) -> list[str]:
        """Sentences below the table."""
        raise NotImplementedError

    def plot(self, ax: Any = None) -> Any:
        """Draw into matplotlib axes."""
        raise NotImplementedError

    def _further(self) -> list[Shown]:
        """What is shown below, each under its title."""
        return []

    def __repr__(self) -> str:
        lines = [tables.as_text(*self._table()), "", *self._notes()]
        for part in self._further():
            lines += ["", part.title, "", repr(part)]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        below = [
            f"<h2>{html.escape(part.title)}</h2>{part._repr_html_()}"
            for part in self._further()
        ]
        return "".join([tables.as_html(*self._table(), self._notes()), *below])

    def to_markdown(self) -> str:
        """The table as Markdown, with the notes as a list below."""
        below = [f"\n## {part.title}\n\n{part.to_markdown()}" for part in self._further()]
        return "".join([tables.as_markdown(*self._table(), self._notes()), *below])

    def to_html(self, path: Path, title: str | None = None) -> None:
        """Write a page of its own: table, notes, and the plot if matplotlib is installed.

        It needs no other file and no network, and fits a phone.

        Args:
            path: The file to write, as a whole or not at all.
            title: Its heading; by default what it shows.

        Raises:
            OSError: If the file cannot be written; a former one is then unchanged.
        """
        place = pathlib.Path(os.path.abspath(as_path(path=path)))
        heading = html.escape(self.title if title is None else title)
        table = self._repr_html_()
        table = table.replace("<table>", '<div class="table"><table>')
        table = table.replace("</table>", "</table></div>")
        page = (
            f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{heading}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
            f"<h1>{heading}</h1>\n{table}\n{self._figure()}\n</body>\n</html>\n"
        )
        with replacing(place) as scratch:
            scratch.write_text(page, encoding="utf-8")

    def _figure(self) -> str:
        """The plot as inline SVG, with its text drawn, so that no font is needed."""
        try:
            from matplotlib.backends.backend_svg import FigureCanvasSVG
            from matplotlib.figure import Figure
        except ImportError:
            return ""
        figure = Figure(figsize=(8, 4), layout="constrained")
        self.plot(figure.add_subplot())
        drawn = io.BytesIO()
        # Matplotlib has types, but not for its canvases. No date: the same report, the
        # same page.
        FigureCanvasSVG(figure).print_svg(drawn, metadata={"Date": None})  # type: ignore[no-untyped-call]
        text = drawn.getvalue().decode("utf-8")
        return f"<figure>{text[text.index('<svg') :]}</figure>"
