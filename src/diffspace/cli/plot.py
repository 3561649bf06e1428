"""Panels of curves in a terminal: two by four dots to a character."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence

from rich.text import Text

from diffspace.figures.curves import Line, Panel, short

_COLOURS = ("blue", "red", "green", "magenta", "yellow", "cyan")
_MARKS = {"points": "•", "dotted": "┈"}  # other lines are drawn in dots
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # of Braille: by column, then by row
_LABEL = 8


def colour(i: int) -> str:
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
    y_axis = _Axis((y for line in lines for y in line.y), panel.logarithmic, from_zero=panel.linear)
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
        for x, y in places if line.style == "points" else _joined(places):
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


def _joined(places: Sequence[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """Points on the lines between these, at most one unit apart in each direction."""
    for (xa, ya), (xb, yb) in itertools.pairwise([places[0], *places]):
        steps = max(1, math.ceil(max(abs(xb - xa), abs(yb - ya))))
        for k in range(steps + 1):
            yield xa + (xb - xa) * k / steps, ya + (yb - ya) * k / steps


def _style(line: Line) -> str:
    if line.colour is None:
        return "dim"
    return "bright_black" if line.age < 1 else colour(line.colour)


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
