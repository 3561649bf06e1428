"""Models of the library diffusers as denoisers, and solvers of diffspace as its schedulers.

diffusers is imported only when something here is called.
"""

from diffspace.interop.diffusers.autoencoder import Autoencoder as Autoencoder
from diffspace.interop.diffusers.convert import from_diffusers as from_diffusers, to_diffusers as to_diffusers
from diffspace.interop.diffusers.parametrization import read_scheduler as read_scheduler
