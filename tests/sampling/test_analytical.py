"""The analytical first step: exact on the Gaussian that it supposes, one evaluation fewer, told as it is."""

import pytest
import torch

from diffspace import (
    IPNDM,
    AdamsBashforth,
    AnalyticalFirstStep,
    Churn,
    DormandPrince,
    DPMSolver2,
    EDMSteps,
    Euler,
    Heun,
    Process,
    UniPC,
    VPSchedule,
    count_evaluations,
    initial_latents,
    sample,
)
from diffspace.oracles import Gaussian
from diffspace.sampling import Execution, Sampler, sample_from

SOLVERS = [Euler(), Heun(), IPNDM(3), AdamsBashforth(3, "x0"), DPMSolver2(), UniPC(2)]
LATENTS = initial_latents(range(5), (2,)).double()
# the one that is supposed
ROUND = Gaussian(torch.full((2,), 0.3, dtype=torch.float64), 0.25 * torch.eye(2, dtype=torch.float64))
OTHER = Gaussian(torch.tensor([0.3, -0.5]).double(), torch.tensor([[0.5, 0.2], [0.2, 0.3]]).double())
OTHER.sigma_data = 0.5  # the range of the paper's data


@pytest.mark.parametrize("solver", [*SOLVERS, DormandPrince()])
@pytest.mark.parametrize("process", [Process(), Process(VPSchedule())])
@pytest.mark.parametrize("terminal", ["zero", "sigma_min"])
def test_on_the_gaussian_supposed_nothing_changes_but_the_cost(solver, process, terminal):
    for n in (1, 2, 6):
        options = {"latents": LATENTS, "steps": EDMSteps(n, terminal=terminal), "process": process}
        plain = sample(ROUND, solver=solver, **options)
        spared = sample(
            ROUND, solver=AnalyticalFirstStep(solver, 0.5, 0.3), execution=Execution(trajectory=True), **options
        )
        torch.testing.assert_close(spared.x, plain.x, rtol=1e-9, atol=1e-9)
        assert spared.nfe == plain.nfe - 1
        assert len(spared.trajectory.denoised) == n


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_declared_count_is_the_one_taken(solver):
    for n in (1, 2, 7):
        for terminal in ("zero", "sigma_min"):
            spared = AnalyticalFirstStep(solver)
            result = sample(OTHER, latents=LATENTS, steps=EDMSteps(n, terminal=terminal), solver=spared)
            assert result.nfe == count_evaluations(spared, n, terminal == "zero")
            assert result.nfe == count_evaluations(solver, n, terminal == "zero") - 1
    assert count_evaluations(AnalyticalFirstStep(DormandPrince()), 7) is None


def test_on_other_data_the_answer_is_off_by_the_inverse_of_the_noise():
    first = AnalyticalFirstStep(Euler(), 0.6)
    errors = []
    for sigma in (20.0, 80.0):
        x = LATENTS * sigma
        told = sample_from(OTHER, x, sigma, sampler=Sampler(EDMSteps(1, sigma_max=sigma), first)).x
        off = told + OTHER.mean - OTHER(x, torch.tensor(sigma))  # but for the mean, which was taken for 0
        errors.append(float(off.abs().max()))
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)
    assert errors[1] < 0.01


def test_the_direction_is_near_that_of_the_authors():
    """ε = x·σ/(1 + σ²) here, x/√(1 + σ²) there: apart by a share of 1/(2σ²)."""
    x, sigma = LATENTS * 80, 80.0
    denoised = AnalyticalFirstStep(sigma_data=1.0).first_denoiser(x, torch.tensor(sigma))
    torch.testing.assert_close((x - denoised) / sigma, x / (1 + sigma**2) ** 0.5, rtol=1.01 / (2 * sigma**2), atol=0)
    assert float(((x - denoised) / sigma / (x / (1 + sigma**2) ** 0.5) - 1).abs().min()) > 0.9 / (2 * sigma**2)


def test_it_is_what_it_wraps():
    assert AnalyticalFirstStep(Heun()).order == 2
    assert not AnalyticalFirstStep(Heun()).multistep
    assert AnalyticalFirstStep(IPNDM()).multistep
    options = {"seeds": range(3), "shape": (2,), "churn": Churn(2.0), "steps": EDMSteps(5)}
    assert sample(OTHER, solver=AnalyticalFirstStep(Heun()), **options).nfe == 8
    with pytest.raises(ValueError, match="churn: AnalyticalFirstStep remembers"):
        sample(OTHER, solver=AnalyticalFirstStep(IPNDM()), **options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((Heun(), 0.0), r"sigma_data: .*, got 0.0"),
        ((Heun(), 1.0, float("nan")), "mean: .*, got nan"),
        ((AnalyticalFirstStep(), 1.0), "solver: AnalyticalFirstStep cannot wrap"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        AnalyticalFirstStep(*arguments)
