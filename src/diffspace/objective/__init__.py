"""What a denoiser is trained for: noise distributions p(σ), weights λ(σ) and the loss (Section 5)."""

from diffspace.objective.adaptive import AdaptiveNoise as AdaptiveNoise
from diffspace.objective.by_sigma import LossBySigma as LossBySigma, loss_by_sigma as loss_by_sigma
from diffspace.objective.loss import DenoisingLoss as DenoisingLoss, Terms as Terms, denoising_error as denoising_error
from diffspace.objective.loss_weights import (
    EDMWeight as EDMWeight,
    InverseVariance as InverseVariance,
    UniformWeight as UniformWeight,
)
from diffspace.objective.noise import (
    IDDPMUniform as IDDPMUniform,
    LogNormal as LogNormal,
    LogUniform as LogUniform,
    NoiseDistribution as NoiseDistribution,
    VPUniform as VPUniform,
)
from diffspace.objective.sigma_bins import SigmaBins as SigmaBins
from diffspace.objective.uncertainty import Uncertainty as Uncertainty
