"""Marginals of Eq. 6 against exact densities, errors against their closed form, steps against `sample` to the bit."""

import math

import pytest
import torch

from diffspace.oracles import Gaussian, GaussianMixture
from diffspace.sampling import Churn, EDMSteps, Euler, GeneralSDE, GivenSteps, Heun, Sampler, sample, sample_from
from diffspace.sampling.driver import make_grid
from diffspace.sampling.streams import initial_latents, step_noise
from diffspace.studies import algorithm_steps, churning, diffused, distances, kolmogorov_smirnov, quantiles, three_modes
from diffspace.studies.problems import log_space

_COUNT = 10_000


def _p_value(distance: float, count: int) -> float:
    """Kolmogorov's limit: P(√n·sup|F_n − F| > d) = 2·Σ_k (−1)^{k−1}·e^{−2k²d²}."""
    scaled = math.sqrt(count) * distance
    return min(1.0, 2 * sum((-1) ** (k - 1) * math.exp(-2 * (k * scaled) ** 2) for k in range(1, 20)))


def _one_mode(std: float) -> GaussianMixture:
    one = torch.ones(1, dtype=torch.float64)
    return GaussianMixture(one[:, None] * 0, one * std)


@pytest.mark.parametrize("eta", [0.0, 1.0, 4.0])
def test_marginal_is_exact_density_for_every_rate(eta: float) -> None:
    data, run = three_modes(), diffused(three_modes(), eta, num_steps=80, count=_COUNT)
    for sigma in (1.0, 0.3, 0.1, 0.03):
        level, x = run.nearest(sigma)
        assert _p_value(kolmogorov_smirnov(data, x, level), _COUNT) > 0.01, sigma


def test_wrong_density_or_wrong_noise_would_be_seen() -> None:
    data = three_modes()
    level, x = diffused(data, 1.0, num_steps=80, count=_COUNT).nearest(0.3)
    assert _p_value(kolmogorov_smirnov(data, x, 1.2 * level), _COUNT) < 1e-3

    # the noise of a rate β 1.5 times that of the drift
    generator = torch.Generator().manual_seed(0)

    def draw(k: int, like: torch.Tensor) -> torch.Tensor:
        return math.sqrt(1.5) * torch.randn(like.shape, dtype=torch.float64, generator=generator)

    start = data.sample(_COUNT, generator=generator)
    start = start + 3 * torch.randn(start.shape, dtype=torch.float64, generator=generator)
    levels = log_space(3.0, 0.3, 40)
    sampler = Sampler(GivenSteps(tuple(levels.tolist())), GeneralSDE(1.0, stages=2))
    wrong = sample_from(data, start, float(levels[0]), sampler=sampler, noise=draw).x[:, 0]
    assert _p_value(kolmogorov_smirnov(data, wrong, float(levels[-1])), _COUNT) < 1e-3


def test_statistic_is_exact_on_a_known_set() -> None:
    # F(x) = Φ(x) at the quartiles: steps of 1/3 against ¼, ½, ¾ are farthest apart by ¼
    x = torch.special.ndtri(torch.tensor([0.75, 0.25, 0.5], dtype=torch.float64))
    assert kolmogorov_smirnov(_one_mode(1.0), x, 0.0) == pytest.approx(0.25, abs=1e-12)


@pytest.mark.parametrize("eta", [0.0, 1.0, 2.0])
def test_shift_of_gaussian_shrinks_by_closed_form(eta: float) -> None:
    # on N(0, σ_d²), Eq. 6 is dm/dσ = (1 + η)·m·σ/(σ² + σ_d²) for the mean m
    options = {"sigma_max": 2.0, "sigma_min": 0.1, "num_steps": 80, "count": 64}
    right, shifted = (diffused(_one_mode(0.5), eta, shift=shift, **options) for shift in (0.0, 0.7))
    total = right.sigma**2 + 0.5**2
    exact = 0.7 * (total / total[0]) ** ((1 + eta) / 2)
    assert (shifted.x - right.x - exact[:, None]).abs().max() < 1.5e-3
    # and so the ODE keeps the shift in units of the standard deviation, and the SDE loses it
    assert float(exact[-1] / total[-1].sqrt()) == pytest.approx(
        0.7 / total[0].sqrt() * (total[-1] / total[0]) ** (eta / 2)
    )


