"""ln p by the ODE against distributions whose density is known."""

import math

import numpy as np
import pytest
import torch
from small_networks import make_denoiser

from diffspace import (
    EDMSteps,
    Euler,
    FlowSchedule,
    GivenSteps,
    Heun,
    LogLinearSteps,
    Process,
    VPSchedule,
    encode,
    sample,
)
from diffspace.likelihood import GaussianPrior, Hutchinson, log_likelihood
from diffspace.oracles import ByClass, Gaussian
from diffspace.sampling import AdamsBashforth, Execution, Sampler

SIGMA_MIN, SIGMA_MAX = 0.002, 80.0
LOW, HIGH = torch.tensor(SIGMA_MIN).double(), torch.tensor(SIGMA_MAX).double()
COUNTS = (64, 128, 256)
PROCESSES = {"EDM": Process(), "VP": Process(VPSchedule()), "flow": Process(FlowSchedule())}
# solvers whose order is measured: each under the process of the paper, and some under others
CASES = [("EDM", solver) for solver in (Euler(), Heun(), Heun(1 / 2))] + [("VP", Heun(2 / 3)), ("flow", Heun())]
CASES += [("EDM", AdamsBashforth(2, "x0", "log_sigma"))]  # multistep solvers integrate it as well


def steps(n):
    return EDMSteps(n, SIGMA_MIN, SIGMA_MAX, terminal="sigma_min")


def draws(oracle, n, seed=0):
    return oracle.sample(n, generator=torch.Generator().manual_seed(seed))


def rms(values):
    return float(values.square().mean().sqrt())


def order(errors):
    return -np.polyfit(np.log(COUNTS), np.log(errors), 1)[0]


@pytest.mark.parametrize(("process", "solver"), CASES, ids=str)
def test_on_a_mixture_the_error_falls_with_the_order_of_the_solver(mixture, plain_mixture, process, solver):
    x = draws(mixture, 16)
    exact = mixture.log_prob(x, LOW)
    errors = []
    for n in COUNTS:
        options = {"sampler": Sampler(steps(n), solver, PROCESSES[process]), "prior": mixture.log_prob}
        found = log_likelihood(plain_mixture, x, **options)
        assert found.nfe == n * solver.evaluations(to_zero=False)
        errors.append(rms(found.log_prob - exact))
    print(f"\n  {solver}, {process}: order {order(errors):.2f}, errors {' '.join(f'{e:.1e}' for e in errors)} nats")
    assert order(errors) == pytest.approx(solver.order, abs=0.1)
    assert errors[-1] < (0.3 if solver.order == 1 else 4e-3)


def test_a_gaussian_of_images_has_the_density_of_its_sampler(gaussian, plain_gaussian):
    """The exact flow carries N(0, σ_max²I) to N(μ − Aμ, σ_max²A²), A² = (Σ + σ_min²)/(Σ + σ_max²): the default prior
    leads there, and the exact one to the density of the data."""
    x = draws(gaussian, 8)
    low, high = gaussian.variances + SIGMA_MIN**2, gaussian.variances + SIGMA_MAX**2
    factor = gaussian.axes @ torch.diag((low / high).sqrt()) @ gaussian.axes.T
    own = Gaussian((gaussian.mean - factor @ gaussian.mean).reshape(2, 3, 2), SIGMA_MAX**2 * factor @ factor)
    errors = {"sampler": [], "data": []}
    for n in COUNTS:
        noise = log_likelihood(plain_gaussian, x, sampler=Sampler(steps(n), Heun(1 / 2)))
        exact = log_likelihood(plain_gaussian, x, prior=gaussian.log_prob, sampler=Sampler(steps(n), Heun(1 / 2)))
        assert noise.latents.shape == x.shape
        assert torch.equal(noise.latents, exact.latents)
        errors["sampler"].append(rms(noise.log_prob - own.log_prob(x, torch.zeros(()).double())))
        errors["data"].append(rms(exact.log_prob - gaussian.log_prob(x, LOW)))
        # what lies between the two is the prior at the latents, to the last digits
        between = noise.log_prob - exact.log_prob
        prior = GaussianPrior()(noise.latents, HIGH) - gaussian.log_prob(noise.latents, HIGH)
        torch.testing.assert_close(between, prior, rtol=0, atol=1e-11)
    limit = GaussianPrior()(gaussian.flow(x, SIGMA_MIN, SIGMA_MAX), HIGH)
    limit -= gaussian.log_prob(gaussian.flow(x, SIGMA_MIN, SIGMA_MAX), HIGH)
    assert rms(between - limit) < 1e-5 < 1e-3 * rms(limit)  # and tends to its closed form
    for name, measured in errors.items():
        print(f"\n  {name}: order {order(measured):.2f}, errors {' '.join(f'{e:.1e}' for e in measured)} nats")
        assert order(measured) == pytest.approx(2, abs=0.1)
        assert measured[-1] < 4e-3


