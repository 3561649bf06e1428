"""A small network, trained where a figure needs one: seconds for points of the plane, some more for digits."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from diffspace._shapes import Float, Tensor
from diffspace.averages import EMA, PowerFunction
from diffspace.checks import check_integer, check_number, check_seed
from diffspace.networks import MLP
from diffspace.objective import DenoisingLoss, NoiseDistribution
from diffspace.oracles import FiniteData, Gaussian, GaussianMixture
from diffspace.preconditioning import Preconditioned, Preconditioning
from diffspace.studies.coefficients import Weight
from diffspace.tensors import check_floating, plain_defaults

_RATE, _RAMP, _WIDTH = 2e-3, 0.05, 0.08  # of Adam; the share of the steps over which it rises; σ_rel of the average
_REPORTS = 20

Known = Gaussian | GaussianMixture | FiniteData
"""The oracles that draw samples."""


@dataclass(frozen=True)
class Stages:
    """The denoisers of one training after some of its steps, with averaged weights, in evaluation mode."""

    steps: tuple[int, ...]
    denoisers: tuple[Preconditioned, ...]

    @property
    def trained(self) -> Preconditioned:
        """The last one."""
        return self.denoisers[-1]


def small_network(shape: Sequence[int]) -> torch.nn.Module:
    """An MLP that learns samples of this shape in seconds."""
    return MLP(shape, width=64 if math.prod(shape) <= 4 else 256)


def train_small(
    data: Known | Float[Tensor, "n *dims"],
    preconditioning: Preconditioning,
    *,
    noise: NoiseDistribution | None = None,
    weight: Weight | None = None,
    network: Callable[[tuple[int, ...]], torch.nn.Module] = small_network,
    steps: int = 1200,
    batch: int = 128,
    shares: Sequence[float] = (0.0, 0.1, 1.0),
    seed: int = 0,
    progress: Callable[[str], None] = lambda text: None,
) -> Stages:
    """The denoisers of `training_stages` after shares of the steps.

    Args:
        data, preconditioning, noise, weight, network, steps, batch, seed: as in `training_stages`.
        shares: of the steps, after which the denoiser is kept: 0 for the start, 1 for the end. Those that are the same
            step count once.
        progress: called with a line twenty times on the way.
    """
    check_integer("steps", steps, 1)
    for share in shares:
        check_number("shares", share, "[0, 1]")
    if not shares:
        raise ValueError("shares: expected at least one")
    kept = tuple(sorted({round(share * steps) for share in shares}))

    def report(step: int) -> None:
        if step % -(-steps // _REPORTS) == 0:
            progress(f"training a small network: step {step} of {kept[-1]}")

    choices: dict[str, Any] = {"noise": noise, "weight": weight, "network": network, "batch": batch, "seed": seed}
    stages = training_stages(data, preconditioning, at=kept, steps=steps, before=report, **choices)
    return Stages(kept, tuple(copy.deepcopy(denoiser) for _, denoiser in stages))


def training_stages(
    data: Known | Float[Tensor, "n *dims"],
    preconditioning: Preconditioning,
    *,
    at: Sequence[int],
    noise: NoiseDistribution | None = None,
    weight: Weight | None = None,
    network: Callable[[tuple[int, ...]], torch.nn.Module] = small_network,
    steps: int = 1200,
    batch: int = 128,
    seed: int = 0,
    before: Callable[[int], None] = lambda step: None,
) -> Iterator[tuple[int, Preconditioned]]:
    """Train a network on samples of the data with Adam, whose rate falls to 0 by a half cosine, and stop at some steps.

    Yields (step, denoiser) with the denoiser after that many steps: its weights are averaged over the past in
    proportion (`PowerFunction`), it is in evaluation mode, and later steps change it. The same arguments give the same
    weights on the same machine with the same number of threads. torch's global random numbers are left alone, unless
    the network draws from them in training, as dropout does; several threads may train at once.

    Args:
        data: an oracle, of which every step has new draws, or samples in the model's space, of shape (n, *dims).
        preconditioning: how the network becomes a denoiser.
        at: rising numbers of steps, from 0 to `steps`; training ends with the last one.
        noise: the noise levels of the training. Default: the paper's, moved to σ_data where the preconditioning states
            it.
        weight: the loss's λ(σ). Default: that of the preconditioning, 1/c_out².
        network: makes the network from the shape of a sample; called with torch's random numbers seeded.
        steps: over which the rate falls.
        batch: samples of a step.
        seed: of the weights and of everything drawn.
        before: called with the number of steps taken before each step; what it raises ends the training.
    """
    check_integer("steps", steps, 1)
    check_integer("batch", batch, 1)
    check_seed("seed", seed)
    if not at or list(at) != sorted(set(at)) or not 0 <= at[0] <= at[-1] <= steps:
        raise ValueError(f"at: expected rising numbers of steps from 0 to {steps}, got {list(at)}")
    shape = data.sample_shape if isinstance(data, Known) else tuple(data.shape[1:])
    generator = torch.Generator().manual_seed(seed)
    denoiser = _seeded(lambda: Preconditioned(network(shape), preconditioning), seed).train()
    average = EMA(denoiser, PowerFunction(_WIDTH))
    loss = DenoisingLoss(noise, weight)
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=_RATE, betas=(0.9, 0.99), fused=True)
    if at[0] == 0:
        yield 0, average.module
    for step in range(at[-1]):
        before(step)
        rate = _RATE * min(1.0, (step + 1) / (_RAMP * steps)) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        with plain_defaults():
            optimizer.zero_grad()
            loss(denoiser, _draw(data, batch, generator), generator=generator).mean().backward()
            optimizer.step()
            average.follow(denoiser, step * batch, batch)
        if step + 1 in at:
            yield step + 1, average.module


_one_at_a_time = threading.Lock()


def _seeded(make: Callable[[], Preconditioned], seed: int) -> Preconditioned:
    """What `make` makes with torch's global random numbers of this seed, which all threads share."""
    with _one_at_a_time, torch.random.fork_rng(devices=[]), plain_defaults():
        torch.manual_seed(seed)
        return make()


def _draw(data: Known | Tensor, batch: int, generator: torch.Generator) -> Tensor:
    """Samples for one step, in float32."""
    if isinstance(data, Known):
        return data.sample(batch, generator=generator).float()
    check_floating("data", data)
    return data[torch.randint(len(data), (batch,), generator=generator, dtype=torch.int64, device="cpu")].float()
