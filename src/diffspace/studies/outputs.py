"""What a denoiser answers at every noise level: about one sample under one noise, and along the way of one latent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from diffspace._shapes import Float, Tensor
from diffspace.protocols import Cond, Denoiser, data_scale
from diffspace.sampling import EDMSteps, Execution, sample
from diffspace.sampling.streams import step_noise

_SHOWN = (80.0, 12.0, 5.0, 3.0, 2.0, 1.2, 0.7, 0.35, 0.15, 0.03)  # for σ_data = 0.5


@dataclass(frozen=True)
class DenoiserOutputs:
    """x and D(x; σ) at falling σ, each of shape (levels, *dims), unscaled.

    `path` is the solution of the ODE from the latent of a seed, which ends at x₀ = `clean`; `noisy` is x₀ + σ·ε with
    one ε at all σ.
    """

    sigma: Float[Tensor, "levels"]
    clean: Float[Tensor, "*dims"]
    noisy: Float[Tensor, "levels *dims"]
    denoised: Float[Tensor, "levels *dims"]
    path: Float[Tensor, "levels *dims"]
    path_denoised: Float[Tensor, "levels *dims"]


def denoiser_outputs(
    denoiser: Denoiser,
    *,
    seed: int = 0,
    shape: Sequence[int] | None = None,
    cond: Cond | None = None,
    num_steps: int = 48,
    shown: Sequence[float] = _SHOWN,
) -> DenoiserOutputs:
    """D over σ twice: around the sample of a seed under one noise, and along the solution that leads to that sample.

    Args:
        denoiser: D(x; σ).
        seed: of the latent; the noise of the first row is another draw.
        shape: of a sample, unless the denoiser states it.
        cond: conditions of one row, for both.
        num_steps: of Heun's method with the paper's steps.
        shown: falling noise levels for data with σ_data = 0.5, moved to those of the denoiser. The nearest of the
            steps are used.
    """
    run = sample(
        denoiser, seeds=[seed], shape=shape, steps=EDMSteps(num_steps), cond=cond, execution=Execution(trajectory=True)
    )
    if run.trajectory is None:
        raise ValueError("denoiser: its run has no trajectory")
    levels = run.sigmas[:-1].cpu()
    wanted = data_scale(denoiser) * torch.tensor(shown, dtype=torch.float64, device="cpu")
    nearest = sorted(set((levels.log() - wanted.log()[:, None]).abs().argmin(1).tolist()))
    sigma, clean = levels[nearest], run.x[0]
    noise = step_noise([seed], 0, clean.shape)[0].to(clean)
    level = sigma.to(clean)
    noisy = clean + level.reshape(-1, *[1] * clean.ndim) * noise
    rows = cond and {name: value.to(clean.device).expand(len(sigma), *value.shape[1:]) for name, value in cond.items()}
    with torch.no_grad():
        denoised = denoiser(noisy, level, rows)
    path = run.trajectory
    found = (clean, noisy, denoised, path.x[nearest, 0], path.denoised[nearest, 0])
    return DenoiserOutputs(sigma, *(values.cpu() for values in found))
