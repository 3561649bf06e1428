"""What results look like in a notebook, and a progress bar for notebooks, terminals and pipes."""

from __future__ import annotations

import html
import io
import sys
import time
from importlib import import_module
from typing import Any

from diffspace.checks import check_number


class Shown:
    """The base of results that people look at: a notebook shows their picture or table, `show` returns it."""

    def _repr_html_(self) -> str | None:
        try:
            pictures = import_module("diffspace.figures.shown")  # above this layer, and only there if it is installed
        except ModuleNotFoundError:
            return None
        text: str | None = pictures.as_html(self)
        return text

    def show(self) -> Any:
        """The picture, a matplotlib figure, which a notebook displays; for a result without one, its table as text.

        ModuleNotFoundError without matplotlib.
        """
        return import_module("diffspace.figures.shown").shown(self)


class ProgressBar:
    """How far a computation is; anything that takes `progress` can be given one.

    In a notebook it is a bar, in a terminal a line that is rewritten, elsewhere a line from time to time.

    >>> ds.sample(model, seeds=range(64), execution=ds.Execution(progress=ds.ProgressBar("sampling")))
    >>> ds.fit_solver(model, 8, truth, progress=ds.ProgressBar("fitting"))
    """

    def __init__(self, label: str = "", *, every: float | None = None, file: io.TextIOBase | None = None) -> None:
        self.label = label
        self._file: Any = file or sys.stderr
        self._display = None if file is not None else _display()
        self._live = self._display is not None or self._file.isatty()
        self._every = (0.1 if self._live else 10.0) if every is None else every
        check_number("every", self._every, "[0, inf)")
        self._last = -float("inf")
        self._handle: Any = None

    def __call__(self, *report: Any) -> None:
        """Take a report: (first, state) of sampling, or (done, total) with a text or a number."""
        if len(report) == 2 and hasattr(report[1], "num_steps"):
            first, state = report
            done, total, text = state.step, state.num_steps, f"σ = {state.sigma:.3g}"
            if first:
                text = f"from sample {first} on, {text}"
        else:
            done, total = report[:2]
            text = " ".join(f"{value:.3g}" if isinstance(value, float) else str(value) for value in report[2:])
        now = time.monotonic()
        if now - self._last >= self._every or done >= total:
            self._last = now
            self._show(done, total, text)

    def _show(self, done: int, total: int, text: str) -> None:
        line = f"{self.label}: {done} of {total}  {text}".removeprefix(": ").rstrip()
        if self._display is not None:
            page = f'<progress value="{done}" max="{total}"></progress> <code>{html.escape(line)}</code>'
            bundle = {"text/html": page, "text/plain": line}
            if self._handle is None:
                self._handle = self._display(bundle, raw=True, display_id=True)
            else:
                self._handle.update(bundle, raw=True)
        elif self._live:
            self._file.write(f"\r\x1b[K{line}" + ("\n" if done >= total else ""))
            self._file.flush()
        else:
            self._file.write(line + "\n")
            self._file.flush()


def _display() -> Any:
    """IPython's `display`, where a notebook's kernel runs; None elsewhere."""
    interactive = sys.modules.get("IPython")
    shell = interactive.get_ipython() if interactive is not None else None
    if shell is None or not hasattr(shell, "kernel"):
        return None
    return import_module("IPython.display").display
