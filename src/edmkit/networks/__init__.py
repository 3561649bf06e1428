"""Networks F(x; c_noise): an MLP for vectors; the U-Nets DDPM++, NCSN++ and ADM for images (Appendix F.1)."""

from edmkit.networks.mlp import MLP as MLP
from edmkit.networks.paper import PAPER_NETWORKS as PAPER_NETWORKS
from edmkit.networks.paper import paper_network as paper_network
from edmkit.networks.unet import ADM as ADM
from edmkit.networks.unet import DDPMpp as DDPMpp
from edmkit.networks.unet import NCSNpp as NCSNpp
from edmkit.networks.winograd import use_winograd as use_winograd
