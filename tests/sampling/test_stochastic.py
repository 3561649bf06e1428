"""What every stochastic solver keeps to: its count of evaluations, its limits, its noise, its errors."""

import math

import pytest
import torch
from two_m import TwoM

from diffspace import Churn, EDMSteps, Euler, FlowSchedule, GivenTimes, Heun, Process, VPSchedule, encode, sample
from diffspace.sampling import (
    AnalyticalFirstStep,
    DPMSolverPP2MSDE,
    DPMSolverPP3MSDE,
    DPMSolverPPSDE,
    EulerAncestral,
    Execution,
    GeneralSDE,
    PredictorCorrector,
    Sampler,
    sample_states,
)
from diffspace.sampling.brownian import BrownianPath
from diffspace.sampling.runs import Run
from diffspace.sampling.start import make_start

SOLVERS = {
    "ancestral": EulerAncestral(),
    "ancestral half": EulerAncestral(0.5, S_noise=1.01),
    "DPM++ SDE": DPMSolverPPSDE(),
    "DPM++ SDE r=1": DPMSolverPPSDE(r=1.0),
    "2M SDE": DPMSolverPP2MSDE(),
    "2M SDE heun": DPMSolverPP2MSDE(0.5, variant="heun"),
    "3M SDE": DPMSolverPP3MSDE(),
    "Euler–Maruyama": GeneralSDE(),
    "two stages": GeneralSDE(stages=2),
    "any rate": GeneralSDE(beta=lambda t: 1 / (1 + t)),
    "predictor": PredictorCorrector(corrections=0),
    "corrector": PredictorCorrector(corrections=2),
}
WITHOUT_NOISE = {
    "ancestral": (EulerAncestral(0.0), Euler()),
    "2M SDE": (DPMSolverPP2MSDE(0.0), TwoM()),
    "Euler–Maruyama": (GeneralSDE(0.0), Euler()),
    "no rate": (GeneralSDE(beta=lambda t: 0.0), Euler()),
    "two stages": (GeneralSDE(0.0, stages=2), Heun()),
}
MEANS = torch.tensor([[0.9, 0.1], [-0.6, 0.7], [-0.2, -0.8]], dtype=torch.float64)


def denoiser(x, sigma, cond=None):
    """Of three Gaussians with a standard deviation of 0.1."""
    total, means = 0.01 + sigma**2, MEANS.to(x)
    posterior = (-(x[:, None] - means).square().sum(2) / (2 * total)).softmax(1)
    return posterior @ means + 0.01 / total * (x - posterior @ means)


def steps(n=6, terminal="zero", solver=None):
    """Steps down to 0.002, or for the solvers that refuse long steps to 30."""
    return EDMSteps(n, 30.0 if isinstance(solver, GeneralSDE | PredictorCorrector) else 0.002, 80.0, terminal)


@pytest.mark.parametrize("terminal", ["zero", "sigma_min"])
@pytest.mark.parametrize("name", SOLVERS)
def test_evaluations_are_as_declared(name, terminal):
    solver, calls = SOLVERS[name], []

    def counting(x, sigma, cond=None):
        calls.append(float(sigma))
        return denoiser(x, sigma)

    for n in (1, 2, 5):
        calls.clear()
        result = sample(counting, seeds=[1, 2], shape=(2,), steps=steps(n, terminal, solver), solver=solver)
        declared = (n - 1) * solver.evaluations(False) + solver.evaluations(terminal == "zero")
        assert result.nfe == len(calls) == declared
        assert min(calls) > 0


