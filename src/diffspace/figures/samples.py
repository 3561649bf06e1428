"""Pictures of samples: images in a grid, points in a plane, signals as lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffspace._shapes import Shaped, Tensor
from diffspace.figures.style import INK, PALETTE, new_figure, tidy
from diffspace.transform import Transform


def is_image(sample_shape: Sequence[int]) -> bool:
    """Whether samples of this shape are pictures: (1 | 3 | 4 channels, height, width)."""
    return len(sample_shape) == 3 and sample_shape[0] in (1, 3, 4)


def to_pixels(raw: Shaped[Tensor, "batch *dims"], transform: Transform) -> np.ndarray:
    """Raw images (B, C, H, W) as uint8 of (B, H, W) or (B, H, W, C), from the bounds of the data to 0…255."""
    values = raw.to(torch.float64)
    low = float(values.min()) if transform.lowest is None else transform.lowest
    high = float(values.max()) if transform.highest is None else transform.highest
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


def save_image(path: Path, pixels: np.ndarray) -> None:
    """One image as a PNG, pixel for pixel."""
    from PIL import Image

    Image.fromarray(pixels).save(path)


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
