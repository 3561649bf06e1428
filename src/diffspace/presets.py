"""The four columns of Table 1: which sampler, preconditioning and noise distribution go together."""

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
from diffspace.process import Process, VESchedule, VPSchedule
from diffspace.sampling import EDMSteps, Euler, Heun, IDDPMSteps, Sampler, VESteps, VPSteps


@dataclass(frozen=True)
class Preset:
    """One column of Table 1; the weight of each is λ = 1/c_out² of its preconditioning."""

    name: str
    sampler: Sampler
    preconditioning: Preconditioning
    noise: NoiseDistribution


VP = Preset("vp", Sampler(VPSteps(1000), Euler(), Process(VPSchedule())), VPPreconditioning(), VPUniform())
"""Song et al. 2021, variance preserving."""

VE = Preset("ve", Sampler(VESteps(1000), Euler(), Process(VESchedule())), VEPreconditioning(), LogUniform())
"""Song et al. 2021, variance exploding."""

IDDPM = Preset("iddpm", Sampler(IDDPMSteps(250), Euler()), IDDPMPreconditioning(), IDDPMUniform())
"""Nichol and Dhariwal 2021 with the deterministic sampler of DDIM."""

EDM = Preset("edm", Sampler(EDMSteps(18), Heun()), EDMPreconditioning(), LogNormal())
"""The paper's own choices."""
