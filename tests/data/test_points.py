"""Point sets: their geometry, and the standard deviation that they promise."""

import math

import pytest
import torch

from diffspace.data import Checkerboard, EightGaussians, PointSet, SwissRoll, TwoMoons

ALL = [SwissRoll, TwoMoons, Checkerboard, EightGaussians]


def moment_errors(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(mean, variance over both coordinates less 0.25), each in standard errors of the sample."""
    x = points.double()
    squares = x.square().sum(1) / 2
    mean = x.mean(0) / (x.std(0) / math.sqrt(len(x)))
    return mean, (squares.mean() - 0.25) / (squares.std() / math.sqrt(len(x)) + 1e-12)


@pytest.mark.parametrize("kind", ALL)
def test_mean_zero_and_standard_deviation_one_half_without_noise(kind: type[PointSet]) -> None:
    data = kind(n=200_000, noise=0.0, seed=1).load()
    assert data.sample_shape == (2,)
    if kind is EightGaussians:  # every point has the same radius
        assert torch.allclose(data.raw().norm(dim=1), torch.tensor(0.5 * math.sqrt(2)))
    mean, variance = moment_errors(data.raw())
    assert mean.abs().max() < 4
    assert abs(variance) < 4 or kind is EightGaussians


@pytest.mark.parametrize("kind", ALL)
def test_noise_is_added_in_the_same_units(kind: type[PointSet]) -> None:
    # the points are drawn before the noise, so that the difference is the noise
    clean, noisy = (kind(n=50_000, noise=noise).load().raw() for noise in (0.0, 0.1))
    noise = (noisy - clean).double()
    assert abs(noise.std().item() - 0.1) < 4 * 0.1 / math.sqrt(2 * 100_000)
    assert abs(torch.corrcoef(torch.cat([noise, clean.double()], 1).T)[0, 2].item()) < 4 / math.sqrt(50_000)


@pytest.mark.parametrize("kind", ALL)
def test_the_seed_decides(kind: type[PointSet]) -> None:
    first, again, other = (kind(n=100, seed=seed).load().raw() for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_swiss_roll_is_a_spiral() -> None:
    scale = 0.5 / math.sqrt((9.75 * math.pi**2 - 4 - (2 / (3 * math.pi)) ** 2) / 2)
    x, y = (SwissRoll(n=1000, noise=0.0).load().raw().double() / scale + torch.tensor([2, 2 / (3 * math.pi)])).T
    t = torch.hypot(x, y)
    assert t.min() >= 1.5 * math.pi - 1e-4
    assert t.max() <= 4.5 * math.pi + 1e-4
    assert torch.allclose(torch.stack([x, y]), torch.stack([t * t.cos(), t * t.sin()]), atol=1e-3)


def test_the_moons_are_half_circles_of_two_classes() -> None:
    data = TwoMoons(n=1000, noise=0.0).load()
    scale = 0.5 / math.sqrt((0.75 + 0.5625 - 1 / math.pi) / 2)
    points = data.raw().double() / scale + torch.tensor([0.5, 0.25])
    assert data.class_names == ("upper", "lower")
    upper, lower = points[data.labels == 0], points[data.labels == 1]
    assert torch.allclose(upper.norm(dim=1), torch.ones(len(upper), dtype=torch.float64), atol=1e-5)
    assert upper[:, 1].min() > -1e-5
    assert torch.allclose((lower - torch.tensor([1, 0.5])).norm(dim=1), torch.ones(len(lower)).double(), atol=1e-5)
    assert lower[:, 1].max() < 0.5 + 1e-5


def test_the_board_has_eight_equal_squares() -> None:
    side = math.sqrt(3) / 4  # of one square: the board is ±√3/2, whose standard deviation is 0.5
    squares = (Checkerboard(n=80_000).load().raw() / side + 2).floor().long()
    column, row = squares.T
    assert ((column + row) % 2 == 0).all()
    counts = torch.bincount(4 * column + row, minlength=16)
    counts = counts[counts > 0]
    assert len(counts) == 8
    assert (counts - 10_000).abs().max() < 5 * math.sqrt(10_000)


def test_eight_gaussians_know_their_classes() -> None:
    data = EightGaussians(n=8000).load()
    for k in range(8):
        centre = 0.5 * math.sqrt(2) * torch.tensor([math.cos(k * math.pi / 4), math.sin(k * math.pi / 4)])
        mine = data.raw()[data.labels == k]
        assert abs((mine - centre).std().item() - 0.05) < 0.005
        assert (mine.mean(0) - centre).abs().max() < 5 * 0.05 / math.sqrt(len(mine))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "n: expected .* got 0"),
        ({"noise": -0.1}, "noise: expected .* got -0.1"),
        ({"noise": math.nan}, "noise"),
        ({"seed": -1}, "seed: expected .* got -1"),
    ],
)
def test_nonsense_is_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SwissRoll(**options)
