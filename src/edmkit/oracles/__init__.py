"""Exact denoisers: distributions whose D, score and density are known at every σ (Appendix B.3)."""

from edmkit.oracles.base import Oracle as Oracle
from edmkit.oracles.by_class import ByClass as ByClass
from edmkit.oracles.finite_data import FiniteData as FiniteData
from edmkit.oracles.gaussian import Gaussian as Gaussian
from edmkit.oracles.mixture import GaussianMixture as GaussianMixture
