"""Guidance and conditional sampling: denoisers made from denoisers, for any solver and in any combination."""

from diffspace.guidance.classifier import ClassifierGuidance as ClassifierGuidance
from diffspace.guidance.extrapolation import AutoGuidance as AutoGuidance, ClassifierFree as ClassifierFree
from diffspace.guidance.inpainting import Replacement as Replacement, repaint as repaint
from diffspace.guidance.posterior import (
    DPS as DPS,
    MMPS as MMPS,
    AveragePooling as AveragePooling,
    LinearOperator as LinearOperator,
    Mask as Mask,
    Matrix as Matrix,
    PiGDM as PiGDM,
)
from diffspace.guidance.thresholding import DynamicThresholding as DynamicThresholding
from diffspace.guidance.wrapper import GuidanceWeight as GuidanceWeight, Interval as Interval, Wrapper as Wrapper
