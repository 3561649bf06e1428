"""A solver for a denoiser and a budget: what is best on new samples, of all that is known and that can be fitted."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

from diffspace.checks import check_integer
from diffspace.protocols import Denoiser
from diffspace.sampling.sampler import Sampler
from diffspace.sampling.steps import GivenSteps
from diffspace.solverlab.compare import Measurement, SolverComparison, compare_solvers, default_samplers, moments
from diffspace.solverlab.end_points import Reference
from diffspace.solverlab.fit import Progress, fit_multistep, optimize_steps

ROBUSTNESSES = (30.0, 300.0, 3.0)
"""c² of the losses that are tried, in units of the median of e²; the later searches start where the first one ended."""

_RACE = ((16, 64), (96, 24))  # rounds of (samples, samplers that are kept)
_FEW = 24  # samples
_DISAGREEMENT = 3.0  # of the error on new samples and that on those of the fit


@dataclass(frozen=True, eq=False)
class SolverSearch:
    """What was tried for a budget, judged on samples that no fit has seen, and the choice.

    `choice` has the least RMS. `fit` is its error on the samples of the fit.
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
    ridge: float = 1e-6,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> SolverSearch:
    """Fit solvers of N evaluations in several ways, and judge them beside all that need no fit on other samples.

    Tried are linear multistep solvers fitted with the losses of `ROBUSTNESSES` (`fit_multistep`), the best solvers that
    need no fit (`default_samplers`), and the best of these with optimised steps. A warning tells of samples that are
    too few, and of a choice whose error on new samples is far above that on the samples of the fit.

    Args:
        denoiser, num_steps, iterations, ridge, batch_size, progress: as in `fit_multistep`; `progress` counts the
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
    half = -(-iterations // 2)
    counted = _Counted(progress, iterations + 3 * half)
    tried: dict[str, Sampler] = {}
    levels: tuple[float, ...] | None = None
    for robustness in ROBUSTNESSES:
        fitted = fit_multistep(
            denoiser,
            num_steps,
            fitted_to,
            iterations=iterations if levels is None else half,
            ridge=ridge,
            robustness=robustness,
            start=levels,
            batch_size=batch_size,
            progress=counted,
        )
        tried[f"fitted, c² = {robustness:g}"] = fitted
        if levels is None and isinstance(fitted.steps, GivenSteps):
            levels = fitted.steps.levels
    best = next((row for row in known if not row.sampler.fixed), None)
    if best is not None:
        tried[f"{best.solver}, optimised"] = optimize_steps(
            denoiser,
            best.sampler.solver,
            best.num_steps,
            fitted_to,
            iterations=half,
            batch_size=batch_size,
            progress=counted,
        )
    tried |= {row.name: row.sampler for row in known}
    return _judge(denoiser, num_steps, tried, (fitted_to, judged_on), batch_size)


def fit_solver(
    denoiser: Denoiser,
    num_steps: int,
    truth: Reference,
    *,
    validation: Reference | None = None,
    iterations: int = 8,
    ridge: float = 1e-6,
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
        ridge=ridge,
        batch_size=batch_size,
        progress=progress,
    )
    return found.sampler


class _Counted:
    """Tells the iterations of all searches together."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress, self.total, self.done = progress, total, 0

    def __call__(self, i: int, iterations: int, rms: float) -> None:
        if self.progress is not None:
            self.progress(self.done, self.total, rms)
        self.done += 1


def _split(truth: Reference) -> tuple[Reference, Reference]:
    """The samples that are fitted to, and those on which the result is judged."""
    count = len(truth.x)
    if count < 4:
        return truth, truth
    cut = count - count // 4
    return truth.rows(slice(0, cut)), truth.rows(slice(cut, None))


def _best_known(denoiser: Denoiser, budget: int, truth: Reference, batch_size: int | None) -> list[Measurement]:
    """Of the samplers that need no fit, those with the least RMS on some samples."""
    samplers, device = default_samplers(*moments(truth)), truth.x.device
    rows: list[Measurement] = []
    for count, kept in _RACE:
        some = truth.rows(slice(0, count))
        found = compare_solvers(denoiser, some, samplers, (budget,), batch_size=batch_size, device=device)
        rows = found.within(budget)[:kept]
        samplers = {row.name: row.sampler for row in rows}
    return rows


def _judge(
    denoiser: Denoiser,
    budget: int,
    tried: Mapping[str, Sampler],
    samples: tuple[Reference, Reference],
    batch_size: int | None,
) -> SolverSearch:
    """The choice among what was tried, given the samples of the fit and those that it is judged on."""
    seen, unseen = samples

    def measure(on: Reference, samplers: Mapping[str, Sampler]) -> SolverComparison:
        return compare_solvers(denoiser, on, samplers, (budget,), batch_size=batch_size, device=on.x.device)

    judged = measure(unseen, tried)
    rows = judged.within(budget)
    if not rows:
        raise ValueError(f"num_steps: no solver of {budget} evaluations reaches the end points")
    choice = rows[0]
    found = SolverSearch(judged, choice, measure(seen, {choice.name: choice.sampler}).rows[0])
    new, old = choice.error.rms, found.fit.error.rms
    if seen is unseen or len(seen.x) < _FEW:
        _warn(f"{len(seen.x)} samples are few to fit a solver to; expected at least {_FEW}")
    elif new > _DISAGREEMENT * old:
        _warn(f"the error is {new:.2g} on new samples, {old:.2g} on those of the fit; more seeds would help")
    return found


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=4)
