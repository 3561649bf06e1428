"""A small network, trained where a figure needs one: seconds for points of the plane, some more for digits."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from diffspace._shapes import Float, Tensor
from diffspace.averages import EMA, PowerFunction
from diffspace.checks import check_integer, check_number, check_seed
from diffspace.networks import MLP
from diffspace.objective import DenoisingLoss, NoiseDistribution
from diffspace.oracles import FiniteData, Gaussian, GaussianMixture
from diffspace.preconditioning import Preconditioned, Preconditioning
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
    network: Callable[[tuple[int, ...]], torch.nn.Module] = small_network,
    steps: int = 1200,
    batch: int = 128,
    shares: Sequence[float] = (0.0, 0.1, 1.0),
    seed: int = 0,
    progress: Callable[[str], None] = lambda text: None,
) -> Stages:
    """Train a network on samples of the data with Adam, whose rate falls to 0 by a half cosine.

    The weights are averaged over the past in proportion (`PowerFunction`). The same arguments give the same weights on
    the same machine with the same number of threads; torch's global random numbers are left alone.

    Args:
        data: an oracle, of which every step has new draws, or samples in the model's space, of shape (n, *dims).
        preconditioning: how the network becomes a denoiser; its weight λ = 1/c_out² is the loss's.
        noise: the noise levels of the training. Default: the paper's, moved to σ_data where the preconditioning states
            it.
        network: makes the network from the shape of a sample; called with torch's random numbers seeded.
        steps: how many steps.
        batch: samples of a step.
        shares: of the steps, after which the denoiser is kept: 0 for the start, 1 for the end. Those that are the same
            step count once.
        seed: of the weights and of everything drawn.
        progress: called with a line twenty times on the way.
    """
    check_integer("steps", steps, 1)
    check_integer("batch", batch, 1)
    check_seed("seed", seed)
    for share in shares:
        check_number("shares", share, "[0, 1]")
    if not shares:
        raise ValueError("shares: expected at least one")
    kept = tuple(sorted({round(share * steps) for share in shares}))
    shape = data.sample_shape if isinstance(data, Known) else tuple(data.shape[1:])
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]), plain_defaults():
        torch.manual_seed(seed)
        denoiser = Preconditioned(network(shape), preconditioning).train()
        average = EMA(denoiser, PowerFunction(_WIDTH))
        loss = DenoisingLoss(noise)
        optimizer = torch.optim.Adam(denoiser.parameters(), lr=_RATE, betas=(0.9, 0.99), fused=True)
        stages = [copy.deepcopy(average.module)] if kept[0] == 0 else []
        for step in range(kept[-1]):
            if step % -(-steps // _REPORTS) == 0:
                progress(f"training a small network: step {step} of {kept[-1]}")
            rate = _RATE * min(1.0, (step + 1) / (_RAMP * steps)) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad()
            loss(denoiser, _draw(data, batch, generator), generator=generator).mean().backward()
            optimizer.step()
            average.follow(denoiser, step * batch, batch)
            if step + 1 in kept:
                stages.append(copy.deepcopy(average.module))
    return Stages(kept, tuple(stages))


def _draw(data: Known | Tensor, batch: int, generator: torch.Generator) -> Tensor:
    """Samples for one step, in float32."""
    if isinstance(data, Known):
        return data.sample(batch, generator=generator).float()
    check_floating("data", data)
    return data[torch.randint(len(data), (batch,), generator=generator, dtype=torch.int64, device="cpu")].float()
