"""The map between data as they are stored and the space in which a model works, recorded with the model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from diffspace._shapes import Float, Shaped, Tensor

__all__ = ["PIXELS", "Transform"]

# raw types whose values float32 does not hold exactly: their arithmetic is in float64
_WIDE = (torch.float64, torch.int32, torch.int64)


def _working(values: Tensor, raw_dtype: torch.dtype) -> Tensor:
    """Values in the precision that raw values of a type need."""
    if raw_dtype not in _WIDE:
        return values.to(torch.float32)
    return (values.cpu() if values.device.type == "mps" else values).to(torch.float64)  # mps has no float64


@dataclass(frozen=True)
class Transform:
    """x = (raw − shift)/scale, one number for all elements or one for each channel (dimension 1 of a batch).

    `lowest` and `highest` bound raw values where the data have bounds (0 and 255 for images): input outside
    them is an error, and `inverse` clips to them. With `kind="integer"`, `inverse` rounds. `dtype` names the
    torch dtype in which raw values are kept.
    """

    shift: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)
    lowest: float | None = None
    highest: float | None = None
    kind: Literal["integer", "real"] = "real"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if not self.shift or len(self.shift) != len(self.scale):
            raise ValueError(
                f"shift, scale: {len(self.shift)} and {len(self.scale)} numbers; want one or more, as many"
            )
        if not all(math.isfinite(v) for v in self.shift):
            raise ValueError(f"shift: {self.shift}; want finite numbers")
        if any(not math.isfinite(v) or v == 0 for v in self.scale):
            raise ValueError(f"scale: {self.scale}; want finite numbers other than 0")
        if self.lowest is not None and self.highest is not None and not self.lowest < self.highest:
            raise ValueError(f"lowest, highest: {self.lowest}, {self.highest}; want lowest < highest")
        dtype = getattr(torch, self.dtype, None)
        if not isinstance(dtype, torch.dtype) or dtype.is_complex or dtype == torch.bool:
            raise ValueError(f"dtype: {self.dtype!r}; want the name of a torch dtype of integers or real numbers")
        if self.kind not in ("integer", "real"):
            raise ValueError(f"kind: {self.kind!r}; want 'integer' or 'real'")
        if self.kind == "real" and not dtype.is_floating_point:
            raise ValueError(f"kind: 'real' numbers cannot be kept as {self.dtype}; want kind='integer'")

    @property
    def _dtype(self) -> torch.dtype:
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype

    def _constant(self, values: tuple[float, ...], like: Tensor, name: str) -> Tensor:
        c = torch.tensor(values, dtype=torch.float64).to(like.device, like.dtype)
        if len(values) == 1:
            return c.reshape([1] * like.ndim)
        if like.ndim < 2 or like.shape[1] != len(values):
            raise ValueError(
                f"{name}: shape {tuple(like.shape)}; want the {len(values)} channels of the transform second"
            )
        return c.reshape([1, -1] + [1] * (like.ndim - 2))

    def forward(self, raw: Shaped[Tensor, "batch *dims"]) -> Float[Tensor, "batch *dims"]:
        """From raw values to float32 in the model's space; ValueError if out of bounds or not finite."""
        if raw.numel():
            low, high = (float(v) for v in torch.aminmax(raw.detach()))  # NaN and infinity show in one of the two
            if not (math.isfinite(low) and math.isfinite(high)):
                raise ValueError("raw: holds values that are not finite")
            lowest = -math.inf if self.lowest is None else self.lowest
            highest = math.inf if self.highest is None else self.highest
            if low < lowest or high > highest:
                raise ValueError(
                    f"raw: values in [{low:g}, {high:g}]; the transform is made for [{lowest:g}, {highest:g}]"
                )
        values = _working(raw, raw.dtype)
        x = values - self._constant(self.shift, values, "raw")
        x /= self._constant(self.scale, values, "raw")
        return x.to(torch.float32)

    def inverse(self, x: Float[Tensor, "batch *dims"]) -> Shaped[Tensor, "batch *dims"]:
        """From the model's space to raw values, clipped and rounded as they are; ValueError if not finite."""
        if not bool(torch.isfinite(x).all()):
            raise ValueError("x: holds values that are not finite")
        dtype = self._dtype
        x = _working(x, dtype)
        raw = x * self._constant(self.scale, x, "x") + self._constant(self.shift, x, "x")
        if self.kind == "integer":
            raw = raw.round()
        low, high = self.lowest, self.highest
        if not dtype.is_floating_point:  # a value that the type does not hold would wrap round
            held = torch.iinfo(dtype)
            low = max(held.min, held.min if low is None else low)
            high = min(held.max, held.max if high is None else high)
        if low is not None or high is not None:
            raw = raw.clamp(low, high)
        return raw.to(dtype)

    def dequantise(
        self, raw: Shaped[Tensor, "batch *dims"], noise: Float[Tensor, "batch *dims"]
    ) -> Float[Tensor, "batch *dims"]:
        """x of raw + noise in float64, for noise in [−½, ½): whole numbers spread over the bins that round to them.

        ValueError unless the transform is of whole numbers and raw is in its bounds.
        """
        if self.kind != "integer" or raw.is_floating_point():
            raise ValueError(f"raw: {raw.dtype} with kind={self.kind!r}; want whole numbers of kind 'integer'")
        x = self.forward(raw).cpu().to(torch.float64)  # which checks the bounds
        offset: Tensor = noise.cpu().to(torch.float64) / self._constant(self.scale, x, "raw")
        return x + offset

    def log_volume(self, shape: Sequence[int]) -> float:
        """ln |det ∂x/∂raw| = −Σ ln |scale| over the elements of one sample of that shape, in nats.

        ln p(raw) = ln p(x) + log_volume is the density per unit of volume of raw values.
        """
        if len(self.scale) > 1 and (not shape or shape[0] != len(self.scale)):
            raise ValueError(f"shape: {tuple(shape)}; want the {len(self.scale)} channels of the transform first")
        each = math.prod(shape) / len(self.scale)
        return -each * sum(math.log(abs(scale)) for scale in self.scale)


PIXELS = Transform((127.5,), (127.5,), lowest=0.0, highest=255.0, kind="integer", dtype="uint8")
"""8-bit pixels in [−1, 1]."""