def test_distance_of_a_shift_is_the_shift() -> None:
    data = three_modes()
    run = diffused(data, 0.0, num_steps=4, count=8)
    u = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    exact = type(run)(0.0, run.sigma, quantiles(data, u, run.sigma) + 0.4)
    torch.testing.assert_close(distances(data, exact), torch.full_like(run.sigma, 0.4), rtol=0, atol=4e-3)


def test_sde_forgets_what_ode_keeps() -> None:
    data = three_modes()
    ode, sde = (diffused(data, eta, sigma_max=2.0, num_steps=80, count=4000, shift=1.0) for eta in (0.0, 4.0))
    spread = (data.moments()[1] + ode.sigma**2).sqrt()
    kept, forgotten = (distances(data, run) / spread for run in (ode, sde))
    assert kept[-1] > 0.85 * kept[0]
    assert forgotten[-1] < 0.1 * forgotten[0]


@pytest.mark.parametrize("solver", [Euler(), Heun()])
@pytest.mark.parametrize("S_churn", [0.0, 2.5])
def test_steps_are_those_of_sample(solver: Euler | Heun, S_churn: float) -> None:
    sampler = Sampler(EDMSteps(7, 0.05, 2.0), solver, churn=Churn(S_churn, 0.1, 1.5, 1.003))
    data, seed = three_modes(), 5
    steps, run = algorithm_steps(data, sampler, seed=seed), sample(data, seeds=[seed], sampler=sampler)
    assert float(steps.x[-1]) == float(run.x)
    assert steps.sigma.tolist() == run.sigmas.tolist() == make_grid(data, sampler).sigmas
    for k, kick in enumerate(make_grid(data, sampler).kicks):
        noise = step_noise([seed], k, (1,)).double()
        lifted = steps.x[k] + kick.std * noise if kick else steps.x[k]
        assert float(steps.x_hat[k]) == float(lifted)
        assert float(steps.sigma_hat[k]) == (kick.point.sigma if kick else float(steps.sigma[k]))


def test_steps_are_those_of_algorithm_2_as_printed() -> None:
    data, sampler, seed = three_modes(), churning(), 14
    steps, churn = algorithm_steps(data, sampler, seed=seed), sampler.churn
    t = steps.sigma.tolist()
    x = t[0] * initial_latents([seed], (1,)).double()[0]
    for i in range(7):
        gamma = min(churn.S_churn / 7, math.sqrt(2) - 1) if churn.S_tmin <= t[i] <= churn.S_tmax else 0.0
        t_hat = t[i] + gamma * t[i]
        epsilon = churn.S_noise * step_noise([seed], i, (1,)).double()[0]
        x_hat = x + math.sqrt(t_hat**2 - t[i] ** 2) * epsilon
        slope = (x_hat - data(x_hat[None], torch.tensor(t_hat, dtype=torch.float64))[0]) / t_hat
        x = x_hat + (t[i + 1] - t_hat) * slope
        assert (steps.sigma_hat[i], steps.x_hat[i]) == (pytest.approx(t_hat), pytest.approx(x_hat.item()))
        if t[i + 1] > 0:
            assert steps.tried[i] == pytest.approx(x.item())
            second = (x - data(x[None], torch.tensor(t[i + 1], dtype=torch.float64))[0]) / t[i + 1]
            x = x_hat + (t[i + 1] - t_hat) * (slope + second) / 2
        assert steps.x[i + 1] == pytest.approx(x.item())
    assert math.isnan(steps.tried[-1])


def test_gaussian_flow_agrees_with_ode() -> None:
    run = diffused(_one_mode(0.5), 0.0, num_steps=80, count=16)
    exact = Gaussian(torch.zeros(1, dtype=torch.float64), 0.25 * torch.eye(1, dtype=torch.float64))
    expected = exact.flow(run.x[0][:, None], 3.0, 0.03)[:, 0]
    torch.testing.assert_close(run.x[-1], expected, rtol=1e-3, atol=0)
