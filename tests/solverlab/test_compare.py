"""Which solver: errors against a closed form, evaluations against a counter, choices against constructed cases."""

import itertools
import json
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from diffspace.config import from_text
from diffspace.oracles import Gaussian
from diffspace.parts import kinds as registered
from diffspace.protocols import Request
from diffspace.sampling import (
    AdamsBashforth,
    AnalyticalFirstStep,
    EDMSteps,
    Euler,
    GivenSteps,
    Heun,
    LogLinearSteps,
    Sampler,
    VESteps,
    initial_latents,
)
from diffspace.sampling.solvers.base import Solver
from diffspace.solverlab import EndPointError, Reference
from diffspace.solverlab.compare import (
    Measurement,
    SolverComparison,
    compare_solvers,
    default_samplers,
    moments,
    pareto,
    plan_runs,
    recommend,
    within_budget,
)

F64 = torch.float64
VARIANCES = np.array([0.5, 0.02])
LATENTS = initial_latents(range(32), (2,)).double()


class Counted:
    """A Gaussian with variances along the axes, that counts how often it is asked."""

    sample_shape = (2,)

    def __init__(self):
        self.oracle, self.calls = Gaussian(torch.zeros(2, dtype=F64), torch.diag(torch.tensor(VARIANCES))), 0

    def __call__(self, x, sigma, cond=None):
        self.calls += 1
        return self.oracle(x, sigma)


@pytest.fixture(scope="module")
def truth():
    """The closed form: along each axis x₀ = x·√(λ/(λ + σ²))."""
    sigmas = EDMSteps(400).sigmas()
    x = 80 * LATENTS * torch.tensor(np.sqrt(VARIANCES / (VARIANCES + 80**2)))
    return Reference(LATENTS, x, sigmas, None, EndPointError(0.0, 0.0), 600)


