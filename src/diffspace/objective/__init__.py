"""What a denoiser is trained for: noise distributions p(σ), weights λ(σ) and the loss (Section 5)."""

from diffspace.objective.adaptive import AdaptiveNoise as AdaptiveNoise
from diffspace.objective.by_sigma import (
    LossBySigma as LossBySigma,
    SigmaBins as SigmaBins,
    loss_by_sigma as loss_by_sigma,
)
from diffspace.objective.loss import (
    DenoisingLoss as DenoisingLoss,
    EDMWeight as EDMWeight,
    InverseVariance as InverseVariance,
    Terms as Terms,
    UniformWeight as UniformWeight,
    denoising_error as denoising_error,
)
from diffspace.objective.noise import (
    IDDPMUniform as IDDPMUniform,
    LogNormal as LogNormal,
    LogUniform as LogUniform,
    NoiseDistribution as NoiseDistribution,
    VPUniform as VPUniform,
)
from diffspace.objective.uncertainty import Uncertainty as Uncertainty
