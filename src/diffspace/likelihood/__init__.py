"""Likelihoods: ln p(x) by the probability-flow ODE, and bits per dimension of whole-number data."""

from diffspace.likelihood.bits import BitsPerDim as BitsPerDim
from diffspace.likelihood.bits import bits_per_dim as bits_per_dim
from diffspace.likelihood.log_likelihood import LogLikelihood as LogLikelihood
from diffspace.likelihood.log_likelihood import log_likelihood as log_likelihood
from diffspace.likelihood.prior import GaussianPrior as GaussianPrior
from diffspace.likelihood.prior import Prior as Prior
from diffspace.likelihood.trace import ExactTrace as ExactTrace
from diffspace.likelihood.trace import Hutchinson as Hutchinson
from diffspace.likelihood.trace import Trace as Trace
