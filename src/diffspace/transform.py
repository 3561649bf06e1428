"""The map between stored data and the space in which a model works, and the statistics from which it is chosen."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch

from diffspace._shapes import Batch, Float, Shaped, Tensor
from diffspace.checks import as_tuple, check_choice

# raw types whose values float32 cannot represent exactly: their arithmetic is in float64
_WIDE = (torch.float64, torch.int32, torch.int64)


def _working(values: Tensor, raw_dtype: torch.dtype) -> Tensor:
    """Values in the precision that raw values of this type need."""
    if raw_dtype not in _WIDE:
        return values.to(torch.float32)
    return (values.cpu() if values.device.type == "mps" else values).to(torch.float64)  # mps has no float64


@dataclass(frozen=True)
class Transform:
    """x = (raw − shift)/scale.

    Args:
        shift, scale: one number for all elements, or one for each channel (dimension 1 of a batch).
        lowest, highest: bounds of raw values, None where there are none: `forward` raises for values outside them and
            `inverse` clips to them.
        kind: "integer" if `inverse` rounds, else "real".
        dtype: name of the torch dtype of raw values.
        shown: raw values that pictures show as black and white where there are no bounds; nothing is clipped to them.
    """

    shift: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)
    lowest: float | None = None
    highest: float | None = None
    kind: Literal["integer", "real"] = "real"
    dtype: str = "float32"
    shown: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        for name in ("shift", "scale"):
            object.__setattr__(self, name, as_tuple(name, getattr(self, name)))
        if not self.shift or len(self.shift) != len(self.scale):
            counts = f"{len(self.shift)} and {len(self.scale)}"
            raise ValueError(f"shift, scale: expected the same count of numbers, at least one, got {counts}")
        if not all(map(math.isfinite, self.shift)):
            raise ValueError(f"shift: expected finite numbers, got {self.shift}")
        if any(not math.isfinite(v) or v == 0 for v in self.scale):
            raise ValueError(f"scale: expected finite numbers other than 0, got {self.scale}")
        if self.lowest is not None and self.highest is not None and not self.lowest < self.highest:
            raise ValueError(f"lowest, highest: expected lowest < highest, got {self.lowest}, {self.highest}")
        dtype = getattr(torch, self.dtype, None)
        if not isinstance(dtype, torch.dtype) or dtype.is_complex or dtype == torch.bool:
            raise ValueError(f"dtype: expected the name of a torch dtype of integers or reals, got {self.dtype!r}")
        check_choice("kind", self.kind, ("integer", "real"))
        if self.kind == "real" and not dtype.is_floating_point:
            raise ValueError(f"kind: 'real' numbers cannot be stored as {self.dtype}; use kind='integer'")

    @property
    def values(self) -> str:
        """The type and the range of raw values, for messages."""
        low, high = self.lowest, self.highest
        return self.dtype if low is None or high is None else f"{self.dtype} from {low:g} to {high:g}"

    def _constant(self, values: tuple[float, ...], like: Tensor, name: str) -> Tensor:
        c = torch.tensor(values, dtype=torch.float64, device="cpu").to(like.device, like.dtype)
        if len(values) == 1:
            return c.reshape([1] * like.ndim)
        if like.ndim < 2 or like.shape[1] != len(values):
            shape = tuple(like.shape)
            raise ValueError(f"{name}: expected {len(values)} channels in dimension 1, got shape {shape}")
        return c.reshape([1, -1] + [1] * (like.ndim - 2))

    def forward(self, raw: Shaped[Tensor, "batch *dims"]) -> Batch:
        """Raw values as float32 in the model's space; ValueError if out of bounds or not finite."""
        if raw.numel():
            low, high = (float(v) for v in torch.aminmax(raw.detach()))  # NaN and infinity appear in one of the two
            if not (math.isfinite(low) and math.isfinite(high)):
                raise ValueError("raw: holds values that are not finite")
            lowest = -math.inf if self.lowest is None else self.lowest
            highest = math.inf if self.highest is None else self.highest
            if low < lowest or high > highest:
                bounds = f"[{lowest:g}, {highest:g}]"
                raise ValueError(f"raw: expected values in the transform's bounds {bounds}, got [{low:g}, {high:g}]")
        values = _working(raw, raw.dtype)
        x = values - self._constant(self.shift, values, "raw")
        x /= self._constant(self.scale, values, "raw")
        return x.to(torch.float32)

    def inverse(self, x: Batch) -> Shaped[Tensor, "batch *dims"]:
        """Raw values of x, rounded and clipped as the data require; ValueError if x is not finite."""
        if not bool(torch.isfinite(x).all()):
            raise ValueError("x: holds values that are not finite")
        dtype: torch.dtype = getattr(torch, self.dtype)
        x = _working(x, dtype)
        raw = x * self._constant(self.scale, x, "x") + self._constant(self.shift, x, "x")
        if self.kind == "integer":
            raw = raw.round()
        low, high = self.lowest, self.highest
        if not dtype.is_floating_point:  # values outside the type's range would wrap around
            limits = torch.iinfo(dtype)
            low = limits.min if low is None else max(limits.min, low)
            high = limits.max if high is None else min(limits.max, high)
        if low is not None or high is not None:
            raw = raw.clamp(low, high)
        return raw.to(dtype)

    def dequantise(self, raw: Shaped[Tensor, "batch *dims"], noise: Batch) -> Batch:
        """x of raw + noise in float64, for noise in [−½, ½): integers spread over the intervals that round to them.

        ValueError unless the transform is of kind "integer" and raw is within its bounds.
        """
        if self.kind != "integer" or raw.is_floating_point():
            raise ValueError(f"raw: expected integers and kind='integer', got {raw.dtype} and kind={self.kind!r}")
        x = self.forward(raw).cpu().to(torch.float64)  # forward checks the bounds
        offset: Tensor = noise.cpu().to(torch.float64) / self._constant(self.scale, x, "raw")
        return x + offset

    def log_volume(self, shape: Sequence[int]) -> float:
        """ln |det ∂x/∂raw| = −Σ ln |scale| over the elements of one sample of this shape, in nats.

        ln p(raw) = ln p(x) + log_volume is the density per unit of volume of raw values.
        """
        if len(self.scale) > 1 and (not shape or shape[0] != len(self.scale)):
            raise ValueError(f"shape: expected the transform's {len(self.scale)} channels first, got {tuple(shape)}")
        elements_per_scale = math.prod(shape) / len(self.scale)
        return -elements_per_scale * sum(math.log(abs(scale)) for scale in self.scale)


