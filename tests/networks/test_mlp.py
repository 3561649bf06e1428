"""The MLP: its start, its shapes, and what it learns of a two-dimensional density that is known exactly."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffspace.networks import MLP


@pytest.mark.parametrize("shape", [(1,), (7,), (2, 3), [1, 4, 4]])
def test_samples_of_any_shape_are_flattened(shape: tuple[int, ...]) -> None:
    network = MLP(shape, width=8, depth=1).eval()
    torch.nn.init.normal_(network.output.weight)
    x, c_noise = torch.randn(3, *shape), torch.randn(3)
    flat = MLP((math.prod(shape),), width=8, depth=1).eval()
    flat.load_state_dict(network.state_dict())
    assert torch.equal(network(x, c_noise).flatten(1), flat(x.flatten(1), c_noise))


def test_output_is_zero_at_first() -> None:
    assert not MLP((2,))(torch.randn(4, 2), torch.randn(4)).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": ()}, "shape: expected one or more positive integers, got none"),
        ({"width": 15}, "width: expected an even number, got 15"),
        ({"width": 2}, "width: expected an integer of at least 4, got 2"),
        ({"depth": 0}, "depth: expected an integer of at least 1, got 0"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MLP(**{"shape": (2,), **options})


def swiss_roll(points: int, std: float) -> tuple[Tensor, Tensor]:
    """Points along the roll, with standard deviation 0.5, and the width of the roll."""
    t = 1.5 * math.pi * (1 + 2 * (torch.arange(points) + 0.5) / points)
    means = torch.stack([t * t.cos(), t * t.sin()], dim=1)
    means = means - means.mean(0)
    return means * 0.5 / means.std(), torch.tensor(std)


def test_swiss_roll_is_learned_in_seconds() -> None:
    """The loss of Eq. 8 exceeds that of the exact denoiser by a small part of what there is to learn."""
    torch.manual_seed(0)
    means, std = swiss_roll(300, 0.03)
    network = MLP((2,), width=64)
    optimizer = torch.optim.Adam(network.parameters(), 4e-3)

    def batch(n: int) -> tuple[Tensor, Tensor, Tensor]:
        x0 = means[torch.randint(len(means), (n,))] + std * torch.randn(n, 2)
        sigma = (1.2 * torch.randn(n, 1) - 1.2).exp()
        return x0, x0 + sigma * torch.randn(n, 2), sigma

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        total = sigma**2 + 0.25
        f = network(x / total.sqrt(), sigma[:, 0].log() / 4)
        return x * 0.25 / total + f * 0.5 * sigma / total.sqrt()

    def exact(x: Tensor, sigma: Tensor) -> Tensor:
        variance = std**2 + sigma**2
        posterior = (-torch.cdist(x, means).square() / (2 * variance)).softmax(1) @ means
        return posterior + (x - posterior) * std**2 / variance

    def loss(estimate: Tensor, target: Tensor, sigma: Tensor) -> Tensor:
        return ((sigma**2 + 0.25) / (0.5 * sigma) ** 2 * (estimate - target).square()).sum(1).mean()

    steps = 500
    for k in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * min(1, k / 50) * math.cos(0.5 * math.pi * k / steps)
        x0, x, sigma = batch(512)
        optimizer.zero_grad()
        loss(denoise(x, sigma), x0, sigma).backward()
        optimizer.step()

    with torch.no_grad():
        _, x, sigma = batch(20_000)
        excess = loss(denoise(x, sigma), exact(x, sigma), sigma)
        trivial = loss(x * 0.25 / (sigma**2 + 0.25), exact(x, sigma), sigma)
    assert excess < 0.1 * trivial
