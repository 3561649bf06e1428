"""Linear combinations in as few passes over memory as can be."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from diffspace._shapes import Tensor

__all__ = ["combine"]


def combine(x: Tensor, ratio: float, terms: Iterable[tuple[Tensor, float]]) -> Tensor:
    """ratio·x + Σ_j w_j·y_j over (y_j, w_j): a new tensor and a pass for each weight that is not 0; or x itself."""
    fresh = ratio != 1
    total = x * ratio if fresh else x
    for y, weight in terms:
        if weight != 0:
            total = total.add_(y, alpha=weight) if fresh else torch.add(total, y, alpha=weight)
            fresh = True
    return total
