"""A solver for a denoiser and a budget: what is best on new samples, of all that is known and that can be fitted."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace

from diffspace.checks import check_integer
from diffspace.protocols import Denoiser
from diffspace.sampling.runs import evaluating
from diffspace.sampling.sampler import Sampler
from diffspace.solverlab.compare import Measurement, SolverComparison, compare_solvers, default_samplers, moments, ties
from diffspace.solverlab.end_points import Continuous, Reference
from diffspace.solverlab.family import Family, Table
from diffspace.solverlab.fit import Progress, Spacing, find_table, polish

_SEARCH, _POLISH = 30.0, 300.0  # c² of the losses, in units of the median of e²
_FORKS = (1e9, 30.0)  # those of the later rounds; the first is all but the squared error
_ROUNDS = 2
_FEW = 24  # samples
_MARGIN = 0.05
_DISAGREEMENT = 3.0  # of the error on new samples and that on those of the fit


def calibration_seeds(elements: int) -> int:
    """The default number of calibration seeds for samples with that many elements: 8,192 elements in all.

    At least 64 seeds, since items differ, and at most 1,024. Small samples need more seeds, because errors are largest
    near the boundaries between ends, and their denoisers are cheap.
    """
    return min(max(8192 // elements, 64), 1024)


def judging_seeds(elements: int, calibration: int) -> int:
    """The number of seeds that judge a fit: four for each calibration seed, one where a sample has 2,048 elements."""
    return round(calibration * min(max(2048 / elements, 1), 4))


@dataclass(frozen=True, eq=False)
class SolverSearch:
    """What was tried for a budget, judged on samples that no fit has seen, and the choice.

    `choice` has the least RMS, or one within chance of it. `fit` is its error on the samples of the fit.
    """

    comparison: SolverComparison
    choice: Measurement
    fit: Measurement

    @property
    def sampler(self) -> Sampler:
        """The choice."""
        return self.choice.sampler

    @property
    def standard_error(self) -> float:
        """That of the RMS of the choice, over fresh samples; of a single one the RMS itself."""
        squares, rms = self.choice.squares, self.choice.error.rms
        if len(squares) < 2 or rms == 0:
            return rms
        return float(squares.std()) / math.sqrt(len(squares)) / (2 * rms)


def search_solver(
    denoiser: Denoiser,
    num_steps: int,
    truth: Reference,
    *,
    validation: Reference | None = None,
    iterations: int = 8,
    noise: float = 1e-5,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> SolverSearch:
    """Fit solvers of N evaluations in several ways, and judge them beside all that need no fit on other samples.

    Tried are linear multistep solvers as of `fit_multistep`, with the first D evaluated and with the mean of the data
    in its place; the better one fitted further with losses that look at outliers more and less; and the best solvers
    that need no fit (`default_samplers`). The choice has the least RMS; of those that differ from it by less than
    chance and 5 %, the least median. A warning tells of samples that are too few, and of a choice whose error on new
    samples is far above that on the samples of the fit.

    Args:
        denoiser, num_steps, iterations, noise, batch_size, progress: as in `fit_multistep`; `progress` counts the
            iterations of all searches.
        truth: the exact paths of calibration seeds: `reference(…, execution=Execution(trajectory=True))`.
        validation: the end points of other seeds. Default: those of the last quarter of `truth`, which no fit sees. Few
            samples, near a boundary between two ends, make most of the RMS: 500 tell more than 50.
    """
    check_integer("num_steps", num_steps, 1)
    if truth.path is None:
        raise ValueError("truth: has no trajectory; make it by reference(…, execution=Execution(trajectory=True))")
    fitted_to, judged_on = _split(truth) if validation is None else (truth, validation)
    known = _best_known(denoiser, num_steps, fitted_to, batch_size)
    judge = _Judge(denoiser, num_steps, (fitted_to, judged_on), batch_size)
    with evaluating(Continuous(denoiser), grad=False):
        _fit(judge, iterations, noise, progress)
    return judge.choose({row.name: row.sampler for row in known})


def fit_solver(
    denoiser: Denoiser,
    num_steps: int,
    truth: Reference,
    *,
    validation: Reference | None = None,
    iterations: int = 8,
    noise: float = 1e-5,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Sampler:
    """The sampler of at most N evaluations that `search_solver` chooses, with the same arguments."""
    found = search_solver(
        denoiser,
        num_steps,
        truth,
        validation=validation,
        iterations=iterations,
        noise=noise,
        batch_size=batch_size,
        progress=progress,
    )
    return found.sampler


class _Counted:
    """Tells the iterations of all searches together; a search that ends early is counted as if it had not."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress, self.total, self.done = progress, total, 0

    def stage(self, iterations: int) -> Progress | None:
        """For a search of that many iterations."""
        if self.progress is None:
            return None
        tell, before = self.progress, self.done
        self.done += iterations
        return lambda i, _, rms: tell(before + i, self.total, rms)