def euler_by_hand(n):
    """Where Euler ends: each step multiplies x along an axis by 1 + (σ' − σ)·σ/(λ + σ²)."""
    ramp = np.arange(n) / (n - 1)
    sigmas = np.append((80 ** (1 / 7) + ramp * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7, 0)
    factors = [1 + (b - a) * a / (VARIANCES + a**2) for a, b in itertools.pairwise(sigmas)]
    return 80 * LATENTS.numpy() * np.prod(factors, axis=0)


def test_the_error_is_the_distance_from_the_closed_form(truth):
    comparison = compare_solvers(Counted(), truth, {"euler": Sampler(EDMSteps(), Euler())}, (5, 12))
    for row, n in zip(comparison.rows, (5, 12), strict=True):
        squares = ((euler_by_hand(n) - truth.x.numpy()) ** 2).mean(1)
        assert (row.num_steps, row.nfe, row.budget) == (n, n, n)
        assert row.error.rms == pytest.approx(math.sqrt(squares.mean()), rel=1e-10)
        assert row.error.median == pytest.approx(np.sort(np.sqrt(squares))[15], rel=1e-10)
        np.testing.assert_allclose(row.squares, squares, rtol=1e-9)


def test_no_run_evaluates_more_than_its_budget_and_none_could_take_another_step(truth):
    budgets = (1, 2, 8)
    samplers = default_samplers(0.5, 0.1, steps=("edm",))
    for run in plan_runs(samplers, budgets).runs:
        denoiser = Counted()
        rows = compare_solvers(denoiser, truth, {run.name: run.sampler}, run.budgets).rows
        assert {row.failure for row in rows} == {""}, run.name
        assert {row.nfe for row in rows} == {denoiser.calls} == {run.nfe}, run.name
        assert denoiser.calls <= min(run.budgets)
        assert run.sampler.with_num_steps(run.sampler.steps.num_steps + 1).nfe > max(run.budgets)


def test_heun_takes_two_evaluations_a_step_but_in_the_last():
    heun = Sampler(EDMSteps(), Heun())
    assert [within_budget(heun, budget).steps.num_steps for budget in (1, 2, 3, 8, 35)] == [1, 1, 2, 4, 18]
    runs = plan_runs({"heun": heun}, (1, 2, 5, 6)).runs
    assert [(run.sampler.steps.num_steps, run.nfe, run.budgets) for run in runs] == [(1, 1, (1, 2)), (3, 5, (5, 6))]


def test_a_budget_below_one_step_excludes_a_sampler():
    given = {"given": Sampler(GivenSteps((80.0, 10.0, 1.0, 0.0)), Euler())}
    plan = plan_runs(given | {"euler": Sampler(EDMSteps(), Euler())}, (2,))
    assert [run.name for run in plan.runs] == ["euler"]
    assert plan.excluded == ("given: costs more than any budget",)


def test_steps_that_are_given_stay_as_they_are(truth):
    given = {"mine": Sampler(GivenSteps((80.0, 10.0, 1.0, 0.0)), Euler())}
    denoiser = Counted()
    rows = compare_solvers(denoiser, truth, given, (2, 3, 9)).rows
    assert [(row.budget, row.num_steps, row.nfe) for row in rows] == [(3, 3, 3), (9, 3, 3)]
    assert denoiser.calls == 3
    with pytest.raises(ValueError, match="num_steps: 4, but GivenSteps has 3"):
        given["mine"].with_num_steps(4)


@dataclass(frozen=True)
class Strange(Solver):
    """Euler as it should not be: stochastic, without a fixed cost, or ending in infinity."""

    cost: int | None = 1
    stochastic: bool = False
    factor: float = 1.0
    order = 1

    def evaluations(self, to_zero):
        return self.cost

    def step(self, x, start, end, memory):
        denoised = yield Request(x, start.sigma)
        return denoised * self.factor, None

    step_to_zero = step


def test_who_has_no_end_point_error_is_left_out_and_told(truth):
    samplers = {
        "noisy": Sampler(EDMSteps(), Strange(stochastic=True)),
        "noisy, loglinear": Sampler(LogLinearSteps(), Strange(stochastic=True)),
        "noisy too": Sampler(EDMSteps(), Strange(stochastic=True)),
        "adaptive": Sampler(EDMSteps(), Strange(cost=None)),
        "euler": Sampler(EDMSteps(), Euler()),
    }
    comparison = compare_solvers(Counted(), truth, samplers, (4,))
    assert [row.name for row in comparison.rows] == ["euler"]
    assert comparison.excluded == (
        "noisy, noisy too: noise is added, so that the end points are not those of the ODE",
        "adaptive: a tolerance decides how many evaluations are made, not a budget",
    )


def test_a_run_that_fails_is_kept_and_ends_nothing(truth):
    samplers = {
        "infinite": Sampler(EDMSteps(), Strange(factor=math.inf)),
        "elsewhere": Sampler(VESteps(), Euler()),
        "short": Sampler(EDMSteps(terminal="sigma_min"), Euler()),
        "outside": Sampler(EDMSteps(sigma_min=1e-4), Euler()),
        "euler": Sampler(EDMSteps(), Euler()),
    }
    denoiser = Counted()
    denoiser.sigma_min, denoiser.sigma_max = 1e-3, 100.0
    comparison = compare_solvers(denoiser, truth, samplers, (6,))
    failures = {row.name: row.failure for row in comparison.rows}
    assert "not finite" in failures["infinite"]
    assert failures["elsewhere"] == "goes from σ = 100 to 0, the reference from 80 to 0"
    assert failures["short"] == "goes from σ = 80 to 0.002, the reference from 80 to 0"
    assert "sigma_min: 0.0001 is outside the model's range" in failures["outside"]
    assert failures["euler"] == ""
    assert [choice.row.name for choice in recommend(comparison)] == ["euler"]
    text = json.dumps(comparison.as_dict(), allow_nan=False)
    row = json.loads(text)["rows"][0]
    assert (row["solver"], row["rms"], row["median"]) == ("infinite", None, None)


@pytest.mark.parametrize(
    ("budgets", "message"), [((), r"budgets: expected .*, got \(\)"), ((0, 5), r"budgets: expected .*, got \(0, 5\)")]
)
def test_budgets_are_checked(budgets, message):
    with pytest.raises(ValueError, match=message):
        plan_runs({"euler": Sampler(EDMSteps(), Euler())}, budgets)


def test_a_solver_that_is_given_twice_is_an_error():
    with pytest.raises(ValueError, match="euler, edm is given twice"):
        default_samplers(0.5, solvers=["euler", "heun", "euler"], steps=["edm"])


def test_batches_change_nothing(truth):
    samplers = {"ab": Sampler(EDMSteps(), AdamsBashforth(3))}
    whole, parts = (compare_solvers(Counted(), truth, samplers, (7,), batch_size=size) for size in (None, 5))
    assert whole.rows[0].error == pytest.approx(parts.rows[0].error, rel=1e-10)
    assert whole.rows[0].nfe == parts.rows[0].nfe == 7


def test_progress_counts_the_evaluations_that_were_planned(truth):
    samplers = {"heun": Sampler(EDMSteps(), Heun()), "euler": Sampler(EDMSteps(), Euler())}
    told = []
    compare_solvers(Counted(), truth, samplers, (3, 6), progress=lambda *args: told.append(args))
    assert told == [(0, 17, "heun"), (3, 17, "heun"), (8, 17, "euler"), (11, 17, "euler")]


# the samples of a constructed case: who is worse on most of them is not worse by chance
PATTERN = torch.tensor([1.0, 1.2, 0.9, 1.1, 0.8, 1.3, 1.0, 0.7], dtype=F64)
SHAKEN = torch.tensor([1.9, 0.2, 1.8, 0.3, 1.5, 0.6, 0.1, 1.6], dtype=F64)


def measured(name, budget, rms, squares=PATTERN, nfe=None):
    squares = squares * rms**2 / squares.mean()
    error = EndPointError(rms, float(squares.sqrt().median()))
    return Measurement(name, Sampler(EDMSteps(budget), Euler()), budget, nfe or budget, error, squares)


def compared(*rows):
    budgets = tuple(sorted({row.budget for row in rows}))
    return SolverComparison(rows, budgets, len(PATTERN), EndPointError(0.0, 0.0), 0)


def names(comparison, **options):
    return {choice.budget: choice.row.name for choice in recommend(comparison, **options)}


def test_the_least_error_is_recommended():
    comparison = compared(measured("a", 5, 0.3), measured("b", 5, 0.2), measured("a", 9, 0.01), measured("b", 9, 0.12))
    assert names(comparison) == {5: "b", 9: "a"}
    assert [choice.reason for choice in recommend(comparison)] == [
        "least error; the next has 50% more",
        "least error; the next has 12 times as much",
    ]


def test_of_those_that_samples_do_not_tell_apart_the_best_over_all_budgets_is_taken():
    rows = [
        measured("lucky", 5, 0.200),
        measured("steady", 5, 0.204, SHAKEN),
        measured("lucky", 9, 0.05),
        measured("steady", 9, 0.02),
    ]
    assert names(compared(*rows)) == {5: "steady", 9: "steady"}
    reason = recommend(compared(*rows))[0].reason
    assert reason == "2.0% above the least, that of lucky with edm; within chance, and better over all budgets"
    assert names(compared(*rows), margin=0.01) == {5: "lucky", 9: "steady"}
    # the same excess on each of the samples is no chance
    rows[1] = measured("steady", 5, 0.204)
    assert names(compared(*rows)) == {5: "lucky", 9: "steady"}


def test_more_evaluations_that_do_not_help_are_not_recommended():
    comparison = compared(measured("a", 5, 0.01), measured("a", 8, 0.05), measured("b", 8, 0.04))
    (five, eight) = recommend(comparison)
    assert (five.row.nfe, eight.row.nfe, eight.row.name, eight.budget) == (5, 5, "a", 8)


def test_no_error_at_all_is_the_best_there_is():
    comparison = compared(measured("a", 5, 0.1), measured("b", 5, 0.2), measured("a", 9, 0.01), measured("b", 9, 0.0))
    assert names(comparison) == {5: "a", 9: "b"}


def test_one_sample_is_enough():
    rows = [measured(name, 5, rms, torch.ones(1, dtype=F64)) for name, rms in (("a", 0.2), ("b", 0.1))]
    assert names(compared(*rows)) == {5: "b"}


def test_the_front_holds_those_that_no_other_beats():
    generator = torch.Generator().manual_seed(0)
    rows = []
    for i in range(60):
        nfe, rms = int(torch.randint(1, 12, (), generator=generator)), float(torch.rand((), generator=generator))
        rows.append(measured(f"s{i}", 12, (1 + rms) * 0.7**nfe, nfe=nfe))
    front = pareto(compared(*rows))
    beaten = {
        row.name
        for row, other in itertools.permutations(rows, 2)
        if other.nfe <= row.nfe and other.error.rms < row.error.rms
    }
    assert {row.name for row in front} == {row.name for row in rows} - beaten
    assert [row.nfe for row in front] == sorted({row.nfe for row in front})
    wide = pareto(compared(*rows), margin=0.5)
    assert wide[0] is front[0]
    assert 1 < len(wide) < len(front)
    assert all(b.error.rms < 0.5 * a.error.rms for a, b in itertools.pairwise(wide))


def test_default_samplers_are_every_solver_in_words_that_make_it():
    samplers = default_samplers(0.6, 0.1)
    words = {name: name.rsplit(", ", 1) for name in samplers}
    kinds = {solver.partition(":")[0] for solver, _ in words.values()}
    needy = {"fitted"}  # cannot be made without its weights
    assert kinds == set(registered("solver")) - needy
    for name, sampler in samplers.items():
        solver, steps = words[name]
        assert sampler == Sampler(from_text("steps", steps), from_text("solver", solver))
    solvers = [sampler.solver for sampler in samplers.values()]
    assert {solver.sigma_data for solver in solvers if getattr(solver, "prediction", "") == "v"} == {0.6}
    assert {(solver.sigma_data, solver.mean) for solver in solvers if isinstance(solver, AnalyticalFirstStep)} == {
        (0.6, 0.1)
    }
    ((_, given),) = default_samplers(0.6, 0.1, ["ab:prediction=v,variable=angle,sigma_data=2"], ["edm"]).items()
    assert given.solver.sigma_data == 2


def test_what_the_first_step_spares_is_another_step():
    afs = Sampler(EDMSteps(), AnalyticalFirstStep(Heun()))
    within = [within_budget(afs, budget) for budget in (5, 8)]
    assert [(sampler.steps.num_steps, sampler.nfe) for sampler in within] == [(3, 4), (5, 8)]


def test_moments_are_those_of_the_end_points(truth):
    shifted = replace(truth, x=truth.x + 3)
    x = shifted.x.numpy()
    assert moments(shifted) == (float(f"{x.std():.2g}"), float(f"{x.mean():.2g}"))


def test_all_default_samplers_at_once_on_the_closed_form(truth):
    """The choice is the least of everything measured, up to the margin, and better than Heun with the paper's steps."""
    comparison = compare_solvers(Counted(), truth, None, (7,))
    for choice in recommend(comparison):
        least = min(row.error.rms for row in comparison.rows if row.nfe <= choice.budget)
        heun = [
            row.error.rms
            for row in comparison.rows
            if row.budget == choice.budget and (row.solver, row.steps) == ("heun", "edm")
        ]
        assert least <= choice.row.error.rms <= 1.05 * least
        assert choice.row.error.rms < 0.5 * heun[0]


def test_samples_of_no_dimension_are_as_those_of_one_number():
    def denoiser(x, sigma, cond=None):
        return x / (1 + sigma**2)

    def error(latents):
        x = 80 * latents / math.sqrt(1 + 80**2)
        truth = Reference(latents, x, EDMSteps(20).sigmas(), None, EndPointError(0.0, 0.0), 0)
        return compare_solvers(denoiser, truth, {"heun": Sampler(EDMSteps(), Heun())}, (35,)).rows[0]

    latents = torch.tensor([0.3, -1.0, 2.0], dtype=F64)
    none, one = error(latents), error(latents[:, None])
    assert (none.failure, none.nfe) == ("", 35)
    assert none.error == one.error
    assert 0 < none.error.rms < 0.1


def test_default_steps_stay_in_the_range_of_the_model(truth):
    samplers = default_samplers(0.28, solvers=["heun"], sigma_min=0.02)
    assert [sampler.steps.sigma_min for sampler in samplers.values()] == [None, None, 0.02, 0.02, 0.0224]
    lows = [s.steps.sigma_min for s in default_samplers(0.5, solvers=["heun"], sigma_min=0.0200001).values()]
    assert lows == [None, None, 0.0200001, 0.0200001, 0.04]
    denoiser = Counted()
    denoiser.sigma_min, denoiser.sigma_max = 0.2, 80.0
    assert not any(row.failure for row in compare_solvers(denoiser, truth, budgets=(6,)).rows)
