"""Networks F(x; c_noise): an MLP for vectors; the U-Nets DDPM++, NCSN++ and ADM for images (Appendix F.1)."""

from diffspace.networks.meta import skeleton as skeleton, without_weights as without_weights
from diffspace.networks.mlp import MLP as MLP
from diffspace.networks.unet import (
    ADM as ADM,
    PAPER_NETWORKS as PAPER_NETWORKS,
    DDPMpp as DDPMpp,
    NCSNpp as NCSNpp,
    paper_network as paper_network,
)
from diffspace.networks.winograd import use_winograd as use_winograd
