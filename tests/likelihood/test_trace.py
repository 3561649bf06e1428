"""The trace: exact products, Hutchinson's estimates and what their standard error is worth."""

import pytest
import torch
from scipy import stats

from diffspace import EDMSteps, GivenSteps, Heun
from diffspace.likelihood import ExactTrace, Hutchinson, log_likelihood
from diffspace.likelihood.trace import WithLogDensity
from diffspace.oracles import Gaussian
from diffspace.sampling import Sampler

STEPS = EDMSteps(8, 0.01, 10.0, terminal="sigma_min")


@pytest.fixture(scope="module")
def matrix():
    """A Jacobian that is not symmetric, with all sorts of entries."""
    return torch.randn(24, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.5 * torch.eye(24)


def traces(jacobian, trace, seeds):
    """The estimates (estimates, B) of the trace of a given Jacobian."""
    d = len(jacobian)
    augmented = WithLogDensity(lambda x, sigma, cond: x @ jacobian.T, (d,), trace, trace.vectors(seeds, (d,)))
    state = torch.zeros(len(seeds), d + trace.estimates, dtype=torch.float64)
    return d - augmented(state, torch.ones(()).double())[:, d:].T.detach()


@pytest.mark.parametrize("chunk", [1, 5, 24, 100])
def test_the_exact_trace_is_exact_in_any_chunks(matrix, chunk):
    found = traces(matrix, ExactTrace(chunk), [0, 0])
    torch.testing.assert_close(found, matrix.trace().expand(1, 2), rtol=1e-14, atol=1e-14)


def test_the_estimates_have_the_stated_mean_and_variance(matrix):
    symmetric = 0.5 * (matrix + matrix.T)
    square, diagonal, trace = symmetric.square().sum(), symmetric.diagonal().square().sum(), matrix.trace()
    stated = {
        "rademacher": 2 * (square - diagonal),
        "gaussian": 2 * square,
        "sphere": 2 * 24 / 26 * (square - trace**2 / 24),
    }
    for kind, variance in stated.items():
        estimates = traces(matrix, Hutchinson(40, kind), range(500)).flatten()
        n = len(estimates)
        assert float((estimates.mean() - trace).abs()) < 4 * float(variance / n) ** 0.5
        fourth = float((estimates - trace).pow(4).mean()) / float(variance) ** 2
        assert float(estimates.var() / variance) == pytest.approx(1, abs=4 * ((fourth - 1) / n) ** 0.5), kind


def test_where_an_estimate_has_no_variance_it_is_exact():
    independent = Gaussian(torch.zeros(4).double(), torch.diag(torch.tensor([0.5, 0.1, 1.0, 0.02]).double()))
    isotropic = Gaussian(torch.zeros(4).double(), 0.3 * torch.eye(4).double())
    x = torch.randn(3, 4, dtype=torch.float64)
    for oracle, kind in ((independent, "rademacher"), (isotropic, "sphere")):
        exact = log_likelihood(oracle, x, sampler=Sampler(STEPS, Heun(1 / 2)))
        found = log_likelihood(
            oracle, x, trace=Hutchinson(2, kind), seeds=range(3), sampler=Sampler(STEPS, Heun(1 / 2))
        )
        torch.testing.assert_close(found.log_prob, exact.log_prob, rtol=1e-6 if kind == "sphere" else 1e-12, atol=0)
        assert float(found.standard_error.max()) < 1e-5
    loose = log_likelihood(
        independent, x, trace=Hutchinson(2, "gaussian"), seeds=range(3), sampler=Sampler(STEPS, Heun(1 / 2))
    )
    assert float(loose.standard_error.min()) > 0.01


@pytest.mark.parametrize(("probes", "kind"), [(4, "rademacher"), (8, "sphere"), (3, "gaussian")])
def test_the_standard_error_covers_what_it_promises(gaussian, plain_gaussian, probes, kind):
    """The error of the integrated ln p over its standard error is Student's t: as many within ±1 as that says."""
    x = gaussian.sample(1, generator=torch.Generator().manual_seed(0))
    exact = log_likelihood(plain_gaussian, x, sampler=Sampler(STEPS, Heun(1 / 2))).log_prob
    n = 600
    many = x.expand(n, 2, 3, 2)
    found = log_likelihood(
        plain_gaussian, many, trace=Hutchinson(probes, kind), seeds=range(n), sampler=Sampler(STEPS, Heun(1 / 2))
    )
    errors = found.log_prob - exact
    within = float((errors.abs() < found.standard_error).double().mean())
    promised = 2 * stats.t.cdf(1, probes - 1) - 1
    print(f"\n  {kind}, {probes} probes: {within:.3f} within one standard error; Student's t says {promised:.3f}")
    # quadratic forms are not quite normal, which moves the share by some hundredths
    assert within == pytest.approx(promised, abs=3 * (promised * (1 - promised) / n) ** 0.5 + 0.02)
    assert float(errors.mean().abs()) < 4 * float(errors.std()) / n**0.5
    assert float(found.standard_error.square().mean().sqrt()) == pytest.approx(float(errors.std()), rel=0.1)


def test_one_probe_gives_no_standard_error(gaussian):
    x = gaussian.sample(2)
    assert (
        log_likelihood(gaussian, x, trace=Hutchinson(), seeds=[0, 1], sampler=Sampler(STEPS, Heun(1 / 2)))
        .standard_error.isnan()
        .all()
    )


def test_probes_stay_the_same_so_that_the_integral_converges(mixture, plain_mixture):
    x = mixture.sample(6, generator=torch.Generator().manual_seed(0))

    def at(n):
        steps = EDMSteps(n, 0.01, 10.0, terminal="sigma_min")
        return log_likelihood(
            plain_mixture, x, trace=Hutchinson(2, "gaussian"), seeds=range(6), sampler=Sampler(steps, Heun())
        )

    coarse, middle, fine = (at(n).log_prob for n in (64, 128, 256))
    ratio = (coarse - middle).square().mean().sqrt() / (middle - fine).square().mean().sqrt()
    assert float(ratio) == pytest.approx(4, rel=0.1)


def test_probes_belong_to_the_seed_and_are_none_of_the_sampler():
    from diffspace import initial_latents, step_noise

    trace = Hutchinson(3, "gaussian")
    together = trace.vectors([5, 2, 8], (2, 2))
    assert torch.equal(trace.vectors([2], (2, 2))[:, 0], together[:, 1])
    assert len(torch.unique(together.reshape(9, 4), dim=0)) == 9
    drawn = [initial_latents([2], (2, 2)), *(step_noise([2], step, (2, 2)) for step in range(50))]
    assert not any(torch.equal(draw[0], probe) for draw in drawn for probe in together[:, 1])
    signs = Hutchinson(3).vectors([5, 2, 8], (2, 2))
    assert set(signs.flatten().tolist()) == {-1.0, 1.0}
    norms = Hutchinson(3, "sphere").vectors([5, 2, 8], (2, 2)).flatten(2).square().sum(2)
    torch.testing.assert_close(norms, torch.full((3, 3), 4.0))


class Cube(torch.autograd.Function):
    """x³ without a rule for batches of gradients."""

    @staticmethod
    def forward(context, x):
        context.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(context, gradient):
        (x,) = context.saved_tensors
        if torch._C._functorch.is_batchedtensor(gradient):
            raise RuntimeError("no batches here")
        return 3 * x**2 * gradient


def test_what_cannot_be_batched_is_done_one_by_one():
    x = torch.randn(3, 4, dtype=torch.float64)
    found = log_likelihood(
        lambda x, sigma, cond: Cube.apply(x), x, sampler=Sampler(GivenSteps((2.0, 1.0)), Heun(1 / 2))
    )
    plain = log_likelihood(lambda x, sigma, cond: x**3, x, sampler=Sampler(GivenSteps((2.0, 1.0)), Heun(1 / 2)))
    torch.testing.assert_close(found.log_prob, plain.log_prob, rtol=1e-13, atol=0)
