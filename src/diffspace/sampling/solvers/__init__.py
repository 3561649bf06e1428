"""Solvers of the ODE and of the SDE."""

from diffspace.sampling.solvers.analytical import AnalyticalFirstStep as AnalyticalFirstStep
from diffspace.sampling.solvers.dormand_prince import DormandPrince as DormandPrince
from diffspace.sampling.solvers.dpm_solver import DPMSolver2 as DPMSolver2
from diffspace.sampling.solvers.dpm_solver import DPMSolver3 as DPMSolver3
from diffspace.sampling.solvers.dpm_solver import DPMSolverPP2M as DPMSolverPP2M
from diffspace.sampling.solvers.dpm_solver import DPMSolverPP2S as DPMSolverPP2S
from diffspace.sampling.solvers.dpm_solver import DPMSolverPP3M as DPMSolverPP3M
from diffspace.sampling.solvers.dpm_solver import DPMSolverPP3S as DPMSolverPP3S
from diffspace.sampling.solvers.dpm_solver import ExponentialHeun as ExponentialHeun
from diffspace.sampling.solvers.fitted import FittedSolver as FittedSolver
from diffspace.sampling.solvers.heun import Euler as Euler
from diffspace.sampling.solvers.heun import Heun as Heun
from diffspace.sampling.solvers.ipndm import IPNDM as IPNDM
from diffspace.sampling.solvers.multistep import DEIS as DEIS
from diffspace.sampling.solvers.multistep import LMS as LMS
from diffspace.sampling.solvers.multistep import AdamsBashforth as AdamsBashforth
from diffspace.sampling.solvers.runge_kutta import RungeKutta4 as RungeKutta4
from diffspace.sampling.solvers.stochastic import DPMSolverPP2MSDE as DPMSolverPP2MSDE
from diffspace.sampling.solvers.stochastic import DPMSolverPP3MSDE as DPMSolverPP3MSDE
from diffspace.sampling.solvers.stochastic import DPMSolverPPSDE as DPMSolverPPSDE
from diffspace.sampling.solvers.stochastic import EulerAncestral as EulerAncestral
from diffspace.sampling.solvers.stochastic import GeneralSDE as GeneralSDE
from diffspace.sampling.solvers.stochastic import PredictorCorrector as PredictorCorrector
from diffspace.sampling.solvers.unipc import UniPC as UniPC
