"""edmkit: the design space of diffusion models (Karras et al. 2022, arXiv:2206.00364).

x_t = s(t)·(x₀ + σ(t)·ε), and a denoiser D(x; σ) gives the score (D − x)/σ². Everything here is about choosing s, σ,
the steps, the solver, the network's preconditioning and its training noise independently of one another (Table 1).
"""

from edmkit import networks as networks
from edmkit import oracles as oracles
from edmkit.loading import load as load
from edmkit.model import Model as Model
from edmkit.objective import DenoisingLoss as DenoisingLoss
from edmkit.objective import EDMWeight as EDMWeight
from edmkit.objective import IDDPMUniform as IDDPMUniform
from edmkit.objective import InverseVariance as InverseVariance
from edmkit.objective import LogNormal as LogNormal
from edmkit.objective import LogUniform as LogUniform
from edmkit.objective import LossBySigma as LossBySigma
from edmkit.objective import NoiseDistribution as NoiseDistribution
from edmkit.objective import UniformWeight as UniformWeight
from edmkit.objective import VPUniform as VPUniform
from edmkit.objective import loss_by_sigma as loss_by_sigma
from edmkit.preconditioning import ContinuousTime as ContinuousTime
from edmkit.preconditioning import EDMPreconditioning as EDMPreconditioning
from edmkit.preconditioning import EpsilonPrediction as EpsilonPrediction
from edmkit.preconditioning import FlowPrediction as FlowPrediction
from edmkit.preconditioning import IDDPMPreconditioning as IDDPMPreconditioning
from edmkit.preconditioning import LevelIndex as LevelIndex
from edmkit.preconditioning import Preconditioned as Preconditioned
from edmkit.preconditioning import Preconditioning as Preconditioning
from edmkit.preconditioning import VEPreconditioning as VEPreconditioning
from edmkit.preconditioning import VPPreconditioning as VPPreconditioning
from edmkit.preconditioning import VPrediction as VPrediction
from edmkit.preconditioning import X0Prediction as X0Prediction
from edmkit.process import CosineSchedule as CosineSchedule
from edmkit.process import DiscreteLevels as DiscreteLevels
from edmkit.process import EDMSchedule as EDMSchedule
from edmkit.process import FlowSchedule as FlowSchedule
from edmkit.process import IDDPMLevels as IDDPMLevels
from edmkit.process import Interpolating as Interpolating
from edmkit.process import NoScaling as NoScaling
from edmkit.process import Process as Process
from edmkit.process import VariancePreserving as VariancePreserving
from edmkit.process import VESchedule as VESchedule
from edmkit.process import VPSchedule as VPSchedule
from edmkit.protocols import Cond as Cond
from edmkit.protocols import Denoiser as Denoiser
from edmkit.protocols import Network as Network
from edmkit.sampling import DEIS as DEIS
from edmkit.sampling import IPNDM as IPNDM
from edmkit.sampling import LMS as LMS
from edmkit.sampling import AdamsBashforth as AdamsBashforth
from edmkit.sampling import AnalyticalFirstStep as AnalyticalFirstStep
from edmkit.sampling import BetaSteps as BetaSteps
from edmkit.sampling import Churn as Churn
from edmkit.sampling import DormandPrince as DormandPrince
from edmkit.sampling import DPMSolver2 as DPMSolver2
from edmkit.sampling import DPMSolver3 as DPMSolver3
from edmkit.sampling import DPMSolverPP2M as DPMSolverPP2M
from edmkit.sampling import DPMSolverPP2S as DPMSolverPP2S
from edmkit.sampling import DPMSolverPP3M as DPMSolverPP3M
from edmkit.sampling import DPMSolverPP3S as DPMSolverPP3S
from edmkit.sampling import EDMSteps as EDMSteps
from edmkit.sampling import Euler as Euler
from edmkit.sampling import ExponentialHeun as ExponentialHeun
from edmkit.sampling import GivenSteps as GivenSteps
from edmkit.sampling import GivenTimes as GivenTimes
from edmkit.sampling import Heun as Heun
from edmkit.sampling import IDDPMSteps as IDDPMSteps
from edmkit.sampling import LogLinearSteps as LogLinearSteps
from edmkit.sampling import RungeKutta4 as RungeKutta4
from edmkit.sampling import Samples as Samples
from edmkit.sampling import ScheduleSteps as ScheduleSteps
from edmkit.sampling import State as State
from edmkit.sampling import UniPC as UniPC
from edmkit.sampling import VESteps as VESteps
from edmkit.sampling import VPSteps as VPSteps
from edmkit.sampling import count_evaluations as count_evaluations
from edmkit.sampling import encode as encode
from edmkit.sampling import initial_latents as initial_latents
from edmkit.sampling import random_labels as random_labels
from edmkit.sampling import sample as sample
from edmkit.sampling import sample_states as sample_states
from edmkit.sampling import score as score
from edmkit.sampling import step_noise as step_noise
from edmkit.transform import Transform as Transform

__version__ = "0.1.0.dev0"
