"""What `diffspace sweep` compares: the methods of its words, at each budget, as functions that draw samples."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, NamedTuple

import diffspace as ds
from diffspace._shapes import Tensor
from diffspace.cli.console import Stages
from diffspace.cli.fitting import exact_ends, fit_each
from diffspace.config import build, from_text, split_list, to_text
from diffspace.interop.diffusers.runs import SCHEDULERS, run_scheduler, scheduler_cost
from diffspace.metrics.sweep import TARGET
from diffspace.protocols import Cond, Denoiser, sigma_range
from diffspace.sampler_files import find_sampler, load_samplers
from diffspace.sampling import initial_latents
from diffspace.sampling.driver import make_grid
from diffspace.solverlab import compare_solvers, default_samplers, moments, recommend
from diffspace.solverlab.compare import within_budget

RECOMMENDED, FITTED, DIFFUSERS = "recommended", "fitted", "diffusers"

Draw = Callable[[Sequence[int], Cond | None], Tensor]


class Candidate(NamedTuple):
    """A method at a budget: what it draws for seeds and their conditions, in how many evaluations."""

    method: str
    budget: int
    nfe: int
    churn: float
    words: str
    draw: Draw
    adds_noise: bool = False

    @property
    def key(self) -> tuple[str, int, float]:
        return self.method, self.nfe, self.churn


def parse_methods(text: str | None, source: str) -> list[str]:
    """The words of --samplers, checked; by default the target, diffspace's own two, and diffusers if installed."""
    if text is None:
        text = ",".join((TARGET, RECOMMENDED, FITTED, *([DIFFUSERS] if find_spec("diffusers") is not None else [])))
    words: list[str] = []
    for word in split_list(text):
        family, colon, name = word.partition(":")
        if family == DIFFUSERS:
            if colon:
                scheduler_cost(name, 1)
            words += [word] if colon else [f"{DIFFUSERS}:{known}" for known in SCHEDULERS]
        else:
            if word not in (RECOMMENDED, FITTED):
                _sampler(word, source)
            words.append(word)
    if twice := next((word for word in words if words.count(word) > 1), None):
        raise ValueError(f"--samplers: {twice} is given twice")
    return words


def _sampler(word: str, source: str) -> ds.Sampler:
    """SOLVER or SOLVER@STEPS, with the paper's steps by default; a stored sampler, or a file of one."""
    if word.endswith(".json") or word in load_samplers(source):
        return find_sampler(source, word)
    solver, _, steps = word.partition("@")
    return ds.Sampler(from_text("steps", steps or "edm"), from_text("solver", solver))


@dataclass(frozen=True)
class Calibration:
    """How the recommended and the fitted samplers are found, on seeds of their own.

    Args:
        seeds: those of the exact paths.
        cond: their conditions.
        steps: of the reference.
        solvers: the words of solvers to recommend from; None: all.
        families: the kinds of steps to recommend from.
    """

    seeds: Sequence[int]
    cond: Cond | None
    steps: int
    solvers: Sequence[str] | None
    families: Sequence[str]

    def find(
        self,
        denoiser: Denoiser,
        shape: tuple[int, ...],
        wanted: Mapping[str, Sequence[int]],
        execution: ds.Execution,
        stage: Stages,
    ) -> Iterator[tuple[str, ds.Sampler]]:
        """Each sampler with its name `METHOD-BUDGET`, for samples of this shape.

        Args:
            denoiser: of which they sample.
            shape: of a sample.
            wanted: the budgets of "recommended" and of "fitted".
            execution: batch size and device.
            stage: told what is under way.
        """
        stage("exact paths of the calibration")
        truth = exact_ends(denoiser, self.seeds, self.cond, self.steps, execution, stage, shape=shape, trajectory=True)
        if budgets := wanted.get(RECOMMENDED):
            stage("recommending")
            lowest = sigma_range(denoiser)[0]
            samplers = default_samplers(*moments(truth), self.solvers, self.families, sigma_min=lowest)
            batch, device = execution.batch_size, execution.device
            compared = compare_solvers(
                denoiser, truth, samplers, budgets, batch_size=batch, device=device, progress=stage.show
            )
            yield from ((f"{RECOMMENDED}-{choice.budget}", choice.row.sampler) for choice in recommend(compared))
        for name, _, found in fit_each(denoiser, wanted.get(FITTED, ()), truth, None, execution, stage):
            yield name, found.sampler


