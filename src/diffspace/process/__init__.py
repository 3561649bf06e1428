"""The noise process: σ(t), s(t) and the quantities that follow (Section 2 of the paper)."""

from diffspace.process._functions import functions as functions
from diffspace.process.callables import CallableScaling as CallableScaling, CallableSchedule as CallableSchedule
from diffspace.process.diffusion import Process as Process
from diffspace.process.levels import (
    DiscreteLevels as DiscreteLevels,
    IDDPMLevels as IDDPMLevels,
    NoiseLevels as NoiseLevels,
    nearest_level as nearest_level,
    round_to_levels as round_to_levels,
)
from diffspace.process.scalings import (
    Interpolating as Interpolating,
    NoScaling as NoScaling,
    VariancePreserving as VariancePreserving,
)
from diffspace.process.schedules import (
    CosineSchedule as CosineSchedule,
    EDMSchedule as EDMSchedule,
    FlowSchedule as FlowSchedule,
    VESchedule as VESchedule,
    VPSchedule as VPSchedule,
)
