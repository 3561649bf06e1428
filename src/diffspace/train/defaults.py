"""The default recipe of a data set, from its shape, its size and the measurements of inspection."""

from __future__ import annotations

import math
from typing import Any

import torch

from diffspace.data import DataSet
from diffspace.inspection import Inspection, Proposals
from diffspace.objective import LogNormal
from diffspace.train.recipe import DataRecipe

_SMALL = 20_000
_APART = 1_750  # images between two measurements of the held-out loss, each of which costs as much as 350
_SHORT, _ATTENDED = 8, 256


def _network(sample_shape: tuple[int, ...], count: int) -> tuple[dict[str, Any], float]:
    """(network, probability of augmentation): a DDPM++ for images, signals and volumes, an MLP for vectors.

    Dropout and augmentation follow the number of images, as in Table 7 (15,000 of AFHQv2, 50,000 of CIFAR-10, 1.28
    million of ImageNet). Images of at most 16 pixels have little dropout and no augmentation: on digits, the one such
    set that was tried, the transforms of photographs do not apply.
    """
    if len(sample_shape) != 3 or max(sample_shape[1:]) < _SHORT:
        return _other_network(sample_shape, count), 0.0
    side = max(sample_shape[1:])
    if side <= 16:
        small = {"model_channels": 32, "channel_mult": [1, 2], "num_blocks": 1, "dropout": 0.05}
        return {"kind": "ddpmpp", **small, "attn_resolutions": [-(-side // 2)]}, 0.0
    dropout, augmentation = (0.25, 0.15) if count < 20_000 else (0.13, 0.12) if count < 500_000 else (0.10, 0.0)
    channels, mults = 64 if side <= 32 else 96, [1, 2, 2] if side <= 64 else [1, 2, 2, 2]
    options = {"model_channels": channels, "channel_mult": mults, "num_blocks": 2, "dropout": dropout}
    return {"kind": "ddpmpp", **options}, augmentation


def _other_network(sample_shape: tuple[int, ...], count: int) -> dict[str, Any]:
    """An MLP for vectors and what is about as small; a U-Net in one or three dimensions for signals and volumes.

    The U-Net has levels down to about eight values a side, and attention at the first one below its input that has at
    most as many positions as the 16×16 of the paper's.
    """
    sides = sample_shape[1:]
    if len(sides) not in (1, 3) or max(sides) < _SHORT:
        return {"kind": "mlp", "width": 64 if sample_shape == (2,) else 128}
    levels = max(2, min(4, max(sides).bit_length() - 3))
    positions = [math.prod(-(-side // 2**i) for side in sides) for i in range(levels)]
    attended = next((i for i in range(1, levels) if positions[i] <= _ATTENDED), None)
    multiple = 2 ** (levels - 1)
    longest = max(sides) + -max(sides) % multiple
    return {
        "kind": "ddpmpp",
        "model_channels": 32,
        "channel_mult": [1, 2, 2, 2][:levels],
        "num_blocks": 1,
        "dropout": 0.05 if count < _SMALL else 0.0,
        "attn_resolutions": [] if attended is None else [longest >> attended],
    }


def _rounded(value: float) -> float:
    """The value to three digits, the accuracy of inspection."""
    return float(f"{value:.3g}")


def default_noise(sample_shape: tuple[int, ...], proposals: Proposals) -> dict[str, Any]:
    """The paper's log-normal shifted to σ_data for images, signals and volumes; inspection's proposal for vectors.

    On digits and on signals, whose proposals are lower, the paper's pair gave the better samples (of signals, with
    parameters 3 times as near to those asked for): the high levels, which decide a sample as a whole, need their share
    of training.
    """
    mean, std = proposals.P_mean.value, proposals.P_std.value
    if len(sample_shape) > 1:
        moved = LogNormal.for_data(proposals.sigma_data.value)
        mean, std = moved.P_mean, moved.P_std
    return {"kind": "lognormal", "P_mean": _rounded(mean), "P_std": _rounded(std)}


def _precision(device: torch.device | None) -> str:
    """bfloat16 where a GPU supports it: weights stay float32, products are several times as fast."""
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
    """The config proposed for data, before overrides.

    σ_data and the σ range of sampling are measured, and the training noise follows σ_data. The default length is 100
    epochs and at least 220,000 samples; small sets have small batches. The learning rate rises over the first twentieth
    and falls over the last half; the average of the weights has a half-life of a twentieth. The held-out loss is
    measured ten times, or less often where that would take more than a fifth of the time; on a small set, training ends
    when three measurements have brought no improvement. The first samples are drawn after half a minute.

    Args:
        data: the training part.
        read_as: the source of the data.
        inspection: its measurements.
        images: the length of training.
        device: the device of training, which determines the precision.
    """
    proposals = inspection.proposals
    images = max(100 * len(data), 220_000) if images is None else images
    measured = max(1, images // min(10, max(1, images // _APART)))
    network, augmentation = _network(data.sample_shape, len(data))
    if any(condition.is_image for condition in data.conditioning.values()):
        augmentation = 0.0  # which would move the samples alone
    return {
        "data": read_as.config,
        "network": network,
        "preconditioning": {"kind": "edm", "sigma_data": _rounded(proposals.sigma_data.value)},
        "noise": default_noise(data.sample_shape, proposals),
        "sigma_min": _rounded(proposals.sigma_min.value),
        "sigma_max": _rounded(proposals.sigma_max.value),
        "augment": {"kind": "edm", "probability": augmentation} if augmentation else None,
        "precision": _precision(device),
        "images": images,
        "batch_size": 64 if len(data) < 10_000 else 256,
        "learning_rate": 2e-3,
        "ramp_images": images // 20,
        "decay_images": images // 2,
        "ema_halflife_images": images // 20,
        "preview_minutes": 0.5,
        "held_out_images": measured,
        "patience_images": 3 * measured if len(data) < _SMALL else 0,
    }
