"""The parametrisation of a network of diffusers, which its scheduler describes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from diffspace._shapes import Float, Tensor
from diffspace.checks import require_package
from diffspace.preconditioning import (
    Coefficients,
    ContinuousTime,
    EDMPreconditioning,
    FlowPrediction,
    Preconditioning,
    ddpm_preconditioning,
)
from diffspace.preconditioning.ddpm import Predicts, ZeroSNR
from diffspace.process import FlowSchedule

_PREDICTS: Mapping[str, Predicts] = {"epsilon": "epsilon", "v_prediction": "v", "sample": "x0"}


def read_scheduler(scheduler: object, *, rounded: bool = False, zero_snr: ZeroSNR | None = None) -> Preconditioning:
    """The preconditioning of a network of diffusers, read from its scheduler.

    - A table of ᾱ (every scheduler with betas) and ε-, v- or x₀-prediction: `ddpm_preconditioning`, with the same
      `rounded` and `zero_snr`. The table is the scheduler's own, in its float32. Its last level has no signal where
      the betas are rescaled to zero terminal SNR, whatever number the scheduler stores there.
    - Flow prediction: times t = σ/(1 + σ) from 1/M to 1, and c_noise = M·t.
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
            f"scheduler: expected one with a table of alphas_cumprod, of flow matching or of EDM, got {name} with "
            f"prediction_type {predicts!r}"
        )
    if predicts not in _PREDICTS:
        raise ValueError(f"prediction_type: expected {', '.join(_PREDICTS)} or flow_prediction, got {predicts!r}")
    if config.get("rescale_betas_zero_snr"):
        alphas = torch.cat([alphas[:-1], torch.zeros_like(alphas[-1:])])
    return ddpm_preconditioning(alphas, predicts=_PREDICTS[predicts], rounded=rounded, zero_snr=zero_snr)


def scheduler_object(scheduler: object) -> Any:
    """The scheduler, made from its config where that is given."""
    diffusers = require_package("diffusers", "scheduler:")

    if isinstance(scheduler, Mapping):
        name = scheduler.get("_class_name")
        kind = getattr(diffusers, name, None) if isinstance(name, str) else None
        if not (isinstance(kind, type) and issubclass(kind, diffusers.SchedulerMixin)):
            raise ValueError(f"scheduler: expected a config with the _class_name of a scheduler, got {name!r}")
        return kind.from_config(dict(scheduler))  # type: ignore[attr-defined]
    if not isinstance(scheduler, diffusers.SchedulerMixin):
        raise ValueError(f"scheduler: expected a scheduler of diffusers or its config, got {type(scheduler).__name__}")
    return scheduler


def _flow(name: str, config: Mapping[str, Any]) -> Preconditioning:
    if config.get("invert_sigmas"):
        raise ValueError(f"invert_sigmas: True is not supported; the network of {name} takes 1 − t")
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
        raise ValueError(f"prediction_type: expected epsilon or v_prediction for {name}, got {predicts!r}")
    low, high = config.get("sigma_min"), config.get("sigma_max")
    if alphas is not None:  # where the config leaves the range open, it is that of the betas
        ends: list[float] = ((1 - alphas[[0, -1]].double()) / alphas[[0, -1]].double()).sqrt().tolist()
        low, high = ends[0] if low is None else low, ends[1] if high is None else high
    kind = _SignedEDM if predicts == "v_prediction" else EDMPreconditioning
    return kind(config.get("sigma_data", 1.0), low or 0.0, math.inf if high is None else high)
