"""Named conditions: what a model is given beside its noisy samples, each a vector or an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from diffspace._shapes import Shaped, Tensor
from diffspace.checks import check_integer, check_number
from diffspace.config import build

_TAKEN = ("x", "augment")
_PER_CHANNEL = ("shift", "scale", "low", "high")


@dataclass(frozen=True)
class Condition:
    """The shape of a condition, and the statistics with which a network standardises it: v becomes (v − shift)/scale.

    Values are given raw, as the data have them. A row that holds NaN is the null condition, for a network that was
    trained with it.

    Args:
        shape: of one value: (k,) for a vector, (1,) for a number, (C, *sides) for an image, whose sides are those of
            the samples or whole divisors of them.
        shift: one number, or one for each component of a vector or channel of an image.
        scale: likewise, not 0.
        low: the least values in training, one for each component or channel; () if they are not known.
        high: the greatest.
        names: of the components of a vector; () if they have none.
    """

    shape: tuple[int, ...] = (1,)
    shift: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.shape:
            raise ValueError("shape: expected (1,) for a number, (k,) for a vector or (C, *sides) for an image, got ()")
        for length in self.shape:
            check_integer("shape", length, 1)
        for name in _PER_CHANNEL:
            values = getattr(self, name)
            if len(values) not in ((1, self.channels) if name in ("shift", "scale") else (0, self.channels)):
                raise ValueError(f"{name}: expected {self.channels} numbers for shape {self.shape}, got {len(values)}")
            for value in values:
                check_number(name, value)
        if 0 in self.scale:
            raise ValueError(f"scale: expected no 0, got {self.scale}")
        if self.names and (self.is_image or len(self.names) != self.channels):
            raise ValueError(f"names: expected one for each component of shape {self.shape}, got {self.names}")

    @classmethod
    def of(cls, values: Shaped[Tensor, "n *shape"], names: tuple[str, ...] = ()) -> Condition:
        """The condition of which these are samples: mean 0 and standard deviation 1 in each component or channel.

        A vector of nothing but 0 and 1 (several labels at once) stays as it is. ValueError for values that are not
        finite, and for a component that never changes.
        """
        if values.ndim == 0 or not values.numel():
            raise ValueError(f"values: expected a row for each sample, got shape {tuple(values.shape)}")
        values = values[:, None] if values.ndim == 1 else values
        flat = values.movedim(1, 0).flatten(1).to(torch.float64)
        finite = flat.isfinite().reshape(len(flat), len(values), -1).all(2).all(0)
        if not bool(finite.all()):
            bad = (~finite).nonzero().flatten()
            raise ValueError(f"values: {len(bad)} of {len(values)} rows are not finite, the first is number {bad[0]}")
        low, high = flat.aminmax(dim=1)
        std, mean = torch.std_mean(flat, dim=1, correction=0)
        constant, one = (low == high).nonzero().flatten().tolist(), values.ndim == 2
        labels = one and bool(((flat == 0) | (flat == 1)).all())
        if constant and (len(constant) == len(flat) or (one and not labels)):
            which = names[constant[0]] if names else f"number {constant[0]}"
            raise ValueError(f"values: {which} is {float(low[constant[0]]):g} in every row, which conditions nothing")
        if labels:
            mean, std = torch.zeros_like(mean), torch.ones_like(std)
        std = torch.where(low == high, 1.0, std)
        shift, scale, least, most = (tuple(part.tolist()) for part in (mean, std, low, high))
        return cls(tuple(values.shape[1:]), shift, scale, least, most, names)

    @property
    def is_image(self) -> bool:
        """Whether it has sides, as samples have."""
        return len(self.shape) > 1

    @property
    def channels(self) -> int:
        """The components of a vector, or the channels of an image."""
        return self.shape[0]

    def __str__(self) -> str:
        """What it is, in words."""
        if self.is_image:
            return f"an image of {'×'.join(map(str, self.shape))}"
        what = "a number" if self.shape == (1,) else f"{self.channels} numbers"
        named = f" ({', '.join(self.names)})" if self.names else ""
        spans = ", ".join(f"{low:g} to {high:g}" for low, high in zip(self.low[:8], self.high[:8], strict=True))
        return f"{what}{named}" + (f", in training {spans}" if spans else "")

    def standardise(self, values: Shaped[Tensor, "batch *shape"]) -> Shaped[Tensor, "batch *shape"]:
        """(values − shift)/scale in float32, or in float64 if they are."""
        wide = values.to(torch.promote_types(values.dtype, torch.float32))
        form = (-1,) + (1,) * (len(self.shape) - 1)
        shift, scale = (
            torch.tensor(part, dtype=torch.float64, device="cpu").reshape(form).to(wide.device, wide.dtype)
            for part in (self.shift, self.scale)
        )
        return (wide - shift) / scale


def as_conditions(conditioning: Mapping[str, Any] | None) -> dict[str, Condition]:
    """Conditions by name, from objects or from the mappings of a config; ValueError for a name that is taken."""
    found = {}
    for name, each in (conditioning or {}).items():
        check_condition_name(name)
        found[name] = each if isinstance(each, Condition) else build(Condition, each, f"conditioning.{name}")
    return found


def check_condition_name(name: object) -> None:
    """ValueError for a name that a condition cannot have."""
    if not isinstance(name, str) or not name.strip() or name in _TAKEN or set(name) & set("=,;\n"):
        raise ValueError(f"conditioning: {name!r} cannot be the name of a condition; choose another")


def divisors(name: str, shape: Sequence[int], sample_shape: Sequence[int]) -> tuple[int, ...]:
    """How many times as long each side of a sample is as that of an image beside it, (C, *sides).

    ValueError where they do not have the same number of sides, or one is no whole divisor.
    """
    sides, own = tuple(sample_shape[1:]), tuple(shape[1:])
    if len(sides) != len(own) or any(side % one for side, one in zip(sides, own, strict=True)):
        there, here = ("×".join(map(str, part)) or "none" for part in (sides, own))
        raise ValueError(
            f"{name}: its sides are {here}, those of the samples {there}; expected the same, or whole divisors of them"
        )
    return tuple(side // one for side, one in zip(sides, own, strict=True))
