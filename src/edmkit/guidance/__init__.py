"""Guidance and conditional sampling: denoisers made of denoisers, which go with one another and with every solver."""

from edmkit.guidance.classifier import ClassifierGuidance as ClassifierGuidance
from edmkit.guidance.extrapolation import AutoGuidance as AutoGuidance
from edmkit.guidance.extrapolation import ClassifierFree as ClassifierFree
from edmkit.guidance.inpainting import Replacement as Replacement
from edmkit.guidance.inpainting import repaint as repaint
from edmkit.guidance.operators import AveragePooling as AveragePooling
from edmkit.guidance.operators import LinearOperator as LinearOperator
from edmkit.guidance.operators import Mask as Mask
from edmkit.guidance.operators import Matrix as Matrix
from edmkit.guidance.posterior import DPS as DPS
from edmkit.guidance.posterior import MMPS as MMPS
from edmkit.guidance.posterior import PiGDM as PiGDM
from edmkit.guidance.thresholding import DynamicThresholding as DynamicThresholding
from edmkit.guidance.weights import GuidanceWeight as GuidanceWeight
from edmkit.guidance.weights import Interval as Interval
from edmkit.guidance.wrapper import Wrapper as Wrapper
