"""What every wrapper of a denoiser shares."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch

from diffspace._shapes import Float, Tensor
from diffspace.checks import check_callable
from diffspace.protocols import Cond, Denoiser

_OPTIONAL = ("sigma_min", "sigma_max", "round_sigma", "weight", "sample_shape")


class Wrapper(torch.nn.Module, ABC):
    """A denoiser made from another one, whose optional attributes (see `Denoiser`) it hands on where they exist.

    A module inside is a submodule: sampling finds its device and puts it into evaluation mode. A subclass defines
    `denoise`.
    """

    denoiser: Denoiser

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        check_callable("denoiser", denoiser, "D(x, sigma, cond)")
        self.denoiser = denoiser

    @abstractmethod
    def denoise(self, x: Tensor, sigma: Tensor, cond: Cond | None) -> Tensor:
        """The D(x; σ) that this denoiser returns."""

    def forward(
        self,
        x: Float[Tensor, "batch *dims"],
        sigma: Float[Tensor, ""] | Float[Tensor, "batch"],
        cond: Cond | None = None,
    ) -> Float[Tensor, "batch *dims"]:
        """D(x; σ)."""
        return self.denoise(x, sigma, cond)

    def __getattr__(self, name: str) -> Any:
        # reached only for what the wrapper itself lacks
        return getattr(self.denoiser, name) if name in _OPTIONAL else super().__getattr__(name)


def column(value: Tensor, like: Tensor) -> Tensor:
    """Numbers of shape () or (B,), one for each sample, in the shape, dtype and device that multiply (B, *dims)."""
    return value.to(like).reshape((-1,) + (1,) * (like.ndim - 1))


def tracked(x: Tensor, recording: bool) -> Tensor:
    """x as a tensor to differentiate by: itself where its own gradients are recorded, else outside any graph."""
    return x if recording and x.requires_grad else x.detach().requires_grad_()


def record(name: str, value: Tensor) -> Tensor:
    """The value; ValueError if no gradient was recorded."""
    if not value.requires_grad:
        raise ValueError(
            f"{name}: its value has no gradient with respect to x; expected a differentiable one, without torch.no_grad"
        )
    return value
