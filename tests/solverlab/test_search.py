"""The search for a solver: the best of all that was judged, on samples that no fit has seen."""

import warnings

import pytest
import torch

import diffspace as ds
from diffspace.data import named_oracle
from diffspace.oracles import FiniteData
from diffspace.sampling import Execution, FittedSolver
from diffspace.solverlab import (
    REFERENCE_SAMPLER,
    compare_solvers,
    default_samplers,
    fit,
    plan_runs,
    reference,
    search,
    search_cost,
    search_solver,
)
from diffspace.solverlab.family import Family
from diffspace.solverlab.fit import TooFewLevels

FINE = REFERENCE_SAMPLER.with_num_steps(100)
RING = named_oracle("ring")


def paths(denoiser, seeds):
    return reference(denoiser, seeds=seeds, sampler=FINE, execution=Execution(trajectory=True))


@pytest.fixture(scope="module")
def truth():
    return paths(RING, range(1000, 1096))


@pytest.fixture(scope="module")
def found(truth):
    return search_solver(RING, 5, truth, iterations=3)


def test_the_choice_is_the_best_of_all_that_was_tried(found):
    rows = found.comparison.rows
    names = {row.name for row in rows}
    kinds, words = ("fitted", "fitted, mean first"), ("", ", stagewise", ", near slopes")
    assert {kind + word for kind in kinds for word in words} <= names
    assert sum(name.startswith("fitted, round") for name in names) == 4
    assert len(rows) == 10 + 12
    assert all(row.nfe <= 5 for row in rows)
    assert found.choice.error.rms <= 1.05 * min(row.error.rms for row in rows)
    assert isinstance(found.sampler.solver, FittedSolver)
    assert 0 < found.standard_error < found.choice.error.rms


def test_it_is_judged_on_the_samples_that_no_fit_has_seen(truth, found):
    unseen = truth.rows(slice(72, None))
    x = ds.sample(RING, latents=unseen.latents, sampler=found.sampler).x
    assert found.comparison.samples == 24
    assert unseen.error_of(x) == pytest.approx(found.choice.error)
    seen = truth.rows(slice(0, 72))
    x = ds.sample(RING, latents=seen.latents, sampler=found.sampler).x
    assert seen.error_of(x) == pytest.approx(found.fit.error)
    # the fits are those of these samples alone
    again = search_solver(RING, 5, seen, iterations=3, validation=unseen)
    assert again.sampler == found.sampler


def test_what_needs_no_fit_is_taken_where_the_fit_is_worse(truth):
    found = search_solver(RING, 8, truth, iterations=0, noise=1e6)  # weights of Adams and Bashforth, EDM's levels
    assert not isinstance(found.sampler.solver, FittedSolver)
    assert found.sampler.nfe <= 8
    new = reference(RING, seeds=range(300), sampler=FINE)
    fitted = {row.name: row.sampler for row in found.comparison.rows if "fitted" in row.name} | {
        "choice": found.sampler
    }
    errors = {row.name: row.error.rms for row in compare_solvers(RING, new, fitted, (8,)).rows}
    assert errors["choice"] == min(errors.values())


def test_finite_data_whose_errors_are_mostly_zero():
    data = FiniteData(torch.tensor([[0.0, 1.0], [1.0, 0.0], [-1.0, -1.0]], dtype=torch.float64))
    found = search_solver(data, 6, paths(data, range(64)), iterations=3)
    new = reference(data, seeds=range(5000, 5200), sampler=FINE)
    x = ds.sample(data, latents=new.latents, sampler=found.sampler).x
    elsewhere = (x - new.x).flatten(1).norm(dim=1) > 0.1
    assert float(elsewhere.double().mean()) < 0.06  # ends at another item
    assert float((x - new.x)[~elsewhere].abs().max()) < 1e-3


@pytest.mark.parametrize("count", [1, 2, 4, 16])
def test_few_seeds_are_told(count):
    with pytest.warns(UserWarning, match=r"\d+ samples are few to fit a solver to; expected at least 24"):
        assert search_solver(RING, 4, paths(RING, range(count)), iterations=1).sampler.nfe <= 4


def test_samples_of_the_fit_do_not_judge_it(truth):
    with pytest.warns(UserWarning, match="validation: is truth itself"):
        search_solver(RING, 4, truth, validation=truth, iterations=0)


