"""The top level of `diffspace`, imported at first use: all exports of the core packages, and the names below."""

from diffspace.conditions import Condition as Condition
from diffspace.exporting import export as export
from diffspace.likelihood import *
from diffspace.loading import load as load
from diffspace.model import Model as Model
from diffspace.notebook import ProgressBar as ProgressBar
from diffspace.objective import *
from diffspace.parts import register as register
from diffspace.preconditioning import *
from diffspace.process import *
from diffspace.protocols import Cond as Cond, Denoiser as Denoiser, Encoder as Encoder, Network as Network
from diffspace.sampler_files import load_samplers as load_samplers, save_sampler as save_sampler
from diffspace.sampling import *
from diffspace.solverlab import (
    Reference as Reference,
    fit_solver as fit_solver,
    optimize_steps as optimize_steps,
    reference as reference,
)
from diffspace.transform import Transform as Transform
