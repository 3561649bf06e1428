"""The base of the wrappers of denoisers."""

from __future__ import annotations

from typing import Any

import torch

from diffspace._shapes import Tensor
from diffspace.checks import check_callable
from diffspace.protocols import Denoiser

_OPTIONAL = ("sigma_min", "sigma_max", "round_sigma", "weight", "sample_shape")


class Wrapper(torch.nn.Module):
    """A denoiser made from another one, with the optional attributes (see `Denoiser`) of that one.

    A denoiser that is a module is a submodule: sampling finds its device and sets its evaluation mode. Subclasses
    define `forward(x, sigma, cond=None)`.
    """

    denoiser: Denoiser

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        check_callable("denoiser", denoiser, "D(x, sigma, cond)")
        self.denoiser = denoiser

    def __getattr__(self, name: str) -> Any:
        # called only for attributes that the wrapper itself lacks
        return getattr(self.denoiser, name) if name in _OPTIONAL else super().__getattr__(name)


def column(value: Tensor, like: Tensor) -> Tensor:
    """Numbers of shape () or (B,) with the dtype and device of `like`, shaped to multiply it, (B, *dims)."""
    return value.to(like).reshape((-1,) + (1,) * (like.ndim - 1))


def tracked(x: Tensor, recording: bool) -> Tensor:
    """x for differentiation: itself if its own gradients are recorded, else a leaf outside any graph."""
    return x if recording and x.requires_grad else x.detach().requires_grad_()


def record(name: str, value: Tensor) -> Tensor:
    """The value; ValueError if no gradient was recorded."""
    if not value.requires_grad:
        raise ValueError(f"{name}: its value has no gradient with respect to x; do not use torch.no_grad in it")
    return value
