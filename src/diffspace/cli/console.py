"""Where the command line writes: results to standard output, progress and errors to standard error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from diffspace.checks import printable


class _Console(Console):
    """A console on which text of others, such as names of files, moves no cursor and sends no command."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))


# without markup, since names may contain brackets
out = _Console(highlight=False, markup=False, soft_wrap=True)
err = _Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
_SILENCE = 30.0  # seconds between two lines of progress where there is no terminal
_LAST_COLUMN = 30  # characters that the last column of a table has at least, if it needs them


def warn(text: str) -> None:
    """A line that the user should not miss."""
    err.print(f"warning: {text}", style="yellow")


class _Bar(Progress):
    """A bar in a terminal; elsewhere, as in a pipe or the log of a job, a line from time to time."""

    def __init__(self, *columns: ProgressColumn, unit: str, shown: bool) -> None:
        super().__init__(*columns, console=err, transient=True, disable=not (shown and err.is_terminal))
        self._unit, self._lines, self._last = unit, shown and not err.is_terminal, time.monotonic()

    def update(self, task_id: TaskID, **fields: Any) -> None:
        super().update(task_id, **fields)
        if self._lines and time.monotonic() - self._last >= _SILENCE:
            self._last = time.monotonic()
            self._line(next(task for task in self.tasks if task.id == task_id))

    def _line(self, task: Task) -> None:
        of = f" of {task.total:,.0f}" if task.total else ""
        left = f", {duration(task.time_remaining)} left" if task.time_remaining else ""
        info = f", {task.fields['info']}" if task.fields.get("info") else ""
        err.print(f"{task.description}: {task.completed:,.0f}{of} {self._unit}{info}{left}")


def progress_bar(unit: str, shown: bool = True) -> Progress:
    """A bar on standard error with counts, a line of figures and the time left; it disappears when done.

    Where there is no terminal, a line every half minute.
    """
    return _Bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn(f"{unit} {{task.fields[info]}}", markup=False),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        unit=unit,
        shown=shown,
    )


class Stages:
    """A line on a bar that names the stage of a computation, and counts the steps of sampling in it."""

    def __init__(self, bar: Progress, prefix: str = "") -> None:
        self._bar, self._prefix = bar, prefix
        self._task = bar.add_task(prefix, total=None, info="")

    def __call__(self, stage: str, done: int = 0, total: int | None = None) -> None:
        self._bar.update(self._task, description=self._prefix + stage, completed=done, total=total, info="")

    def show(self, done: int, total: int | None, info: str = "") -> None:
        """How far the stage is, with a line of figures."""
        self._bar.update(self._task, completed=done, total=total, info=info)

    def steps(self, count: int, batch: int) -> Callable[[int, Any], None]:
        """What shows the steps, given to `Execution(progress=…)`, for `count` samples in batches of `batch`."""

        def show(first: int, state: Any) -> None:
            done, total = (n * state.num_steps for n in (first // batch, -(-count // batch)))
            self.show(done + state.step, total, f"σ = {state.sigma:.3g}")

        return show


def table(headings: Sequence[str], rows: Sequence[Sequence[str | Text]]) -> Table:
    """A table without lines; only its last column is wrapped, so that names stay whole."""
    result = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        result.add_column(heading, no_wrap=heading is not headings[-1], overflow="fold")
    for row in rows:
        result.add_row(*row)
    whole = Measurement.get(out, out.options.update(max_width=10_000), result).maximum
    last = max(cell_len(str(row[-1])) for row in (headings, *rows))
    result.width = min(whole, max(out.width, whole - last + min(last, _LAST_COLUMN)))
    return result


def duration(seconds: float) -> str:
    """`3 h 12 min`, `4 min 5 s`, `7 s`."""
    whole = max(0, round(seconds))
    units = [(whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "min"), (whole % 60, "s")]
    first = next((i for i, (count, _) in enumerate(units) if count), 3)
    return " ".join(f"{count} {unit}" for count, unit in units[first : first + 2] if count or unit == "s")