@pytest.mark.parametrize("name", WITHOUT_NOISE)
def test_without_noise_it_is_the_solver_of_the_ode(name, monkeypatch):
    monkeypatch.setattr(BrownianPath, "increment", None)  # to draw would be an error
    solver, of_the_ode = WITHOUT_NOISE[name]
    for terminal in ("zero", "sigma_min"):
        x = sample(denoiser, seeds=[1, 2], shape=(2,), steps=steps(9, terminal), solver=solver).x
        expected = sample(denoiser, seeds=[1, 2], shape=(2,), steps=steps(9, terminal), solver=of_the_ode).x
        torch.testing.assert_close(x, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    "solver", [DPMSolverPPSDE(0.0), DPMSolverPP2MSDE(0.0, variant="heun"), DPMSolverPP3MSDE(0.0)], ids=repr
)
def test_without_noise_the_others_approach_the_ode(solver, monkeypatch):
    monkeypatch.setattr(BrownianPath, "increment", None)
    fine = sample(denoiser, seeds=[1, 2], shape=(2,), steps=steps(400, "sigma_min"), solver=Heun()).x
    x = sample(denoiser, seeds=[1, 2], shape=(2,), steps=steps(200, "sigma_min"), solver=solver).x
    assert (x - fine).abs().max() < 2e-3


@pytest.mark.parametrize("name", SOLVERS)
def test_a_sample_is_the_same_alone_and_in_a_batch(name):
    options = {"shape": (2,), "steps": steps(4, solver=SOLVERS[name]), "solver": SOLVERS[name]}

    def by_row(x, sigma, cond=None):
        return torch.cat([denoiser(row[None], sigma) for row in x])

    together = sample(by_row, seeds=range(5), **options).x
    assert torch.equal(sample(by_row, seeds=[3], **options).x[0], together[3])
    assert torch.equal(sample(by_row, seeds=[4, 1], **options).x, together[[4, 1]])
    assert torch.equal(sample(by_row, seeds=range(5), execution=Execution(batch_size=2), **options).x, together)


