"""Averages of the weights over training, and the two profiles by which they weigh the past.

An exponential moving average θ' ← β·θ' + (1 − β)·θ is a weighted mean of all earlier weights; a profile gives the β of
each step. `HalfLife` forgets at a constant rate (Karras et al. 2022, Appendix F.2). `PowerFunction` forgets more slowly
as training goes on, so that its memory stays a constant share of it (Karras et al. 2024, arXiv:2312.02696, Section
3.1). Time is counted in images.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar, runtime_checkable

import torch

from diffspace._shapes import Tensor
from diffspace.checks import check_number

LARGEST_WIDTH = 12**-0.5
"""The relative width of the mean over all steps, γ = 0; a wider profile would forget the present first."""


def exponent_to_width(exponent: float) -> float:
    """σ_rel = √((γ + 1)/((γ + 2)²·(γ + 3))), the standard deviation of τ/t under p(τ) ∝ τ^γ on [0, t]."""
    check_number("exponent", exponent, "[0, inf)")
    return math.sqrt((exponent + 1) / (exponent + 3)) / (exponent + 2)


def width_to_exponent(width: float) -> float:
    """The exponent γ ≥ 0 of a relative width 0 < σ_rel ≤ 1/√12: the largest root of

    γ³ + 7γ² + (16 − σ_rel⁻²)·γ + 12 − σ_rel⁻² = 0 (arXiv:2312.02696, Appendix C).
    """
    if not 0 < width <= LARGEST_WIDTH:
        raise ValueError(f"width: expected a number in (0, 1/√12 = {LARGEST_WIDTH:.4f}], got {width}")
    s = width**-2
    exponent, before = 1 / width, math.inf
    while exponent < before:  # Newton's method falls to the largest root from above, until rounding stops it
        before = exponent
        value = ((exponent + 7) * exponent + 16 - s) * exponent + 12 - s
        exponent -= value / ((3 * exponent + 14) * exponent + 16 - s)
    return max(before, 0.0)


@runtime_checkable
class Profile(Protocol):
    """How an average weighs the past."""

    def beta(self, images: int, batch: int) -> float:
        """β of the step that begins after `images` images and sees `batch` more."""
        ...


@dataclass(frozen=True)
class HalfLife:
    """β = ½^(batch/h), h = min(half-life, ramp ratio · images) in images (Karras et al. 2022, Appendix F.2).

    The ramp keeps the average young at the start; None leaves it out. A half-life of 0 gives β = 0, no average. The
    defaults are the paper's for CIFAR-10.
    """

    halflife_images: float = 500_000
    ramp_ratio: float | None = 0.05

    def __post_init__(self) -> None:
        check_number("halflife_images", self.halflife_images, "[0, inf)")
        if self.ramp_ratio is not None:
            check_number("ramp_ratio", self.ramp_ratio, "[0, inf)")

    def beta(self, images: int, batch: int) -> float:
        halflife = self.halflife_images
        if self.ramp_ratio is not None:
            halflife = min(halflife, images * self.ramp_ratio)
        return float(0.5 ** (batch / halflife)) if halflife > 0 else 0.0


@dataclass(frozen=True)
class PowerFunction:
    """β = (1 − Δt/t)^(γ + 1), t the images seen after the step and Δt its batch (arXiv:2312.02696, Section 3.1).

    The weights seen at τ count in proportion to τ^γ. `width` is σ_rel, the standard deviation of that profile as a
    share of the length of training, and `exponent` the γ that belongs to it.
    """

    width: float
    exponent: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "exponent", width_to_exponent(self.width))

    def beta(self, images: int, batch: int) -> float:
        return float((images / (images + batch)) ** (self.exponent + 1))


M = TypeVar("M", bound=torch.nn.Module)
_HALF = (torch.float16, torch.bfloat16)


class EMA(Generic[M]):
    """A copy of a module whose parameters follow the original's: θ' ← β·θ' + (1 − β)·θ; buffers are copied.

    The copy is `module`: in evaluation mode, without gradients, and in float32 where the original is in half precision,
    in which the small steps of an average would be lost. Parameters may be DTensors: each process then follows its own
    shards. A module of FSDP2 cannot be copied; make the average of it before `fully_shard`, and shard `module` alike.
    """

    def __init__(self, module: M, profile: Profile = HalfLife()) -> None:
        if not hasattr(profile, "beta"):
            raise ValueError(f"profile: expected one such as HalfLife(500_000) or PowerFunction(0.1), got {profile!r}")
        self.module: M = copy.deepcopy(module).eval().requires_grad_(False)
        self.module._apply(lambda t: t.float() if t.dtype in _HALF else t)  # type: ignore[no-untyped-call]
        self.profile = profile

    def follow(self, source: torch.nn.Module, images: int, batch: int) -> None:
        """Take the step that began after `images` images and saw `batch` more, with the β of the profile."""
        self.update(source, self.profile.beta(images, batch))

    @torch.no_grad()
    def update(self, source: torch.nn.Module, beta: float) -> None:
        """One step towards the parameters of `source`."""
        own, others = _local(self.module.parameters()), _local(source.parameters())
        others = [b if b.dtype == a.dtype else b.to(a.dtype) for a, b in zip(own, others, strict=True)]
        torch._foreach_lerp_(own, others, 1 - beta)
        own, others = list(self.module.buffers()), list(source.buffers())
        if own:
            torch._foreach_copy_(own, others)


def _local(tensors: Iterable[Tensor]) -> list[Tensor]:
    """The shards of this process, where tensors are DTensors."""
    return [t.to_local() if hasattr(t, "to_local") else t for t in tensors]
