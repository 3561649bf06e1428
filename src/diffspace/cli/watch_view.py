"""What `diffspace watch` shows in the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from diffspace.cli.console import duration
from diffspace.cli.plot import colour, plot
from diffspace.figures.curves import Curve, Curves, Panel, levels_panel, loss_panel, small_panels

_NARROW = 76  # columns below which there is no room for two panels
_SMALL = 24  # columns of the narrowest panel
_CELLS = 20  # characters of the bar


def view(runs: Sequence[Curves], silent: Sequence[float], width: int, height: int | None) -> RenderableType:
    """The state of each run and its curves; `silent` has the seconds for which each has logged nothing.

    A height leaves out the panels for which there is no room.
    """
    width = max(width, 40)
    head: list[Text] = []
    for i, (run, since) in enumerate(zip(runs, silent, strict=True)):
        head += _state(run, since, "bold" if len(runs) == 1 else f"bold {colour(i)}", width)
    if all(not run.last and not run.held_out for run in runs):
        return Group(*head)
    narrow = width < _NARROW
    upper = [loss_panel(runs)]
    if narrow or any(run.by_sigma or run.held_out_by_sigma for run in runs):
        upper.append(levels_panel(runs))
    above, below = _in_rows(upper, 1 if narrow else 2), _in_rows(small_panels(runs), width // _SMALL)
    tall, low = 18, 9
    if height is not None:
        room = max(14, min(height, 44) - len(head) - 1)
        below = [] if narrow else below[: max(1, room // 15)]
        tall = (room * 3 // 5 if below else room) // len(above)
        low = (room - tall) // max(1, len(below))
    drawn = [_beside(panels, width, tall) for panels in above] + [_beside(panels, width, low) for panels in below]
    return Group(*head, *(line for row in drawn for line in row))


def _in_rows(panels: Sequence[Panel], most: int) -> list[Sequence[Panel]]:
    """The panels in rows of at most so many, as even as possible."""
    rows = -(-len(panels) // most)
    return [panels[len(panels) * i // rows : len(panels) * (i + 1) // rows] for i in range(rows)]


def _beside(panels: Sequence[Panel], width: int, height: int) -> list[Text]:
    each = (width + 1) // len(panels) - 1
    return [Text(" ").join(parts) for parts in zip(*(plot(panel, each, height) for panel in panels), strict=True)]


def _state(run: Curves, silent: float, style: str, width: int) -> list[Text]:
    """How far the run is, in one line, and what was logged last, in as many as it takes."""
    last = run.last
    first = Text.assemble((run.name, style))
    if not last:
        return [first.append("  nothing is logged yet")]
    if run.total:
        share = min(1.0, run.images / run.total)
        full = round(share * _CELLS)
        first.append("  ").append("━" * full, "green").append("━" * (_CELLS - full), "dim")
        first.append(f" {share:.0%}")
    facts = [f"{int(run.images):,}" + (f" of {run.total:,}" if run.total else "") + " images"]
    if run.finished:
        facts.append("stopped early" if run.stopped_early else "done")
    else:
        speed, left = last.get("images_per_second"), last.get("seconds_left")
        if isinstance(speed, int | float):
            facts.append(f"{speed:,.0f} images/s")
        if isinstance(left, int | float):
            facts.append(f"{duration(left)} left")
        if silent > 60:
            facts.append(f"silent for {duration(silent)}")
    first.append("  " + ", ".join(facts))
    first.truncate(width, overflow="ellipsis")
    figures = [f"loss {_figure(run.training['loss'])}"]
    if run.held_out:
        least = min(run.held_out.values)
        now = run.held_out.values[-1]
        figures.append(f"held-out {now:.4g}" + (f" (least {least:.4g})" if now > least else ""))
    for name, curves in run.measured.items():
        figures.append(" ".join([name, *(f"{label} {c.values[-1]:.4g}".strip() for label, c in curves.items())]))
    if run.training["grad_norm"]:
        figures.append(f"gradient norm {_figure(run.training['grad_norm'])}")
    if last.get("skipped"):
        figures.append(f"{last['skipped']} steps skipped")
    whole = "  ".join(figure.replace(" ", "\xa0") for figure in figures)  # lines are not broken within one
    return [first, *(Text(line.replace("\xa0", " ")) for line in textwrap.wrap(whole, width))]


def _figure(curve: Curve) -> str:
    """The mean of the last records, which one batch alone does not sway."""
    recent = curve.values[-10:]
    return f"{sum(recent) / len(recent):.4g}" if recent else "–"
