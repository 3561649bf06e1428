"""Guidance and conditional sampling: denoisers made of denoisers, which go with one another and with every solver."""

from diffspace.guidance.classifier import ClassifierGuidance as ClassifierGuidance
from diffspace.guidance.extrapolation import AutoGuidance as AutoGuidance
from diffspace.guidance.extrapolation import ClassifierFree as ClassifierFree
from diffspace.guidance.inpainting import Replacement as Replacement
from diffspace.guidance.inpainting import repaint as repaint
from diffspace.guidance.operators import AveragePooling as AveragePooling
from diffspace.guidance.operators import LinearOperator as LinearOperator
from diffspace.guidance.operators import Mask as Mask
from diffspace.guidance.operators import Matrix as Matrix
from diffspace.guidance.posterior import DPS as DPS
from diffspace.guidance.posterior import MMPS as MMPS
from diffspace.guidance.posterior import PiGDM as PiGDM
from diffspace.guidance.thresholding import DynamicThresholding as DynamicThresholding
from diffspace.guidance.weights import GuidanceWeight as GuidanceWeight
from diffspace.guidance.weights import Interval as Interval
from diffspace.guidance.wrapper import Wrapper as Wrapper