@dataclass(frozen=True)
class Methods:
    """The candidates of all words for one denoiser.

    Args:
        denoiser: the model, or with guidance around it.
        shape: of a sample.
        source: the model's place, beside which samplers are stored.
        words: as `parse_methods` returns them.
        budgets: evaluations that a sample may take.
        churn: values of S_churn for methods that take churn.
        execution: batch size and device.
    """

    denoiser: Denoiser
    shape: tuple[int, ...]
    source: str
    words: Sequence[str]
    budgets: Sequence[int]
    churn: Sequence[float]
    execution: ds.Execution

    def missing(self, found: Mapping[str, Mapping[str, Any]]) -> dict[str, list[int]]:
        """The budgets of the samplers that have to be found, by method."""
        lacking = {
            word: [budget for budget in self.budgets if f"{word}-{budget}" not in found]
            for word in (RECOMMENDED, FITTED)
            if word in self.words
        }
        return {word: budgets for word, budgets in lacking.items() if budgets}

    def candidates(self, found: Mapping[str, Mapping[str, Any]]) -> list[Candidate]:
        """Every method at every budget, each once; `found` has what the calibration found, as options."""
        made: dict[tuple[str, int, float], Candidate] = {}
        for word in self.words:
            for budget in self.budgets:
                for candidate in self._at(word, budget, found):
                    made.setdefault(candidate.key, candidate)
        return list(made.values())

    def _at(self, word: str, budget: int, found: Mapping[str, Mapping[str, Any]]) -> Iterator[Candidate]:
        if word.startswith(f"{DIFFUSERS}:"):
            yield self._of_diffusers(word.partition(":")[2], budget)
            return
        if word in (RECOMMENDED, FITTED):
            options = found.get(f"{word}-{budget}")
            if options is not None:
                yield self._of_sampler(word, budget, build(ds.Sampler, options, "sampler"))
            return
        for S_churn in self.churn:
            sampler = _sampler(word, self.source)
            takes_churn = not (sampler.solver.stochastic or sampler.solver.multistep)
            if S_churn and not takes_churn:
                continue
            churned = dataclasses.replace(sampler, churn=ds.Churn(S_churn)) if S_churn else sampler
            within = within_budget(churned, budget)
            if within is not None:
                yield self._of_sampler(word, budget, within)

    def _of_sampler(self, method: str, budget: int, sampler: ds.Sampler) -> Candidate:
        def draw(seeds: Sequence[int], cond: Cond | None) -> Tensor:
            return ds.sample(self.denoiser, seeds=seeds, cond=cond, sampler=sampler, execution=self.execution).x

        words = describe(sampler)
        return Candidate(method, budget, sampler.nfe or budget, sampler.churn.S_churn, words, draw, sampler.adds_noise)

    def _of_diffusers(self, name: str, budget: int) -> Candidate:
        levels, nfe = scheduler_cost(name, budget)

        def draw(seeds: Sequence[int], cond: Cond | None) -> Tensor:
            sigmas = make_grid(self.denoiser, ds.Sampler(ds.EDMSteps(levels))).sigmas
            latents = initial_latents(seeds, self.shape).double().to(self.execution.device or "cpu")
            if cond is not None:
                cond = {key: value.to(latents.device) for key, value in cond.items()}
            return run_scheduler(name, self.denoiser, latents, latents.new_tensor(sigmas), cond)

        return Candidate(f"{DIFFUSERS}:{name}", budget, nfe, 0.0, f"{SCHEDULERS[name].cls}, edm", draw)


def describe(sampler: ds.Sampler) -> str:
    """The solver and the steps in words."""
    try:
        solver, steps = to_text("solver", sampler.solver), to_text("steps", sampler.steps)
    except ValueError:
        return f"{type(sampler.solver).__name__}, {type(sampler.steps).__name__}"
    short = [word if len(word) <= 60 else word.partition(":")[0] for word in (solver, steps)]
    return ", ".join(short)
