"""The four columns of Table 1: which solver, steps, process, preconditioning and noise distribution go together."""

from __future__ import annotations

from dataclasses import dataclass

from diffspace.objective import IDDPMUniform, LogNormal, LogUniform, NoiseDistribution, VPUniform
from diffspace.preconditioning import (
    EDMPreconditioning,
    IDDPMPreconditioning,
    Preconditioning,
    VEPreconditioning,
    VPPreconditioning,
)
from diffspace.process import EDMSchedule, Process, VESchedule, VPSchedule
from diffspace.sampling import EDMSteps, Euler, Heun, IDDPMSteps, VESteps, VPSteps
from diffspace.sampling.steps import RangedSteps

__all__ = ["EDM", "IDDPM", "VE", "VP", "Preset"]


@dataclass(frozen=True)
class Preset:
    """One column of Table 1; the weight of each is λ = 1/c_out² of its preconditioning."""

    name: str
    solver: Euler | Heun
    steps: RangedSteps
    process: Process
    preconditioning: Preconditioning
    noise: NoiseDistribution


VP = Preset("vp", Euler(), VPSteps(1000), Process(VPSchedule()), VPPreconditioning(), VPUniform())
"""Song et al. 2021, variance preserving."""

VE = Preset("ve", Euler(), VESteps(1000), Process(VESchedule()), VEPreconditioning(), LogUniform())
"""Song et al. 2021, variance exploding."""

IDDPM = Preset("iddpm", Euler(), IDDPMSteps(250), Process(EDMSchedule()), IDDPMPreconditioning(), IDDPMUniform())
"""Nichol and Dhariwal 2021 with the deterministic sampler of DDIM."""

EDM = Preset("edm", Heun(), EDMSteps(18), Process(EDMSchedule()), EDMPreconditioning(), LogNormal())
"""The paper's own choices."""
