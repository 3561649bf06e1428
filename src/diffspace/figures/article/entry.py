"""A figure of the article: what it is drawn of, the numbers behind it, and how it is drawn."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.animation import FFMpegWriter, PillowWriter
from matplotlib.figure import Figure

from diffspace.figures.style import COLUMN, THEMES, new_figure, using
from diffspace.files import atomic_path
from diffspace.model import Model
from diffspace.notebook import Shown
from diffspace.oracles import GaussianMixture
from diffspace.process import Process
from diffspace.studies import three_modes

Table = Mapping[str, Sequence[float | str]]
"""Columns by name, of one length."""

_FRAMES_PER_SECOND, _DPI = 20, 200


@dataclass(frozen=True)
class Subject:
    """What figures are drawn of; an entry's `options` are those that have an effect on it."""

    data: GaussianMixture = field(default_factory=three_modes)
    process: Process | None = None
    t_max: float | None = None
    sigma_data: tuple[float, ...] = (0.5,)
    model: Model | None = None
    model_name: str = ""
    run: Path | None = None
    """The folder of the model's training, where it is one."""
    progress: Callable[[str], None] = field(default=lambda text: None)


@dataclass(frozen=True)
class Animation:
    """A moving picture: `draw(figure, k)` draws frame k of `frames` into an empty figure."""

    frames: int
    draw: Callable[[Figure, int], None]
    height: float


@dataclass(frozen=True)
class Picture(Shown):
    """A figure, computed and ready to be drawn in any theme; its size is in inches."""

    draw: Callable[[Figure], None]
    tables: Mapping[str, Table]
    height: float
    caption: str
    width: float = COLUMN
    animation: Animation | None = None


@dataclass(frozen=True)
class Entry:
    """A figure by its name: its title, where the article or the paper has it, and what computes it."""

    name: str
    title: str
    source: str
    make: Callable[[Subject], Picture]
    options: tuple[str, ...] = ()


def write_table(path: Path, table: Table) -> None:
    """Columns as CSV, numbers with all their digits."""
    lengths = {len(column) for column in table.values()}
    if len(lengths) != 1:
        raise ValueError(f"table: expected columns of one length, got {sorted(lengths)}")
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(table)
        for row in zip(*table.values(), strict=True):
            writer.writerow("" if isinstance(value, float) and math.isnan(value) else value for value in row)


def write_picture(
    picture: Picture, folder: Path, name: str, *, formats: Sequence[str] = ("png", "svg"), animate: bool = True
) -> list[Path]:
    """Draw a figure in both themes, `NAME-light.png` and so on, and write its tables, `NAME.csv` or `NAME-TABLE.csv`.

    An animation becomes a GIF, and an MP4 where ffmpeg is installed. Returns the files.
    """
    written = []
    for table_name, table in picture.tables.items():
        written.append(folder / (f"{name}-{table_name}.csv" if table_name else f"{name}.csv"))
        write_table(written[-1], table)
    for theme in THEMES:
        with using(theme):
            figure = new_figure(picture.width, picture.height)
            picture.draw(figure)
            for kind in formats:
                written.append(folder / f"{name}-{theme}.{kind}")
                metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {}
                with atomic_path(written[-1]) as temporary:
                    figure.savefig(temporary, format=kind, dpi=_DPI, metadata=metadata)
            if picture.animation is not None and animate:
                written += _write_animation(picture.animation, picture.width, folder / f"{name}-{theme}")
    return written


def _write_animation(animation: Animation, width: float, stem: Path) -> list[Path]:
    """The frames as stem.gif, and as stem.mp4 where ffmpeg is installed."""
    writers: dict[str, PillowWriter | FFMpegWriter] = {".gif": PillowWriter(fps=_FRAMES_PER_SECOND)}
    if FFMpegWriter.isAvailable():
        writers[".mp4"] = FFMpegWriter(fps=_FRAMES_PER_SECOND, extra_args=["-pix_fmt", "yuv420p"])
    figure = new_figure(width, animation.height)
    written = []
    for suffix, writer in writers.items():
        written.append(stem.with_name(stem.name + suffix))
        with atomic_path(written[-1]) as temporary:
            named = temporary.with_name(temporary.name + suffix)  # which writers need to see
            try:
                with writer.saving(figure, str(named), dpi=_DPI // 2):
                    for k in range(animation.frames):
                        figure.clear()
                        animation.draw(figure, k)
                        writer.grab_frame()
                named.replace(temporary)
            finally:
                named.unlink(missing_ok=True)
    return written
