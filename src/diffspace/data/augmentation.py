"""Non-leaking augmentation of images (Appendix F.2): the network receives what was done to an image as labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple, TypeAlias

import torch

from diffspace._shapes import Float, Tensor
from diffspace.checks import check_number
from diffspace.data.image_transforms import affine, recolour, shift, warp

Parameters: TypeAlias = Mapping[str, Tensor]
"""The numbers (B,) or pairs (B, 2) that each transform, by name, is applied with, on the CPU; 0 changes nothing.

- `xflip`, `yflip`, `lumaflip`: 0 or 1. `rotate_int`: quarter turns, 0 to 3.
- `translate_int`: shares of `translate_int_max` of the width (to the right) and the height (upwards), in [−1, 1].
- `rotate_frac`, `hue`: angles. `aniso`: the stretch and the angle of its axis.
- `scale`, `aniso`, `translate_frac`, `brightness`, `contrast`, `saturation`: in units of the standard deviation.
"""


class _Draws(NamedTuple):
    """Random numbers for a batch of `n`, brought to the CPU, where what is computed depends on them."""

    n: int
    generator: torch.Generator | None

    def _draw(self, function: Callable[..., Tensor], pair: tuple[int, ...]) -> Tensor:
        device = "cpu" if self.generator is None else self.generator.device
        draws = function(self.n, *pair, dtype=torch.float32, generator=self.generator, device=device)
        return draws.cpu().to(torch.float64)

    def uniform(self, *pair: int) -> Tensor:
        """In [0, 1)."""
        return self._draw(torch.rand, pair)

    def normal(self, *pair: int) -> Tensor:
        """Standard normal."""
        return self._draw(torch.randn, pair)

    def angle(self, limit: float = 1.0) -> Tensor:
        """In ±limit·π."""
        return (2 * self.uniform() - 1) * (math.pi * limit)

    def integer(self, count: int) -> Tensor:
        """0 … count − 1."""
        return (self.uniform() * count).floor()

    def stretch(self, rotated: float) -> Tensor:
        """A standard normal size, and the angle of its axis, which is 0 except with probability `rotated`."""
        turned = self.uniform() < rotated
        return torch.stack([self.normal(), self.angle() * turned], dim=1)


class _Transform(NamedTuple):
    """How the parameters w of a transform are drawn, and the labels that they become.

    `labels` gets w and, for `translate_int`, the largest shift in pixels to the right and downwards.
    """

    draw: Callable[[Augmentation, _Draws], Tensor]
    labels: Callable[[Tensor, Tensor], Sequence[Tensor]]
    label_dim: int
    pairs: bool = False


def _stretch_labels(w: Tensor, limit: Tensor) -> Sequence[Tensor]:
    size, angle = w.unbind(1)
    return size * angle.cos(), size * angle.sin()


def _normal(labels: int = 1) -> _Transform:
    """A transform of one or two standard normal parameters, which are its labels."""
    if labels == 1:
        return _Transform(lambda a, draws: draws.normal(), lambda w, _: (w,), 1)
    return _Transform(lambda a, draws: draws.normal(labels), lambda w, _: w.unbind(1), labels, pairs=True)


def _rotation(draw: Callable[[Augmentation, _Draws], Tensor]) -> _Transform:
    return _Transform(draw, lambda w, _: (w.cos() - 1, w.sin()), 2)


_FLIP = _Transform(lambda a, draws: draws.integer(2), lambda w, _: (w,), 1)
# in the order in which they are applied, which is that of the labels
_TRANSFORMS: Mapping[str, _Transform] = {
    "xflip": _FLIP,
    "yflip": _FLIP,
    "rotate_int": _Transform(
        lambda a, draws: draws.integer(4), lambda w, _: ((w == 1) | (w == 2), (w == 2) | (w == 3)), 2
    ),
    "translate_int": _Transform(
        lambda a, draws: 2 * draws.uniform(2) - 1,
        lambda w, limit: ((w * limit).round() / limit).unbind(1),
        2,
        pairs=True,
    ),
    "scale": _normal(),
    "rotate_frac": _rotation(lambda a, draws: draws.angle(a.rotate_frac_max)),
    "aniso": _Transform(lambda a, draws: draws.stretch(a.aniso_rotate_prob), _stretch_labels, 2, pairs=True),
    "translate_frac": _normal(2),
    "brightness": _normal(),
    "contrast": _normal(),
    "lumaflip": _FLIP,
    "hue": _rotation(lambda a, draws: draws.angle(a.hue_max)),
    "saturation": _normal(),
}
_STRENGTHS = {
    "translate_int_max": "translate_int",
    "scale_std": "scale",
    "rotate_frac_max": "rotate_frac",
    "aniso_std": "aniso",
    "aniso_rotate_prob": "aniso",
    "translate_frac_std": "translate_frac",
    "brightness_std": "brightness",
    "contrast_std": "contrast",
    "hue_max": "hue",
    "saturation_std": "saturation",
}


@dataclass(frozen=True)
class Augmentation:
    """Random transforms of images (B, C, H, W), with labels that say what was done to each (Appendix F.2).

    Each transform is applied to an image independently with probability min(1, multiplier·`probability`); 0 leaves it
    out, with its labels, and inf applies it to every image. A flip that is applied is a fair coin, a quarter turn is
    one of four.

    | multiplier | drawn | labels |
    | --- | --- | --- |
    | `xflip`, `yflip` | w = 0, 1: left and right, top and bottom exchanged | w |
    | `rotate_int` | w = 0 … 3 quarter turns counter-clockwise | w ∈ {1, 2}, w ∈ {2, 3} |
    | `translate_int` | whole pixels, within ±`translate_int_max` of width and height | shares of that limit |
    | `scale` | w ~ N(0, 1): magnified by 2^(`scale_std`·w) | w |
    | `rotate_frac` | θ ~ U(±π·`rotate_frac_max`), counter-clockwise | cos θ − 1, sin θ |
    | `aniso` | w ~ N(0, 1): stretched by 2^(`aniso_std`·w) along, shrunk across an axis at the angle r, \
