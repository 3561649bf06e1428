"""Likelihoods: ln p(x) by the probability-flow ODE, and bits per dimension of whole-number data."""

from diffspace.likelihood.bits import BitsPerDim as BitsPerDim, bits_per_dim as bits_per_dim
from diffspace.likelihood.log_likelihood import LogLikelihood as LogLikelihood, log_likelihood as log_likelihood
from diffspace.likelihood.prior import GaussianPrior as GaussianPrior, Prior as Prior
from diffspace.likelihood.trace import ExactTrace as ExactTrace, Hutchinson as Hutchinson, Trace as Trace
