"""What a sampler sees on its way: the state x and the denoiser's answer D, side by side (Figure 3 of the paper)."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.figure import Figure

from diffspace.figures.samples import is_image, to_pixels
from diffspace.figures.style import INK, PALETTE, new_figure, tidy
from diffspace.sampling import Samples
from diffspace.transform import Transform


def trajectory_figure(samples: Samples, transform: Transform, *, count: int = 3, columns: int = 10) -> Figure:
    """The state and, below it, D for each of `count` samples, at up to `columns` levels of the run.

    The state of images is shown divided by √(1 + 4σ²), which keeps it in the range of the data at every σ; points
    are drawn as paths to their ends. ValueError for samples without a trajectory.
    """
    path = samples.trajectory
    if path is None:
        raise ValueError("samples: have no trajectory; make them with execution=Execution(trajectory=True)")
    count = min(count, path.x.shape[1])
    sample_shape = tuple(path.x.shape[2:])
    if not is_image(sample_shape):
        return _paths_figure(path.x.flatten(2).numpy())

    levels = samples.sigmas[:-1]
    chosen = np.unique(np.linspace(0, len(levels) - 1, min(columns, len(levels))).round().astype(int))
    figure = new_figure(0.72 * len(chosen) + 0.9, 0.76 * 2 * count + 0.4)
    bare = {"xticks": [], "yticks": [], "frame_on": False}
    axes = figure.subplots(2 * count, len(chosen), squeeze=False, subplot_kw=bare)
    for row in range(count):
        for column, k in enumerate(chosen):
            sigma = float(levels[k])
            state = path.x[k, row : row + 1] / (1 + 4 * sigma**2) ** 0.5
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
