"""Pictures of samples and of the way to them: images in a grid, points in a plane, signals as lines."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffspace._shapes import Shaped, Tensor
from diffspace.figures.style import INK, PALETTE, new_figure, tidy
from diffspace.sampling import Samples
from diffspace.transform import Transform


def is_image(sample_shape: Sequence[int]) -> bool:
    """Whether samples of this shape are pictures: (1 | 3 | 4 channels, height, width)."""
    return len(sample_shape) == 3 and sample_shape[0] in (1, 3, 4)


def to_pixels(raw: Shaped[Tensor, "batch *dims"], transform: Transform) -> np.ndarray:
    """Raw images (B, C, H, W) as uint8 of (B, H, W) or (B, H, W, C), from the bounds of the data to 0…255.

    Data of more than 8 bits, which need not fill them, and without bounds are shown from the extremes that the
    transform states, else from their own.
    """
    values = raw.to(torch.float64)
    low, high = transform.lowest, transform.highest
    if low is None or high is None or high - low > 255:
        low, high = transform.shown or (float(values.min()), float(values.max()))
    scaled = ((values - low) / max(high - low, 1e-12) * 255).round().clamp(0, 255).to(torch.uint8)
    pixels: np.ndarray = scaled.permute(0, 2, 3, 1).cpu().numpy()
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels


def grid(pixels: np.ndarray, columns: int | None = None) -> np.ndarray:
    """Images of (n, H, W) or (n, H, W, C) in one picture, row by row, with a hair of space between them.

    One-channel images are turned to ink on paper: their highest value is black.
    """
    n, height, width = pixels.shape[:3]
    if pixels.ndim == 3:
        pixels = 255 - pixels
    columns = min(columns or math.ceil(math.sqrt(n)), n)
    rows = -(-n // columns)
    gap = max(1, round(0.06 * max(height, width)))
    canvas = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, *pixels.shape[3:]), 255, np.uint8)
    for k, image in enumerate(pixels):
        top, left = (k // columns) * (height + gap) + gap, (k % columns) * (width + gap) + gap
        canvas[top : top + height, left : left + width] = image
    return canvas


def fits_png(transform: Transform, channels: int) -> bool:
    """Whether a PNG holds samples to the last bit: whole numbers of 8 bits, or gray ones of 16."""
    if transform.kind != "integer" or transform.lowest is None or transform.highest is None:
        return False
    return transform.highest - transform.lowest <= 255 or _is_deep(transform, channels)


def _is_deep(transform: Transform, channels: int) -> bool:
    return channels == 1 and (transform.lowest, transform.highest) == (0, 65535)


def to_stored(raw: Shaped[Tensor, "batch *dims"], transform: Transform) -> np.ndarray:
    """Raw images as a PNG stores them: gray ones of 16 bits in uint16, others as `to_pixels`."""
    if not _is_deep(transform, raw.shape[1]):
        return to_pixels(raw, transform)
    stored: np.ndarray = raw[:, 0].cpu().numpy().astype(np.uint16)
    return stored


def save_image(file: Path | io.BytesIO, pixels: np.ndarray) -> None:
    """One image as a PNG, pixel for pixel."""
    from PIL import Image

    Image.fromarray(pixels).save(file, format="png")


def draw_points(ax: Axes, points: np.ndarray, labels: Sequence[int] | None = None) -> None:
    """Points in a plane, coloured by class."""
    colours = PALETTE[0] if labels is None else [PALETTE[label % len(PALETTE)] for label in labels]
    ax.scatter(points[:, 0], points[:, 1], s=3, c=colours, alpha=0.6, lw=0)
    ax.set_aspect("equal")
    tidy(ax)


def draw_samples(
    ax: Axes, raw: Shaped[Tensor, "batch *dims"], transform: Transform, *, columns: int | None = None
) -> None:
    """Images in a grid without a frame, points in a plane, other arrays as lines over the index."""
    if is_image(raw.shape[1:]):
        picture = grid(to_pixels(raw, transform), columns)
        ax.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        ax.set_axis_off()
        return
    values = raw.to(torch.float64).flatten(1).cpu().numpy()
    if raw.shape[1:] == (2,):
        draw_points(ax, values)
    else:
        ax.plot(values[:32].T, color=INK, lw=0.6, alpha=0.5)
        tidy(ax)


def samples_figure(raw: Shaped[Tensor, "batch *dims"], transform: Transform) -> Figure:
    """A plot of samples that are not images."""
    figure = new_figure(4.5, 4.5 if raw.shape[1:] == (2,) else 3)
    draw_samples(figure.subplots(), raw, transform)
    return figure


def save_samples(
    path: Path, raw: Shaped[Tensor, "batch *dims"], transform: Transform, columns: int | None = None
) -> None:
    """A PNG: a plot, or a grid of images, magnified by a whole number so that small ones can be seen."""
    if not is_image(raw.shape[1:]):
        samples_figure(raw, transform).savefig(path, format="png")
        return
    factor = max(1, 64 // max(raw.shape[2:]))
    save_image(path, grid(to_pixels(raw, transform), columns).repeat(factor, 0).repeat(factor, 1))


def trajectory_figure(samples: Samples, transform: Transform, *, count: int = 3, columns: int = 10) -> Figure:
    """The state and, below it, D for each of `count` samples, at up to `columns` levels (Figure 3 of the paper).

    The state of images is shown divided by √(1 + (σ/σ_data)²), which keeps it in the range of the data at every σ;
    points are drawn as paths to their ends. ValueError for samples without a trajectory.
    """
    path = samples.trajectory
    if path is None:
        raise ValueError("samples: have no trajectory; make them with execution=Execution(trajectory=True)")
    count = min(count, path.x.shape[1])
    sample_shape = tuple(path.x.shape[2:])
    if not is_image(sample_shape):
        return _paths_figure(path.x.flatten(2).numpy())

    levels, sigma_data = samples.sigmas[:-1], float(path.x[-1].std()) or 1.0
    chosen = np.unique(np.linspace(0, len(levels) - 1, min(columns, len(levels))).round().astype(int))
    figure = new_figure(0.72 * len(chosen) + 0.9, 0.76 * 2 * count + 0.4)
    bare = {"xticks": [], "yticks": [], "frame_on": False}
    axes = figure.subplots(2 * count, len(chosen), squeeze=False, subplot_kw=bare)
    for row in range(count):
        for column, k in enumerate(chosen):
            sigma = float(levels[k])
            state = path.x[k, row : row + 1] / math.hypot(1, sigma / sigma_data)
            for offset, picture in enumerate((state, path.denoised[k, row : row + 1])):
                ax = axes[2 * row + offset, column]
                pixels = to_pixels(transform.inverse(picture.to(torch.float32)), transform)[0]
                ax.imshow(pixels, cmap="gray_r", vmin=0, vmax=255, interpolation="nearest")
                if row == 0 and offset == 0:
                    ax.set_title(f"σ = {sigma:.3g}", fontsize=7.5, loc="center", fontweight="normal")
                if column == 0:
                    ax.set_ylabel("x" if offset == 0 else "D(x; σ)", fontsize=8, rotation=0, ha="right", va="center")
    return figure


def _paths_figure(x: np.ndarray) -> Figure:
    """Paths of the first two coordinates, from noise to data."""
    figure = new_figure(4.5, 4.5)
    ax = figure.subplots()
    ax.plot(x[:, :64, 0], x[:, :64, min(1, x.shape[2] - 1)], color=PALETTE[0], lw=0.5, alpha=0.5)
    ax.scatter(x[-1, :, 0], x[-1, :, min(1, x.shape[2] - 1)], s=3, color=INK, lw=0, zorder=3)
    spread = 1.6 * float(np.abs(x[-1]).max())
    ax.set_xlim(-spread, spread)
    ax.set_ylim(-spread, spread)
    tidy(ax)
    return figure
