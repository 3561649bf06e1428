"""What `diffspace watch` shows in the terminal: the state of each run, and panels in two by four dots a character."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from diffspace.cli.console import duration
from diffspace.figures.curves import Curve, Curves, Line, Panel, levels_panel, loss_panel, short, small_panels

_NARROW = 76  # columns below which there is no room for two panels
_SMALL = 24  # columns of the narrowest panel
_CELLS = 20  # characters of the bar
_COLOURS = ("blue", "red", "green", "magenta", "yellow", "cyan")
_MARKS = {"points": "•", "dotted": "┈"}  # other lines are drawn in dots
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # of Braille: by column, then by row
_LABEL = 8


def view(runs: Sequence[Curves], silent: Sequence[float], width: int, height: int | None) -> RenderableType:
    """The state of each run and its curves; `silent` has the seconds for which each has logged nothing.

    A height leaves out the panels for which there is no room.
    """
    width = max(width, 40)
    head: list[Text] = []
    for i, (run, since) in enumerate(zip(runs, silent, strict=True)):
        head += _state(run, since, "bold" if len(runs) == 1 else f"bold {_run_colour(i)}", width)
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
    """The name with a bar, and what was logged last in as many lines as it takes."""
    last = run.last
    first = Text.assemble((run.name, style))
    if not last:
        return [first.append("  nothing is logged yet")]
    if run.total:
        share = min(1.0, run.images / run.total)
        full = round(share * _CELLS)
        first.append("  ").append("━" * full, "green").append("━" * (_CELLS - full), "dim")
        first.append(f" {share:.0%}")
    facts = [run.progress]
    if not run.finished:
        speed, left = last.get("images_per_second"), last.get("seconds_left")
        if isinstance(speed, int | float):
            facts.append(f"{speed:,.0f} images/s")
        if isinstance(left, int | float):
            facts.append(f"{duration(left)} left")
        if silent > 60:
            facts.append(f"silent for {duration(silent)}")
    first.truncate(width, overflow="ellipsis")
    figures = [", ".join(facts), f"loss {_figure(run.training['loss'])}"]
    if run.held_out:
        least = min(run.held_out.values)
        now = run.held_out.values[-1]
        figures.append(f"held-out {now:.4g}" + (f" (least {least:.4g})" if now > least else ""))
    for name, curves in run.measured.items():
        figures.append(" ".join([name, *(f"{label} {_last(c)}".strip() for label, c in curves.items())]))
    if run.training["grad_norm"]:
        figures.append(f"gradient norm {_figure(run.training['grad_norm'])}")
    if last.get("skipped"):
        figures.append(f"{last['skipped']} steps skipped")
    whole = "  ".join(figure.replace(" ", "\xa0") for figure in figures)  # lines are not broken within one
    return [first, *(Text(line.replace("\xa0", " ")) for line in textwrap.wrap(whole, width))]


def _last(curve: Curve) -> str:
    """The last value, with its standard error where that is known."""
    return f"{curve.values[-1]:.4g}" + (f" ± {curve.errors[-1]:.2g}" if curve.errors else "")


def _figure(curve: Curve) -> str:
    """The mean of the last records, which one batch alone does not sway."""
    recent = curve.values[-10:]
    return f"{sum(recent) / len(recent):.4g}" if recent else "–"


def _run_colour(i: int) -> str:
    """The colour of run number i."""
    return _COLOURS[i % len(_COLOURS)]


def plot(panel: Panel, width: int, height: int) -> list[Text]:
    """`height` rows of `width` characters: the title, the curves with labels at their left, and the ends of x below.

    Ranges are those of the points. Faint and dashed lines are left out.
    """
    columns, rows = max(4, width - _LABEL), max(1, height - 2)
    lines = [line for line in panel.lines if line.x and line.style not in ("faint", "dashed")]
    title = _title(panel, lines, width)
    if not lines:
        empty = [Text() for _ in range(rows + 1)]
        empty[rows // 2] = Text("nothing yet".center(width - 1), style="dim")
        return [_fit(text, width) for text in (title, *empty)]
    x_axis = _Axis((x for line in lines for x in line.x), panel.by_sigma, from_zero=not panel.by_sigma)
    y_axis = _Axis((y for line in lines for y in line.ends), panel.logarithmic, from_zero=panel.linear)
    labels = {0: 1.0, rows - 1: 0.0}
    if rows >= 5:
        labels[rows // 2] = 1 - (rows // 2) / (rows - 1)
    result = [title]
    for i, row in enumerate(_draw(lines, x_axis, y_axis, columns, rows)):
        label = short(y_axis.value(labels[i])) if i in labels else ""
        scale = f"{label:>{_LABEL - 2}}" + ("┤" if label else "│")
        result.append(Text.assemble((scale, "dim"), row))
    left, right = (short(x_axis.value(end)) for end in (0.0, 1.0))
    below = " " * (_LABEL - 1) + left + right.rjust(columns - len(left))
    return [_fit(text, width) for text in (*result, Text(below, style="dim"))]


class _Axis:
    """An axis that holds these values, whose ends are the places 0 and 1."""

    def __init__(self, values: Iterable[float], logarithmic: bool, from_zero: bool) -> None:
        self._logarithmic = logarithmic
        scaled = [math.log(value) if logarithmic else value for value in values]
        self._low, self._high = min(scaled), max(scaled)
        if from_zero and self._low >= 0:
            self._low = 0.0
        if self._high - self._low < 1e-9 * max(1.0, abs(self._high)):  # a flat line lies in the middle
            pad = math.log(1.1) if logarithmic else max(abs(self._high) * 0.1, 1e-9)
            self._low, self._high = self._low - pad, self._high + pad

    def place(self, value: float) -> float:
        return ((math.log(value) if self._logarithmic else value) - self._low) / (self._high - self._low)

    def within(self, value: float) -> float:
        """The nearest value that the axis holds."""
        return min(max(value, self.value(0.0)), self.value(1.0))

    def value(self, place: float) -> float:
        scaled = self._low + place * (self._high - self._low)
        return math.exp(scaled) if self._logarithmic else scaled


def _draw(lines: Sequence[Line], x_axis: _Axis, y_axis: _Axis, columns: int, rows: int) -> Iterator[Text]:
    """The rows of the picture; what is drawn last is on top."""
    cells: dict[tuple[int, int], tuple[int | str, str]] = {}  # a mark or the bits of Braille, and the style
    for line in lines:
        mark, style = _MARKS.get(line.style), _style(line)
        across, down = (1, 1) if mark else (2, 4)
        places = [
            (x_axis.place(x) * (across * columns - 1), (1 - y_axis.place(y)) * (down * rows - 1))
            for x, y in zip(line.x, line.y, strict=True)
        ]
        curve = places if line.style == "points" else _joined(places)
        for x, y in (*curve, *_bars(line, places, y_axis, down * rows - 1)):
            column, row = round(x), round(y)
            cell = column // across, row // down
            below = cells.get(cell, (0, ""))[0]
            bits = (below if isinstance(below, int) else 0) | _DOTS[column % 2][row % 4]
            cells[cell] = mark or bits, style
    for row in range(rows):
        text = Text()
        for column in range(columns):
            character, style = cells.get((column, row), (" ", ""))
            text.append(chr(0x2800 + character) if isinstance(character, int) else character, style)
        yield text


def _bars(
    line: Line, places: Sequence[tuple[float, float]], y_axis: _Axis, height: int
) -> Iterator[tuple[float, float]]:
    """Points on the bars of a line's errors, as far as the axis goes."""
    for (x, _), value, error in zip(places, line.y, line.errors, strict=False):
        high, low = ((1 - y_axis.place(y_axis.within(value + sign * error))) * height for sign in (1, -1))
        yield from _joined([(x, high), (x, low)])


def _joined(places: Sequence[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """Points on the lines between these, at most one unit apart in each direction."""
    for (xa, ya), (xb, yb) in itertools.pairwise([places[0], *places]):
        steps = max(1, math.ceil(max(abs(xb - xa), abs(yb - ya))))
        for k in range(steps + 1):
            yield xa + (xb - xa) * k / steps, ya + (yb - ya) * k / steps


def _style(line: Line) -> str:
    if line.colour is None:
        return "dim"
    return "bright_black" if line.age < 1 else _run_colour(line.colour)


def _title(panel: Panel, lines: Sequence[Line], width: int) -> Text:
    """The title with a key, or with the last value of the only line."""
    text = Text.assemble((f" {panel.title}", "bold"))
    for line in lines:
        if line.label:
            text.append("  ").append(f"{_MARKS.get(line.style, '⠒')} {line.label}", _style(line))
    if len(lines) == 1 and not lines[0].label:
        value = f"  {short(lines[0].y[-1])}"
        text.truncate(width - len(value), overflow="ellipsis")
        text.append(value)
    return text


def _fit(text: Text, width: int) -> Text:
    text.truncate(width, pad=True)
    return text
