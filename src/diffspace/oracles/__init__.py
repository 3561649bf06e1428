"""Exact denoisers: distributions whose D, score and density are known at every σ (Appendix B.3)."""

from diffspace.oracles.by_class import ByClass as ByClass
from diffspace.oracles.finite_data import FiniteData as FiniteData
from diffspace.oracles.gaussian import Gaussian as Gaussian
from diffspace.oracles.mixture import GaussianMixture as GaussianMixture
from diffspace.oracles.oracle import Oracle as Oracle
