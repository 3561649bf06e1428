"""What every wrapper of a denoiser shares."""

from __future__ import annotations

from typing import Any

import torch

from diffspace._shapes import Tensor
from diffspace.protocols import Denoiser

__all__ = ["Wrapper", "column", "record", "tracked"]

_OPTIONAL = ("sigma_min", "sigma_max", "round_sigma", "weight", "sample_shape")


class Wrapper(torch.nn.Module):
    """A denoiser made from another one, whose optional attributes (see `Denoiser`) it hands on where they exist.

    A module inside is a submodule: sampling finds its device and puts it into evaluation mode.
    """

    denoiser: Denoiser

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        if not callable(denoiser):
            raise ValueError(f"denoiser: {type(denoiser).__name__}; want a callable D(x, sigma, cond)")
        self.denoiser = denoiser

    def __getattr__(self, name: str) -> Any:
        # reached only for what the wrapper itself lacks
        return getattr(self.denoiser, name) if name in _OPTIONAL else super().__getattr__(name)


def column(value: Tensor, like: Tensor) -> Tensor:
    """Numbers of shape () or (B,), one for each sample, in a shape that multiplies (B, *dims), dtype and device too."""
    return value.to(like).reshape((-1,) + (1,) * (like.ndim - 1))


def tracked(x: Tensor, recording: bool) -> Tensor:
    """x as something to differentiate by: itself where its own gradients are recorded, else apart from any graph."""
    return x if recording and x.requires_grad else x.detach().requires_grad_()


def record(name: str, value: Tensor) -> Tensor:
    """The value; ValueError where nothing was recorded on the way to it."""
    if not value.requires_grad:
        raise ValueError(
            f"{name}: its value has no gradient by x; want it differentiable, without torch.no_grad inside"
        )
    return value
