"""One formula for floats and tensors: the functions of `math` and of `torch` that carry the same names."""

from __future__ import annotations

import math
from typing import Any

import torch

__all__ = ["functions", "require_positive"]


def functions(value: object) -> Any:
    """`torch` for a tensor, `math` for a number: `functions(t).sqrt(t)` works on both, and is fast on floats."""
    return torch if isinstance(value, torch.Tensor) else math


def require_positive(**named: float) -> None:
    """ValueError unless every named number is positive and finite."""
    for name, value in named.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name}: {value}; want a positive finite number")