def test_a_model_in_sixteen_bits_is_told(truth):
    class Rounded(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.one = torch.nn.Parameter(torch.ones((), dtype=torch.bfloat16))

        def forward(self, x, sigma, cond=None):
            return RING(x, sigma) * self.one.to(x)

    with pytest.warns(UserWarning, match=r"denoiser: its weights are in torch\.bfloat16"):
        search_solver(Rounded(), 3, truth, iterations=0)


def test_the_search_counts_all_kinds_of_known_solvers():
    assert len(plan_runs(default_samplers(1.0), (8,)).runs) == search._KINDS


def test_conditions_and_levels_of_a_model_reach_every_run(truth):
    """A ring around a place of each sample, for a model that knows whole levels of ln σ / 0.05 alone."""
    known = torch.arange(-124, 90, dtype=torch.float64).mul(0.05).exp()

    class Moved:
        sigma_min, sigma_max = float(known[0]), float(known[-1])
        sampling_range, sigma_data = (0.0021, 80.0), 0.7

        def round_sigma(self, sigma):
            nearest = (known.log() - sigma.clamp_min(1e-9).log()[..., None]).abs().argmin(-1)
            return torch.where(sigma > 0, known[nearest], 0.0)

        def __call__(self, x, sigma, cond=None):
            return RING(x - cond["place"], sigma) + cond["place"]

    def of(seeds):
        cond = {"place": ds.initial_latents(seeds, (1, 1, 2)).double().sign()}
        options = {"shape": (1, 1, 2), "cond": cond, "sampler": FINE, "execution": Execution(trajectory=True)}
        return reference(Moved(), seeds=seeds, **options)

    for limit in (None, 20_000):
        found = search_solver(Moved(), 4, of(range(96)), validation=of(range(96, 256)), evaluations=limit, iterations=2)
        assert [row.name for row in found.comparison.rows if row.failure] == []
        assert found.choice.name.startswith("fitted")
        levels = torch.tensor(found.sampler.steps.levels, dtype=torch.float64)
        assert torch.equal(Moved().round_sigma(levels), levels)
        new = of(range(1000, 1200))
        x = ds.sample(Moved(), latents=new.latents, cond=new.cond, sampler=found.sampler).x
        assert new.error_of(x).rms < 0.05


def test_paths_are_needed():
    with pytest.raises(ValueError, match="truth: has no trajectory"):
        search_solver(RING, 4, reference(RING, seeds=range(40), sampler=FINE))


def test_a_denoiser_that_changes_nothing():
    def same(x, sigma, cond=None):
        return x

    truth = reference(
        same, seeds=range(64), shape=(2,), sampler=FINE, execution=Execution(trajectory=True, batch_size=64)
    )
    assert search_solver(same, 4, truth, iterations=1).choice.error.rms < 1e-9


def test_progress_counts_all_searches(truth):
    told = []
    search_solver(RING, 4, truth, iterations=2, progress=lambda *now: told.append(now[:2]))
    assert told == sorted(told)
    assert told[0] == (0, 26)
    assert 8 < len(told) <= 26
    assert all(0 <= done < total == 26 for done, total in told)


class Counting:
    """The ring, counting the samples that it is asked for."""

    def __init__(self):
        self.samples = 0

    def __getattr__(self, name):
        return getattr(RING, name)

    def __call__(self, x, sigma, cond=None):
        self.samples += len(x)
        return RING(x, sigma)


def test_no_round_is_made_again_where_nothing_better_is_found(truth, monkeypatch):
    begun = []

    def nothing_better(family, table, spacing, search, progress):
        if type(family) is Family:
            begun.append((table.sampler(family.mean), search[1]))
        return table

    monkeypatch.setattr(search, "polish", nothing_better)
    search_solver(RING, 4, truth.rows(slice(0, 40)), iterations=1)
    rounds = [start for start in begun if start[1] != 300.0]
    assert len(rounds) == len(set(rounds)) == 4


def test_evaluations_are_limited_and_told_beforehand(truth):
    fitted_to, judges = truth.rows(slice(0, 64)), truth.rows(slice(64, None))
    spent, errors = {}, {}
    for limit in (1, 10_000, None):
        counting = Counting()
        found = search_solver(counting, 5, fitted_to, validation=judges, iterations=4, evaluations=limit)
        spent[limit], errors[limit] = counting.samples, found.choice.error.rms
        assert found.choice.error.rms <= 1.05 * min(row.error.rms for row in found.comparison.rows)
        assert counting.samples <= 1.25 * search_cost(5, 64, 32, 2, iterations=4, evaluations=limit)
    assert spent[1] < spent[10_000] <= 12_500 < spent[None]
    assert spent[None] > 0.7 * search_cost(5, 64, 32, 2, iterations=4)
    assert errors[None] <= errors[10_000] <= errors[1]


def test_a_limit_below_one_is_refused(truth):
    with pytest.raises(ValueError, match="evaluations: expected an integer of at least 1, got 0"):
        search_solver(RING, 4, truth, evaluations=0)


@pytest.mark.parametrize("most", [5, 4])
def test_what_a_table_of_levels_does_not_allow_is_left_out(truth, monkeypatch, most):
    """Of a search for four evaluations, which with the mean first has five levels; where none can be fitted, no fit."""

    def known(self, found):
        if len(found) > most:
            raise TooFewLevels("num_steps: is more than the levels of the model allow")
        return tuple(found)

    monkeypatch.setattr(fit.Spacing, "known", known)
    few = (
        warnings.catch_warnings()
        if most == 5
        else pytest.warns(UserWarning, match="num_steps: 4 levels .* only known solvers")
    )
    with few:
        found = search_solver(RING, 4, truth, iterations=1, evaluations=1)
    fits = {row.name for row in found.comparison.rows if row.name.startswith("fitted")}
    assert bool(fits) == (most == 5)
    assert not any("mean first" in name for name in fits)
