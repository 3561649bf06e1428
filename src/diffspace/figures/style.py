"""How diffspace's figures look: one palette, two sides of a frame, a quiet grid."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK = "#1f2933"
GRAY = "#9aa5b1"
PALETTE = ("#2563eb", "#e4572e", "#16a34a", "#9333ea", "#d97706", "#0891b2")


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of a size in inches, bound to no window."""
    return Figure(figsize=(width, height), dpi=110, layout="constrained")


def plain(text: str) -> str:
    """Text of others, which may hold the sign that begins a formula."""
    return text.replace("$", r"\$")


def tidy(ax: Axes) -> None:
    """Drop the frame's upper and right sides and draw a quiet grid behind the data."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(True, which="major", color="#e4e7eb", linewidth=0.6)
    ax.set_axisbelow(True)
