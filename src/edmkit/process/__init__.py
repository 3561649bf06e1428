"""The noise process: σ(t), s(t) and what follows from the two (Section 2 of the paper)."""

from edmkit.process.callables import CallableScaling as CallableScaling
from edmkit.process.callables import CallableSchedule as CallableSchedule
from edmkit.process.levels import DiscreteLevels as DiscreteLevels
from edmkit.process.levels import IDDPMLevels as IDDPMLevels
from edmkit.process.levels import NoiseLevels as NoiseLevels
from edmkit.process.levels import nearest_level as nearest_level
from edmkit.process.levels import round_to_levels as round_to_levels
from edmkit.process.process import Process as Process
from edmkit.process.scalings import Interpolating as Interpolating
from edmkit.process.scalings import NoScaling as NoScaling
from edmkit.process.scalings import VariancePreserving as VariancePreserving
from edmkit.process.schedules import CosineSchedule as CosineSchedule
from edmkit.process.schedules import EDMSchedule as EDMSchedule
from edmkit.process.schedules import FlowSchedule as FlowSchedule
from edmkit.process.schedules import VESchedule as VESchedule
from edmkit.process.schedules import VPSchedule as VPSchedule
