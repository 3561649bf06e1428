"""The two ways: a network with its scheduler becomes a denoiser, a solver with its steps becomes a scheduler."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from diffspace._shapes import Float, Tensor
from diffspace.interop.diffusers.network import DiffusersNetwork
from diffspace.preconditioning import (
    Coefficients,
    ContinuousTime,
    EDMPreconditioning,
    FlowPrediction,
    Preconditioned,
    Preconditioning,
    ddpm_preconditioning,
)
from diffspace.preconditioning.ddpm import Predicts, ZeroSNR
from diffspace.process import FlowSchedule
from diffspace.protocols import Solver, TimeSteps

__all__ = ["from_diffusers", "read_scheduler", "scheduler_object", "to_diffusers"]

_PREDICTS: Mapping[str, Predicts] = {"epsilon": "epsilon", "v_prediction": "v", "sample": "x0"}


def from_diffusers(
    network: torch.nn.Module,
    scheduler: object,
    *,
    rounded: bool = False,
    zero_snr: ZeroSNR | None = None,
) -> Preconditioned:
    """A network of diffusers (`UNet2DModel`, `UNet2DConditionModel`, DiT, …) and its scheduler as a denoiser.

    `scheduler` is a scheduler object, or its config with "_class_name". Read of it are the noise levels of the
    training and what the network predicts (`read_scheduler`, which says what `rounded` and `zero_snr` are); its own
    solver, spacing, clipping and thresholding are options of sampling, which is ours. The network is used as it is,
    in its own dtype, and its weights are not copied.

    Conditions are named as the network's arguments, but class labels "labels"; members of `added_cond_kwargs` go by
    their own names. Channels of input that are not those of the sample are a condition "image", which is not scaled
    with the noise. A learned variance in the output is ignored.
    """
    choice = read_scheduler(scheduler, rounded=rounded, zero_snr=zero_snr)
    return Preconditioned(DiffusersNetwork(network, rounded), choice)


def read_scheduler(scheduler: object, *, rounded: bool = False, zero_snr: ZeroSNR | None = None) -> Preconditioning:
    """What a scheduler of diffusers says of the network that goes with it.

    - A table of ᾱ (every scheduler with betas) and ε-, v- or x₀-prediction: `ddpm_preconditioning`, with the same
      `rounded` and `zero_snr`. The table is the scheduler's own, in its float32. A last level without signal is found
      where the betas are rescaled to zero terminal SNR, whatever number the scheduler puts there.
    - Flow prediction: times t = σ/(1 + σ) from 1/M to 1, of which the network is told M·t.
    - EDM schedulers, and v-prediction with continuous time: c_noise = ¼·ln σ over the range in the config.

    ValueError for a scheduler of any other kind.
    """
    trained = scheduler_object(scheduler)
    config: Mapping[str, Any] = trained.config
    name = type(trained).__name__
    predicts = config.get("prediction_type", "epsilon")
    flow = name.startswith("FlowMatch") or predicts == "flow_prediction"
    continuous = name.startswith("EDM") or (config.get("timestep_type") == "continuous" and predicts == "v_prediction")
    alphas = getattr(trained, "alphas_cumprod", None)
    if (flow or continuous) and (rounded or zero_snr is not None):
        option = "rounded" if rounded else "zero_snr"
        raise ValueError(f"{option}: has no effect; {name} describes a network without a table of levels")
    if flow:
        return _flow(name, config)
    if continuous:
        return _edm(name, config, predicts, alphas)
    if alphas is None or config.get("use_flow_sigmas"):
        raise ValueError(
            f"scheduler: {name} with prediction_type {predicts!r} is not understood; want one with a table of "
            "alphas_cumprod, one of flow matching, or EDM's"
        )
    if predicts not in _PREDICTS:
        raise ValueError(f"prediction_type: {predicts!r}; want {', '.join(_PREDICTS)} or flow_prediction")
    if config.get("rescale_betas_zero_snr"):
        alphas = torch.cat([alphas[:-1], torch.zeros_like(alphas[-1:])])
    return ddpm_preconditioning(alphas, predicts=_PREDICTS[predicts], rounded=rounded, zero_snr=zero_snr)


def scheduler_object(scheduler: object) -> Any:
    """The scheduler itself, made of its config where that is given."""
    import diffusers

    if isinstance(scheduler, Mapping):
        name = scheduler.get("_class_name")
        kind = getattr(diffusers, name, None) if isinstance(name, str) else None
        if not (isinstance(kind, type) and issubclass(kind, diffusers.SchedulerMixin)):
            raise ValueError(f"scheduler: _class_name {name!r}; want a config with the name of a scheduler")
        return kind.from_config(dict(scheduler))  # type: ignore[attr-defined]
    if not isinstance(scheduler, diffusers.SchedulerMixin):
        raise ValueError(f"scheduler: {type(scheduler).__name__}; want a scheduler of diffusers or its config")
    return scheduler


def _flow(name: str, config: Mapping[str, Any]) -> Preconditioning:
    if config.get("invert_sigmas"):
        raise ValueError(f"invert_sigmas: True; {name} tells the network 1 − t, which is not supported")
    steps = config["num_train_timesteps"]
    return FlowPrediction(ContinuousTime(FlowSchedule(), factor=float(steps), t_min=1 / steps))


@dataclass(frozen=True)
class _SignedEDM(EDMPreconditioning):
    """EDM with the sign of F turned, which diffusers calls v-prediction: with σ_data = 1 it is that."""

    def coefficients(self, sigma: Float[Tensor, "*batch"]) -> Coefficients:
        c_skip, c_out, c_in = super().coefficients(sigma)
        return Coefficients(c_skip, -c_out, c_in)


def _edm(name: str, config: Mapping[str, Any], predicts: str, alphas: Tensor | None) -> Preconditioning:
    if predicts not in ("epsilon", "v_prediction"):
        raise ValueError(f"prediction_type: {predicts!r}; {name} takes epsilon or v_prediction")
    low, high = config.get("sigma_min"), config.get("sigma_max")
    if alphas is not None:  # where the config leaves the range open, it is that of the betas
        ends: list[float] = ((1 - alphas[[0, -1]].double()) / alphas[[0, -1]].double()).sqrt().tolist()
        low, high = ends[0] if low is None else low, ends[1] if high is None else high
    kind = _SignedEDM if predicts == "v_prediction" else EDMPreconditioning
    return kind(config.get("sigma_data", 1.0), low or 0.0, math.inf if high is None else high)


def to_diffusers(
    solver: Solver,
    steps: TimeSteps,
    scheduler: object,
    *,
    rounded: bool = False,
    zero_snr: ZeroSNR | None = None,
) -> Any:
    """A solver of ours with its steps as a scheduler of diffusers (`DiffspaceScheduler`), for any of its pipelines.

    `scheduler`, the one that came with the model or its config, tells what the network was trained on, as for
    `from_diffusers` with the same options. `pipeline.scheduler = to_diffusers(Heun(), EDMSteps(), pipeline.scheduler)`.
    """
    from diffspace.interop.diffusers.scheduler import DiffspaceScheduler

    return DiffspaceScheduler(solver, steps, scheduler, rounded=rounded, zero_snr=zero_snr)
