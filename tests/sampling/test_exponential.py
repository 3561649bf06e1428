"""φ-functions, and what polynomials in ln σ the exponential solvers integrate exactly."""

import math

import pytest
import torch
from scipy.integrate import quad

import diffspace as ds
from diffspace.sampling import Sampler, sample_from
from diffspace.sampling.solvers.quadrature import exponential_moments, phi


@pytest.mark.parametrize("z", [-30.0, -3.0, -1.0, -0.999, -1e-3, 0.0, 1e-9, 0.3, 0.999, 1.0, 2.0, 12.0])
def test_phi_functions_are_their_integrals(z):
    for k in (1, 2, 3, 4):
        integral = quad(lambda u: math.exp((1 - u) * z) * u ** (k - 1) / math.factorial(k - 1), 0, 1, epsabs=0)[0]  # noqa: B023
        assert phi(k, z) == pytest.approx(integral, rel=2e-13)


@pytest.mark.parametrize(("sigma", "end"), [(80.0, 3.0), (1.0, 0.9999), (0.5, 0.002), (0.1, 7.0)])
def test_exponential_moments_are_their_integrals(sigma, end):
    h = math.log(sigma / end)
    for i, (epsilon, x0) in enumerate(
        zip(exponential_moments("epsilon", sigma, end, 3), exponential_moments("x0", sigma, end, 3), strict=True)
    ):

        def power(level, i=i):
            return (math.log(sigma / level) / h) ** i / math.factorial(i)

        assert epsilon == pytest.approx(quad(power, sigma, end, epsabs=0, epsrel=1e-12)[0], rel=1e-10)
        by_x0 = quad(lambda level: -end * power(level) / level**2, sigma, end, epsabs=0, epsrel=1e-12)[0]
        assert x0 == pytest.approx(by_x0, rel=1e-10)


def measure(prediction, g, sigma, end):
    """m(end)·∫ g dμ."""
    if prediction == "epsilon":
        return quad(g, sigma, end, epsabs=0, epsrel=1e-12)[0]
    return quad(lambda level: -end * g(level) / level**2, sigma, end, epsabs=0, epsrel=1e-12)[0]


def power(degree, start):
    return lambda level: math.log(level / start) ** degree


SINGLE_STEP = {
    "exp. Heun": (ds.ExponentialHeun(), "x0", 1),
    "exp. Heun ε": (ds.ExponentialHeun("epsilon"), "epsilon", 1),
    "DPM-2": (ds.DPMSolver2(), "epsilon", 0),
    "2S": (ds.DPMSolverPP2S(), "x0", 0),
    "DPM-3": (ds.DPMSolver3(), "epsilon", 1),
    "3S": (ds.DPMSolverPP3S(), "x0", 1),
}


@pytest.mark.parametrize(("solver", "prediction", "degree"), SINGLE_STEP.values(), ids=SINGLE_STEP)
def test_single_steps_are_exact_for_polynomials_of_the_stated_degree(solver, prediction, degree):
    x = torch.tensor([[5.0, -2.0]], dtype=torch.float64)
    for d in (degree, degree + 1):
        g = power(d, 2.0)

        def denoiser(x, sigma, cond=None, g=g):
            return torch.full_like(x, g(float(sigma))) if prediction == "x0" else x - sigma * g(float(sigma))

        ended = sample_from(denoiser, x, 3.0, sampler=Sampler(ds.GivenSteps((3.0, 1.0)), solver)).x
        ratio = 1 / 3 if prediction == "x0" else 1
        error = float((ended - (ratio * x + measure(prediction, g, 3.0, 1.0))).abs().max())
        assert error < 1e-12 if d == degree else error > 1e-4