@dataclass(frozen=True, eq=False)
class _Fit:
    """A fitted table, and how it did on new samples."""

    family: Family
    spacing: Spacing
    table: Table
    row: Measurement


def _fit(judge: _Judge, iterations: int, noise: float, progress: Progress | None) -> None:
    """All fits, each judged: the second half of a search goes on from what was best so far."""
    truth, half = judge.samples[0], -(-iterations // 2)
    counted = _Counted(progress, 2 * (iterations + half) + _ROUNDS * len(_FORKS) * half)
    fits: list[_Fit] = []

    def add(name: str, family: Family, spacing: Spacing, table: Table) -> None:
        fits.append(_Fit(family, spacing, table, judge(name, table.sampler(family.mean))))

    for mean in (None, moments(truth)[1]):
        family = Family(judge.denoiser, truth, judge.batch_size, mean)
        spacing = Spacing(judge.denoiser, truth, judge.budget + (mean is not None))
        kind = "fitted" if mean is None else "fitted, mean first"
        table = find_table(family, spacing, iterations, _SEARCH, noise, counted.stage(iterations))
        add(f"{kind}, stagewise", family, spacing, table)
        add(kind, family, spacing, polish(family, table, spacing, half, _POLISH, noise, counted.stage(half)))
    for k in range(_ROUNDS if iterations else 0):
        best = min(fits, key=lambda fit: fit.row.error.rms)
        for robustness in _FORKS:
            table = polish(best.family, best.table, best.spacing, half, robustness, noise, counted.stage(half))
            add(f"fitted, round {k + 2}, c² = {robustness:g}", best.family, best.spacing, table)


def _split(truth: Reference) -> tuple[Reference, Reference]:
    """The samples that are fitted to, and those on which the result is judged."""
    count = len(truth.x)
    if count < 4:
        return truth, truth
    cut = count - count // 4
    return truth.rows(slice(0, cut)), truth.rows(slice(cut, None))


def _best_known(denoiser: Denoiser, budget: int, truth: Reference, batch_size: int | None) -> list[Measurement]:
    """Of the samplers that need no fit, those with the least RMS on some samples: fewer, the larger these are."""
    samplers, device = default_samplers(*moments(truth)), truth.x.device
    rows: list[Measurement] = []
    few = min(max(4096 // math.prod(truth.x.shape[1:]), 4), 16)
    for count, kept in ((few, 4 * few), (6 * few, 3 * few // 2)):
        some = truth.rows(slice(0, count))
        found = compare_solvers(denoiser, some, samplers, (budget,), batch_size=batch_size, device=device)
        rows = found.within(budget)[:kept]
        samplers = {row.name: row.sampler for row in rows}
    return rows


class _Judge:
    """Measures samplers on new samples, keeps what it measured, and chooses."""

    def __init__(
        self, denoiser: Denoiser, budget: int, samples: tuple[Reference, Reference], batch_size: int | None
    ) -> None:
        self.denoiser, self.budget, self.samples, self.batch_size = denoiser, budget, samples, batch_size
        self.tried: dict[str, Measurement] = {}

    def measure(self, on: Reference, samplers: Mapping[str, Sampler]) -> SolverComparison:
        size, device = self.batch_size, on.x.device
        return compare_solvers(self.denoiser, on, samplers, (self.budget,), batch_size=size, device=device)

    def __call__(self, name: str, sampler: Sampler) -> Measurement:
        self.tried[name] = self.measure(self.samples[1], {name: sampler}).rows[0]
        return self.tried[name]

    def choose(self, known: Mapping[str, Sampler]) -> SolverSearch:
        """Of all that was measured and those that need no fit."""
        seen, unseen = self.samples
        judged = self.measure(unseen, known)
        judged = replace(judged, rows=(*self.tried.values(), *judged.rows))
        rows = judged.within(self.budget)
        if not rows:
            raise ValueError(f"num_steps: no solver of {self.budget} evaluations reaches the end points")
        choice = min((row for row in rows if ties(row, rows[0], _MARGIN)), key=lambda row: row.error.median)
        found = SolverSearch(judged, choice, self.measure(seen, {choice.name: choice.sampler}).rows[0])
        new, old = choice.error.rms, found.fit.error.rms
        if seen is unseen or len(seen.x) < _FEW:
            _warn(f"{len(seen.x)} samples are few to fit a solver to; expected at least {_FEW}")
        elif new > _DISAGREEMENT * old:
            _warn(f"the error is {new:.2g} on new samples, {old:.2g} on those of the fit; more seeds would help")
        return found


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=4)