PIXELS = Transform((127.5,), (127.5,), lowest=0.0, highest=255.0, kind="integer", dtype="uint8")
"""8-bit pixels in [−1, 1]."""


class Moments(NamedTuple):
    """Minimum, maximum, mean and variance (divided by n) of each channel (dimension 1), in float64."""

    low: Float[Tensor, "channels"]
    high: Float[Tensor, "channels"]
    mean: Float[Tensor, "channels"]
    var: Float[Tensor, "channels"]


def channel_moments(chunks: Iterable[Shaped[Tensor, "batch channels *dims"]]) -> Moments:
    """The moments of all chunks together, merged by the formula of Chan et al. 1979, which does not cancel.

    A channel that holds anything that is not finite has a mean that is not finite.
    """
    total: Moments | None = None
    count = 0
    for chunk in chunks:
        values = chunk.movedim(1, 0).flatten(1).to(torch.float64)
        low, high = torch.aminmax(values, dim=1)
        var, mean = torch.var_mean(values, dim=1, correction=0)
        n = values.shape[1]
        if total is None:
            total, count = Moments(low, high, mean, var), n
            continue
        share = n / (count + n)
        delta = mean - total.mean
        total = Moments(
            torch.minimum(low, total.low),
            torch.maximum(high, total.high),
            total.mean + share * delta,
            total.var + share * (var - total.var) + share * (1 - share) * delta**2,
        )
        count += n
    if total is None:
        raise ValueError("chunks: expected at least one")
    return total


def standardising(moments: Moments, std: float = 0.5) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(shift, scale) such that (x − shift)/scale has mean 0 and this standard deviation in each channel.

    A constant channel has the scale of the widest one, or 1 where all are constant.
    """
    scale = torch.where(moments.high > moments.low, moments.var.sqrt() / std, 0.0)
    scale = torch.where(scale > 0, scale, float(scale.max()) or 1.0)
    return tuple(moments.mean.tolist()), tuple(scale.tolist())
