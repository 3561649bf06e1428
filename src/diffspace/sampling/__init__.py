"""Sampling (Sections 3 and 4): time steps, solvers, churn and the driver that puts them together."""

from diffspace.sampling.interpolation import interpolate as interpolate
from diffspace.sampling.runs import (
    Samples as Samples,
    Trajectory as Trajectory,
    decode as decode,
    encode as encode,
    sample as sample,
    sample_batches as sample_batches,
    sample_from as sample_from,
    sample_states as sample_states,
    score as score,
)
from diffspace.sampling.sampler import (
    Churn as Churn,
    Execution as Execution,
    Sampler as Sampler,
    State as State,
    count_evaluations as count_evaluations,
)
from diffspace.sampling.solvers.analytical import AnalyticalFirstStep as AnalyticalFirstStep
from diffspace.sampling.solvers.base import Point as Point, Solver as Solver, UnscaledSolver as UnscaledSolver
from diffspace.sampling.solvers.dormand_prince import DormandPrince as DormandPrince
from diffspace.sampling.solvers.dpm_solver import (
    DPMSolver2 as DPMSolver2,
    DPMSolver3 as DPMSolver3,
    DPMSolverPP2M as DPMSolverPP2M,
    DPMSolverPP2S as DPMSolverPP2S,
    DPMSolverPP3M as DPMSolverPP3M,
    DPMSolverPP3S as DPMSolverPP3S,
    ExponentialHeun as ExponentialHeun,
)
from diffspace.sampling.solvers.multistep import (
    DEIS as DEIS,
    IPNDM as IPNDM,
    LMS as LMS,
    AdamsBashforth as AdamsBashforth,
    FittedSolver as FittedSolver,
)
from diffspace.sampling.solvers.runge_kutta import Euler as Euler, Heun as Heun, RungeKutta4 as RungeKutta4
from diffspace.sampling.solvers.stochastic import (
    DPMSolverPP2MSDE as DPMSolverPP2MSDE,
    DPMSolverPP3MSDE as DPMSolverPP3MSDE,
    DPMSolverPPSDE as DPMSolverPPSDE,
    EulerAncestral as EulerAncestral,
    GeneralSDE as GeneralSDE,
    PredictorCorrector as PredictorCorrector,
)
from diffspace.sampling.solvers.unipc import UniPC as UniPC
from diffspace.sampling.steps import (
    BetaSteps as BetaSteps,
    EDMSteps as EDMSteps,
    GivenSteps as GivenSteps,
    GivenTimes as GivenTimes,
    IDDPMSteps as IDDPMSteps,
    LevelSteps as LevelSteps,
    LogLinearSteps as LogLinearSteps,
    RangedSteps as RangedSteps,
    ScheduleSteps as ScheduleSteps,
    VESteps as VESteps,
    VPSteps as VPSteps,
)
from diffspace.sampling.streams import (
    initial_latents as initial_latents,
    random_labels as random_labels,
    step_noise as step_noise,
    substreams as substreams,
)
