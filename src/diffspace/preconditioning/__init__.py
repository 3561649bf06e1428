"""Network preconditioning (Section 5, Table 1): raw networks made denoisers."""

from diffspace.preconditioning.choices import (
    Coefficients as Coefficients,
    ContinuousTime as ContinuousTime,
    EDMPreconditioning as EDMPreconditioning,
    EpsilonPrediction as EpsilonPrediction,
    FlowPrediction as FlowPrediction,
    IDDPMPreconditioning as IDDPMPreconditioning,
    InterpolatedIndex as InterpolatedIndex,
    LevelIndex as LevelIndex,
    Preconditioning as Preconditioning,
    TimeMap as TimeMap,
    VEPreconditioning as VEPreconditioning,
    VPPreconditioning as VPPreconditioning,
    VPrediction as VPrediction,
    X0Prediction as X0Prediction,
)
from diffspace.preconditioning.ddpm import ddpm_preconditioning as ddpm_preconditioning, from_ddpm as from_ddpm
from diffspace.preconditioning.preconditioned import Preconditioned as Preconditioned
