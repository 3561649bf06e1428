"""Models of random weights, whose samples depend on every condition, as those of untrained ones do not."""

import torch

import diffspace as ds
from diffspace.transform import Transform


def random_network(shape, **options):
    torch.manual_seed(0)
    network = ds.networks.MLP(shape, width=24, **options)
    for value in network.parameters():
        torch.nn.init.normal_(value, std=0.25)
    return network


def make_model(shape, transform, **options):
    denoiser = ds.Preconditioned(random_network(shape, **options), ds.EDMPreconditioning(sigma_data=0.5), (0.02, 20.0))
    names = ("a", "b, c", "d")[: options.get("label_dim", 0)]
    return ds.Model(denoiser, transform, names).eval()


DIGITS = Transform((8.0,), (8.0,), lowest=0.0, highest=16.0, kind="integer", dtype="uint8")
