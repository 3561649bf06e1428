"""Likelihoods: ln p(x) by the probability-flow ODE, and bits per dimension of whole-number data."""

from diffspace.likelihood.bits import BitsPerDim as BitsPerDim, bits_per_dim as bits_per_dim
from diffspace.likelihood.log_likelihood import (
    GaussianPrior as GaussianPrior,
    LogLikelihood as LogLikelihood,
    Prior as Prior,
    log_likelihood as log_likelihood,
)
from diffspace.likelihood.trace import ExactTrace as ExactTrace, Hutchinson as Hutchinson, Trace as Trace