def test_what_the_prior_of_noise_alone_leaves_out(gaussian):
    """The mean over the data of ln N(x; 0, σ²I) − ln p(x; σ), against the formula of `GaussianPrior`."""
    for sigma in (80.0, 800.0):
        level = torch.tensor(sigma).double()
        corners = math.sqrt(12) * torch.cat([torch.eye(12), -torch.eye(12)]).double()  # of mean 0 and covariance I
        x = (gaussian.mean + corners * (gaussian.variances + sigma**2).sqrt() @ gaussian.axes.T).reshape(-1, 2, 3, 2)
        measured = float((GaussianPrior()(x, level) - gaussian.log_prob(x, level)).mean())
        mean_term, variance_term = float(gaussian.mean.square().sum()), float(gaussian.variances.square().sum())
        formula = -0.5 * (mean_term + 0.5 * variance_term / sigma**2) / sigma**2
        assert measured == pytest.approx(formula, rel=1e-3)
    isotropic = Gaussian(torch.full((3,), 0.4, dtype=torch.float64), 0.25 * torch.eye(3).double())
    x = 80 * torch.randn(5, 3, dtype=torch.float64)
    torch.testing.assert_close(GaussianPrior(0.4, 0.5)(x, HIGH), isotropic.log_prob(x, HIGH), rtol=1e-14, atol=0)


def test_it_is_a_run_of_encode_with_one_more_coordinate(mixture):
    x = draws(mixture, 4)
    found = log_likelihood(mixture, x, sampler=Sampler(steps(20), Heun(), Process(VPSchedule())))
    encoded = encode(mixture, x, sampler=Sampler(steps(20), process=Process(VPSchedule())))
    torch.testing.assert_close(found.latents, encoded.x, rtol=1e-13, atol=1e-13)
    assert torch.equal(found.sigmas, encoded.sigmas)
    assert found.nfe == encoded.nfe
    assert torch.equal(found.standard_error, torch.zeros(4))
    torch.testing.assert_close(found.prior_log_prob, GaussianPrior()(found.latents, HIGH), rtol=1e-14, atol=0)


