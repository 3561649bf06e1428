"""Algorithm 2: what churn adds is what the solver takes away."""

import math

import pytest
import torch

import edmkit as ek

N, DRAWS = 128, 50_000


def fast_noise(seed):
    """White noise in one draw for all samples: a run of 50,000 streams is a matter of minutes."""
    generator = torch.Generator().manual_seed(seed)
    return lambda step, like: torch.randn(like.shape, dtype=like.dtype, generator=generator)


def z_scores(x, mixture):
    """Deviations of sample mean and covariance from the exact ones, in standard errors."""
    d = x.shape[1]
    n = len(x)
    mean, covariance = mixture.mean(), mixture.covariance()
    centred = x - mean
    of_mean = centred.mean(0) / (covariance.diagonal() / n).sqrt()
    products = torch.einsum("ni,nj->nij", centred, centred).reshape(n, d * d)
    of_covariance = (products.mean(0) - covariance.reshape(-1)) / (products.std(0) / math.sqrt(n))
    return torch.cat([of_mean, of_covariance])


@pytest.mark.parametrize(
    "schedule", [ek.EDMSchedule(), ek.VPSchedule(), ek.VESchedule()], ids=lambda s: type(s).__name__
)
def test_churn_conserves_mean_and_covariance(mixture, schedule):
    # an ODE solver's steps would be too few under VE at N = 128: its error, not the churn's, is then seen
    n = N if not isinstance(schedule, ek.VESchedule) else 4 * N
    draws = DRAWS if n == N else DRAWS // 4
    samples = ek.sample(
        mixture,
        latents=torch.randn(draws, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64),
        steps=ek.EDMSteps(n),
        process=ek.Process(schedule),
        churn=ek.Churn(S_churn=40 * n / N, S_noise=1.0),
        noise=fast_noise(6),
    )
    assert float(z_scores(samples.x, mixture).abs().max()) < 4.5


@pytest.mark.slow
def test_churn_with_a_stream_for_each_seed(mixture):
    samples = ek.sample(
        mixture, shape=(2,), seeds=range(DRAWS), steps=ek.EDMSteps(N), churn=ek.Churn(S_churn=40), batch_size=10_000
    )
    assert float(z_scores(samples.x, mixture).abs().max()) < 4.5


def test_the_statistics_see_a_wrong_noise(mixture):
    """The same test with noise 5 % too strong in all of the range fails by far."""
    samples = ek.sample(
        mixture,
        latents=torch.randn(DRAWS, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64),
        steps=ek.EDMSteps(N),
        churn=ek.Churn(S_churn=40, S_noise=1.05),
        noise=fast_noise(6),
    )
    assert float(z_scores(samples.x, mixture).abs().max()) > 6


def never(step, like):
    raise AssertionError("noise was drawn")


def test_no_churn_is_the_deterministic_solver_and_draws_nothing(mixture):
    options = {"latents": torch.randn(9, 2), "steps": ek.EDMSteps(12)}
    plain = ek.sample(mixture, **options).x
    assert torch.equal(plain, ek.sample(mixture, churn=ek.Churn(), noise=never, **options).x)
    outside = ek.Churn(S_churn=30, S_tmin=200.0)
    assert torch.equal(plain, ek.sample(mixture, churn=outside, noise=never, **options).x)


def test_noise_is_drawn_only_where_gamma_is_positive(mixture):
    drawn = []

    def noise(step, like):
        drawn.append(step)
        return torch.zeros_like(like)

    steps = ek.EDMSteps(12)
    ek.sample(mixture, latents=torch.randn(2, 2), steps=steps, churn=ek.Churn(6, 0.1, 20.0), noise=noise)
    levels = steps.sigmas()[:-1]
    assert drawn == [i for i, sigma in enumerate(levels.tolist()) if 0.1 <= sigma <= 20]


def test_gamma_is_capped():
    assert ek.Churn(S_churn=1000).gamma(1.0, 18) == math.sqrt(2) - 1
    assert ek.Churn(S_churn=3.6).gamma(1.0, 18) == pytest.approx(0.2)


class Ranged:
    sigma_min, sigma_max = 0.01, 80.0

    def __call__(self, x, sigma, cond=None):
        return 0.5 * x


def test_churn_out_of_the_models_range_names_S_tmax():
    with pytest.raises(ValueError, match="S_tmax"):
        ek.sample(Ranged(), seeds=[0], shape=(2,), churn=ek.Churn(S_churn=10))
    ek.sample(Ranged(), seeds=[0], shape=(2,), churn=ek.Churn(S_churn=1, S_tmax=50.0))


def test_a_tensor_without_seeds_or_noise_cannot_be_churned(mixture):
    with pytest.raises(ValueError, match="seeds"):
        ek.sample(mixture, latents=torch.randn(2, 2), churn=ek.Churn(S_churn=10))


@pytest.mark.parametrize(
    "options", [{"S_churn": -1.0}, {"S_noise": math.nan}, {"S_tmin": 3.0, "S_tmax": 2.0}, {"S_churn": math.inf}]
)
def test_bad_churn(options):
    with pytest.raises(ValueError, match="S_"):
        ek.Churn(**options)
