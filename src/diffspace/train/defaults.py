"""The recipe that a data set gets when none is given: from its shape, its size and what inspection measures."""

from __future__ import annotations

import math
from typing import Any

import torch

from diffspace.data import DataSet
from diffspace.inspection import Inspection, Proposals
from diffspace.objective import LogNormal
from diffspace.train.recipe import DataRecipe

__all__ = ["default_config"]

_SMALL = 20_000


def _network(sample_shape: tuple[int, ...]) -> dict[str, Any]:
    """An MLP for anything but images; for images a DDPM++ whose width and depth grow with their size."""
    if len(sample_shape) != 3:
        return {"kind": "mlp", "width": 64 if sample_shape == (2,) else 128}
    side = max(sample_shape[1:])
    if side <= 16:
        return {
            "kind": "ddpmpp",
            "model_channels": 32,
            "channel_mult": [1, 2],
            "num_blocks": 1,
            "attn_resolutions": [-(-side // 2)],
            "dropout": 0.05,
        }
    channels = 64 if side <= 32 else 96
    mults = [1, 2, 2] if side <= 64 else [1, 2, 2, 2]
    return {"kind": "ddpmpp", "model_channels": channels, "channel_mult": mults, "num_blocks": 2}


def _rounded(value: float) -> float:
    """Three figures: what inspection measures is not known better, and a person may want to read it."""
    return float(f"{value:.3g}")


def _noise(sample_shape: tuple[int, ...], proposals: Proposals) -> dict[str, Any]:
    """For images the paper's log-normal, moved to their σ_data; for anything else what inspection proposes.

    On digits, whose proposal is lower and narrower, the paper's pair gave the better samples: the high levels, where an
    image as a whole is decided, need their share of training.
    """
    if len(sample_shape) == 3:
        paper = LogNormal()
        ratio = proposals.sigma_data.value / proposals.sigma_data.paper
        return {"kind": "lognormal", "P_mean": _rounded(paper.P_mean + math.log(ratio)), "P_std": paper.P_std}
    return {
        "kind": "lognormal",
        "P_mean": _rounded(proposals.P_mean.value),
        "P_std": _rounded(proposals.P_std.value),
    }


def _regularisation(sample_shape: tuple[int, ...], count: int) -> tuple[float, float]:
    """(dropout, probability of augmentation) of images by their number, as the paper has them (Table 7).

    15,000 of AFHQv2, 50,000 of CIFAR-10, 1.28 million of ImageNet. Images of at most 16 pixels are left as they are:
    digits are the one such set that was tried, and the transforms of photographs are not theirs.
    """
    if len(sample_shape) != 3 or max(sample_shape[1:]) <= 16:
        return 0.0, 0.0
    if count < 20_000:
        return 0.25, 0.15
    return (0.13, 0.12) if count < 500_000 else (0.10, 0.0)


def _precision(device: torch.device | None) -> str:
    """bfloat16 where a GPU has it: float32 weights, and products at several times the rate."""
    if device is None or device.type != "cuda":
        return "float32"
    return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"


def default_config(
    data: DataSet,
    read_as: DataRecipe,
    inspection: Inspection,
    images: int | None = None,
    device: torch.device | None = None,
) -> dict[str, Any]:
    """A config to which overrides are applied before it is checked.

    σ_data is that of the data, and the training noise goes with it. The length, unless given, is 100 epochs and at
    least 220,000 samples; small sets get small batches. The learning rate rises over the first twentieth and falls over
    the last half; the average of the weights has a half-life of a twentieth. The held-out loss is measured ten times;
    on a small set, training ends where it has not fallen for three.
    """
    proposals = inspection.proposals
    images = max(100 * len(data), 220_000) if images is None else images
    measured = max(1, images // 10)
    network = _network(data.sample_shape)
    dropout, augmentation = _regularisation(data.sample_shape, len(data))
    if dropout:
        network["dropout"] = dropout
    return {
        "data": read_as.config,
        "network": network,
        "preconditioning": {"kind": "edm", "sigma_data": _rounded(proposals.sigma_data.value)},
        "noise": _noise(data.sample_shape, proposals),
        "augment": {"kind": "edm", "probability": augmentation} if augmentation else None,
        "precision": _precision(device),
        "images": images,
        "batch_size": 64 if len(data) < 10_000 else 256,
        "learning_rate": 2e-3,
        "ramp_images": images // 20,
        "decay_images": images // 2,
        "ema_halflife_images": images // 20,
        "held_out_images": measured,
        "patience_images": 3 * measured if len(data) < _SMALL else 0,
    }