def test_two_euler_steps_of_a_network_by_hand():
    """Shape (C, H, W), the Jacobian by brute force, and a network whose products cannot be batched."""
    denoiser = make_denoiser(shape=(2, 4, 4), attn_resolutions=())
    x = torch.randn(2, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    levels = (3.0, 0.9, 0.3)
    found = log_likelihood(denoiser, x, sampler=Sampler(GivenSteps(levels), Euler()))
    state, volume = x, torch.zeros(2, dtype=torch.float64)
    for sigma, above in ((0.3, 0.9), (0.9, 3.0)):
        level = torch.tensor(sigma).double()
        jacobian_of = torch.autograd.functional.jacobian
        jacobians = [jacobian_of(lambda v, s=level: denoiser(v[None], s)[0].flatten(), one) for one in state]
        traces = torch.stack([jacobian.reshape(32, 32).trace() for jacobian in jacobians])
        volume = volume + (above - sigma) / sigma * (32 - traces)
        state = state + (above - sigma) / sigma * (state - denoiser(state, level).detach())
    expected = GaussianPrior()(state, torch.tensor(3.0).double()) + volume
    torch.testing.assert_close(found.log_prob, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(found.latents, state, rtol=1e-6, atol=1e-6)


def test_every_class_has_its_own_density(mixture):
    other = Gaussian(torch.tensor([0.2, 0.4]).double(), torch.tensor([[0.3, 0.1], [0.1, 0.2]]).double())
    x, labels = draws(mixture, 6), torch.tensor([0, 1, 1, 0, 1, 0])
    found = log_likelihood(
        ByClass([mixture, other]),
        x,
        cond={"labels": labels},
        sampler=Sampler(steps(24), Heun(1 / 2)),
        execution=Execution(batch_size=4),
    )
    for k, oracle in enumerate((mixture, other)):
        alone = log_likelihood(oracle, x[labels == k], sampler=Sampler(steps(24), Heun(1 / 2)))
        torch.testing.assert_close(found.log_prob[labels == k], alone.log_prob, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("trace", [None, Hutchinson(3)])
def test_a_sample_does_not_depend_on_its_batch(mixture, trace):
    x, seeds = draws(mixture, 5), None if trace is None else [7, 1, 9, 4, 4]
    together = log_likelihood(mixture, x, trace=trace, seeds=seeds, sampler=Sampler(steps(6), Heun(1 / 2)))
    parts = log_likelihood(
        mixture, x, trace=trace, seeds=seeds, sampler=Sampler(steps(6), Heun(1 / 2)), execution=Execution(batch_size=2)
    )
    for name in ("log_prob", "standard_error", "latents", "prior_log_prob"):
        torch.testing.assert_close(getattr(parts, name), getattr(together, name), rtol=1e-13, atol=1e-13)
    own = None if seeds is None else seeds[3:4]
    alone = log_likelihood(mixture, x[3:4], trace=trace, seeds=own, sampler=Sampler(steps(6), Heun(1 / 2)))
    torch.testing.assert_close(alone.log_prob, together.log_prob[3:4], rtol=1e-13, atol=1e-13)
    assert together.seeds == (None if seeds is None else tuple(seeds))


def test_the_gradient_is_the_score(mixture, plain_mixture):
    x = draws(mixture, 6).requires_grad_()
    found = log_likelihood(
        plain_mixture,
        x,
        prior=mixture.log_prob,
        sampler=Sampler(steps(128), Heun(1 / 2)),
        execution=Execution(grad=True),
    )
    (slope,) = torch.autograd.grad(found.log_prob.sum(), x)
    score = mixture.score(x.detach(), LOW)
    assert rms(slope - score) < 5e-3 * rms(score)
    assert not log_likelihood(mixture, x, sampler=Sampler(steps(2), Heun(1 / 2))).log_prob.requires_grad


def test_gradients_reach_the_weights_and_modes_are_restored():
    torch.manual_seed(0)
    layer, dropout = torch.nn.Linear(2, 2).double(), torch.nn.Dropout(0.5)

    class Small(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.dropout = layer, dropout

        def forward(self, x, sigma, cond=None):
            return self.dropout(torch.tanh(self.layer(x / (1 + sigma))))

    denoiser, x = Small().train(), torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    sampler = Sampler(EDMSteps(3, 0.1, 3.0, terminal="sigma_min"), Heun(1 / 2))
    placed = {"sampler": sampler, "execution": Execution(grad=True)}

    def objective(x, weight):
        weights = {"layer.weight": weight, "layer.bias": layer.bias}
        call = lambda *arguments: torch.func.functional_call(denoiser.eval(), weights, arguments)  # noqa: E731
        return log_likelihood(call, x, **placed).log_prob

    assert torch.autograd.gradcheck(objective, (x, layer.weight), atol=1e-6)
    denoiser.train()
    found = log_likelihood(denoiser, x, **placed)
    torch.testing.assert_close(found.log_prob, objective(x, layer.weight))
    denoiser.train()
    log_likelihood(denoiser, x.detach(), sampler=sampler)
    assert denoiser.training
    assert dropout.training
    assert layer.weight.grad is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_state_is_wide_whatever_x_is(mixture, dtype):
    x = draws(mixture, 3).to(dtype)
    found = log_likelihood(mixture, x, sampler=Sampler(steps(8), Heun(1 / 2)))
    assert found.log_prob.dtype == torch.float64
    assert torch.equal(
        found.log_prob, log_likelihood(mixture, x.double(), sampler=Sampler(steps(8), Heun(1 / 2))).log_prob
    )
    narrow = log_likelihood(
        mixture, x, sampler=Sampler(steps(8), Heun(1 / 2)), execution=Execution(dtype=torch.float32)
    )
    assert narrow.log_prob.dtype == torch.float32
    torch.testing.assert_close(narrow.log_prob.double(), found.log_prob, rtol=0, atol=1e-3)


def test_the_density_is_counted_evaluation_by_evaluation(mixture):
    calls, seen = [], []

    def counted(x, sigma, cond=None):
        calls.append(float(sigma))
        return mixture(x, sigma)

    x = draws(mixture, 3)
    for n in (1, 2, 5):
        calls.clear()
        found = log_likelihood(counted, x, sampler=Sampler(steps(n), Heun(1 / 2)))
        assert found.nfe == len(calls) == 2 * n
        assert calls[0] == pytest.approx(SIGMA_MIN, rel=1e-14)
    log_likelihood(
        mixture,
        x,
        sampler=Sampler(steps(2), Heun(1 / 2)),
        execution=Execution(batch_size=2, progress=lambda first, state: seen.append((first, state))),
    )
    assert [(first, state.step) for first, state in seen] == [(0, 0), (0, 1), (0, 2), (2, 0), (2, 1), (2, 2)]
    assert torch.equal(seen[0][1].x, x[:2])
    assert seen[-1][1].denoised.shape == (1, 2)


def test_numbers_are_samples_too():
    def numbers(x, sigma, cond=None):
        return 0.25 / (0.25 + sigma**2) * x

    x = torch.tensor([0.1, -0.7, 1.2], dtype=torch.float64)
    found = log_likelihood(
        numbers,
        x,
        prior=GaussianPrior(std=0.5),
        sampler=Sampler(LogLinearSteps(400, terminal="sigma_min"), Heun(1 / 2)),
    )
    expected = torch.distributions.Normal(0.0, math.sqrt(0.25 + SIGMA_MIN**2)).log_prob(x)
    torch.testing.assert_close(found.log_prob, expected.double(), rtol=0, atol=1e-3)
    assert found.latents.shape == (3,)


def test_samples_of_the_sampler_are_as_likely_as_their_latents_say(gaussian, plain_gaussian):
    """ln p(x) of x = decode(z) integrates to the volume by which the flow, known in closed form, shrinks space."""
    latents = torch.randn(3, 2, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x = sample(plain_gaussian, latents=latents, steps=steps(300)).x
    found = log_likelihood(plain_gaussian, x, sampler=Sampler(steps(300), Heun(1 / 2)))
    shrunk = 0.5 * ((gaussian.variances + SIGMA_MAX**2) / (gaussian.variances + SIGMA_MIN**2)).log().sum()
    expected = GaussianPrior()(SIGMA_MAX * latents, HIGH) + shrunk
    torch.testing.assert_close(found.log_prob, expected, rtol=0, atol=3e-2)
