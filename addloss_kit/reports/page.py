"""Shown: how a report prints, and the pages that it makes of itself."""

from __future__ import annotations

import html
import io
import os
import pathlib
from collections.abc import Callable
from typing import Any

from addloss_kit._checks import as_path
from addloss_kit._types import Path
from addloss_kit.atomic import replacing
from addloss_kit.reports import tables

# Tables scroll by themselves on a narrow screen, beside the names, with a shadow where
# there is more; nothing comes from another host.
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --shade: #8886; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.5rem; }
h2 { font-size: 1.25rem; margin-top: 2.5rem; }
p { max-width: 50rem; margin: .4rem 0; }
.table { overflow-x: auto; margin-bottom: 1rem; background:
  linear-gradient(to right, Canvas 50%, transparent) left / 3rem 100% no-repeat local,
  linear-gradient(to left, Canvas 50%, transparent) right / 3rem 100% no-repeat local,
  linear-gradient(to right, var(--shade), transparent) left / .6rem 100% no-repeat,
  linear-gradient(to left, var(--shade), transparent) right / .6rem 100% no-repeat; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .75rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
tbody tr:nth-child(even) { background: var(--soft); }
.figures { display: grid; gap: 1rem; margin: 1.5rem 0;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 32rem), 1fr)); }
figure { margin: 0; background: #fff; max-width: 46rem; }
svg { display: block; width: 100%; height: auto; }
@media (max-width: 40rem) {
  table { font-size: .875rem; }
  th, td { padding: .35rem .5rem; }
  th:first-child, td:first-child { position: sticky; left: 0; background: Canvas;
    white-space: normal; max-width: 8rem; }
}
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

    def _plots(self) -> list[Callable[[Any], Any]]:
        """What draws each figure of the page into axes."""
        return [self.plot]

    def _height(self) -> float:
        """Of a figure, in inches."""
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

    def _sections(self) -> str:
        """Table, notes and figures, and so of what is below."""
        table = tables.as_html(*self._table(), self._notes())
        table = table.replace("<table>", '<div class="table"><table>')
        table = table.replace("</table>", "</table></div>")
        below = [
            f"<h2>{html.escape(part.title)}</h2>\n{part._sections()}"
            for part in self._further()
        ]
        return "\n".join([table, self._figures(), *below])

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
        page = (
            f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{heading}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
            f"<h1>{heading}</h1>\n{self._sections()}\n</body>\n</html>\n"
        )
        with replacing(place) as scratch:
            scratch.write_text(page, encoding="utf-8")

    def _figures(self) -> str:
        """The plots as inline SVG, with their text drawn, so that no font is needed."""
        try:
            from matplotlib.backends.backend_svg import FigureCanvasSVG
            from matplotlib.figure import Figure
        except ImportError:
            return ""
        figures = []
        for plot in self._plots():
            # As wide as a phone can show it.
            figure = Figure(figsize=(5.5, self._height()), layout="constrained")
            plot(figure.add_subplot())
            drawn = io.BytesIO()
            # No date: the same report, the same page.
            canvas = FigureCanvasSVG(figure)
            # Matplotlib has types, but not for its canvases, so mypy would refuse the call.
            canvas.print_svg(drawn, metadata={"Date": None})  # type: ignore[no-untyped-call]
            text = drawn.getvalue().decode("utf-8")
            figures.append(f"<figure>{text[text.index('<svg') :]}</figure>")
        return '<div class="figures">\n' + "\n".join(figures) + "\n</div>"
