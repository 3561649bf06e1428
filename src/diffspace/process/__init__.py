"""The noise process: σ(t), s(t) and the quantities that follow (Section 2 of the paper)."""

from diffspace.process.diffusion import Process as Process
from diffspace.process.formula import (
    Formula as Formula,
    FormulaScaling as FormulaScaling,
    FormulaSchedule as FormulaSchedule,
)
from diffspace.process.levels import (
    DiscreteLevels as DiscreteLevels,
    IDDPMLevels as IDDPMLevels,
    NoiseLevels as NoiseLevels,
    nearest_level as nearest_level,
    round_to_levels as round_to_levels,
)
from diffspace.process.schedules import (
    CallableScaling as CallableScaling,
    CallableSchedule as CallableSchedule,
    CosineSchedule as CosineSchedule,
    EDMSchedule as EDMSchedule,
    FlowSchedule as FlowSchedule,
    Interpolating as Interpolating,
    NoScaling as NoScaling,
    VariancePreserving as VariancePreserving,
    VESchedule as VESchedule,
    VPSchedule as VPSchedule,
    functions as functions,
)
