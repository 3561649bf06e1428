"""Tensors that are spread over processes, gathered and spread again."""

from __future__ import annotations

from typing import Any

import torch

from diffspace._shapes import Tensor

__all__ = ["spread_like", "whole"]


def whole(value: Any) -> Tensor:
    """All of a tensor that may be spread over processes; every one of them has to ask."""
    everything: Tensor = value.full_tensor() if hasattr(value, "full_tensor") else value
    return everything


def spread_like(value: Tensor, like: Any) -> Tensor:
    """A whole tensor on the device of another, in its layout, and spread over the processes as that one is."""
    if not hasattr(like, "full_tensor"):
        # optimizers of one kernel take a state for laid out as its parameter is
        same: Tensor = torch.empty_like(like, dtype=value.dtype)
        return same.copy_(value)
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
