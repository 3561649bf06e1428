"""How diffspace's figures look: one palette, thin axes, direct labels."""

from __future__ import annotations

import base64
import io
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK = "#1f2933"
GRAY = "#9aa5b1"
PALETTE = ("#2563eb", "#e4572e", "#16a34a", "#9333ea", "#d97706", "#0891b2")

_RC: Any = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "figure.dpi": 110,
    "savefig.dpi": 110,
}


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of a size in inches, bound to no window."""
    with matplotlib.rc_context(_RC):
        return Figure(figsize=(width, height), layout="constrained")


def tidy(ax: Axes) -> None:
    """Drop the frame's upper and right sides and draw a quiet grid behind the data."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(True, which="major", color="#e4e7eb", linewidth=0.6)
    ax.set_axisbelow(True)


def to_data_uri(figure: Figure) -> str:
    """The figure as a PNG inside a data: address, for a page in one file."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(_RC):
        figure.savefig(buffer, format="png", dpi=160)
    return png_to_data_uri(buffer.getvalue())


def png_to_data_uri(png: bytes) -> str:
    """The bytes of a PNG as a data: address."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
