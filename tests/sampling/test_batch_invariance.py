"""A sample is the same alone, in any batch and through any splitting of batches."""

import pytest
import torch

import diffspace as ds
from diffspace.oracles import FiniteData, GaussianMixture
from diffspace.sampling import Execution

SEEDS = tuple(range(100, 164))
CHURN = ds.Churn(S_churn=4.0, S_tmax=50.0, S_noise=1.003)
PROCESSES = {"EDM": ds.Process(), "VP": ds.Process(ds.VPSchedule()), "flow": ds.Process(ds.FlowSchedule())}
SOLVERS = {"Euler": ds.Euler(), "Heun": ds.Heun(), "Ralston": ds.Heun(2 / 3)}
SPLITS = [slice(0, 1), slice(63, 64), slice(20, 27)]


def greatest_difference(denoiser, dtype=None, **options):
    """Between samples made 64 at once, and alone, by seven, and by `batch_size`."""

    def x(seeds, batch_size=None):
        execution = Execution(batch_size=batch_size, dtype=dtype)
        return ds.sample(denoiser, seeds=seeds, churn=CHURN, execution=execution, **options).x

    together = x(SEEDS)
    differences = [x(SEEDS[rows]) - together[rows] for rows in SPLITS]
    differences += [x(SEEDS, size) - together for size in (7, 64)]
    return max(float(d.abs().max()) for d in differences)


def random_mixture(components, shape, *, full=False):
    generator = torch.Generator().manual_seed(components)
    dims = int(torch.tensor(shape).prod())
    means = torch.randn(components, *shape, generator=generator, dtype=torch.float64)
    weights = torch.rand(components, generator=generator, dtype=torch.float64) + 0.1
    if full:
        roots = torch.randn(components, dims, dims, generator=generator, dtype=torch.float64) / 3
        return GaussianMixture(means, weights=weights, covariances=roots @ roots.mT)
    return GaussianMixture(means, torch.rand(components, generator=generator, dtype=torch.float64) / 2, weights)


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_bit_for_bit_for_an_isotropic_mixture(mixture, process, solver):
    assert greatest_difference(mixture, steps=ds.EDMSteps(4), process=process, solver=solver) == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("components", [1, 10])
@pytest.mark.parametrize("shape", [(1,), (3,), (17,), (1, 8, 8), (3, 5, 7)])
def test_bit_for_bit_for_isotropic_mixtures_of_any_size(shape, components, dtype):
    assert greatest_difference(random_mixture(components, shape), steps=ds.EDMSteps(3), dtype=dtype) == 0


def test_to_the_last_digits_where_the_oracle_uses_a_matrix_product():
    assert greatest_difference(random_mixture(5, (2, 3, 3), full=True), steps=ds.EDMSteps(8)) < 1e-12
    data = torch.randn(200, 2, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert greatest_difference(FiniteData(data), steps=ds.EDMSteps(8)) < 1e-12


class ConvNet(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(2, 16, 3, padding=1),
            torch.nn.SiLU(),
            torch.nn.Conv2d(16, 16, 3, padding=1),
            torch.nn.GroupNorm(4, 16),
            torch.nn.SiLU(),
            torch.nn.Conv2d(16, 2, 3, padding=1),
        )

    def forward(self, x, c_noise, cond=None):
        return self.layers(x * (1 + 0.1 * c_noise[:, None, None, None]))


def test_to_single_precision_through_a_network():
    torch.manual_seed(0)
    denoiser = ds.Preconditioned(ConvNet(), ds.EDMPreconditioning(0.5)).eval()
    assert greatest_difference(denoiser, shape=(2, 8, 8), steps=ds.EDMSteps(8)) < 1e-5


def test_conditions_go_with_their_samples():
    """D = label-dependent constant, so that every end point tells which label it had."""

    def denoiser(x, sigma, cond=None):
        return cond["labels"][:, None].double().expand_as(x) + 0 * x

    labels = torch.arange(10)
    for size in (None, 1, 3, 10):
        x = ds.sample(
            denoiser, seeds=range(10), shape=(2,), cond={"labels": labels}, execution=Execution(batch_size=size)
        ).x
        assert torch.equal(x, labels[:, None].double().expand(10, 2))


def test_latents_are_split_with_their_seeds(mixture):
    latents = torch.randn(9, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    options = {"latents": latents, "seeds": range(50, 59), "churn": CHURN, "steps": ds.EDMSteps(5)}
    together = ds.sample(mixture, **options)
    split = ds.sample(mixture, execution=Execution(batch_size=4), **options)
    assert torch.equal(split.x, together.x)
    assert split.seeds == together.seeds == tuple(range(50, 59))
