"""Non-leaking augmentation of images (Appendix F.2): what is done to an image is also told to the network."""

from diffspace.data.augmentation.pipeline import Augmentation as Augmentation
from diffspace.data.augmentation.pipeline import Parameters as Parameters
