"""Exact denoisers: distributions whose D, score and density are known at every σ (Appendix B.3)."""

from diffspace.oracles.finite_data import FiniteData as FiniteData
from diffspace.oracles.gaussian import Gaussian as Gaussian, GaussianMixture as GaussianMixture
from diffspace.oracles.oracle import ByClass as ByClass, Oracle as Oracle
