import math

import pytest
import torch

from diffspace.train import StepRandom

GOLDEN = {
    "seed": 1607864244,
    "order": [5, 1, 3, 4, 2, 0],
    "normal": [0.5162722, 0.5335903, 0.2523198],
    "uniform": 0.28786869524549064,
}


@pytest.mark.parametrize("shape", [(1,), (2,), (7,), (3, 5, 5), (3, 64, 64)])
def test_a_position_has_its_numbers_whoever_asks(shape):
    draws = StepRandom(3, 17)
    whole = draws.normal(0, 12, shape)
    assert whole.shape == (12, *shape)
    for begin, end in ((0, 5), (5, 6), (6, 12)):
        assert torch.equal(draws.normal(begin, end, shape), whole[begin:end])
        assert torch.equal(draws.uniform(begin, end), draws.uniform(0, 12)[begin:end])
        assert torch.equal(draws.strata(begin, end, 12), draws.strata(0, 12, 12)[begin:end])


def test_seeds_steps_and_positions_share_nothing():
    values = [StepRandom(seed, step).normal(0, 4, (64,)) for seed in (0, 1, 2**40) for step in (0, 1, 10**7)]
    together = torch.cat(values)
    assert len(together.flatten().unique()) > 0.999 * together.numel()
    correlation = torch.corrcoef(together)
    assert float((correlation - torch.eye(len(together))).abs().max()) < 6 / 64**0.5 * 1.05


def test_normal_numbers_are_normal():
    """Mean, variance and fourth moment within five standard errors, and the distribution function."""
    z = StepRandom(1, 1).normal(0, 200, (5000,)).double().flatten()
    n = len(z)
    for power, moment, spread in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(float((z**power).mean()) - moment) < 5 * math.sqrt(spread / n)
    probability = torch.special.ndtr(z.sort().values)
    distance = (probability - (torch.arange(n) + 0.5) / n).abs().max()
    assert float(distance) < 1.95 / math.sqrt(n)  # Kolmogorov and Smirnov at 0.1 %
    assert 4.5 < float(z.abs().max()) < 6.7
    pairs = z.reshape(2, -1)
    assert abs(float((pairs[0] * pairs[1]).mean())) < 5 / math.sqrt(n / 2)


def test_strata_hold_one_number_each_in_random_order():
    places = torch.stack([(StepRandom(0, step).strata(0, 8, 8) * 8).floor().long() for step in range(400)])
    assert torch.equal(places.sort(1).values, torch.arange(8).expand(400, 8))
    counts = torch.stack([torch.bincount(places[:, k], minlength=8) for k in range(8)]).double()
    assert float(((counts - 50) ** 2 / 50).sum()) < 49 + 5 * math.sqrt(2 * 49)
    u = torch.cat([StepRandom(0, step).uniform(0, 50) for step in range(40)])
    assert 0 < float(u.min()) < float(u.max()) < 1
    assert abs(float(u.mean()) - 0.5) < 5 / math.sqrt(12 * len(u))


def test_numbers_stay_those_of_today():
    """A run that goes on after an upgrade goes on with the same noise."""
    draws = StepRandom(seed=42, step=1000)
    assert draws.torch_seed() == GOLDEN["seed"]
    assert draws.order(6).tolist() == GOLDEN["order"]
    torch.testing.assert_close(draws.normal(3, 4, (3,)), torch.tensor([GOLDEN["normal"]]), rtol=1e-5, atol=1e-6)
    assert draws.uniform(5, 6).item() == pytest.approx(GOLDEN["uniform"], rel=1e-15)
