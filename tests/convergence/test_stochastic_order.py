"""Solvers of the SDE against their declared order: the weak one exactly, the strong one on Brownian paths.

On a Gaussian a run is affine in where it starts and in each draw of noise, x = c + a·x₀ + Σ b_k·z_k, and the three are
read off by running unit vectors. So mean and variance of the end points are known without sampling, and their errors
have clean slopes. Strong errors are distances between end points with the same path, in the mean over many paths.
`pytest -s` prints the tables.
"""

import math

import numpy as np
import pytest
import torch

from diffspace import EDMSteps, FlowSchedule, Process, VPSchedule, sample
from diffspace.sampling import (
    DPMSolverPP2MSDE,
    DPMSolverPP3MSDE,
    DPMSolverPPSDE,
    EulerAncestral,
    GeneralSDE,
    PredictorCorrector,
    Sampler,
    sample_from,
)

SIGMA_MAX, SIGMA_MIN = 80.0, 0.002
MEAN = torch.tensor([0.7, -0.4], dtype=torch.float64)
VARIANCES = torch.tensor([0.6, 0.05], dtype=torch.float64)
PROCESSES = {"EDM": Process(), "VP": Process(VPSchedule()), "flow": Process(FlowSchedule())}


def gaussian(x, sigma, cond=None):
    return MEAN + VARIANCES / (VARIANCES + sigma**2) * (x - MEAN)


def affine(solver, n, process):
    """c and a for each axis, and Σ b_k²."""
    draws = 2 * n if isinstance(solver, DPMSolverPPSDE) and solver.r < 1 else n
    latents = torch.zeros(2 + draws, 2, dtype=torch.float64)
    latents[1] = 1 / SIGMA_MAX
    drawn = []

    def noise(draw, like):
        drawn.append(draw)
        unit = torch.zeros_like(like)
        unit[2 + draw] = 1
        return unit

    steps = EDMSteps(n, SIGMA_MIN, SIGMA_MAX, "sigma_min")
    x = sample(gaussian, latents=latents, steps=steps, solver=solver, process=process, noise=noise).x
    assert drawn == list(range(draws))
    return x[0], x[1] - x[0], (x[2:] - x[0]).square().sum(0)


def orders(solver, process, rate, counts=(64, 192)):
    """Slope of the variance's error for a start from the law at σ_max; slopes and errors of what is left of the start.

    `rate` is β·σ/σ̇ of the SDE, by which the start decays as ((V + σ_min²)/(V + σ_max²))^{(1 + rate)/2}.
    """
    flow = (VARIANCES + SIGMA_MIN**2) / (VARIANCES + SIGMA_MAX**2)
    errors, decays = [], []
    for n in counts:
        c, a, spread = affine(solver, n, process)
        torch.testing.assert_close(c + a * MEAN, MEAN, rtol=0, atol=1e-12)  # the mean of the law stays where it is
        variance = a**2 * (VARIANCES + SIGMA_MAX**2) + spread
        errors.append(float((variance / (VARIANCES + SIGMA_MIN**2) - 1).abs().max()))
        decays.append(float((a / flow ** (0.5 * (1 + rate)) - 1).abs().max()))
    slope, of_decay = (-np.polyfit(np.log(counts), np.log(e), 1)[0] for e in (errors, decays))
    print(f"\n  {solver}: {slope:.2f}, {errors[-1]:.1e}; of the decay {of_decay:.2f}, {decays[-1]:.1e}")
    return slope, of_decay, decays[-1]


