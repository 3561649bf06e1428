"""Where the command line writes: results to standard output, progress and errors to standard error."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

# without markup, since names may contain brackets
out = Console(highlight=False, markup=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


def progress_bar(unit: str, shown: bool = True) -> Progress:
    """A bar on standard error with counts, a line of figures and the time left; it disappears when done."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn(f"{unit} {{task.fields[info]}}", markup=False),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=not shown,
    )


def table(headings: Iterable[str], rows: Iterable[Iterable[str | Text]], title: str | None = None) -> Table:
    """A table without lines."""
    result = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        result.add_column(heading, overflow="fold")
    for row in rows:
        result.add_row(*row)
    return result
