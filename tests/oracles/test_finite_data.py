"""The ideal denoiser of a data set against brute force, within the memory that it is given."""

from __future__ import annotations

import math

import pytest
import scipy.stats
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from diffspace.oracles import FiniteData, GaussianMixture

F64 = torch.float64


def randn(*shape, seed=0):
    return torch.randn(shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


DATA = 0.5 * randn(200, 3, 4) + 1
LEVELS = [1e-6, 1e-4, 3e-3, 0.02, 0.1, 0.5, 3.0, 80.0, 1e6]


def brute_force(data, x, sigma):
    """(D, ln p) by the formulas as they are written, with all differences."""
    n, d = len(data), data[0].numel()
    logits = -(x[:, None] - data).flatten(2).square().sum(2) / (2 * sigma**2)
    denoised = torch.einsum("bn,n...->b...", logits.softmax(1), data)
    return denoised, logits.logsumexp(1) - math.log(n) - d / 2 * math.log(2 * math.pi * sigma**2)


def states(sigma, n=20):
    return DATA[:n] + sigma * randn(n, 3, 4, seed=1)


@pytest.mark.parametrize("sigma", LEVELS)
@pytest.mark.parametrize("max_megabytes", [256.0, 0.02, 1e-9])
def test_brute_force(sigma, max_megabytes):
    x, level = states(sigma), torch.tensor(sigma, dtype=F64)
    oracle = FiniteData(DATA, max_megabytes=max_megabytes)
    denoised, log_prob = brute_force(DATA, x, sigma)
    torch.testing.assert_close(oracle(x, level), denoised, rtol=0, atol=1e-9)
    torch.testing.assert_close(oracle.log_prob(x, level), log_prob, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("sigma", [2e-3, 0.02])
def test_data_far_from_the_origin_cost_no_digits(offset, sigma):
    """There ‖x‖² − 2x·y + ‖y‖² would be a difference of near equals; nor do states far from the data."""
    data, x = DATA + offset, torch.cat([states(sigma) + offset, states(sigma, 3) + offset + 30])
    denoised, _ = brute_force(DATA, x - offset, sigma)
    actual = FiniteData(data)(x, torch.tensor(sigma, dtype=F64)) - offset
    torch.testing.assert_close(actual, denoised, rtol=0, atol=1e-9 * (1 + offset / sigma))


def test_between_two_points():
    """D = tanh(x/σ²) for data at −1 and 1."""
    oracle = FiniteData(torch.tensor([-1.0, 1.0], dtype=F64))
    x = torch.linspace(-3, 3, 61, dtype=F64)
    for sigma in (0.3, 1.0, 7.0):
        level = torch.tensor(sigma, dtype=F64)
        torch.testing.assert_close(oracle(x, level), torch.tanh(x / sigma**2), rtol=1e-12, atol=1e-14)


def test_it_is_a_mixture_without_spread():
    mixture = GaussianMixture(DATA, torch.zeros(200))
    for sigma in (1e-3, 0.1, 1.0, 80.0):
        x, level = states(sigma), torch.tensor(sigma, dtype=F64)
        for name in ("__call__", "score", "log_prob"):
            expected = getattr(mixture, name)(x, level)
            actual = getattr(FiniteData(DATA), name)(x, level)
            torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9 / min(1, sigma**2))


def test_with_little_noise_it_finds_the_data_point():
    x = states(1e-3, n=200)
    denoised = FiniteData(DATA)(x, torch.tensor(1e-3, dtype=F64))
    torch.testing.assert_close(denoised, DATA, rtol=0, atol=1e-14)


def test_data_and_states_of_other_types():
    data, x = DATA.float(), states(0.5).float()
    denoised = FiniteData(data)(x, torch.tensor(0.5))
    expected, _ = brute_force(data.double(), x.double(), 0.5)
    assert denoised.dtype == torch.float32
    torch.testing.assert_close(denoised, expected.float())
    assert FiniteData(DATA.half()).data.dtype == torch.float16  # the data are not copied in another type


def test_no_states_at_all():
    assert FiniteData(DATA)(torch.zeros(0, 3, 4), torch.tensor(1.0)).shape == (0, 3, 4)
    assert FiniteData(DATA).log_prob(torch.zeros(0, 3, 4), torch.tensor(1.0)).shape == (0,)


def test_draws_are_data_points_each_as_often():
    data = torch.arange(10, dtype=F64)
    draws = FiniteData(data).sample(20_000, generator=torch.Generator().manual_seed(0))
    values, counts = draws.unique(return_counts=True)
    assert torch.equal(values, data)
    assert scipy.stats.chisquare(counts.numpy()).pvalue > 1e-4


class PeakMemory(TorchDispatchMode):
    """The most bytes that were alive at once in storages made inside, read after every operation."""

    def __init__(self, *given):
        super().__init__()
        self.given = {tensor.untyped_storage()._cdata for tensor in given}
        self.alive = {}
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.given:
                    self.alive[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self.alive = {key: kept for key, kept in self.alive.items() if not kept[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self.alive.values()))
        return result


@torch.no_grad()
@pytest.mark.parametrize(("n", "batch", "d"), [(20_000, 32, 60), (3000, 2000, 10), (1000, 10, 2000), (300, 3000, 600)])
def test_memory_stays_within_bounds(n, batch, d):
    """Many data, many states, many dimensions: 10 MB and more in float64, where 4 are allowed."""
    data, x = randn(n, d).float(), randn(batch, d, seed=1).float()
    allowed = 4 * 2**20
    with PeakMemory(data, x) as making:
        oracle = FiniteData(data, max_megabytes=4.0)
    assert making.peak <= allowed
    for sigma in (0.5, 1e-3):  # by a matrix product, and by differences
        level = torch.tensor(sigma)
        with PeakMemory(data, x, level, oracle._center) as using:
            denoised = oracle(x, level)
        result = denoised.untyped_storage().nbytes()
        assert allowed / 4 < using.peak - result <= allowed
        with PeakMemory(data, x, level, oracle._center) as using:
            oracle.log_prob(x, level)
        assert allowed / 4 < using.peak <= allowed


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"data": DATA[:0]}, "data"),
        ({"data": DATA * math.nan}, "data"),
        ({"data": torch.cat([DATA, math.inf * DATA])}, "data"),
        ({"max_megabytes": 0.0}, "max_megabytes"),
        ({"max_megabytes": math.nan}, "max_megabytes"),
    ],
)
def test_bad_parameters_are_named(arguments, name):
    with pytest.raises(ValueError, match=f"^{name}: "):
        FiniteData(**{"data": DATA, **arguments})
