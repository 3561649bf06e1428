"""Pictures of samples and of the way to them: images in a grid, points in a plane, signals as lines."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffspace._shapes import Int, Shaped, Tensor
from diffspace.figures.style import new_figure, plain, theme, tidy
from diffspace.sampling import Samples
from diffspace.transform import Transform

_SEEN = 64  # pixels that the longer side of an image has at least


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


def picture(
    raw: Shaped[Tensor, "batch *dims"],
    transform: Transform,
    columns: int | None = None,
    *,
    cells: Sequence[int] | None = None,
    names: Sequence[str] = (),
) -> np.ndarray:
    """A grid of raw images, magnified by a whole number so that small ones can be seen, with a name for each row.

    `cells` are the places of the images where some of the `columns`·len(names) stay empty.
    """
    pixels, factor = to_pixels(raw, transform), max(1, _SEEN // max(raw.shape[2:]))
    if cells is not None:
        blank = 0 if pixels.ndim == 3 else 255
        images = np.full(((columns or 1) * len(names), *pixels.shape[1:]), blank, np.uint8)
        images[list(cells)] = pixels
        pixels = images
    drawn = grid(pixels, columns).repeat(factor, 0).repeat(factor, 1)
    if not names:
        return drawn
    if drawn.ndim == 2:
        drawn = np.stack([drawn] * 3, -1)
    return np.concatenate([_names_of_rows(names, len(drawn))[..., : drawn.shape[2]], drawn], 1)


def _names_of_rows(names: Sequence[str], height: int) -> np.ndarray:
    """Names below each other, right-aligned, as RGBA pixels; long ones are cut."""
    size = min(16.0, 0.7 * height / len(names))
    figure, pixels = Figure(dpi=72), io.BytesIO()  # 72 dpi: a pixel is a point
    texts = [
        figure.text(0, 0, name if len(name) <= 24 else name[:23] + "…", ha="right", va="center", color=theme().ink)
        for name in names
    ]
    for text in texts:
        text.set(fontsize=size, parse_math=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a script that the font lacks is drawn as boxes
        width = math.ceil(max(text.get_window_extent().width for text in texts) + size)
        figure.set_size_inches(width / 72, height / 72)
        for k, text in enumerate(texts):
            text.set_position((1 - 0.4 * size / width, 1 - (k + 0.5) / len(names)))
        figure.savefig(pixels, format="rgba", dpi=72)
    return np.frombuffer(pixels.getvalue(), np.uint8).reshape(height, -1, 4)


def draw_points(ax: Axes, points: np.ndarray, labels: Sequence[int] | None = None) -> None:
    """Points in a plane, coloured by class."""
    colours = (
        theme().palette[0] if labels is None else [theme().palette[label % len(theme().palette)] for label in labels]
    )
    ax.scatter(points[:, 0], points[:, 1], s=3, c=colours, alpha=0.6, lw=0)
    ax.set_aspect("equal")
    tidy(ax)


def draw_samples(
    ax: Axes,
    raw: Shaped[Tensor, "batch *dims"],
    transform: Transform,
    *,
    columns: int | None = None,
    labels: Int[Tensor, "batch"] | None = None,
    names: Sequence[str] = (),
) -> None:
    """Images in a grid without a frame, points in a plane, other arrays as lines over the index.

    Points and lines have the colours of their classes, and with `names` a key to them.
    """
    if is_image(raw.shape[1:]):
        ax.imshow(grid(to_pixels(raw, transform), columns), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        ax.set_axis_off()
        return
    values = raw.to(torch.float64).flatten(1).cpu().numpy()
    classes = None if labels is None else labels.tolist()
    if values.shape[1] == 2:
        draw_points(ax, values, classes)
    elif values.shape[1] == 1:
        edges = np.linspace(values.min(), values.max(), 61).tolist()
        for k in sorted(set(classes or [0])):
            group = values[:, 0] if classes is None else values[[c == k for c in classes], 0]
            ax.hist(
                group,
                edges,
                density=True,
                histtype="stepfilled",
                color=theme().palette[k % len(theme().palette)],
                alpha=0.5,
            )
        tidy(ax)
    else:
        for k, line in enumerate(values[:32]):
            ax.plot(
                line,
                color=theme().ink if classes is None else theme().palette[classes[k] % len(theme().palette)],
                lw=0.6,
                alpha=0.5,
            )
        tidy(ax)
    if classes and 0 < len(names) <= len(theme().palette):
        for k in sorted(set(classes)):
            ax.plot([], [], "o", ms=4, color=theme().palette[k], label=plain(names[k]))
        ax.legend(fontsize=8)


def samples_figure(
    raw: Shaped[Tensor, "batch *dims"],
    transform: Transform,
    labels: Int[Tensor, "batch"] | None = None,
    names: Sequence[str] = (),
) -> Figure:
    """A plot of samples that are not images."""
    figure = new_figure(4.5, 4.5 if math.prod(raw.shape[1:]) == 2 else 3)
    draw_samples(figure.subplots(), raw, transform, labels=labels, names=names)
    return figure


def save_samples(
    path: Path,
    raw: Shaped[Tensor, "batch *dims"],
    transform: Transform,
    columns: int | None = None,
    names: Sequence[str] = (),
) -> None:
    """A PNG: a plot, or a grid of images (`picture`) with a name for each row."""
    if not is_image(raw.shape[1:]):
        samples_figure(raw, transform).savefig(path, format="png")
    else:
        save_image(path, picture(raw, transform, columns, names=names))


def trajectory_figure(samples: Samples, transform: Transform, *, count: int = 3, columns: int = 10) -> Figure:
    """The state and, below it, D for each of `count` samples, at up to `columns` levels (Figure 3 of the paper).

    The state is shown divided by √(1 + σ²/σ_data²), which keeps it in the range of the data at every σ; σ_data is the
    standard deviation of the samples. Single numbers are drawn as paths over σ, points as paths in a plane, to their
    ends. ValueError for samples without a trajectory.
    """
    path = samples.trajectory
    if path is None:
        raise ValueError("samples: have no trajectory; make them with execution=Execution(trajectory=True)")
    levels = samples.sigmas[:-1].tolist()
    spread = float(path.x[-1].std(correction=0)) or 1.0
    shrink = [(1 + (sigma / spread) ** 2) ** -0.5 for sigma in samples.sigmas.tolist()]
    if path.x[0, 0].numel() <= 2:
        return _paths_figure(path.x.flatten(2).cpu().numpy(), levels, shrink)

    count = min(count, path.x.shape[1])
    chosen = np.unique(np.linspace(0, len(levels) - 1, min(columns, len(levels))).round().astype(int))
    figure = new_figure(0.72 * len(chosen) + 0.9, 0.76 * 2 * count + 0.4)
    bare = {"xticks": [], "yticks": [], "frame_on": False}
    axes = figure.subplots(2 * count, len(chosen), squeeze=False, subplot_kw=bare)
    for row in range(count):
        for column, k in enumerate(chosen):
            state = path.x[k, row : row + 1] * shrink[k]
            for offset, shown in enumerate((state, path.denoised[k, row : row + 1])):
                ax = axes[2 * row + offset, column]
                raw = transform.inverse(shown.to(torch.float32))
                if is_image(raw.shape[1:]):
                    ax.imshow(to_pixels(raw, transform)[0], cmap="gray_r", vmin=0, vmax=255, interpolation="nearest")
                else:
                    ax.plot(raw.flatten().cpu().to(torch.float64), color=theme().ink, lw=0.7)
                    if ax is not axes[0, 0]:
                        ax.sharey(axes[0, 0])
                if row == 0 and offset == 0:
                    ax.set_title(f"σ = {levels[k]:.3g}", fontsize=7.5, loc="center", fontweight="normal")
                if column == 0:
                    ax.set_ylabel("x" if offset == 0 else "D(x; σ)", fontsize=8, rotation=0, ha="right", va="center")
    return figure


def _paths_figure(x: np.ndarray, levels: Sequence[float], shrink: Sequence[float]) -> Figure:
    """Paths of points in a plane from noise to data, or of single numbers over σ, which falls to the right."""
    figure = new_figure(4.5, 4.5)
    ax = figure.subplots()
    if x.shape[2] == 1:
        # the end, at σ = 0, stands one step after the last level
        sigmas = [*levels, levels[-1] ** 2 / levels[-2] if len(levels) > 1 else levels[-1] / 10]
        ax.plot(sigmas, x[:, :64, 0] * np.asarray(shrink)[:, None], color=theme().palette[0], lw=0.5, alpha=0.5)
        ax.scatter([sigmas[-1]] * x.shape[1], x[-1, :, 0], s=3, color=theme().ink, lw=0, zorder=3)
        ax.set_xscale("log")
        ax.invert_xaxis()
        ax.set_xlabel("noise level σ; the last points are at 0")
        ax.set_ylabel("x / √(1 + σ²/σ_data²)")
    else:
        ax.plot(x[:, :64, 0], x[:, :64, 1], color=theme().palette[0], lw=0.5, alpha=0.5)
        ax.scatter(x[-1, :, 0], x[-1, :, 1], s=3, color=theme().ink, lw=0, zorder=3)
        spread = 1.6 * float(np.abs(x[-1]).max())
        ax.set_xlim(-spread, spread)
        ax.set_ylim(-spread, spread)
    tidy(ax)
    return figure
