"""Brownian paths of a seed: their law, and that no query changes them."""

import math

import pytest
import torch

from diffspace import initial_latents, step_noise
from diffspace.sampling.brownian import BrownianPath

COUNT = 20_000  # numbers of one seed, each a separate path
CLOCKS = [0.0, 1e-50, 1e-9, 0.3, 0.302, 1.0, math.exp(1 / 512), 7.5, 1e4, 1e50]


def paths(*clocks, seed=3, count=COUNT):
    path = BrownianPath([seed], (count,))
    return torch.stack([path(clock)[0] for clock in clocks])


def increments(clocks):
    """Increments between neighbouring clocks, over their standard deviations."""
    values = paths(*clocks)
    return values.diff(dim=0) / torch.tensor(clocks, dtype=torch.float64).diff().sqrt()[:, None]


def test_increments_have_mean_zero_and_the_variance_of_their_length():
    z = increments(CLOCKS)
    assert (z.mean(1) * math.sqrt(COUNT)).abs().max() < 4
    assert ((z.var(1) - 1) * math.sqrt(COUNT / 2)).abs().max() < 4
    assert ((z**4).mean(1) - 3).abs().max() * math.sqrt(COUNT / 96) < 4  # normal, as far as the fourth moment says


def test_disjoint_increments_are_independent():
    z = increments(CLOCKS)
    correlation = torch.corrcoef(z) * math.sqrt(COUNT)
    assert correlation.fill_diagonal_(0).abs().max() < 4.5
    of_squares = torch.corrcoef(z**2) * math.sqrt(COUNT)
    assert of_squares.fill_diagonal_(0).abs().max() < 4.5


def test_neighbouring_cells_are_independent_where_the_path_is_finest():
    clocks = [math.exp(k / 512) for k in range(-20, 21)]
    z = increments(clocks)
    assert ((z.var(1) - 1) * math.sqrt(COUNT / 2)).abs().max() < 4.5
    assert (torch.corrcoef(z) * math.sqrt(COUNT)).fill_diagonal_(0).abs().max() < 5


def test_two_steps_of_a_clock_off_the_grid_have_the_right_law():
    """Steps of 0.7, 1 and 2.3 cells in ln τ, wherever they lie."""
    for cells in (1.0, 1.7, 2.3):
        clocks = [0.9 * math.exp(k * cells / 512) for k in range(40)]
        z = increments(clocks)
        assert abs(float(z.var()) - 1) * math.sqrt(COUNT * 39 / 2) < 4
        neighbours = (z[1:] * z[:-1]).mean()
        assert abs(float(neighbours)) * math.sqrt(COUNT * 38) < 4


def test_seeds_are_independent_of_one_another_and_of_other_noise_of_the_seed():
    path = BrownianPath(range(1000), (2,))
    seeds = path.increment(0.2, 5.0) / math.sqrt(4.8)
    others = [initial_latents(range(1000), (2,)), *(step_noise(range(1000), k, (2,)) for k in range(3))]
    assert abs(float(seeds.mean())) * math.sqrt(2000) < 4
    assert abs(float(seeds.var()) - 1) * math.sqrt(1000) < 4
    assert abs(float((seeds[1:] * seeds[:-1]).mean())) * math.sqrt(2000) < 4
    for other in others:
        assert abs(float((seeds * other).mean())) * math.sqrt(2000) < 4


def test_increments_add_up():
    path = BrownianPath([5, 6], (50,))
    for a, b, c in [(0.0, 0.1, 3.0), (1e-3, 1.0, 1e3), (2.0, 2.02, 2.05), (4.0, 1.0, 2.0)]:
        parts = path.increment(a, b) + path.increment(b, c)
        torch.testing.assert_close(parts, path.increment(a, c), rtol=0, atol=1e-14 * math.sqrt(max(a, b, c)) * 10)
    assert torch.equal(path.increment(3.0, 1.0), -path.increment(1.0, 3.0))


def test_it_begins_at_zero():
    path = BrownianPath([5, 6], (3,))
    assert torch.equal(path(0.0), torch.zeros(2, 3, dtype=torch.float64))
    assert torch.equal(path.increment(0.0, 2.0), path(2.0))
    assert torch.equal(path.increment(2.0, 2.0), torch.zeros(2, 3, dtype=torch.float64))


def test_queries_in_any_order_see_one_path():
    forward = paths(*CLOCKS, count=7)
    assert torch.equal(paths(*CLOCKS[::-1], count=7).flip(0), forward)
    for clock, value in zip(CLOCKS, forward, strict=True):
        assert torch.equal(paths(clock, count=7)[0], value)


def test_increments_in_any_order_see_one_path():
    path, fresh = BrownianPath([1, 2], (4,)), lambda: BrownianPath([1, 2], (4,))
    pairs = [(0.1, 0.5), (0.5, 2.0), (7.0, 9.0), (0.1, 0.5), (2.0, 0.5), (0.0, 0.5), (0.5, 2.0)]
    for pair in pairs:
        assert torch.equal(path.increment(*pair), fresh().increment(*pair))


def test_nothing_done_to_an_answer_changes_the_path():
    path = BrownianPath([1], (4,))
    first = path.increment(0.5, 2.0).clone()
    path.increment(0.5, 2.0).zero_()
    path(2.0).zero_()
    path(0.5).zero_()
    assert torch.equal(path.increment(0.5, 2.0), first)
    assert torch.equal(path.increment(2.0, 3.0), BrownianPath([1], (4,)).increment(2.0, 3.0))


def test_a_seed_has_its_path_in_any_batch():
    together = BrownianPath(range(5), (2, 3))
    alone = BrownianPath([3], (2, 3))
    for pair in [(0.2, 0.9), (0.9, 1e3)]:
        assert torch.equal(together.increment(*pair)[3:4], alone.increment(*pair))


@pytest.mark.parametrize("clock", [-1.0, math.nan, math.inf, 1e60, 1e-60])
def test_clocks_out_of_reach_are_refused(clock):
    path = BrownianPath([0], (2,))
    with pytest.raises(ValueError, match="clock: "):
        path(clock)
    with pytest.raises(ValueError, match="clock: "):
        path.increment(1.0, clock)
    with pytest.raises(ValueError, match="clock: "):
        path.increment(clock, 1.0)


def test_a_step_that_the_path_does_not_resolve_is_refused():
    with pytest.raises(ValueError, match="expected steps of at least 1/512"):
        BrownianPath([0], (2,)).increment(1.0001, 1.0002)
