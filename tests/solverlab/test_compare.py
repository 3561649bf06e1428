"""Which solver: errors against a closed form, evaluations against a counter, choices against constructed cases."""

import itertools
import json
import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch

from diffspace.config import from_text
from diffspace.config import kinds as registered
from diffspace.oracles import Gaussian
from diffspace.protocols import Request
from diffspace.sampling import (
    AdamsBashforth,
    AnalyticalFirstStep,
    EDMSteps,
    Euler,
    GivenSteps,
    Heun,
    LogLinearSteps,
    VESteps,
    initial_latents,
)
from diffspace.solverlab import EndPointError, Reference
from diffspace.solverlab.compare import (
    Candidate,
    Measurement,
    SolverComparison,
    compare_solvers,
    default_candidates,
    moments,
    pareto,
    plan_runs,
    recommend,
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
    comparison = compare_solvers(Counted(), truth, [Candidate("euler", Euler(), EDMSteps())], (5, 12))
    for row, n in zip(comparison.rows, (5, 12), strict=True):
        squares = ((euler_by_hand(n) - truth.x.numpy()) ** 2).mean(1)
        assert (row.num_steps, row.nfe, row.budget) == (n, n, n)
        assert row.error.rms == pytest.approx(math.sqrt(squares.mean()), rel=1e-10)
        assert row.error.median == pytest.approx(np.sort(np.sqrt(squares))[15], rel=1e-10)
        np.testing.assert_allclose(row.squares, squares, rtol=1e-9)


def test_no_run_evaluates_more_than_its_budget_and_none_could_take_another_step(truth):
    budgets = (1, 2, 8)
    candidates = default_candidates(0.5, 0.1, steps=("edm",))
    for run in plan_runs(candidates, budgets).runs:
        denoiser = Counted()
        rows = compare_solvers(denoiser, truth, [run.candidate], run.budgets).rows
        assert {row.failure for row in rows} == {""}, run.candidate.name
        assert {row.nfe for row in rows} == {denoiser.calls} == {run.nfe}, run.candidate.name
        assert denoiser.calls <= min(run.budgets)
        assert run.candidate.cost(run.num_steps + 1) > max(run.budgets)


def test_heun_takes_two_evaluations_a_step_but_in_the_last():
    heun = Candidate("heun", Heun(), EDMSteps())
    assert [heun.within(budget) for budget in (1, 2, 3, 8, 35)] == [1, 1, 2, 4, 18]
    runs = plan_runs([heun], (1, 2, 5, 6)).runs
    assert [(run.num_steps, run.nfe, run.budgets) for run in runs] == [(1, 1, (1, 2)), (3, 5, (5, 6))]


def test_a_budget_below_one_step_excludes_a_candidate():
    given = Candidate("given", Euler(), GivenSteps((80.0, 10.0, 1.0, 0.0)))
    plan = plan_runs([given, Candidate("euler", Euler(), EDMSteps())], (2,))
    assert [run.candidate.name for run in plan.runs] == ["euler"]
    assert plan.excluded == ("given: costs more than any budget",)


def test_steps_that_are_given_stay_as_they_are(truth):
    given = Candidate("mine", Euler(), GivenSteps((80.0, 10.0, 1.0, 0.0)))
    denoiser = Counted()
    rows = compare_solvers(denoiser, truth, [given], (2, 3, 9)).rows
    assert [(row.budget, row.num_steps, row.nfe) for row in rows] == [(3, 3, 3), (9, 3, 3)]
    assert denoiser.calls == 3
    with pytest.raises(ValueError, match="num_steps: 4; the steps of mine are 3"):
        given.at(4)


@dataclass(frozen=True)
class Strange:
    """Euler as it should not be: stochastic, without a fixed cost, or ending in infinity."""

    cost: int | None = 1
    stochastic: bool = False
    factor: float = 1.0
    order: ClassVar[int] = 1
    multistep: ClassVar[bool] = False

    def evaluations(self, to_zero):
        return self.cost

    def step(self, path, x, t, t_next, memory):
        denoised = yield Request(x, path.at(t).sigma)
        return denoised * self.factor, None


def test_who_has_no_end_point_error_is_left_out_and_told(truth):
    candidates = [
        Candidate("noisy", Strange(stochastic=True), EDMSteps()),
        Candidate("noisy", Strange(stochastic=True), LogLinearSteps()),
        Candidate("noisy too", Strange(stochastic=True), EDMSteps()),
        Candidate("adaptive", Strange(cost=None), EDMSteps()),
        Candidate("euler", Euler(), EDMSteps()),
    ]
    comparison = compare_solvers(Counted(), truth, candidates, (4,))
    assert [row.candidate.name for row in comparison.rows] == ["euler"]
    assert comparison.excluded == (
        "noisy, noisy too: noise is added, so that the end points are not those of the ODE",
        "adaptive: a tolerance decides on the evaluations, not a budget",
    )


def test_a_run_that_fails_is_kept_and_ends_nothing(truth):
    candidates = [
        Candidate("infinite", Strange(factor=math.inf), EDMSteps()),
        Candidate("elsewhere", Euler(), VESteps()),
        Candidate("short", Euler(), EDMSteps(terminal="sigma_min")),
        Candidate("outside", Euler(), EDMSteps(sigma_min=1e-4)),
        Candidate("euler", Euler(), EDMSteps()),
    ]
    denoiser = Counted()
    denoiser.sigma_min, denoiser.sigma_max = 1e-3, 100.0
    comparison = compare_solvers(denoiser, truth, candidates, (6,))
    failures = {row.candidate.name: row.failure for row in comparison.rows}
    assert "not finite" in failures["infinite"]
    assert failures["elsewhere"] == "goes from σ = 100 to 0, the reference from 80 to 0"
    assert failures["short"] == "goes from σ = 80 to 0.002, the reference from 80 to 0"
    assert "sigma_min: 0.0001 is outside the model's range" in failures["outside"]
    assert failures["euler"] == ""
    assert [choice.row.candidate.name for choice in recommend(comparison)] == ["euler"]
    text = json.dumps(comparison.as_dict(), allow_nan=False)
    row = json.loads(text)["rows"][0]
    assert (row["solver"], row["rms"], row["median"]) == ("infinite", None, None)


@pytest.mark.parametrize(
    ("budgets", "message"),
    [((), r"budgets: \(\); want"), ((0, 5), r"budgets: \(0, 5\); want numbers of evaluations")],
)
def test_budgets_are_checked(budgets, message):
    with pytest.raises(ValueError, match=message):
        plan_runs([Candidate("euler", Euler(), EDMSteps())], budgets)


def test_two_candidates_of_one_name_and_one_kind_of_steps_are_an_error():
    twin = Candidate("euler", Euler(), EDMSteps())
    with pytest.raises(ValueError, match="euler with edm is there twice"):
        plan_runs([twin, replace(twin, solver=Heun())], (5,))


def test_batches_change_nothing(truth):
    candidates = [Candidate("ab", AdamsBashforth(3), EDMSteps())]
    whole, parts = (compare_solvers(Counted(), truth, candidates, (7,), batch_size=size) for size in (None, 5))
    assert whole.rows[0].error == pytest.approx(parts.rows[0].error, rel=1e-10)
    assert whole.rows[0].nfe == parts.rows[0].nfe == 7


def test_progress_counts_the_evaluations_that_were_planned(truth):
    candidates = [Candidate("heun", Heun(), EDMSteps()), Candidate("euler", Euler(), EDMSteps())]
    told = []
    compare_solvers(Counted(), truth, candidates, (3, 6), progress=lambda *args: told.append(args))
    assert told == [(0, 17, "heun"), (3, 17, "heun"), (8, 17, "euler"), (11, 17, "euler")]


# the samples of a constructed case: who is worse on most of them is not worse by chance
PATTERN = torch.tensor([1.0, 1.2, 0.9, 1.1, 0.8, 1.3, 1.0, 0.7], dtype=F64)
SHAKEN = torch.tensor([1.9, 0.2, 1.8, 0.3, 1.5, 0.6, 0.1, 1.6], dtype=F64)


def measured(name, budget, rms, squares=PATTERN, nfe=None):
    squares = squares * rms**2 / squares.mean()
    error = EndPointError(rms, float(squares.sqrt().median()))
    return Measurement(Candidate(name, Euler(), EDMSteps()), budget, budget, nfe or budget, error, squares)


def compared(*rows):
    budgets = tuple(sorted({row.budget for row in rows}))
    return SolverComparison(rows, budgets, len(PATTERN), EndPointError(0.0, 0.0), 0)


def names(comparison, **options):
    return {choice.budget: choice.row.candidate.name for choice in recommend(comparison, **options)}


def test_the_least_error_is_recommended():
    comparison = compared(measured("a", 5, 0.3), measured("b", 5, 0.2), measured("a", 9, 0.01), measured("b", 9, 0.02))
    assert names(comparison) == {5: "b", 9: "a"}
    assert [choice.reason for choice in recommend(comparison)] == [
        "least error; the next has 50% more",
        "least error; the next has 100% more",
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
    assert (five.row.nfe, eight.row.nfe, eight.row.candidate.name, eight.budget) == (5, 5, "a", 8)


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
        row.candidate.name
        for row, other in itertools.permutations(rows, 2)
        if other.nfe <= row.nfe and other.error.rms < row.error.rms
    }
    assert {row.candidate.name for row in front} == {row.candidate.name for row in rows} - beaten
    assert [row.nfe for row in front] == sorted({row.nfe for row in front})
    wide = pareto(compared(*rows), margin=0.5)
    assert wide[0] is front[0]
    assert 1 < len(wide) < len(front)
    assert all(b.error.rms < 0.5 * a.error.rms for a, b in itertools.pairwise(wide))


def test_default_candidates_are_every_solver_in_words_that_make_it():
    candidates = default_candidates(0.6, 0.1)
    kinds = {candidate.name.partition(":")[0] for candidate in candidates}
    needy = {"fitted"}  # cannot be made without its weights
    assert kinds == set(registered("solver")) - needy
    for candidate in candidates:
        assert from_text("solver", candidate.name) == candidate.solver
        assert from_text("steps", candidate.steps_name) == candidate.steps
    assert {c.solver.sigma_data for c in candidates if getattr(c.solver, "prediction", "") == "v"} == {0.6}
    assert {(c.solver.sigma_data, c.solver.mean) for c in candidates if hasattr(c.solver, "spared")} == {(0.6, 0.1)}
    (given,) = default_candidates(0.6, 0.1, ["ab:prediction=v,variable=angle,sigma_data=2"], ["edm"])
    assert given.solver.sigma_data == 2


def test_what_the_first_step_spares_is_another_step():
    afs = Candidate("afs", AnalyticalFirstStep(Heun()), EDMSteps())
    assert [(afs.within(budget), afs.cost(afs.within(budget))) for budget in (5, 8)] == [(3, 4), (5, 8)]


def test_moments_are_those_of_the_end_points(truth):
    shifted = replace(truth, x=truth.x + 3)
    x = shifted.x.numpy()
    assert moments(shifted) == (float(f"{x.std():.2g}"), float(f"{x.mean():.2g}"))


def test_all_default_candidates_at_once_on_the_closed_form(truth):
    """The choice is the least of everything measured, up to the margin, and better than Heun with the paper's steps."""
    comparison = compare_solvers(Counted(), truth, None, (7,))
    for choice in recommend(comparison):
        least = min(row.error.rms for row in comparison.rows if row.nfe <= choice.budget)
        heun = [
            row.error.rms
            for row in comparison.rows
            if row.budget == choice.budget and (row.candidate.name, row.candidate.steps_name) == ("heun", "edm")
        ]
        assert least <= choice.row.error.rms <= 1.05 * least
        assert choice.row.error.rms < 0.5 * heun[0]


def test_samples_of_no_dimension_are_as_those_of_one_number():
    def denoiser(x, sigma, cond=None):
        return x / (1 + sigma**2)

    def error(latents):
        x = 80 * latents / math.sqrt(1 + 80**2)
        truth = Reference(latents, x, EDMSteps(20).sigmas(), None, EndPointError(0.0, 0.0), 0)
        return compare_solvers(denoiser, truth, [Candidate("heun", Heun(), EDMSteps())], (35,)).rows[0]

    latents = torch.tensor([0.3, -1.0, 2.0], dtype=F64)
    none, one = error(latents), error(latents[:, None])
    assert (none.failure, none.nfe) == ("", 35)
    assert none.error == one.error
    assert 0 < none.error.rms < 0.1
