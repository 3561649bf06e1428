"""Gathers tensors that are sharded over processes, and shards them again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from diffspace._shapes import Tensor


def whole(value: Any) -> Tensor:
    """The whole of a tensor that may be sharded; all processes must call it."""
    everything: Tensor = value.full_tensor() if hasattr(value, "full_tensor") else value
    return everything


def spread_like(value: Tensor, like: Any) -> Tensor:
    """A whole tensor with the device, the memory layout and the sharding of another."""
    if not hasattr(like, "full_tensor"):
        # fused optimizers assume that a state has the layout of its parameter
        same: Tensor = torch.empty_like(like, dtype=value.dtype)
        return same.copy_(value)
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)


def whole_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state dict whose sharded tensors are gathered on the CPU, one by one."""
    return {name: whole(value).cpu() if hasattr(value, "full_tensor") else value for name, value in state.items()}


@torch.no_grad()
def load_whole(module: torch.nn.Module, state: Mapping[str, Any]) -> None:
    """Load a state of whole tensors into a module whose own may be sharded."""
    own = module.state_dict()
    module.load_state_dict(
        {name: spread_like(v, own[name]) if isinstance(own.get(name), Tensor) else v for name, v in state.items()}
    )
