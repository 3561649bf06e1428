"""Non-leaking augmentation of images (Appendix F.2): the network receives what was done to an image as labels."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TypeAlias

import torch

from diffspace._shapes import Float, Tensor
from diffspace.checks import check_number
from diffspace.data.image_transforms import affine, recolour, shift, warp

Parameters: TypeAlias = Mapping[str, Tensor]
"""What `Augmentation` draws for each transform, by name, (B,) or (B, 2), on the CPU; 0 changes nothing.

`translate_int`: shares of `translate_int_max` of the width (to the right) and the height (upwards), in [−1, 1];
`aniso`: w and the angle of the axis.
"""

_PAIRS = ("translate_int", "aniso", "translate_frac")  # transforms with two parameters
_TWO_LABELS = (*_PAIRS, "rotate_int", "rotate_frac", "hue")


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
            transform = next((t for t in _TRANSFORMS if name.startswith(f"{t}_")), None)  # whose strength this is
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
        return {name: 2 if name in _TWO_LABELS else 1 for name in self.enabled}

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
        device = "cpu" if generator is None else generator.device

        def random(function: Callable[..., Tensor], *shape: int) -> Tensor:
            draws = function(n, *shape, dtype=torch.float32, generator=generator, device=device)
            return draws.cpu().to(torch.float64)  # the transforms that an image needs are decided on the CPU

        uniform, normal = functools.partial(random, torch.rand), functools.partial(random, torch.randn)
        parameters = {}
        for name in self.enabled:
            w = self._draw(name, uniform, normal)
            multiplier = getattr(self, name)
            chosen = uniform() < (1 if multiplier == math.inf else multiplier * self.probability)
            parameters[name] = w * (chosen[:, None] if w.ndim > 1 else chosen)
        return parameters

    def _draw(self, name: str, uniform: Callable[..., Tensor], normal: Callable[..., Tensor]) -> Tensor:
        """The parameters of a transform, from functions that draw in [0, 1) and from N(0, 1)."""
        match name:
            case "xflip" | "yflip" | "lumaflip":
                return (2 * uniform()).floor()
            case "rotate_int":
                return (4 * uniform()).floor()
            case "translate_int":
                return 2 * uniform(2) - 1
            case "rotate_frac" | "hue":
                limit = self.rotate_frac_max if name == "rotate_frac" else self.hue_max
                return (2 * uniform() - 1) * (math.pi * limit)
            case "aniso":
                rotated = uniform() < self.aniso_rotate_prob
                return torch.stack([normal(), (2 * uniform() - 1) * math.pi * rotated], dim=1)
            case "translate_frac":
                return normal(2)
            case _:
                return normal()

    def apply(
        self, x: Float[Tensor, "batch channels height width"], parameters: Parameters
    ) -> tuple[Float[Tensor, "batch channels height width"], Float[Tensor, "batch labels"]]:
        """(transformed images, labels) for given parameters; a transform without any changes nothing."""
        if not x.is_floating_point():
            raise ValueError(f"x: expected images in the model's space, real numbers around 0, got {x.dtype}")
        self.check_shape(x.shape[1:])
        w = self._complete(len(x), parameters)
        sides = torch.tensor([x.shape[3], x.shape[2]], dtype=torch.float64, device="cpu")
        limit = sides * self.translate_int_max
        columns = [column for name in self.enabled for column in _labels(name, w[name], limit)]
        labels = torch.stack(columns, dim=1).to(x.device, torch.float32)
        x = self._moved(x, w, sides)
        x = self._warped(x, w, sides)
        return self._recoloured(x, w), labels

    def _complete(self, n: int, parameters: Parameters) -> dict[str, Tensor]:
        """The parameters of every transform, checked: 0 for those that are not given or off."""
        complete = {}
        for name in _TRANSFORMS:
            shape = (n, 2) if name in _PAIRS else (n,)
            given = parameters.get(name)
            if given is not None and given.shape != shape:
                raise ValueError(f"parameters: {name}: expected shape {shape}, got {tuple(given.shape)}")
            complete[name] = (
                torch.zeros(shape, dtype=torch.float64, device="cpu")
                if given is None
                else given.cpu().to(torch.float64)
            )
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
        steps = (w["translate_int"] * sides * self.translate_int_max).round().long() * torch.tensor(
            [1, -1], dtype=torch.int64, device="cpu"
        )
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
        chosen = (linear != torch.eye(2, dtype=linear.dtype, device=linear.device)).any(2).any(1) | (offset != 0).any(1)
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


# the transforms are what is off by default, applied and labelled in this order
_TRANSFORMS = tuple(field.name for field in fields(Augmentation) if field.default == 0)


def _labels(name: str, w: Tensor, limit: Tensor) -> Sequence[Tensor]:
    """The labels that parameters become; `limit` is the largest shift of `translate_int` in pixels."""
    match name:
        case "rotate_int":
            return (w == 1) | (w == 2), (w == 2) | (w == 3)
        case "translate_int":
            return ((w * limit).round() / limit).unbind(1)
        case "rotate_frac" | "hue":
            return w.cos() - 1, w.sin()
        case "aniso":
            stretch, axis = w.unbind(1)
            return stretch * axis.cos(), stretch * axis.sin()
        case "translate_frac":
            return w.unbind(1)
        case _:
            return (w,)


def _where(chosen: Tensor, x: Tensor, transform: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """x with the chosen images transformed, in float32 or better; the others are not touched."""
    numbers = chosen.nonzero().flatten()
    if not len(numbers):
        return x
    places = numbers.to(x.device)
    images = x.index_select(0, places).to(torch.promote_types(x.dtype, torch.float32))
    return x.index_copy(0, places, transform(images, numbers).to(x.dtype))
