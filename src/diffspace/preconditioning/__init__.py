"""Network preconditioning (Section 5, Table 1): raw networks made denoisers."""

from diffspace.preconditioning.choices import EDMPreconditioning as EDMPreconditioning
from diffspace.preconditioning.choices import EpsilonPrediction as EpsilonPrediction
from diffspace.preconditioning.choices import FlowPrediction as FlowPrediction
from diffspace.preconditioning.choices import IDDPMPreconditioning as IDDPMPreconditioning
from diffspace.preconditioning.choices import Preconditioning as Preconditioning
from diffspace.preconditioning.choices import VEPreconditioning as VEPreconditioning
from diffspace.preconditioning.choices import VPPreconditioning as VPPreconditioning
from diffspace.preconditioning.choices import VPrediction as VPrediction
from diffspace.preconditioning.choices import X0Prediction as X0Prediction
from diffspace.preconditioning.coefficients import Coefficients as Coefficients
from diffspace.preconditioning.ddpm import ddpm_preconditioning as ddpm_preconditioning
from diffspace.preconditioning.ddpm import from_ddpm as from_ddpm
from diffspace.preconditioning.preconditioned import Preconditioned as Preconditioned
from diffspace.preconditioning.times import ContinuousTime as ContinuousTime
from diffspace.preconditioning.times import InterpolatedIndex as InterpolatedIndex
from diffspace.preconditioning.times import LevelIndex as LevelIndex
from diffspace.preconditioning.times import TimeMap as TimeMap
