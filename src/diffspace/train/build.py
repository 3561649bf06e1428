"""Builds a trainer from a recipe and data."""

from __future__ import annotations

from collections.abc import Callable

import torch

from diffspace.averages.ema import EMA, HalfLife, PowerFunction, Profile
from diffspace.checks import first_line
from diffspace.data import DataSet
from diffspace.networks import skeleton
from diffspace.objective import AdaptiveNoise, DenoisingLoss, NoiseDistribution, Uncertainty
from diffspace.preconditioning import Preconditioned
from diffspace.tensors import plain_defaults
from diffspace.train.loop import LearningRate, Trainer
from diffspace.train.parallel import Processes
from diffspace.train.recipe import Recipe, make_network


def make_denoiser(recipe: Recipe, data: DataSet, device: str = "cpu") -> Preconditioned:
    """The denoiser of a recipe in float32 on a device, its weights drawn by the recipe's seed."""
    with torch.random.fork_rng(devices=[]), plain_defaults(device):
        torch.manual_seed(recipe.seed)
        network = make_network(
            recipe.network,
            shape=data.sample_shape,
            label_dim=len(data.class_names) if recipe.conditional else 0,
            augment_dim=0 if recipe.augment is None else recipe.augment.label_dim,
            conditioning=(data.conditioning or None) if recipe.conditional else None,
        )
    return Preconditioned(network, recipe.preconditioning, recipe.sampling_range)


def check_data(recipe: Recipe, data: DataSet) -> None:
    """ValueError if the augmentation or the network of a recipe does not fit the shape of the data."""
    if recipe.augment is not None:
        recipe.augment.check_shape(data.sample_shape)
        images = [name for name, each in data.conditioning.items() if each.is_image and recipe.conditional]
        if images:
            raise ValueError(f"augment: would move the samples but not the condition {images[0]!r}; set augment=none")
    try:
        skeleton(lambda: make_denoiser(recipe, data, torch.get_default_device().type))
    except RuntimeError as error:
        raise ValueError(f"network: {first_line(error)}") from None


def make_trainer(
    recipe: Recipe, denoiser: Preconditioned, processes: Processes, warn: Callable[[str], None] = lambda text: None
) -> Trainer:
    """The trainer of a recipe, on the device of the process; ValueError for an option that has no effect there."""
    device = processes.device
    denoiser.to(device)
    _check_precision(recipe, device)
    profiles: list[Profile] = [HalfLife(recipe.ema_halflife_images, recipe.ema_ramp_ratio)]
    profiles += [PowerFunction(width) for width in recipe.ema_widths]
    averages = [EMA(denoiser, profile) for profile in profiles]
    noise: NoiseDistribution = AdaptiveNoise(recipe.noise) if recipe.adaptive_noise else recipe.noise
    uncertainty = Uncertainty() if recipe.uncertainty else None
    loss = DenoisingLoss(noise, reduction=recipe.reduction, uncertainty=uncertainty).to(device)
    for module in (denoiser, *(average.module for average in averages), uncertainty):
        if module is not None:
            processes.shard(module)
    if recipe.compile:
        denoiser.network.compile()
    parameters = [*denoiser.parameters(), *loss.parameters()]
    return Trainer(
        denoiser,
        loss,
        torch.optim.Adam(parameters, lr=recipe.learning_rate, betas=recipe.betas, eps=recipe.eps, fused=True),
        LearningRate(recipe.images, recipe.learning_rate, recipe.ramp_images, recipe.decay_images),
        averages,
        seed=recipe.seed,
        augment=recipe.augment,
        precision=recipe.precision,
        micro_batch=recipe.micro_batch,
        max_grad_norm=recipe.max_grad_norm,
        max_skipped=recipe.max_skipped,
        processes=processes,
        warn=warn,
    )


def _check_precision(recipe: Recipe, device: torch.device) -> None:
    """ValueError if the device does not support the precision; switches TF32 on or off."""
    if recipe.precision == "float16" and device.type == "cpu":
        raise ValueError("precision: float16 is not supported on a CPU; use bfloat16 or float32")
    if recipe.precision == "tf32" and device.type != "cuda":
        raise ValueError(f"precision: tf32 has no effect on {device.type}; use float32")
    if device.type == "cuda":
        if recipe.precision == "bfloat16" and not torch.cuda.is_bf16_supported(including_emulation=False):
            raise ValueError("precision: this GPU does not support bfloat16; use float16, tf32 or float32")
        allowed = recipe.precision != "float32"
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
        torch.backends.cudnn.benchmark = True  # batches have one shape
