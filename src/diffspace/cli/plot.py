"""Curves in a terminal: two by four dots to a character."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.text import Text

_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # of Braille: by column, then by row
_LABEL = 8


@dataclass(frozen=True)
class Line:
    """Points in rising order of x: joined by dots, or each drawn as the character `mark`."""

    x: Sequence[float]
    y: Sequence[float]
    style: str = "blue"
    mark: str | None = None

    def points(self, log_x: bool, log_y: bool) -> list[tuple[float, float]]:
        """What can be drawn: finite, and positive where the axis is logarithmic."""
        return [
            (math.log(x) if log_x else x, math.log(y) if log_y else y)
            for x, y in zip(self.x, self.y, strict=True)
            if math.isfinite(x) and math.isfinite(y) and (x > 0 or not log_x) and (y > 0 or not log_y)
        ]


def plot(
    title: Text,
    lines: Sequence[Line],
    width: int,
    height: int,
    *,
    log_x: bool = False,
    log_y: bool = False,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
) -> list[Text]:
    """`height` rows of `width` characters: the title, the curves with labels at their left, and the ends of x below.

    Ranges are those of the points, unless they are given; what lies outside is not drawn.
    """
    columns, rows = max(4, width - _LABEL), max(1, height - 2)
    drawn = [(line, line.points(log_x, log_y)) for line in lines]
    everything = [point for _, points in drawn for point in points]
    if not everything:
        empty = [Text(" " * (width - 1)) for _ in range(rows + 1)]
        empty[rows // 2] = Text("nothing yet".center(width - 1), style="dim")
        return [_fit(title, width), *empty]
    x0, x1 = _range([x for x, _ in everything], x_range, log_x)
    y0, y1 = _range([y for _, y in everything], y_range, log_y)
    canvas = _Canvas(columns, rows)
    for line, points in drawn:
        places = [((x - x0) / (x1 - x0), (y - y0) / (y1 - y0)) for x, y in points]
        canvas.draw(places, line.style, line.mark)
    labels = {0: y1, rows - 1: y0}
    if rows >= 5:
        labels[rows // 2] = y1 + (y0 - y1) * (rows // 2) / (rows - 1)
    result = [_fit(title, width)]
    for i, row in enumerate(canvas.rows()):
        label = short(math.exp(labels[i]) if log_y else labels[i]) if i in labels else ""
        axis = Text.assemble((f"{label:>{_LABEL - 2}}" + ("┤" if label else "│"), "dim"))
        result.append(_fit(axis.append_text(row), width))
    left, right = (short(math.exp(x) if log_x else x) for x in (x0, x1))
    below = " " * (_LABEL - 1) + left + right.rjust(columns - len(left))
    return [*result, _fit(Text(below, style="dim"), width)]


def short(value: float) -> str:
    """A number in at most six characters."""
    size = abs(value)
    for unit, sign in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= unit:
            return f"{value / (1e3 if sign == 'k' else unit):.3g}{sign}"
    if 0 < size < 1e-3:
        return f"{value:.0e}".replace("e-0", "e-")
    if size < 0.1:
        return f"{value:.2g}"
    return f"{value:.3g}" if size < 1000 else f"{value:.0f}"


def _range(values: Iterable[float], given: tuple[float, float] | None, logarithmic: bool) -> tuple[float, float]:
    if given is not None:
        low, high = (math.log(v) if logarithmic else v for v in given)
    else:
        values = list(values)
        low, high = min(values), max(values)
    if high - low < 1e-9 * max(1.0, abs(high)):  # a flat line lies in the middle
        pad = math.log(1.1) if logarithmic else max(abs(high) * 0.1, 1e-9)
        return low - pad, high + pad
    return low, high


def _fit(text: Text, width: int) -> Text:
    text.truncate(width, pad=True)
    return text


class _Canvas:
    def __init__(self, columns: int, rows: int) -> None:
        self.width, self.height = columns, rows
        self._dots: dict[tuple[int, int], int] = {}
        self._marks: dict[tuple[int, int], str] = {}
        self._styles: dict[tuple[int, int], str] = {}

    def draw(self, places: Sequence[tuple[float, float]], style: str, mark: str | None) -> None:
        """Points in [0, 1]², (0, 0) being the lower left; those outside are left out."""
        if mark is not None:
            for x, y in places:
                if 0 <= x <= 1 and 0 <= y <= 1:
                    cell = round(x * (self.width - 1)), round((1 - y) * (self.height - 1))
                    self._marks[cell], self._styles[cell] = mark, style
            return
        dots = [(x * (2 * self.width - 1), (1 - y) * (4 * self.height - 1)) for x, y in places]
        for (xa, ya), (xb, yb) in zip(dots, [*dots[1:], *dots[-1:]], strict=True):
            # a line that leaves the picture by far is not worth its dots
            if max(ya, yb) < -1 or min(ya, yb) > 4 * self.height:
                continue
            steps = min(max(1, math.ceil(max(abs(xb - xa), abs(yb - ya)))), 8 * (self.width + self.height))
            for k in range(steps + 1):
                self._dot(round(xa + (xb - xa) * k / steps), round(ya + (yb - ya) * k / steps), style)

    def _dot(self, x: int, y: int, style: str) -> None:
        if 0 <= x < 2 * self.width and 0 <= y < 4 * self.height:
            cell = x // 2, y // 4
            self._dots[cell] = self._dots.get(cell, 0) | _DOTS[x % 2][y % 4]
            self._marks.pop(cell, None)  # what is drawn last is on top
            self._styles[cell] = style

    def rows(self) -> Iterable[Text]:
        for row in range(self.height):
            text = Text()
            for column in range(self.width):
                cell = column, row
                dots = self._dots.get(cell, 0)
                character = self._marks.get(cell) or (chr(0x2800 + dots) if dots else " ")
                text.append(character, self._styles.get(cell))
            yield text
