"""Dots of a terminal plot against the places where they belong."""

import pytest

from diffspace.cli.console import duration
from diffspace.cli.watch_view import plot
from diffspace.figures.curves import Line, Panel, short

BITS = {(0, 0): 1, (0, 1): 2, (0, 2): 4, (0, 3): 64, (1, 0): 8, (1, 1): 16, (1, 2): 32, (1, 3): 128}


def dots(rows):
    """The dots of a plot by (column, row) from the upper left."""
    found = set()
    for j, row in enumerate(rows[1:-1]):
        for i, character in enumerate(row.plain[7:]):
            code = ord(character) - 0x2800
            if 0 <= code < 256:
                found |= {(2 * i + x, 4 * j + y) for (x, y), bit in BITS.items() if code & bit}
    return found


def test_a_straight_line_is_the_diagonal():
    rows = plot(Panel("t", [Line([0, 1], [0, 1])]), width=28, height=12)
    assert len(rows) == 12
    assert all(len(row.plain) == 28 for row in rows)
    assert dots(rows) == {(k, 39 - k) for k in range(40)}


def test_logarithmic_axes():
    rows = plot(Panel("t", [Line([1, 10, 100], [0.01, 0.1, 1])], by_sigma=True), width=28, height=12)
    assert all(abs(i + j - 39) <= 1 for i, j in dots(rows))  # logarithms are rounded
    assert {i for i, _ in dots(rows)} == set(range(40))
    assert rows[1].plain.startswith("     1┤")
    assert rows[-2].plain.startswith("  0.01┤")
    assert rows[-1].plain.split() == ["1", "100"]


def test_marks_and_dots_share_a_picture():
    rows = plot(Panel("t", [Line([0, 1], [0, 0]), Line([0, 0.5, 1], [0, 1, 0], style="points")]), width=28, height=12)
    assert rows[-2].plain[7] == "•"
    assert rows[1].plain[7:].index("•") == pytest.approx(10, abs=1)
    assert {y for _, y in dots(rows)} == {39}


def test_ranges_are_those_of_the_points():
    empty = plot(Panel("t", [Line([], [])]), width=28, height=12)
    assert [len(row.plain) for row in empty] == [28] * 12
    assert "nothing yet" in "".join(row.plain for row in empty)
    flat = plot(Panel("t", [Line([1, 2], [5, 5])]), width=28, height=12)
    assert {y for _, y in dots(flat)} <= {19, 20}
    linear = plot(Panel("t", [Line([1, 2], [5, 5])], linear=True), width=28, height=12)
    assert dots(linear) == {(x, 0) for x in range(20, 40)}
    assert linear[-1].plain.split() == ["0", "2"]


def test_a_title_keeps_the_last_value():
    title, *_ = plot(Panel("a measurement with a long name", [Line([1, 2], [5, 0.0123])]), width=24, height=6)
    assert title.plain == " a measurement w…  0.012"
    title, *_ = plot(Panel("both", [Line([1], [5], "one"), Line([1], [5], "two", 1, "points")]), width=24, height=6)
    assert title.plain.rstrip() == " both  ⠒ one  • two"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.00928, "0.0093"), (2e-4, "2e-4"), (39.96, "40"), (999.9, "1e+03"), (16_000, "16k"), (2.5e6, "2.5M"),
     (1234.5, "1234"), (-0.5, "-0.5"), (200e6, "200M")],
)  # fmt: skip
def test_short_numbers(value, text):
    assert short(value) == text
    assert len(text) <= 6


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.6, "1 min 0 s"), (3600, "1 h"), (4000, "1 h 6 min"), (90_000, "1 d 1 h"), (7, "7 s")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text