@pytest.mark.parametrize("name", SOLVERS)
def test_float32_is_float64_to_its_precision(name):
    options = {"seeds": range(3), "shape": (2,), "steps": steps(12, solver=SOLVERS[name]), "solver": SOLVERS[name]}
    x = sample(denoiser, execution=Execution(dtype=torch.float32), **options).x
    assert x.dtype == torch.float32
    torch.testing.assert_close(x.double(), sample(denoiser, **options).x, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("process", [Process(VPSchedule()), Process(FlowSchedule())], ids=repr)
@pytest.mark.parametrize("name", [name for name in SOLVERS if not isinstance(SOLVERS[name], GeneralSDE)])
def test_the_process_changes_nothing_where_steps_are_in_sigma(name, process):
    options = {"seeds": [1, 2], "shape": (2,), "solver": SOLVERS[name]}
    for terminal in ("zero", "sigma_min"):
        x = sample(denoiser, steps=steps(7, terminal, SOLVERS[name]), process=process, **options).x
        torch.testing.assert_close(
            x, sample(denoiser, steps=steps(7, terminal, SOLVERS[name]), **options).x, rtol=1e-7, atol=1e-8
        )


def constant(x, sigma, cond=None):
    return torch.full_like(x, 0.3)


@pytest.mark.parametrize(
    "solver",
    [EulerAncestral(), DPMSolverPPSDE(), DPMSolverPPSDE(r=0.3), DPMSolverPP2MSDE(), DPMSolverPP3MSDE()],
    ids=repr,
)
def test_for_a_constant_d_any_steps_end_at_one_point(solver):
    """They are exact there, and see one path."""

    def end(n):
        return sample(constant, seeds=[1, 2], shape=(2,), steps=EDMSteps(n, 0.5, 80.0, "sigma_min"), solver=solver).x

    path = BrownianPath([1, 2], (2,))
    once = end(1)
    for n in (2, 7, 30):
        torch.testing.assert_close(end(n), once, rtol=0, atol=1e-12)
    start = sample(
        constant, seeds=[1, 2], shape=(2,), steps=EDMSteps(1), solver=Euler(), execution=Execution(trajectory=True)
    ).trajectory.x[0]
    exact = 0.3 + (0.5 / 80) ** 2 * (start - 0.3) + 0.25 * path.increment(80.0**-2, 4.0)
    torch.testing.assert_close(once, exact, rtol=0, atol=1e-12)


def test_noise_of_a_rate_is_that_of_the_equation():
    """D = x leaves the noise alone: its variance is ∫ 2β·σ² dt, and with 2 stages the trapezoid of its root."""

    def still(x, sigma, cond=None):
        return x

    options = {"steps": EDMSteps(1, 1.0, 2.0, "sigma_min"), "latents": torch.zeros(1, 2, dtype=torch.float64)}
    for stages, std in ((1, math.sqrt(2 * 0.5) * 2), (2, 0.5 * (math.sqrt(2 * 0.5) * 2 + math.sqrt(2 * 1.0) * 1))):
        solver = GeneralSDE(stages=stages, beta=lambda t: 1 / t)
        x = sample(still, noise=lambda draw, like: torch.ones_like(like), solver=solver, **options).x
        torch.testing.assert_close(x, torch.full_like(x, std), rtol=1e-14, atol=0)


def test_noise_factors_scale_the_noise():
    options = {"seeds": [4], "shape": (3,), "steps": steps(5, "sigma_min")}
    for kind in (EulerAncestral, DPMSolverPPSDE, DPMSolverPP2MSDE, DPMSolverPP3MSDE):
        none, once, twice = (sample(constant, solver=kind(S_noise=s), **options).x for s in (0.0, 1.0, 2.0))
        torch.testing.assert_close(twice - none, 2 * (once - none), rtol=1e-12, atol=1e-13)
        assert (once - none).abs().min() > 1e-6


def test_the_corrector_draws_other_noise_each_time():
    drawn = []

    class Watched(BrownianPath):
        def increment(self, start, end):
            drawn.append(super().increment(start, end) / math.sqrt(end - start))
            return drawn[-1] * math.sqrt(end - start)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffspace.sampling.start.BrownianPath", Watched)
        sample(
            constant,
            seeds=[0],
            shape=(5000,),
            steps=steps(4, "sigma_min", PredictorCorrector()),
            solver=PredictorCorrector(3),
        )
    z = torch.cat(drawn)
    assert len(z) == 16
    assert (torch.corrcoef(z) * math.sqrt(5000)).fill_diagonal_(0).abs().max() < 4.5
    assert ((z.var(1) - 1) * math.sqrt(2500)).abs().max() < 4


@pytest.mark.parametrize(("corrections", "low", "high"), [(0, 1.14, 1.21), (1, 1.06, 1.13)])
def test_the_corrector_mends_what_the_predictor_leaves(corrections, low, high):
    """768 numbers of one variance: the predictor leaves 18 % too much of it in 64 steps, a corrector 10 %."""
    variance = 0.25

    def gaussian(x, sigma, cond=None):
        return variance / (variance + sigma**2) * x

    solver = PredictorCorrector(corrections)
    x = sample(gaussian, seeds=range(6), shape=(768,), steps=steps(64, "sigma_min"), solver=solver).x
    assert low < float(x.square().mean()) / variance < high


@pytest.mark.parametrize("name", SOLVERS)
def test_gradients_reach_the_start(name):
    latents = torch.randn(2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    options = {"seeds": [1, 2], "steps": EDMSteps(3, 0.7, 2.0), "solver": SOLVERS[name]}

    def end(start):
        return sample(denoiser, latents=start, execution=Execution(grad=True), **options).x.square().sum()

    leaf = latents.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(end(leaf), leaf)
    direction = torch.ones_like(latents)
    numeric = (end(latents + 1e-6 * direction) - end(latents - 1e-6 * direction)) / 2e-6
    assert float((gradient * direction).sum()) == pytest.approx(float(numeric), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("name", SOLVERS)
def test_refusals(name):
    solver = SOLVERS[name]
    latents = torch.ones(2, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match=f"sampler: {type(solver).__name__} adds noise; expected a solver of the ODE"):
        encode(denoiser, latents, sampler=Sampler(EDMSteps(terminal="sigma_min"), solver))
    with pytest.raises(ValueError, match=f"seeds: {type(solver).__name__} draws noise"):
        sample(denoiser, latents=latents, solver=solver)
    with pytest.raises(ValueError, match=f"churn: {type(solver).__name__} adds noise itself"):
        sample(denoiser, seeds=[0], shape=(2,), solver=solver, churn=Churn(10.0))
    with pytest.raises(ValueError, match="noise: expected the shape"):
        sample(
            denoiser, latents=latents, steps=steps(2, solver=solver), solver=solver, noise=lambda draw, like: like[:1]
        )
    sample(denoiser, seeds=[0], shape=(2,), steps=steps(2, solver=solver), solver=solver, churn=Churn(0.0))


@pytest.mark.parametrize("name", SOLVERS)
def test_noise_levels_that_do_not_fall_are_refused(name):
    for times in ((2.0, 3.0, 0.0), (2.0, 2.0, 0.0)):
        with pytest.raises(ValueError, match="must fall for a solver that adds noise"):
            sample_states(denoiser, seeds=[0], shape=(2,), sampler=Sampler(GivenTimes(times), SOLVERS[name]))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("name", "make"),
    [
        *(
            (f"eta: .* got {v}", lambda v=v, k=k: k(eta=v))
            for v in (-0.1, math.nan, math.inf)
            for k in (EulerAncestral, DPMSolverPPSDE)
        ),
        *(
            (f"eta: .* got {v}", lambda v=v, k=k: k(eta=v))
            for v in (-0.1, math.nan)
            for k in (DPMSolverPP2MSDE, DPMSolverPP3MSDE, GeneralSDE)
        ),
        *(
            ("S_noise: .* got -1", lambda k=k: k(S_noise=-1.0))
            for k in (EulerAncestral, DPMSolverPPSDE, DPMSolverPP2MSDE, DPMSolverPP3MSDE)
        ),
        *((f"r: .* got {r}", lambda r=r: DPMSolverPPSDE(r=r)) for r in (0.0, 1.1, math.nan)),
        ("variant: .* got 'euler'", lambda: DPMSolverPP2MSDE(variant="euler")),
        ("stages: .* got 3", lambda: GeneralSDE(stages=3)),
        (r"beta: expected a callable beta\(t\), got float", lambda: GeneralSDE(beta=0.5)),
        ("eta: 0.5 has no effect beside beta", lambda: GeneralSDE(eta=0.5, beta=lambda t: 1.0)),
        ("corrections: .* got -1", lambda: PredictorCorrector(-1)),
        ("corrections: .* got 1.5", lambda: PredictorCorrector(1.5)),
        ("snr: .* got 0", lambda: PredictorCorrector(snr=0.0)),
    ],
)
def test_bad_parameters_are_named(name, make):
    with pytest.raises(ValueError, match=f"^{name}"):
        make()


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_a_rate_that_is_none_is_named(value):
    with pytest.raises(ValueError, match=r"beta at t = 80: "):
        sample(denoiser, seeds=[0], shape=(2,), solver=GeneralSDE(beta=lambda t: value))


@pytest.mark.parametrize("solver", [GeneralSDE(), GeneralSDE(stages=2), PredictorCorrector(corrections=0)], ids=repr)
def test_steps_that_would_leave_far_too_much_noise_are_refused(solver):
    """Data without spread: samples are right to the noise of the last level, or refused before the first evaluation."""
    refused = 0
    for n in (2, 4, 6, 9, 12, 16, 18, 24, 32):
        options = {"seeds": range(64), "shape": (8,), "steps": steps(n, "sigma_min"), "solver": solver}
        try:
            x = sample(constant, **options).x
        except ValueError:
            refused += 1
        else:
            assert float((x - 0.3).std()) < 0.04
    assert 3 <= refused <= 7
    with pytest.raises(ValueError, match=r"^steps: from σ = \S+ to \S+ is too far for \w+, which leaves"):
        Run(constant, make_start(constant, seeds=[0], shape=(2,)), Sampler(steps(6), AnalyticalFirstStep(solver)))


@pytest.mark.parametrize(("stages", "least"), [(1, 18), (2, 23)])
def test_the_papers_range_takes_as_many_steps_as_the_docs_say(stages, least):
    start = make_start(constant, seeds=[0], shape=(2,))
    Run(constant, start, Sampler(EDMSteps(least), GeneralSDE(stages=stages)))
    with pytest.raises(ValueError, match="is too far for GeneralSDE"):
        Run(constant, start, Sampler(EDMSteps(least - 1), GeneralSDE(stages=stages)))
