"""Models of the library diffusers as denoisers of ours, and solvers of ours as its schedulers.

diffusers is imported when something here is called, and not before.
"""

from edmkit.interop.diffusers.autoencoder import Autoencoder as Autoencoder
from edmkit.interop.diffusers.convert import from_diffusers as from_diffusers
from edmkit.interop.diffusers.convert import read_scheduler as read_scheduler
from edmkit.interop.diffusers.convert import to_diffusers as to_diffusers
