"""A network of diffusers with its scheduler becomes a denoiser; a solver with its steps becomes a scheduler."""

from __future__ import annotations

from typing import Any

import torch

from diffspace.interop.diffusers.network import DiffusersNetwork
from diffspace.interop.diffusers.parametrization import read_scheduler
from diffspace.preconditioning import Preconditioned
from diffspace.preconditioning.ddpm import ZeroSNR
from diffspace.protocols import TimeSteps
from diffspace.sampling.solvers.base import Solver


def from_diffusers(
    network: torch.nn.Module, scheduler: object, *, rounded: bool = False, zero_snr: ZeroSNR | None = None
) -> Preconditioned:
    """A network of diffusers (`UNet2DModel`, `UNet2DConditionModel`, DiT, …) and its scheduler as a denoiser.

    The network keeps its dtype and its weights, which are not copied. Its conditions have the names of its arguments
    and of the members of `added_cond_kwargs`, but class labels are "labels". Input channels beyond those of the sample
    are a condition "image", which is not scaled with the noise. A learned variance in the output is ignored.

    Args:
        network: takes a sample, a timestep and conditions.
        scheduler: an object, or its config with "_class_name". It gives the noise levels of the training and what the
            network predicts (`read_scheduler`); its solver, spacing, clipping and thresholding have no effect.
        rounded: whether the network takes integer indices of trained levels only.
        zero_snr: what replaces a last level without signal (`ddpm_preconditioning`).
    """
    choice = read_scheduler(scheduler, rounded=rounded, zero_snr=zero_snr)
    return Preconditioned(DiffusersNetwork(network, rounded), choice)


def to_diffusers(
    solver: Solver, steps: TimeSteps, scheduler: object, *, rounded: bool = False, zero_snr: ZeroSNR | None = None
) -> Any:
    """A solver with its steps as a scheduler of diffusers (`DiffspaceScheduler`), for any of its pipelines.

    `pipeline.scheduler = to_diffusers(Heun(), EDMSteps(), pipeline.scheduler)`.

    Args:
        solver: one with a fixed number of evaluations a step.
        steps: the noise levels; a pipeline may set their number.
        scheduler: the one that came with the network, or its config, as for `from_diffusers`.
        rounded: as for `from_diffusers`.
        zero_snr: as for `from_diffusers`.
    """
    from diffspace.interop.diffusers.scheduler import DiffspaceScheduler

    return DiffspaceScheduler(solver, steps, scheduler, rounded=rounded, zero_snr=zero_snr)
