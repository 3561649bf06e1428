"""What a denoiser is trained for: noise distributions p(σ), weights λ(σ) and the loss (Section 5)."""

from edmkit.objective.adaptive import AdaptiveNoise as AdaptiveNoise
from edmkit.objective.by_sigma import LossBySigma as LossBySigma
from edmkit.objective.by_sigma import loss_by_sigma as loss_by_sigma
from edmkit.objective.loss import DenoisingLoss as DenoisingLoss
from edmkit.objective.loss import Terms as Terms
from edmkit.objective.loss import denoising_error as denoising_error
from edmkit.objective.noise import IDDPMUniform as IDDPMUniform
from edmkit.objective.noise import LogNormal as LogNormal
from edmkit.objective.noise import LogUniform as LogUniform
from edmkit.objective.noise import NoiseDistribution as NoiseDistribution
from edmkit.objective.noise import VPUniform as VPUniform
from edmkit.objective.sigma_bins import SigmaBins as SigmaBins
from edmkit.objective.uncertainty import Uncertainty as Uncertainty
from edmkit.objective.weights import EDMWeight as EDMWeight
from edmkit.objective.weights import InverseVariance as InverseVariance
from edmkit.objective.weights import UniformWeight as UniformWeight
