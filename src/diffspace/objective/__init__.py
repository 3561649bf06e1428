"""What a denoiser is trained for: noise distributions p(σ), weights λ(σ) and the loss (Section 5)."""

from diffspace.objective.adaptive import AdaptiveNoise as AdaptiveNoise
from diffspace.objective.by_sigma import LossBySigma as LossBySigma
from diffspace.objective.by_sigma import loss_by_sigma as loss_by_sigma
from diffspace.objective.loss import DenoisingLoss as DenoisingLoss
from diffspace.objective.loss import Terms as Terms
from diffspace.objective.loss import denoising_error as denoising_error
from diffspace.objective.noise import IDDPMUniform as IDDPMUniform
from diffspace.objective.noise import LogNormal as LogNormal
from diffspace.objective.noise import LogUniform as LogUniform
from diffspace.objective.noise import NoiseDistribution as NoiseDistribution
from diffspace.objective.noise import VPUniform as VPUniform
from diffspace.objective.sigma_bins import SigmaBins as SigmaBins
from diffspace.objective.uncertainty import Uncertainty as Uncertainty
from diffspace.objective.weights import EDMWeight as EDMWeight
from diffspace.objective.weights import InverseVariance as InverseVariance
from diffspace.objective.weights import UniformWeight as UniformWeight