# solver, β·σ/σ̇, and the order of the decay of the start (None: exact; for β = σ̇/σ the mean of D never changes)
WEAK = {
    "ancestral": (EulerAncestral(), 1, None),
    "ancestral half": (EulerAncestral(0.5), 0.25, 1),
    "DPM++ SDE": (DPMSolverPPSDE(), 1, None),
    "DPM++ SDE half": (DPMSolverPPSDE(0.5), 0.25, 1),
    "DPM++ SDE r=1": (DPMSolverPPSDE(r=1.0), 1, None),
    "2M SDE midpoint": (DPMSolverPP2MSDE(), 1, None),
    "2M SDE heun": (DPMSolverPP2MSDE(variant="heun"), 1, None),
    "2M SDE half": (DPMSolverPP2MSDE(0.5), 0.5, 2),
    "2M SDE twice": (DPMSolverPP2MSDE(2.0), 2, 2),
    "3M SDE": (DPMSolverPP3MSDE(), 1, None),
    "Euler–Maruyama": (GeneralSDE(), 1, 1),
    "Euler–Maruyama half": (GeneralSDE(0.5), 0.5, 1),
    "two stages": (GeneralSDE(stages=2), 1, 2),
    "two stages half": (GeneralSDE(0.5, stages=2), 0.5, 2),
    "predictor": (PredictorCorrector(corrections=0), 1, None),
}


@pytest.mark.parametrize("name", WEAK)
def test_the_weak_order_is_the_declared_one(name):
    solver, rate, decay = WEAK[name]
    slope, of_decay, error = orders(solver, Process(), rate)
    assert slope == pytest.approx(solver.order, abs=0.2)
    if decay is None:
        assert error < 1e-9
    else:
        assert of_decay == pytest.approx(decay, abs=0.25)


@pytest.mark.parametrize("process", ["VP", "flow"])
@pytest.mark.parametrize("name", ["3M SDE", "Euler–Maruyama", "two stages"])
def test_the_weak_order_is_that_under_other_processes(name, process):
    solver, rate, _ = WEAK[name]
    slope, _, _ = orders(solver, PROCESSES[process], rate)
    assert slope == pytest.approx(solver.order, abs=0.3)


@pytest.mark.parametrize("stages", [1, 2])
def test_the_weak_order_is_that_with_any_rate(stages):
    """β = 2t/(t² + 0.3): β·σ/σ̇ goes from 0 to 2 with σ, which leaves the law as it is."""
    solver = GeneralSDE(stages=stages, beta=lambda t: 2 * t / (t * t + 0.3))
    slope, _, _ = orders(solver, Process(), 0)
    assert slope == pytest.approx(stages, abs=0.2)


# a mixture in the plane; one seed and a shape of many points, which is faster than many seeds
MEANS = torch.tensor([[0.9, 0.1], [-0.6, 0.7], [-0.2, -0.8]], dtype=torch.float64)
STDS = torch.tensor([0.1, 0.2, 0.05], dtype=torch.float64)
WEIGHTS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)


def mixture(x, sigma, cond=None):
    total = STDS**2 + sigma**2
    offsets = x.reshape(-1, 1, 2) - MEANS
    posterior = (WEIGHTS.log() - offsets.square().sum(2) / (2 * total) - total.log()).softmax(1)
    return (posterior[:, :, None] * (MEANS + (STDS**2 / total)[:, None] * offsets)).sum(1).reshape(x.shape)


def end_points(solver, n, count, seed=1, start=None, terminal="sigma_min"):
    steps = EDMSteps(n, SIGMA_MIN, SIGMA_MAX, terminal)
    sampler = Sampler(steps, solver)
    if start is None:
        return sample(mixture, seeds=[seed], shape=(count, 2), sampler=sampler).x[0]
    return sample_from(mixture, start[None], SIGMA_MAX, seeds=[seed], sampler=sampler).x[0]


PATHS = 2000


@pytest.fixture(scope="module")
def fine():
    return end_points(GeneralSDE(stages=2), 1024, PATHS)


def some_slow(names, fast):
    return [pytest.param(name, marks=() if name in fast else pytest.mark.slow) for name in names]


STRONG = ["ancestral", "DPM++ SDE", "2M SDE midpoint", "3M SDE", "Euler–Maruyama", "two stages"]


def test_all_solvers_of_one_equation_approach_one_end_point():
    ends = [end_points(WEAK[name][0], 96, 400) for name in ("DPM++ SDE", "3M SDE", "two stages")]
    for i, one in enumerate(ends):
        assert (one - ends[i - 1]).norm(dim=1).mean() < 0.1
        assert (one - ends[i - 1][torch.arange(-1, 399)]).norm(dim=1).mean() > 0.5  # with another path


