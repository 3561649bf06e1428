"""Small networks whose every layer tells."""

import torch

import diffspace as ds

SMALL = {"model_channels": 8, "channel_mult": (1, 2), "num_blocks": 1}


def make_denoiser(network=ds.networks.DDPMpp, choice=None, shape=(3, 8, 8), **options):
    torch.manual_seed(0)
    if options.get("label_dim"):
        options = {"label_dropout": 0.1, **options}
    made = network(shape, **{**SMALL, "attn_resolutions": (4,), **options})
    with torch.no_grad():
        for parameter in made.parameters():  # last layers start at zero, which would hide mistakes
            parameter.add_(0.05 * torch.randn_like(parameter))
    return ds.Preconditioned(made, choice or ds.EDMPreconditioning(0.5)).eval()
