"""How diffspace's figures look: a light and a dark theme, two sides of a frame, a quiet grid.

Colours are told apart with any common colour vision, and have a contrast of 3 with the paper; tests/figures measures
both.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import matplotlib
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure

COLUMN = 6.0
"""The width of a thesis column in inches."""

DASHES: tuple[str | tuple[int, tuple[float, ...]], ...] = (
    "-",
    (0, (4, 1.5)),
    (0, (1, 1.2)),
    (0, (5, 1.2, 1, 1.2)),
    (0, (2, 1)),
    (0, (7, 2)),
)
"""The dash of a line beside the colour of the same place in the palette."""


@dataclass(frozen=True)
class Theme:
    """The colours of a figure."""

    name: str
    paper: str
    ink: str
    gray: str
    grid: str
    palette: tuple[str, ...]
    density: tuple[str, str]
    """Of the least and the greatest density behind lines."""

    @property
    def shades(self) -> Colormap:
        """From the paper to the colour of the greatest density."""
        return LinearSegmentedColormap.from_list(f"diffspace-{self.name}", [self.paper, *self.density])

    @property
    def settings(self) -> Any:
        """As matplotlib's rcParams."""
        return {
            "figure.facecolor": self.paper,
            "savefig.facecolor": self.paper,
            "axes.facecolor": self.paper,
            "axes.edgecolor": self.gray,
            "axes.labelcolor": self.ink,
            "axes.titlecolor": self.ink,
            "text.color": self.ink,
            "xtick.color": self.ink,
            "ytick.color": self.ink,
            "legend.facecolor": self.paper,
            "legend.edgecolor": self.grid,
            "legend.framealpha": 0.85,
            "axes.prop_cycle": cycler(color=self.palette),
            "font.size": 8.5,
            "axes.titlesize": 9,
            "axes.labelsize": 8.5,
            "xtick.labelsize": 8,
            "ytick.labelsize": 8,
            "legend.fontsize": 7.5,
            "lines.linewidth": 1.4,
            "axes.linewidth": 0.7,
            "svg.fonttype": "none",
            "svg.hashsalt": "diffspace",  # the same file for the same figure
        }


LIGHT = Theme(
    "light",
    "#ffffff",
    "#1f2933",
    "#87919c",
    "#e4e7eb",
    ("#24509a", "#9c3d10", "#3f8a7d", "#ee3fa8", "#b58d1d", "#2c94f7"),
    ("#c9d8ee", "#7f9fd0"),
)
DARK = Theme(
    "dark",
    "#14181d",
    "#e6eaf0",
    "#7f8a96",
    "#2b323b",
    ("#7cb8f5", "#e6953c", "#5fe3c0", "#ee4f93", "#f5e34a", "#b06df0"),
    ("#1f3350", "#3c6ea8"),
)
THEMES = {theme.name: theme for theme in (LIGHT, DARK)}

_current: ContextVar[Theme] = ContextVar("theme", default=LIGHT)


def theme() -> Theme:
    """The theme that figures are drawn in: the light one outside `using`."""
    return _current.get()


@contextlib.contextmanager
def using(name: str) -> Iterator[Theme]:
    """Draw in the theme "light" or "dark" within the context, matplotlib's own settings included."""
    if name not in THEMES:
        raise ValueError(f"theme: expected 'light' or 'dark', got {name!r}")
    chosen = THEMES[name]
    token = _current.set(chosen)
    try:
        with matplotlib.rc_context(chosen.settings):
            yield chosen
    finally:
        _current.reset(token)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of a size in inches, bound to no window."""
    return Figure(figsize=(width, height), dpi=110, layout="constrained")


def plain(text: str) -> str:
    """Text of others, which may hold the sign that begins a formula."""
    return text.replace("$", r"\$")


def tidy(ax: Axes) -> None:
    """Drop the frame's upper and right sides and draw a quiet grid behind the data."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(True, which="major", color=theme().grid, linewidth=0.6)
    ax.set_axisbelow(True)
