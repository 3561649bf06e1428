"""One formula for floats and tensors: the functions of `math` and of `torch` that have the same names."""

from __future__ import annotations

import math
from typing import Any

import torch


def functions(value: object) -> Any:
    """`torch` for a tensor, `math` for a number: `functions(t).sqrt(t)` works on both, and is fast on floats."""
    return torch if isinstance(value, torch.Tensor) else math
