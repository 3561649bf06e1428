"""Inception-v3 with weights from a seed, and two sets of pictures that differ: what parity is shown with.

Default weights of PyTorch's prove nothing: all pictures have the same features then, and FID is 1e-12.
"""

import math

import torch
from torch.nn import functional

from diffspace.metrics.extractors.inception import InceptionV3
from diffspace.tensors import plain_defaults

N = 208  # pictures of a set; subsets of KID have 200
SETS = {"samples": (1, 55.0, 20.0), "real": (2, 40.0, 0.0)}  # seed, contrast, brightness


def state(seed: int = 0) -> dict[str, torch.Tensor]:
    """Kaiming's weights for ReLU, batch normalisation that changes nothing, a last layer of variance 900/2048."""
    with plain_defaults("meta"):
        shapes = InceptionV3().state_dict()
    generator = torch.Generator().manual_seed(seed)

    def drawn(name: str, like: torch.Tensor) -> torch.Tensor:
        if name.endswith("num_batches_tracked"):
            return torch.zeros((), dtype=torch.int64)
        if name.endswith("conv.weight"):
            return torch.randn(like.shape, generator=generator) * math.sqrt(2 / like[0].numel())
        if name == "fc.weight":
            return 30 * torch.randn(like.shape, generator=generator) / math.sqrt(like.shape[1])
        return (torch.ones if name.endswith(("bn.weight", "running_var")) else torch.zeros)(like.shape)

    return {name: drawn(name, like) for name, like in shapes.items()}


def pictures(name: str, n: int = N) -> torch.Tensor:
    """The first n of a set, uint8 (n, 3, 32, 32): coloured clouds with noise."""
    seed, contrast, brightness = SETS[name]
    images = []
    for number in range(n):
        generator = torch.Generator().manual_seed(1000 * seed + number)
        coarse = contrast * torch.randn(1, 3, 4, 4, generator=generator)
        colour = brightness + 40 * torch.randn(1, 3, 1, 1, generator=generator)
        noise = 20 * torch.rand(1, generator=generator) * torch.randn(1, 3, 32, 32, generator=generator)
        images.append(128 + colour + noise + functional.interpolate(coarse, (32, 32), mode="nearest"))
    return torch.cat(images).round().clamp(0, 255).to(torch.uint8)


def features() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features of samples (260, 24) and real data (240, 24), and logits of samples (260, 7), from a seed."""
    generator = torch.Generator().manual_seed(3)
    mix = torch.randn(24, 24, generator=generator) / 5
    samples = 0.3 + torch.randn(260, 24, generator=generator) @ (mix + 0.7 * torch.eye(24))
    real = torch.randn(240, 24, generator=generator) @ (mix.T + torch.eye(24))
    return samples, real, 2 * torch.randn(260, 7, generator=generator)
