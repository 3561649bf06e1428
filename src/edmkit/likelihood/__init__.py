"""Likelihoods: ln p(x) by the probability-flow ODE, and bits per dimension of whole-number data."""

from edmkit.likelihood.bits import BitsPerDim as BitsPerDim
from edmkit.likelihood.bits import bits_per_dim as bits_per_dim
from edmkit.likelihood.log_likelihood import LogLikelihood as LogLikelihood
from edmkit.likelihood.log_likelihood import log_likelihood as log_likelihood
from edmkit.likelihood.prior import GaussianPrior as GaussianPrior
from edmkit.likelihood.prior import Prior as Prior
from edmkit.likelihood.trace import ExactTrace as ExactTrace
from edmkit.likelihood.trace import Hutchinson as Hutchinson
from edmkit.likelihood.trace import Trace as Trace
