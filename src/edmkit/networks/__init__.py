"""Networks F(x; c_noise): an MLP for vectors, the U-Net DDPM++ for images (Appendix F.1)."""

from edmkit.networks.ddpmpp import DDPMpp as DDPMpp
from edmkit.networks.mlp import MLP as MLP
