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
_LEAST, _MOST = 192, 4096  # pixels of the longer side of a grid
_SLICES = 8  # of a volume
_LINES, _BEHIND = 32, 100  # samples that are drawn as lines, and data behind them
_SQUARES = 8  # of a checkerboard along an image
_CLASSES = 20  # that have rows of their own
_CHANNELS = 6  # of a signal that have axes of their own


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

    One-channel images are turned to ink on paper: their highest value is black. Transparent ones lie on a checkerboard.
    """
    n, height, width = pixels.shape[:3]
    if pixels.shape[3:] == (4,):
        pixels = _on_checkerboard(pixels)
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


def _on_checkerboard(pixels: np.ndarray) -> np.ndarray:
    """RGBA images as RGB, on squares of white and gray."""
    height, width = pixels.shape[1:3]
    square = max(1, max(height, width) // _SQUARES)
    rows, columns = np.arange(height) // square, np.arange(width) // square
    board = np.where((rows[:, None] + columns) % 2, 205.0, 255.0)[..., None]
    alpha = pixels[..., 3:] / 255
    over: np.ndarray = (pixels[..., :3] * alpha + board * (1 - alpha)).round().astype(np.uint8)
    return over


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
    pixels = to_pixels(raw, transform)
    if cells is not None:
        blank = 0 if pixels.ndim == 3 else 255
        images = np.full(((columns or 1) * len(names), *pixels.shape[1:]), blank, np.uint8)
        images[list(cells)] = pixels
        pixels = images
    drawn = grid(pixels, columns)
    longest = max(drawn.shape[:2])
    factor = max(1, min(max(_SEEN // max(raw.shape[2:]), _LEAST // longest), _MOST // longest))
    drawn = drawn.repeat(factor, 0).repeat(factor, 1)
    if not names:
        return drawn
    if drawn.ndim == 2:
        drawn = np.stack([drawn] * 3, -1)
    return np.concatenate([_names_of_rows(names, len(drawn))[..., : drawn.shape[2]], drawn], 1)


def rows_by_class(
    labels: Sequence[int], names: Sequence[str] = (), columns: int | None = None
) -> tuple[list[int], list[int], int, tuple[str, ...]] | None:
    """A grid with the samples of each class in rows of their own: their order, cells, columns, and the names of rows.

    The first row of a class has its name, or #k. None where rows would be many and short: more than 20 classes, or less
    than two samples in a class.
    """
    classes = sorted(set(labels))
    if len(classes) > _CLASSES or len(labels) < 2 * len(classes):
        return None
    members = {c: [k for k, label in enumerate(labels) if label == c] for c in classes}
    most, widest = max(map(len, members.values())), max(12, math.ceil(math.sqrt(1.5 * len(labels))))
    width = columns or math.ceil(most / math.ceil(most / widest))
    order: list[int] = []
    cells: list[int] = []
    rows: list[str] = []
    for c, found in members.items():
        cells += [len(rows) * width + k for k in range(len(found))]
        order += found
        rows += [names[c] if names else f"#{c}"] + [""] * (-(-len(found) // width) - 1)
    return order, cells, width, tuple(rows)


def as_slices(raw: Shaped[Tensor, "batch *dims"]) -> Shaped[Tensor, "rows slices channels height width"] | None:
    """Up to 8 slices, evenly spaced, of volumes (B, C, D, H, W), or the channels of maps (B, C, H, W); None of others.

    Channels that are no colours have rows of their own.
    """
    if raw.ndim == 4:
        raw = raw[:, None]
    if raw.ndim != 5:
        return None
    if raw.shape[1] not in (1, 3):
        raw = raw.flatten(0, 1)[:, None]
    depth = raw.shape[2]
    chosen = np.unique(np.linspace(0, depth - 1, min(depth, _SLICES)).round().astype(int))
    return raw[:, :, chosen].transpose(1, 2)


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
    behind: Shaped[Tensor, "data *dims"] | None = None,
) -> None:
    """Images in a grid without a frame, points in a plane, other arrays as lines over the index.

    Points and lines have the colours of their classes, and with `names` a key to them. Data `behind` them are gray.
    """
    if is_image(raw.shape[1:]):
        ax.imshow(grid(to_pixels(raw, transform), columns), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        ax.set_axis_off()
        return
    values = raw.to(torch.float64).flatten(1).cpu().numpy()
    data = None if behind is None else behind.to(torch.float64).flatten(1).cpu().numpy()
    classes = None if labels is None else labels.tolist()
    palette = theme().palette
    if values.shape[1] == 2:
        if data is not None:
            ax.scatter(data[:, 0], data[:, 1], s=3, c=theme().gray, alpha=0.4, lw=0)
        draw_points(ax, values, classes)
    elif values.shape[1] == 1:
        every = values if data is None else np.concatenate([values, data])
        edges = np.linspace(every.min(), every.max(), 61).tolist()
        if data is not None:
            ax.hist(data[:, 0], edges, density=True, histtype="step", color=theme().gray)
        for k in sorted(set(classes or [0])):
            group = values[:, 0] if classes is None else values[[c == k for c in classes], 0]
            ax.hist(group, edges, density=True, histtype="stepfilled", color=palette[k % len(palette)], alpha=0.5)
        tidy(ax)
    else:
        for line in [] if data is None else data[:_BEHIND]:
            ax.plot(line, color=theme().gray, lw=0.6, alpha=0.5)
        for k, line in enumerate(values[:_LINES]):
            colour = theme().ink if classes is None else palette[classes[k] % len(palette)]
            ax.plot(line, color=colour, lw=0.6, alpha=0.5 if data is None else 0.8)
        if len(values) > _LINES:
            ax.set_title(f"the first {_LINES} of {len(values)}", loc="right", fontsize=8)
        tidy(ax)
    if classes and 0 < len(names) <= len(palette):
        for k in sorted(set(classes)):
            ax.plot([], [], "o", ms=4, color=palette[k], label=plain(names[k]))
    if data is not None:
        ax.plot([], [], "o", ms=4, color=theme().gray, label="held-out data")
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize=8)


def samples_figure(
    raw: Shaped[Tensor, "batch *dims"],
    transform: Transform,
    labels: Int[Tensor, "batch"] | None = None,
    names: Sequence[str] = (),
    behind: Shaped[Tensor, "data *dims"] | None = None,
) -> Figure:
    """A plot of samples that are not images; each of a few channels of signals has axes of its own."""
    if not (raw.ndim == 3 and 1 < raw.shape[1] <= _CHANNELS and raw.shape[2] > 2):
        figure = new_figure(4.5, 4.5 if math.prod(raw.shape[1:]) == 2 else 3)
        draw_samples(figure.subplots(), raw, transform, labels=labels, names=names, behind=behind)
        return figure
    count = raw.shape[1]
    figure = new_figure(4.5, 1 + 1.6 * count)
    for c, ax in enumerate(figure.subplots(count, 1, sharex=True)):
        data = None if behind is None else behind[:, c]
        draw_samples(ax, raw[:, c], transform, labels=labels, names=names, behind=data)
        ax.set_ylabel(f"channel {c}")
        if c and ax.get_legend() is not None:
            ax.get_legend().remove()
    return figure


def save_samples(
    path: Path,
    raw: Shaped[Tensor, "batch *dims"],
    transform: Transform,
    columns: int | None = None,
    labels: Int[Tensor, "batch"] | None = None,
    names: Sequence[str] = (),
    behind: Shaped[Tensor, "data *dims"] | None = None,
) -> None:
    """A PNG of samples: images in a grid with rows for each class, volumes as a row of slices each, others in a plot.

    Args:
        path: the file.
        raw: the samples (B, *dims).
        transform: of the data.
        columns: of a grid. Default: as many as make it about square.
        labels: the class of each sample.
        names: of the classes.
        behind: data to draw behind lines and points.
    """
    classes = None if labels is None else labels.tolist()
    slices = None if is_image(raw.shape[1:]) else as_slices(raw)
    if slices is not None:
        order = np.argsort(classes, kind="stable").tolist() if classes else list(range(len(raw)))
        each = len(slices) // len(raw)
        rows = [k * each + c for k in order for c in range(each)]
        shown = (
            [names[classes[k]] if names else f"#{classes[k]}" for k in order for _ in range(each)] if classes else []
        )
        pixels = picture(slices[rows].flatten(0, 1), transform, slices.shape[1], names=shown)
        save_image(path, pixels)
        return
    if not is_image(raw.shape[1:]):
        samples_figure(raw, transform, labels, names, behind).savefig(path, format="png", dpi=160)
        return
    found = None if classes is None else rows_by_class(classes, names, columns)
    if found is None:
        save_image(path, picture(raw, transform, columns))
        return
    order, cells, columns, rows_named = found
    save_image(path, picture(raw[order], transform, columns, cells=cells, names=rows_named))


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
