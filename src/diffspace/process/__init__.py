"""The noise process: σ(t), s(t) and what follows from the two (Section 2 of the paper)."""

from diffspace.process._functions import functions as functions
from diffspace.process.callables import CallableScaling as CallableScaling
from diffspace.process.callables import CallableSchedule as CallableSchedule
from diffspace.process.diffusion import Process as Process
from diffspace.process.levels import DiscreteLevels as DiscreteLevels
from diffspace.process.levels import IDDPMLevels as IDDPMLevels
from diffspace.process.levels import NoiseLevels as NoiseLevels
from diffspace.process.levels import nearest_level as nearest_level
from diffspace.process.levels import round_to_levels as round_to_levels
from diffspace.process.scalings import Interpolating as Interpolating
from diffspace.process.scalings import NoScaling as NoScaling
from diffspace.process.scalings import VariancePreserving as VariancePreserving
from diffspace.process.schedules import CosineSchedule as CosineSchedule
from diffspace.process.schedules import EDMSchedule as EDMSchedule
from diffspace.process.schedules import FlowSchedule as FlowSchedule
from diffspace.process.schedules import VESchedule as VESchedule
from diffspace.process.schedules import VPSchedule as VPSchedule