MULTISTEP = {
    "2M": (ds.DPMSolverPP2M(), 2, 0),
    "3M as published": (ds.DPMSolverPP3M(), 3, 1),
    "AB x0": (ds.AdamsBashforth(3, "x0"), 3, 2),
    "AB ε": (ds.AdamsBashforth(4, "epsilon"), 4, 3),
    "UniPC": (ds.UniPC(3), 3, 2),
    "UniPC ε": (ds.UniPC(3, prediction="epsilon"), 3, 2),
}
LEVELS = (3.0, 4.0, 9.0, 11.0)  # of evaluations, the newest first


@pytest.mark.parametrize(("solver", "nodes", "degree"), MULTISTEP.values(), ids=MULTISTEP)
@pytest.mark.parametrize("end", [1.0, 2.9, 0.01, 3.5])
def test_multistep_weights_are_exact_for_polynomials_of_the_stated_degree(solver, nodes, degree, end):
    weights = solver.weights_at(LEVELS[:nodes], end)
    for d in range(degree + 2):
        g = power(d, 3.0)
        made = sum(w * g(level) for w, level in zip(weights, LEVELS, strict=False))
        assert (made == pytest.approx(measure(solver.prediction, g, 3.0, end), rel=1e-9)) is (d <= degree)


@pytest.mark.parametrize("prediction", ["x0", "epsilon"])
@pytest.mark.parametrize("k", [2, 3])
def test_the_corrected_step_of_unipc_is_exact_for_one_degree_more(prediction, k):
    solver = ds.UniPC(k, prediction=prediction)
    levels = LEVELS[:k]
    first, *change = solver.correction((1.0, *levels))
    weights = (first, *(w + c for w, c in zip(solver.weights_at(levels, 1.0), change, strict=True)))
    for d in range(k + 2):
        g = power(d, 3.0)
        made = sum(w * g(level) for w, level in zip(weights, (1.0, *levels), strict=True))
        assert (made == pytest.approx(measure(prediction, g, 3.0, 1.0), rel=1e-9)) is (d <= k)


def test_variants_of_unipc_differ_only_where_a_coefficient_is_set_to_a_half():
    for sigmas in ((3.0,), (3.0, 4.0, 9.0)):
        assert ds.UniPC(3, "bh1").weights_at(sigmas, 1.0) == ds.UniPC(3, "bh2").weights_at(sigmas, 1.0)
    bh1, bh2 = ds.UniPC(3, "bh1").weights_at((3.0, 4.0), 1.0), ds.UniPC(3, "bh2").weights_at((3.0, 4.0), 1.0)
    h, r = math.log(3), math.log(4 / 3) / math.log(3)
    e0 = 1 - 1 / 3
    assert bh2 == pytest.approx((e0 * (1 + 1 / (2 * r)), -e0 / (2 * r)))
    assert bh1 == pytest.approx((e0 + h / (2 * r), -h / (2 * r)))


def test_equal_steps_have_the_weights_of_adams_and_bashforth():
    assert ds.LMS(3).weights_at((3.0, 4.0, 5.0), 2.0) == pytest.approx((-23 / 12, 16 / 12, -5 / 12))
    assert sum(ds.DEIS(4).weights_at((3.0, 4.0, 5.0, 8.0), 2.0)) == pytest.approx(-1)


def test_lower_final_steps_count_on_fewer_evaluations(monkeypatch):
    counts = []
    weights_at = ds.DPMSolverPP3M.weights_at

    def counted(self, sigmas, end):
        counts.append(len(sigmas))
        return weights_at(self, sigmas, end)

    monkeypatch.setattr(ds.DPMSolverPP3M, "weights_at", counted)
    steps = ds.GivenSteps((50.0, 20.0, 11.0, 5.0, 2.2, 1.1, 0.6))  # levels that no other test has left in a cache
    for lower, expected in ((True, [1, 2, 3, 3, 2, 1]), (False, [1, 2, 3, 3, 3, 3])):
        counts.clear()
        sampler = Sampler(steps, ds.DPMSolverPP3M(lower))
        sample_from(lambda x, sigma, cond=None: 0.3 * x, torch.ones(1, 2), 50.0, sampler=sampler)
        assert counts == expected
