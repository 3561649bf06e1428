"""The map between data as they are stored and the space in which a model works, recorded with the model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

from edmkit._shapes import Float, Shaped, Tensor

__all__ = ["Transform"]


@dataclass(frozen=True)
class Transform:
    """x = (raw − shift) / scale, one number for all elements or one for each channel (dimension 1 of a batch).

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
        if len(self.shift) != len(self.scale):
            raise ValueError(f"scale: {len(self.scale)} numbers beside {len(self.shift)} of shift; want as many")
        if any(not math.isfinite(v) or v == 0 for v in self.scale):
            raise ValueError(f"scale: {self.scale}; want finite numbers other than 0")
        if not isinstance(getattr(torch, self.dtype, None), torch.dtype):
            raise ValueError(f"dtype: {self.dtype!r} is not a torch dtype")

    def _constant(self, values: tuple[float, ...], like: Tensor) -> Tensor:
        c = torch.tensor(values, dtype=torch.float64, device="cpu").to(like.device, torch.float32)
        if len(values) == 1:
            return c.reshape([1] * like.ndim)
        if like.ndim < 2 or like.shape[1] != len(values):
            raise ValueError(
                f"raw: shape {tuple(like.shape)} has not the {len(values)} channels of the transform in dimension 1"
            )
        return c.reshape([1, -1] + [1] * (like.ndim - 2))

    def forward(self, raw: Shaped[Tensor, "batch *dims"]) -> Float[Tensor, "batch *dims"]:
        """From raw values to float32 in the model's space; ValueError outside [lowest, highest] or not finite."""
        values = raw.to(torch.float32)
        if values.numel():
            if raw.is_floating_point() and not bool(torch.isfinite(values).all()):
                raise ValueError("raw: holds values that are not finite")
            low, high = float(values.min()), float(values.max())
            if (self.lowest is not None and low < self.lowest) or (self.highest is not None and high > self.highest):
                raise ValueError(
                    f"raw: values in [{low:g}, {high:g}], but the transform was made for "
                    f"[{self.lowest}, {self.highest}]"
                )
        return (values - self._constant(self.shift, values)) / self._constant(self.scale, values)

    def inverse(self, x: Float[Tensor, "batch *dims"]) -> Shaped[Tensor, "batch *dims"]:
        """From the model's space back to raw values, clipped and rounded where the data are."""
        x = x.to(torch.float32)
        raw = x * self._constant(self.scale, x) + self._constant(self.shift, x)
        if self.lowest is not None or self.highest is not None:
            raw = raw.clamp(self.lowest, self.highest)
        if self.kind == "integer":
            raw = raw.round()
        dtype: torch.dtype = getattr(torch, self.dtype)
        return raw.to(dtype)