which is 0 but with probability `aniso_rotate_prob` | w·cos r, w·sin r |
    | `translate_frac` | w ~ N(0, 1)²: moved by `translate_frac_std`·w of width and height | w |
    | `brightness` | w ~ N(0, 1): `brightness_std`·w is added | w |
    | `contrast` | w ~ N(0, 1): multiplied by 2^(`contrast_std`·w) | w |
    | `lumaflip` | w = 0, 1: the component along the axis of grays changes its sign | w |
    | `hue` | θ ~ U(±π·`hue_max`) about the axis of grays | cos θ − 1, sin θ |
    | `saturation` | w ~ N(0, 1): across the axis of grays multiplied by 2^(`saturation_std`·w) | w |

    Images are in the model's space, where 0 is middle gray, and continued by reflection at their borders. `hue` and
    `saturation` are for three channels, `rotate_int` for square images. ValueError for options out of range, for a
    strength whose transform is off, and if no transform is on.
    """

    probability: float = 1.0

    xflip: float = 0.0
    yflip: float = 0.0
    rotate_int: float = 0.0
    translate_int: float = 0.0
    scale: float = 0.0
    rotate_frac: float = 0.0
    aniso: float = 0.0
    translate_frac: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    lumaflip: float = 0.0
    hue: float = 0.0
    saturation: float = 0.0

    translate_int_max: float = 0.125
    scale_std: float = 0.2
    rotate_frac_max: float = 1.0
    aniso_std: float = 0.2
    aniso_rotate_prob: float = 0.5
    translate_frac_std: float = 0.125
    brightness_std: float = 0.2
    contrast_std: float = 0.5
    hue_max: float = 1.0
    saturation_std: float = 1.0

    def __post_init__(self) -> None:
        for field in fields(self):
            name, value = field.name, getattr(self, field.name)
            share = name in ("probability", "aniso_rotate_prob")
            check_number(name, value, "[0, 1]" if share else "[0, inf]" if name in _TRANSFORMS else "(0, inf)")
            transform = _STRENGTHS.get(name)
            if transform is not None and value != field.default and not getattr(self, transform):
                raise ValueError(f"{name}: {value} has no effect: {transform} is 0")
        if not self.enabled:
            raise ValueError(f"{', '.join(_TRANSFORMS)}: expected at least one transform with a multiplier above 0")

    @classmethod
    def edm(cls, probability: float = 0.12, **options: float) -> Augmentation:
        """The paper's: a fair coin for x-flip on every image, six of the others with `probability` each, 9 labels.

        Its probabilities are 0.12 for CIFAR-10 and 0.15 for FFHQ and AFHQv2 (Table 7). `options` replace others.
        """
        paper = {"xflip": math.inf, "yflip": 1, "scale": 1, "rotate_frac": 1, "aniso": 1, "translate_frac": 1}
        return cls(probability, **paper | options)

    @property
    def enabled(self) -> tuple[str, ...]:
        """The names of the transforms that are on, in order."""
        return tuple(name for name in _TRANSFORMS if getattr(self, name))

    @property
    def label_dims(self) -> dict[str, int]:
        """The number of labels of each transform that is on, in order."""
        return {name: _TRANSFORMS[name].label_dim for name in self.enabled}

    @property
    def label_dim(self) -> int:
        """The number of labels of an image."""
        return sum(self.label_dims.values())

    def check_shape(self, sample_shape: Sequence[int]) -> None:
        """ValueError unless samples of this shape are images for which all transforms are defined."""
        shape = tuple(sample_shape)
        if len(shape) != 3:
            raise ValueError(f"augment: expected images (channels, height, width), got samples of shape {shape}")
        for name in ("hue", "saturation"):
            if getattr(self, name) and shape[0] != 3:
                raise ValueError(f"{name}: requires images of 3 channels, got {shape[0]}; set it to 0")
        if self.rotate_int and shape[1] != shape[2]:
            raise ValueError(f"rotate_int: requires square images, got {shape[1]}×{shape[2]}; set it to 0")

    def __call__(
        self, x: Float[Tensor, "batch channels height width"], generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "batch channels height width"], Float[Tensor, "batch labels"]]:
        """(transformed images, labels of shape (B, label_dim) in float32)."""
        return self.apply(x, self.draw(len(x), generator))

    def draw(self, n: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Parameters for n images."""
        draws = _Draws(n, generator)
        parameters = {}
        for name in self.enabled:
            w = _TRANSFORMS[name].draw(self, draws)
            multiplier = getattr(self, name)
            chosen = draws.uniform() < (1 if multiplier == math.inf else multiplier * self.probability)
            parameters[name] = w * (chosen[:, None] if w.ndim > 1 else chosen)
        return parameters

    def apply(
        self, x: Float[Tensor, "batch channels height width"], parameters: Parameters
    ) -> tuple[Float[Tensor, "batch channels height width"], Float[Tensor, "batch labels"]]:
        """(transformed images, labels) for given parameters; a transform without any changes nothing."""
        if not x.is_floating_point():
            raise ValueError(f"x: expected images in the model's space, real numbers around 0, got {x.dtype}")
        self.check_shape(x.shape[1:])
        w = self._complete(len(x), parameters)
        sides = torch.tensor([x.shape[3], x.shape[2]], dtype=torch.float64)
        limit = sides * self.translate_int_max
        columns = [column for name in self.enabled for column in _TRANSFORMS[name].labels(w[name], limit)]
        labels = torch.stack(columns, dim=1).to(x.device, torch.float32)
        x = self._moved(x, w, sides)
        x = self._warped(x, w, sides)
        return self._recoloured(x, w), labels

    def _complete(self, n: int, parameters: Parameters) -> dict[str, Tensor]:
        """The parameters of every transform, checked: 0 for those that are not given or off."""
        complete = {}
        for name, transform in _TRANSFORMS.items():
            shape = (n, 2) if transform.pairs else (n,)
            given = parameters.get(name)
            if given is not None and given.shape != shape:
                raise ValueError(f"parameters: {name}: expected shape {shape}, got {tuple(given.shape)}")
            complete[name] = torch.zeros(shape, dtype=torch.float64) if given is None else given.cpu().to(torch.float64)
        unknown = [name for name in parameters if name not in self.enabled]
        if unknown:
            raise ValueError(f"parameters: {unknown[0]!r} is not enabled; enabled are {', '.join(self.enabled)}")
        return complete

    def _moved(self, x: Tensor, w: Parameters, sides: Tensor) -> Tensor:
        """Flips, quarter turns and whole pixels, exactly."""
        x = _where(w["xflip"] == 1, x, lambda images, _: images.flip(3))
        x = _where(w["yflip"] == 1, x, lambda images, _: images.flip(2))
        turns = w["rotate_int"]
        x = _where((turns == 1) | (turns == 2), x, lambda images, _: images.flip(3))
        x = _where((turns == 2) | (turns == 3), x, lambda images, _: images.flip(2))
        x = _where((turns == 1) | (turns == 3), x, lambda images, _: images.transpose(2, 3))
        steps = (w["translate_int"] * sides * self.translate_int_max).round().long() * torch.tensor([1, -1])
        return _where(steps.any(1), x, lambda images, chosen: shift(images, steps[chosen]))

    def _warped(self, x: Tensor, w: Parameters, sides: Tensor) -> Tensor:
        """All transforms that interpolate, at once."""
        stretch, axis = w["aniso"].unbind(1)
        linear, offset = affine(
            (self.scale_std * w["scale"]).exp2(),
            w["rotate_frac"],
            (self.aniso_std * stretch).exp2(),
            axis * (stretch != 0),
            w["translate_frac"] * sides * self.translate_frac_std,
        )
        chosen = (linear != torch.eye(2, dtype=linear.dtype)).any(2).any(1) | (offset != 0).any(1)
        return _where(chosen, x, lambda images, chosen: warp(images, linear[chosen], offset[chosen]))

    def _recoloured(self, x: Tensor, w: Parameters) -> Tensor:
        """All transforms of colour at once."""
        arguments = (
            self.brightness_std * w["brightness"],
            (self.contrast_std * w["contrast"]).exp2(),
            1 - 2 * w["lumaflip"],
            w["hue"],
            (self.saturation_std * w["saturation"]).exp2(),
        )
        names = ("brightness", "contrast", "lumaflip", "hue", "saturation")
        chosen = torch.stack([w[name] != 0 for name in names]).any(0)
        return _where(chosen, x, lambda images, chosen: recolour(images, *(a[chosen] for a in arguments)))


def _where(chosen: Tensor, x: Tensor, transform: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """x with the chosen images transformed, in float32 or better; the others are not touched."""
    numbers = chosen.nonzero().flatten()
    if not len(numbers):
        return x
    places = numbers.to(x.device)
    images = x.index_select(0, places).to(torch.promote_types(x.dtype, torch.float32))
    return x.index_copy(0, places, transform(images, numbers).to(x.dtype))
