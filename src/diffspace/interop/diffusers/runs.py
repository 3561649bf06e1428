"""Schedulers of diffusers as samplers of any denoiser, to compare with. Imports diffusers when one is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from diffspace._shapes import Batch, Float, Tensor
from diffspace.checks import nearest, require_package
from diffspace.protocols import Cond, Denoiser


class _Scheduler(NamedTuple):
    """Class and options of a scheduler, and what its state and output are."""

    cls: str
    options: Mapping[str, Any]
    kind: str


_SAMPLE = {"prediction_type": "sample"}
SCHEDULERS: Mapping[str, _Scheduler] = {
    "EDMEuler": _Scheduler("EDMEulerScheduler", {}, "edm-euler"),
    "HeunDiscrete": _Scheduler("HeunDiscreteScheduler", _SAMPLE, "heun"),
} | {
    f"{name}{order}": _Scheduler(f"{name}Scheduler", {"solver_order": order, **given}, kind)
    for order in (2, 3)
    for name, given, kind in (
        ("EDMDPMSolverMultistep", {}, "edm"),
        ("UniPCMultistep", _SAMPLE, "unipc"),
        ("DEISMultistep", _SAMPLE, "deis"),
    )
}
"""The schedulers of diffusers that can follow the ODE from any levels, by name with their order."""


def scheduler_cost(name: str, budget: int) -> tuple[int, int]:
    """(levels above 0, evaluations) of a scheduler within a budget: n levels take n evaluations, of Heun 2n − 1."""
    if name not in SCHEDULERS:
        raise ValueError(f"diffusers: {name!r} is unknown; {nearest(name, SCHEDULERS)}")
    twice = SCHEDULERS[name].kind == "heun"
    levels = (budget + 1) // 2 if twice else budget
    return levels, 2 * levels - 1 if twice else levels


@torch.no_grad()
def run_scheduler(
    name: str,
    denoiser: Denoiser,
    latents: Float[Tensor, "batch *dims"],
    sigmas: Float[Tensor, "levels"],
    cond: Cond | None = None,
) -> Batch:
    """Samples from unit-variance latents by a scheduler of diffusers, in float64 and at our levels.

    The levels take the place of its own, which it rounds to float32. The states of UniPC and DEIS are x/√(1 + σ²). They
    end as they do by default, with a step of first order from the lowest level to 0, but for DEIS, which has none: its
    last evaluation is x = D at the lowest level.

    Args:
        name: one of `SCHEDULERS`.
        denoiser: D(x, sigma, cond).
        latents: of unit variance.
        sigmas: n falling levels, and then 0: n evaluations, or 2n − 1 of Heun.
        cond: as in `sample`.
    """
    cls, options, kind = SCHEDULERS[name]
    scheduler: Any = getattr(require_package("diffusers", f"diffusers:{name}"), cls)(**options)
    sigmas = sigmas.to(latents)
    preserving = kind in ("unipc", "deis")

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return denoiser(x * (1 + sigma**2).sqrt() if preserving else x, sigma, cond).to(x.dtype)

    if kind == "deis":
        sigmas = sigmas[:-1]
        if len(sigmas) == 1:
            return denoiser(latents * sigmas[0], sigmas[0], cond).to(latents.dtype)
    scheduler.set_timesteps(len(sigmas) - 1)
    twice = torch.cat([sigmas[:1], sigmas[1:-1].repeat_interleave(2), sigmas[-1:]])
    scheduler.sigmas = twice if kind == "heun" else sigmas
    scheduler.set_begin_index(0)
    x = latents * sigmas[0] / ((1 + sigmas[0] ** 2).sqrt() if preserving else 1)
    for t, sigma in zip(scheduler.timesteps, scheduler.sigmas[:-1], strict=True):
        denoised = denoise(x, sigma)
        if kind == "edm-euler":
            scheduler.is_scale_input_called = True
            x = scheduler.step(denoised, t, x, pred_original_sample=denoised).prev_sample
        elif kind == "edm":  # it takes F of Eq. 7
            data = scheduler.config.sigma_data
            total = sigma**2 + data**2
            x = scheduler.step((denoised - data**2 / total * x) * total.sqrt() / (sigma * data), t, x).prev_sample
        else:
            x = scheduler.step(denoised, t, x).prev_sample
    return denoise(x, sigmas[-1]) if kind == "deis" else x
