"""Network preconditioning (Section 5, Table 1): raw networks made denoisers."""

from edmkit.preconditioning.choices import EDMPreconditioning as EDMPreconditioning
from edmkit.preconditioning.choices import EpsilonPrediction as EpsilonPrediction
from edmkit.preconditioning.choices import FlowPrediction as FlowPrediction
from edmkit.preconditioning.choices import IDDPMPreconditioning as IDDPMPreconditioning
from edmkit.preconditioning.choices import Preconditioning as Preconditioning
from edmkit.preconditioning.choices import VEPreconditioning as VEPreconditioning
from edmkit.preconditioning.choices import VPPreconditioning as VPPreconditioning
from edmkit.preconditioning.choices import VPrediction as VPrediction
from edmkit.preconditioning.choices import X0Prediction as X0Prediction
from edmkit.preconditioning.coefficients import Coefficients as Coefficients
from edmkit.preconditioning.ddpm import ddpm_preconditioning as ddpm_preconditioning
from edmkit.preconditioning.ddpm import from_ddpm as from_ddpm
from edmkit.preconditioning.preconditioned import Preconditioned as Preconditioned
from edmkit.preconditioning.times import ContinuousTime as ContinuousTime
from edmkit.preconditioning.times import InterpolatedIndex as InterpolatedIndex
from edmkit.preconditioning.times import LevelIndex as LevelIndex
from edmkit.preconditioning.times import TimeMap as TimeMap
