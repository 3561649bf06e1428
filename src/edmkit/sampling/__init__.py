"""Sampling (Sections 3 and 4): time steps, solvers, churn and the driver that puts them together."""

from edmkit.sampling.churn import Churn as Churn
from edmkit.sampling.driver import State as State
from edmkit.sampling.latents import interpolate as interpolate
from edmkit.sampling.sample import Samples as Samples
from edmkit.sampling.sample import Trajectory as Trajectory
from edmkit.sampling.sample import decode as decode
from edmkit.sampling.sample import encode as encode
from edmkit.sampling.sample import sample as sample
from edmkit.sampling.sample import sample_states as sample_states
from edmkit.sampling.sample import score as score
from edmkit.sampling.solvers import Euler as Euler
from edmkit.sampling.solvers import Heun as Heun
from edmkit.sampling.streams import initial_latents as initial_latents
from edmkit.sampling.streams import random_labels as random_labels
from edmkit.sampling.streams import step_noise as step_noise
from edmkit.sampling.streams import substreams as substreams
from edmkit.sampling.time_steps import EDMSteps as EDMSteps
from edmkit.sampling.time_steps import GivenSteps as GivenSteps
from edmkit.sampling.time_steps import GivenTimes as GivenTimes
from edmkit.sampling.time_steps import IDDPMSteps as IDDPMSteps
from edmkit.sampling.time_steps import LogLinearSteps as LogLinearSteps
from edmkit.sampling.time_steps import RangedSteps as RangedSteps
from edmkit.sampling.time_steps import VESteps as VESteps
from edmkit.sampling.time_steps import VPSteps as VPSteps
