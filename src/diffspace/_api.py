"""What `diffspace` offers at its top level, imported when it is first used.

Everything that the five core packages export is here; the rest is listed by name.
"""

from diffspace.config import register as register
from diffspace.likelihood import *
from diffspace.loading import load as load
from diffspace.model import Model as Model
from diffspace.objective import *
from diffspace.preconditioning import *
from diffspace.process import *
from diffspace.protocols import Cond as Cond
from diffspace.protocols import Denoiser as Denoiser
from diffspace.protocols import Encoder as Encoder
from diffspace.protocols import Network as Network
from diffspace.sampler_files import load_samplers as load_samplers
from diffspace.sampler_files import save_sampler as save_sampler
from diffspace.sampling import *
from diffspace.solverlab import Reference as Reference
from diffspace.solverlab import fit_solver as fit_solver
from diffspace.solverlab import optimize_steps as optimize_steps
from diffspace.solverlab import reference as reference
from diffspace.transform import Transform as Transform