@pytest.mark.slow
@pytest.mark.parametrize("name", STRONG)
def test_the_strong_order_is_one(name, fine):
    """All solvers of one SDE approach the same end point for the same path, in E‖error‖ to first order.

    (The root mean square falls more slowly: a share ∝ 1/N of the paths ends in another component.)
    """
    counts = np.array([64, 128, 256])
    errors = np.stack([(end_points(WEAK[name][0], int(n), PATHS) - fine).norm(dim=1).numpy() for n in counts])

    def slope(rows):
        return -np.polyfit(np.log(counts), np.log(errors[:, rows].mean(1)), 1)[0]

    rng = np.random.default_rng(0)
    bar = np.std([slope(rng.integers(PATHS, size=PATHS)) for _ in range(200)])
    measured = slope(np.arange(PATHS))
    median = -np.polyfit(np.log(counts), np.log(np.median(errors, 1)), 1)[0]
    print(f"\n  {name}: {measured:.2f} ± {bar:.2f}, of the median {median:.2f}, {errors.mean(1)}")
    assert bar < 0.15
    assert measured == pytest.approx(1, abs=0.1 + 2 * bar)
    assert median == pytest.approx(1, abs=0.25)


COUNT = 4000
COVARIANCE = (WEIGHTS[:, None, None] * (torch.einsum("ki,kj->kij", MEANS, MEANS))).sum(0)
TRUE_MEAN = WEIGHTS @ MEANS
TRUE_COVARIANCE = COVARIANCE - torch.outer(TRUE_MEAN, TRUE_MEAN) + (WEIGHTS @ STDS**2) * torch.eye(2).double()


def z_scores(x):
    """Mean and second moments against truth, in standard errors."""
    products = (x - TRUE_MEAN)[:, :, None] * (x - TRUE_MEAN)[:, None, :]
    of_mean = (x.mean(0) - TRUE_MEAN) / (x.std(0) / math.sqrt(len(x)))
    of_covariance = (products.mean(0) - TRUE_COVARIANCE) / (products.std(0) / math.sqrt(len(x)))
    return torch.cat([of_mean, of_covariance.reshape(-1)])


def law(sigma, seed=5):
    """Draws of p(x; σ)."""
    generator = torch.Generator().manual_seed(seed)
    which = torch.multinomial(WEIGHTS, COUNT, replacement=True, generator=generator)
    noise = torch.randn(COUNT, 2, generator=generator, dtype=torch.float64)
    return MEANS[which] + (STDS[which] ** 2 + sigma**2).sqrt()[:, None] * noise


MARGINAL = {
    "DPM++ SDE": (DPMSolverPPSDE(), 64),
    "DPM++ SDE half": (DPMSolverPPSDE(0.5), 64),
    "2M SDE": (DPMSolverPP2MSDE(), 128),
    "2M SDE twice": (DPMSolverPP2MSDE(2.0), 128),
    "3M SDE": (DPMSolverPP3MSDE(), 128),
    "two stages": (GeneralSDE(stages=2), 128),
    "any rate": (GeneralSDE(stages=2, beta=lambda t: 2 * t / (t * t + 0.3)), 128),
}


@pytest.mark.parametrize("name", some_slow(MARGINAL, {"DPM++ SDE"}))
def test_the_law_is_kept_on_a_mixture(name):
    solver, n = MARGINAL[name]
    scores = z_scores(end_points(solver, n, COUNT, start=law(SIGMA_MAX), terminal="zero"))
    print(f"\n  {name}: {scores.numpy().round(1)}")
    assert scores.abs().max() < 4.5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ancestral", "Euler–Maruyama", "predictor"])
def test_solvers_of_first_order_keep_the_law_to_that_order(name):
    """At the N of a test their error is above that of 4000 draws, but small."""
    x = end_points(WEAK[name][0], 256, COUNT, start=law(SIGMA_MAX), terminal="zero")
    assert (torch.cov(x.T) - TRUE_COVARIANCE).abs().max() < 0.1 * TRUE_COVARIANCE.max()
    assert (x.mean(0) - TRUE_MEAN).abs().max() < 0.05
