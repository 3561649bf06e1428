"""The recipe that a data set gets when none is given: from its shape, its size and what inspection measures."""

from __future__ import annotations

import math
from typing import Any

from edmkit.data import DataSet, Inspection, Proposals
from edmkit.objective import LogNormal
from edmkit.train.recipe import DataRecipe

__all__ = ["default_config"]


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


def default_config(
    data: DataSet, read_as: DataRecipe, inspection: Inspection, images: int | None = None
) -> dict[str, Any]:
    """A config to which overrides are applied before it is checked.

    σ_data is that of the data, and the training noise goes with it. The length, unless given, is 100 epochs and at
    least 220,000 samples; small sets get small batches. The learning rate rises over the first twentieth and falls over
    the last half; the average of the weights has a half-life of a twentieth.
    """
    proposals = inspection.proposals
    images = max(100 * len(data), 220_000) if images is None else images
    return {
        "data": read_as.model_dump(mode="json"),
        "network": _network(data.sample_shape),
        "preconditioning": {"kind": "edm", "sigma_data": _rounded(proposals.sigma_data.value)},
        "noise": _noise(data.sample_shape, proposals),
        "images": images,
        "batch_size": 64 if len(data) < 10_000 else 256,
        "learning_rate": 2e-3,
        "ramp_images": images // 20,
        "decay_images": images // 2,
        "ema_halflife_images": images // 20,
    }
