"""Models of the library diffusers as denoisers of ours, and solvers of ours as its schedulers.

diffusers is imported when something here is called, and not before.
"""

from diffspace.interop.diffusers.autoencoder import Autoencoder as Autoencoder
from diffspace.interop.diffusers.convert import from_diffusers as from_diffusers
from diffspace.interop.diffusers.convert import read_scheduler as read_scheduler
from diffspace.interop.diffusers.convert import to_diffusers as to_diffusers
