"""Any pretrained DDPM as a denoiser: its levels are σ_n = √((1 − a_n)/a_n), a_n the decreasing table of ᾱ.

With the network's ε, v or x₀ at x/√(σ² + 1) and index n, D(x; σ) is x − σ·ε, x/(σ² + 1) − σ·v/√(σ² + 1) or x₀.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch

from diffspace._shapes import Float, Tensor
from diffspace.checks import check_choice
from diffspace.preconditioning.choices import (
    EpsilonPrediction,
    InterpolatedIndex,
    LevelIndex,
    Preconditioning,
    TimeMap,
    VPrediction,
    X0Prediction,
)
from diffspace.preconditioning.preconditioned import Preconditioned
from diffspace.process import DiscreteLevels
from diffspace.protocols import Cond

Predicts = Literal["epsilon", "v", "x0"]
ZeroSNR = Literal["clip", "leave_out"]

_PREDICTIONS: dict[Predicts, Callable[[TimeMap], Preconditioning]] = {
    "epsilon": EpsilonPrediction,
    "v": VPrediction,
    "x0": X0Prediction,
}
# diffusers replaces a = 0 by this where it computes σ: the least positive number of float16, σ = 4096
_LEAST = 2.0**-24


def ddpm_preconditioning(
    alphas_cumprod: Float[Tensor, "levels"],
    *,
    predicts: Predicts = "epsilon",
    rounded: bool = False,
    zero_snr: ZeroSNR | None = None,
) -> Preconditioning:
    """The preconditioning of a DDPM with the decreasing table a_n = `alphas_cumprod`.

    Between the trained levels c_noise is an index interpolated in ln σ (`InterpolatedIndex`); with `rounded` it is the
    nearest index, and `sample` rounds its steps to the trained σ_n (`LevelIndex`).

    If the last a is 0 (zero terminal SNR), its level is σ = ∞, where no run can start. `zero_snr="clip"` replaces it by
    σ = 4096 (a = 2⁻²⁴), or by twice the level below if that is above 4096; "leave_out" ends the range one level below.
    None clips for v and x₀, and leaves out for ε, which has no information on the data in pure noise.
    """
    check_choice("predicts", predicts, Predicts)
    check_choice("zero_snr", zero_snr, ("clip", "leave_out", None))
    a = torch.as_tensor(alphas_cumprod, dtype=torch.float64, device="cpu").detach()
    if a.ndim != 1:
        raise ValueError(f"alphas_cumprod: expected one number for each level, got shape {tuple(a.shape)}")
    if len(a) > 1 and a[-1] == 0:
        if zero_snr == "leave_out" or (zero_snr is None and predicts == "epsilon"):
            a = a[:-1]
        else:
            below = a[-2:-1]
            a = torch.cat([a[:-1], torch.where(below > _LEAST, _LEAST, below / 4)])
    elif zero_snr is not None:
        raise ValueError(f"zero_snr: {zero_snr!r} has no effect; the last of alphas_cumprod is not 0")
    levels = DiscreteLevels.from_alphas_cumprod(a)
    return _PREDICTIONS[predicts]((LevelIndex if rounded else InterpolatedIndex)(levels))


def index_or_time(c_noise: Float[Tensor, "batch"], rounded: bool) -> Tensor:
    """The time input of a DDPM network: an integer index if σ is rounded, else a real time."""
    return c_noise.round().long() if rounded else c_noise


def without_variance(output: Tensor, channels: int) -> Tensor:
    """The first half of an output with twice the channels, whose second half is a learned variance."""
    return output[:, :channels] if output.ndim > 1 and output.shape[1] == 2 * channels else output


class _Function(torch.nn.Module):
    """A function of (x, t) as a network."""

    def __init__(
        self, function: Callable[..., Tensor], shape: tuple[int, ...] | None, rounded: bool, dtype: torch.dtype | None
    ) -> None:
        super().__init__()
        self.function, self.rounded, self.dtype = function, rounded, dtype
        self.config = {"shape": shape}

    def forward(self, x: Tensor, c_noise: Tensor, cond: Cond | None = None) -> Tensor:
        conditions: tuple[Any, ...] = (cond,) if cond else ()  # a function of (x, t) alone takes none
        inner = x if self.dtype is None else x.to(self.dtype)
        time = c_noise.to(torch.promote_types(inner.dtype, torch.float32))
        output = self.function(inner, index_or_time(time, self.rounded), *conditions)
        if not isinstance(output, Tensor):
            raise ValueError(f"function: expected a tensor as its result, got {type(output).__name__}")
        return without_variance(output, x.shape[1])


def from_ddpm(
    function: Callable[..., Tensor],
    alphas_cumprod: Float[Tensor, "levels"],
    *,
    predicts: Predicts = "epsilon",
    rounded: bool = False,
    zero_snr: ZeroSNR | None = None,
    shape: tuple[int, ...] | None = None,
    dtype: torch.dtype | None = None,
) -> Preconditioned:
    """Any callable ε_θ(x, t) with its table of ᾱ as a denoiser: D(x; σ_n) = x − σ_n·ε_θ(x/√(σ_n² + 1), n).

    Args:
        function: called with x (B, *dims) and t (B,), and with the named conditions if there are any. A second half of
            the channels of its result, a learned variance, is ignored.
        alphas_cumprod, predicts, rounded, zero_snr: as in `ddpm_preconditioning`; with `rounded` t is an integer.
        shape: the shape of one sample.
        dtype: of x for a function that is not a module; default float32. A module computes in that of its parameters.
    """
    plain = not isinstance(function, torch.nn.Module) or next(function.parameters(), None) is None
    if dtype is not None and not plain:
        raise ValueError(f"dtype: {dtype} has no effect, because a module computes in the dtype of its parameters")
    choice = ddpm_preconditioning(alphas_cumprod, predicts=predicts, rounded=rounded, zero_snr=zero_snr)
    inner = (torch.float32 if dtype is None else dtype) if plain else None
    return Preconditioned(_Function(function, shape, rounded, inner), choice)
