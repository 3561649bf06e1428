"""What each transform of an augmentation does to an image, and which labels tell the network of it."""

from __future__ import annotations

import math

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffspace._shapes import Float, Tensor
from diffspace.data.augmentation import Augmentation
from diffspace.figures.samples import to_pixels
from diffspace.figures.style import new_figure, theme
from diffspace.transform import Transform

_STEPS = (-2, -1, 0, 1, 2)
_FLIPS = ("xflip", "yflip", "lumaflip")
_ANGLES = {"rotate_frac": "rotate_frac_max", "hue": "hue_max"}


def augmentation_figure(
    image: Float[Tensor, "channels height width"], transform: Transform, augmentation: Augmentation
) -> Figure:
    """The picture of `draw_augmentation`, with two transforms in a row."""
    rows = -(-len(augmentation.enabled) // 2)
    figure = new_figure(10.5, (0.84 * image.shape[1] / image.shape[2] + 0.12) * rows + 0.3)
    draw_augmentation(figure, image, transform, augmentation, blocks=2)
    return figure


def draw_augmentation(
    figure: Figure,
    image: Float[Tensor, "channels height width"],
    transform: Transform,
    augmentation: Augmentation,
    *,
    blocks: int = 1,
) -> None:
    """The image, given in the model's space, under each transform that is on, with the labels below each picture.

    A row is a transform, a column a step of its parameter from −2 to 2, 0 leaving the image unchanged: a standard
    deviation, a third of the largest angle, half of the largest shift, a quarter turn. There are `blocks` transforms
    beside each other.
    """
    augmentation.check_shape(image.shape)
    names = augmentation.enabled
    rows = -(-len(names) // blocks)
    width = len(_STEPS)
    aspect = image.shape[1] / image.shape[2]
    ratios = ([1.0] * width + [0.2]) * blocks
    axes = figure.subplots(rows, len(ratios) - 1, squeeze=False, width_ratios=ratios[:-1])
    for ax in axes.flat:
        ax.set_axis_off()
        ax.set_box_aspect(aspect)
    for number, name in enumerate(names):
        block, row = divmod(number, rows)
        for column, step in enumerate(_STEPS):
            ax = axes[row, block * (width + 1) + column]
            if row == 0:
                title = f"{step}".replace("-", "−") if step else "0: unchanged"
                ax.set_title(title, fontsize=7.5, loc="center", fontweight="normal", pad=3)
            if column == 0:
                ax.text(
                    -0.12, 0.5, name, transform=ax.transAxes, fontsize=8.5, ha="right", va="center", color=theme().ink
                )
            w = _parameter(augmentation, name, step)
            if w is not None:
                _draw(ax, image, transform, augmentation, name, w)


def augmentation_labels(
    image: Float[Tensor, "channels height width"], augmentation: Augmentation
) -> dict[str, list[float | str]]:
    """The labels below the pictures of `draw_augmentation`; NaN for the second of a transform that has one."""
    table: dict[str, list[float | str]] = {"transform": [], "step": [], "label_1": [], "label_2": []}
    for name in augmentation.enabled:
        for step in _STEPS:
            w = _parameter(augmentation, name, step)
            if w is not None:
                row: list[float | str] = [name, float(step), *_apply(image, augmentation, name, w)[1], math.nan]
                for column, value in zip(table.values(), row, strict=False):
                    column.append(value)
    return table


def _parameter(augmentation: Augmentation, name: str, step: int) -> Tensor | None:
    """The parameter of a transform at a step; None where it has no such step."""
    if name in _FLIPS:
        return torch.tensor([float(step)], dtype=torch.float32, device="cpu") if step in (0, 1) else None
    if name == "rotate_int":
        return torch.tensor([float(step % 4)], dtype=torch.float32, device="cpu") if step > -2 else None
    if name in _ANGLES:
        return torch.tensor(
            [step / 3 * math.pi * float(getattr(augmentation, _ANGLES[name]))], dtype=torch.float32, device="cpu"
        )
    pairs = {"aniso": (step, math.pi / 6), "translate_int": (step / 2, step / 2), "translate_frac": (step, step / 2)}
    return torch.tensor([pairs.get(name, float(step))], dtype=torch.float64, device="cpu")


def _apply(image: Tensor, augmentation: Augmentation, name: str, w: Tensor) -> tuple[Tensor, list[float]]:
    """The image, as a batch of one, under one transform, and the labels of this transform."""
    x, labels = augmentation.apply(image[None], {name: w})
    place = sum(augmentation.label_dims[other] for other in augmentation.enabled[: augmentation.enabled.index(name)])
    return x, labels[0, place : place + augmentation.label_dims[name]].tolist()


def _draw(
    ax: Axes, image: Tensor, transform: Transform, augmentation: Augmentation, name: str, parameter: Tensor
) -> None:
    x, own = _apply(image, augmentation, name, parameter)
    pixels = to_pixels(transform.inverse(x), transform)[0]
    ax.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    text = ", ".join(f"{value:.3g}".replace("-", "−") for value in (0.0 if abs(v) < 5e-4 else v for v in own))
    colour = theme().ink if any(own) else theme().gray
    ax.text(0.5, -0.03, text, transform=ax.transAxes, fontsize=6.5, ha="center", va="top", color=colour)
