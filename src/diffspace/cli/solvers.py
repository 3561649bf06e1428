"""`diffspace solvers`: which solver, with which steps, for each number of evaluations."""

from __future__ import annotations

import dataclasses
import math
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

from typer import Argument, Option

import diffspace as ds
from diffspace.checks import check_seed
from diffspace.cli.options import Classes, Conditions, Device, Overwrite, Parts, Proportions, integer_option
from diffspace.cli.sampler_options import FAMILY_FLAGS
from diffspace.protocols import sigma_range, stated

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from diffspace.cli.console import Stages
    from diffspace.solverlab import Measurement, Recommendation, SolverComparison

_FIRST_SEED = 1_000_000  # of the fit, where none are given


def solvers_command(
    source: Annotated[str, Argument(metavar="MODEL|ORACLE", help="A model, or mixture, ring, digits, oracle:DATA.")],
    nfe: Annotated[str, Option(help="Budgets: evaluations of the denoiser for a sample.")] = "5,8,10,15,20,35,50",
    seeds: Annotated[
        str | None, Option(help="Seeds of the samples that are measured. Default: 0-63, for small samples up to 0-255.")
    ] = None,
    classes: Classes = None,
    proportions: Proportions = False,
    conditions: Conditions = None,
    solvers: Annotated[str | None, Option(help="Solvers, such as heun,ab:k=4,prediction=x0. Default: all.")] = None,
    steps: Annotated[
        str | None,
        Option("--steps", *FAMILY_FLAGS, help="Kinds of steps, such as edm:rho=10,loglinear. Default: several."),
    ] = None,
    reference_steps: Annotated[int, Option(help="Steps of the reference; runs of fewer tell its error.")] = 400,
    fit: Annotated[bool, Option("--fit", help="First fit a solver to each budget: samplers/fitted-N.")] = False,
    fit_seeds: Annotated[
        str | None,
        Option(
            help="Seeds of the fit; one to four times as many, which follow, judge it. Small samples need more. "
            f"Default: 64 to 1024, from {_FIRST_SEED} on."
        ),
    ] = None,
    fit_evaluations: Annotated[
        int | None,
        integer_option(
            "Evaluations of a sample that the fit of a budget takes at most, beside its exact paths; some thousands "
            "make most of the gain. Default: as many as it takes."
        ),
    ] = None,
    out: Annotated[Path | None, Option(help="Draw the errors over the evaluations (x.png).")] = None,
    figures: Annotated[Path | None, Option("--json", help="Write every figure (x.json).")] = None,
    overwrite: Overwrite = False,
    batch: Annotated[int | None, integer_option("Samples in a batch. Default: all of them.")] = None,
    device: Device = None,
    part: Parts = None,
) -> None:
    """Measure every solver with several kinds of steps against a reference solution, and recommend one per budget."""
    from diffspace.cli.console import Stages, out as stdout, progress_bar
    from diffspace.cli.options import parse_seeds
    from diffspace.cli.output import check_target, write_figure, write_json
    from diffspace.solverlab import calibration_seeds, recommend
    from diffspace.train import choose_device

    for option, path, suffix in (("--out", out, ".png"), ("--json", figures, ".json")):
        if path is not None:
            check_target(option, path, suffix, overwrite)
    for option, value in (("--fit-seeds", fit_seeds), ("--fit-evaluations", fit_evaluations)):
        if not fit and value is not None:
            raise ValueError(f"{option}: has no effect without --fit")
    budgets, chosen_seeds = parse_budgets(nfe), None if seeds is None else parse_seeds(seeds)
    given = None if fit_seeds is None else parse_seeds(fit_seeds, "--fit-seeds")
    chosen = parse_choice(solvers, steps, budgets)

    denoiser = _load(source, classes, proportions, conditions, device)
    problem = _Problem(
        source, denoiser, classes, proportions, conditions, ds.Execution(batch, choose_device(device)), reference_steps
    )
    seed_list = chosen_seeds or list(range(calibration_seeds(problem.elements, 4096, 256)))
    calibration, judging = _calibration(problem.elements, given, seed_list) if fit else ([], [])
    with progress_bar("evaluations") as bar:
        stage = Stages(bar)
        found = {} if problem.model is None else ds.load_samplers(source)
        if fit:
            found |= _fit(problem, (calibration, judging), budgets, fit_evaluations, stage, overwrite)
        comparison = _compare(problem, seed_list, budgets, chosen, found, stage)
    recommended = [(choice, _options(choice.row)) for choice in recommend(comparison)]
    command = "" if problem.model is None else shlex.join(["diffspace", "sample", source, *problem.words]) + " "
    _print(comparison, recommended, command)
    if figures is not None:
        choices = [{**choice.as_dict(), "command": command + options} for choice, options in recommended]
        write_json(
            figures,
            {
                "source": source,
                "seeds": seeds or f"0-{len(seed_list) - 1}",
                **comparison.as_dict(),
                "recommended": choices,
            },
        )
    if out is not None:
        write_figure(out, _picture(comparison, source))
    if figures is not None or out is not None:
        stdout.print("\n" + ", ".join(str(path) for path in (figures, out) if path is not None))


def _calibration(elements: int, given: list[int] | None, seeds: list[int]) -> tuple[list[int], list[int]]:
    """The seeds to fit solvers to, and those that judge; ValueError where one of them is measured later on."""
    from diffspace.solverlab import calibration_seeds, judging_seeds

    fitted_to = given or [_FIRST_SEED + k for k in range(calibration_seeds(elements))]
    first = max(fitted_to) + 1
    judging = list(range(first, first + judging_seeds(elements, len(fitted_to))))
    check_seed("--fit-seeds, the last of those that judge", judging[-1])
    if {*fitted_to, *judging} & set(seeds):
        raise ValueError(f"--fit-seeds: these and the {len(judging)} that follow are not to be in --seeds")
    return fitted_to, judging


def parse_budgets(text: str) -> list[int]:
    """`5,8,10` as numbers of evaluations in increasing order, each once."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise ValueError(f"--nfe: expected numbers of evaluations such as 5,8,10, got {text!r}")
    return sorted({int(word) for word in words})


def parse_choice(
    solvers: str | None, steps: str | None, budgets: list[int]
) -> tuple[list[str] | None, tuple[str, ...]]:
    """The solvers, None for all, and the kinds of steps; mistakes in them are reported before any work."""
    from diffspace.config import split_list
    from diffspace.solverlab import STEP_FAMILIES, default_samplers, plan_runs

    names = None if solvers is None else split_list(solvers)
    families = STEP_FAMILIES if steps is None else tuple(split_list(steps))
    if any(word.isdecimal() for word in families):
        raise ValueError(f"--steps: expected kinds of steps, got {steps}; the number of steps follows from --nfe")
    plan_runs(default_samplers(1.0, 0.0, names, families), budgets)
    return names, families


def _load(
    source: str, classes: list[str] | None, proportions: bool, conditions: list[str] | None, device: str | None
) -> ds.Denoiser:
    from diffspace.cli.options import load_model
    from diffspace.data import is_oracle, named_oracle

    if not is_oracle(source):
        return load_model(source, device)
    for option, given in (("--class", classes), ("--class-proportions", proportions), ("--cond", conditions)):
        if given:
            raise ValueError(f"{option}: has no effect on {source}, which has no classes and no other conditions")
    return named_oracle(source)


class _Problem(NamedTuple):
    """A model or an oracle, and how its reference solutions are made."""

    source: str
    denoiser: ds.Denoiser
    classes: list[str] | None
    proportions: bool
    conditions: list[str] | None
    execution: ds.Execution
    reference_steps: int

    @property
    def model(self) -> ds.Model | None:
        """The denoiser, if it is a model."""
        return self.denoiser if isinstance(self.denoiser, ds.Model) else None

    @property
    def words(self) -> list[str]:
        """The options of `diffspace sample` for the same conditions."""
        given = [("--class", self.classes), ("--cond", self.conditions)]
        words = [word for option, values in given for value in values or () for word in (option, value)]
        return words + ["--class-proportions"] * self.proportions

    @property
    def elements(self) -> int:
        """Of a sample."""
        return math.prod(stated(self.denoiser, "sample_shape") or (64,))

    def reference(
        self, seeds: list[int], stage: Stages, *, steps: int | None = None, trajectory: bool = False
    ) -> ds.Reference:
        from diffspace.cli.conditions import choose_cond
        from diffspace.cli.fitting import exact_ends

        stage("reference")
        options = (self.conditions, self.classes, seeds, self.proportions)
        cond = None if self.model is None else choose_cond(self.model, *options)
        how = steps or self.reference_steps, self.execution, stage
        return exact_ends(self.denoiser, seeds, cond, *how, trajectory=trajectory)


def _fit(
    problem: _Problem,
    seeds_of: tuple[list[int], list[int]],
    budgets: list[int],
    limit: int | None,
    stage: Stages,
    overwrite: bool,
) -> dict[str, ds.Sampler]:
    """Fit a solver to each budget and keep those of a model in its folder; ValueError first, where one exists."""
    from diffspace.cli.console import err
    from diffspace.cli.fitting import fit_each
    from diffspace.cli.output import check_place

    seeds, judging = seeds_of
    source, denoiser, execution = problem.source, problem.denoiser, problem.execution
    keep = problem.model is not None and Path(source).exists()
    if keep:
        check_place("--fit", Path(source))
    taken = sorted({f"fitted-{budget}" for budget in budgets} & set(ds.load_samplers(source))) if keep else []
    if taken and not overwrite:
        raise ValueError(f"--fit: {source} has {', '.join(taken)} already; add --overwrite to replace them")
    size = execution.batch_size or len(seeds)  # limits memory: the judges can be four times as many
    problem = problem._replace(execution=dataclasses.replace(execution, batch_size=size))
    truth, ends = _paths(problem, seeds, judging, budgets, limit, stage)
    found = {}
    for name, budget, search in fit_each(denoiser, budgets, truth, ends, problem.execution, stage, limit):
        found[name], choice = search.sampler, search.choice
        unseen, error, place = search.comparison.samples, search.standard_error, name
        if keep:
            notes = {"nfe": budget, "fit_seeds": len(seeds), "choice": choice.name}
            notes |= {"rms": choice.error.rms, "standard_error": error, "judging_seeds": unseen}
            place = str(ds.save_sampler(search.sampler, source, name, notes=notes, overwrite=overwrite))
        err.print(f"{place}: {choice.name}, RMS {choice.error.rms:.2e} ± {error:.1e} on {unseen} other seeds")
    if not keep:
        err.print("note: the fitted solvers are not kept, since there is no folder of a model")
    return found


def _paths(
    problem: _Problem, seeds: list[int], judging: list[int], budgets: list[int], limit: int | None, stage: Stages
) -> tuple[ds.Reference, ds.Reference]:
    """The exact paths of the seeds, and the end points of those that judge; prints what the fit costs."""
    from diffspace.cli.console import duration, err
    from diffspace.solverlab import search_cost

    fewer = 2 * (max(problem.reference_steps // 4, min(problem.reference_steps, 50)) // 2)
    paths = sum(len(of) * (n + n // 2 + n // 4) for of, n in ((seeds, problem.reference_steps), (judging, fewer)))
    fits = sum(search_cost(budget, len(seeds), len(judging), problem.elements, evaluations=limit) for budget in budgets)
    err.print(
        f"fit: {paths:,} evaluations of a sample for the exact paths of {len(seeds)} seeds and the ends of "
        f"{len(judging)} others, then at most about {fits:,} for NFE {', '.join(map(str, budgets))}"
    )
    started = time.perf_counter()
    truth = problem.reference(seeds, stage, trajectory=True)
    ends = problem.reference(judging, stage, steps=fewer)
    each = (time.perf_counter() - started) / paths
    hint = "" if limit is not None else "; --fit-evaluations limits them"
    err.print(f"fit: about {duration(math.ceil(fits * each))} if these are as fast as the paths{hint}")
    return truth, ends


def _compare(
    problem: _Problem,
    seeds: list[int],
    budgets: list[int],
    chosen: tuple[list[str] | None, tuple[str, ...]],
    found: dict[str, ds.Sampler],
    stage: Stages,
) -> SolverComparison:
    """The reference and all runs; prints beforehand what they will cost."""
    from diffspace.cli.console import duration, err
    from diffspace.solverlab import compare_solvers, default_samplers, moments, plan_runs

    started = time.perf_counter()
    truth = problem.reference(seeds, stage)
    each = (time.perf_counter() - started) / truth.nfe
    samplers = default_samplers(*moments(truth), *chosen, sigma_min=sigma_range(problem.denoiser)[0]) | found
    plan = plan_runs(samplers, budgets)
    err.print(
        f"{len(plan.runs)} runs, {plan.nfe:,} evaluations of {len(seeds)} samples: about "
        f"{duration(math.ceil(plan.nfe * each))}, if they are as fast as the {truth.nfe} of the reference"
    )
    stage("measuring")
    batch, device = problem.execution.batch_size, problem.execution.device
    return compare_solvers(
        problem.denoiser, truth, samplers, budgets, batch_size=batch, device=device, progress=stage.show
    )


def _print(comparison: SolverComparison, recommended: list[tuple[Recommendation, str]], command: str) -> None:
    """The least RMS of each solver and budget, with a letter for the steps, and what is recommended."""
    from rich.text import Text

    from diffspace.cli.console import err, out, table, warn

    names = dict.fromkeys(row.solver for row in comparison.rows)
    letters = {steps: chr(ord("a") + i) for i, steps in enumerate(dict.fromkeys(row.steps for row in comparison.rows))}
    worst_first = sorted(comparison.rows, key=lambda row: row.error.rms, reverse=True)
    best = {(row.solver, row.budget): row for row in worst_first}
    green = {(choice.budget, choice.row.solver, choice.row.num_steps) for choice, _ in recommended}

    def cell(name: str, budget: int) -> str | Text:
        row = best.get((name, budget))
        if row is None:
            return ""
        text = "failed" if row.failure else f"{row.error.rms:.1e} {letters[row.steps]}"
        return Text(text, style="bold green") if (budget, name, row.num_steps) in green else text

    headings = ["solver", *(f"NFE ≤ {budget}" for budget in comparison.budgets)]
    rows = [[name, *(cell(name, budget) for budget in comparison.budgets)] for name in names]
    out.print("  ".join(f"{letter}: {name}" for name, letter in letters.items()), style="italic")
    out.print(table(headings, rows))
    out.print(
        f"\nRMS distance from the end points of the ODE over {comparison.samples} samples, in the model's space; "
        f"the reference is known to {comparison.reference_error.rms:.1e}."
    )
    for choice, options in recommended:
        error = choice.row.error
        errors = f"RMS {error.rms:.2e}, median {error.median:.2e}"
        out.print(f"\nbudget {choice.budget}: NFE {choice.row.nfe}, {errors}; {choice.reason}")
        out.print(f"  {command}{options}")
    known = comparison.reference_error.rms
    if unclear := [f"{choice.budget}" for choice, _ in recommended if choice.row.error.rms < known]:
        warn(
            f"the reference is less accurate ({known:.1e}) than the best solver at NFE {', '.join(unclear)} seems: "
            "raise --reference-steps to tell"
        )
    smooth = [choice for choice, _ in recommended if _smooths(choice.row, comparison.scale)]
    if smooth:
        budgets = ", ".join(f"{choice.budget}" for choice in smooth)
        level = max(choice.row.last_sigma for choice in smooth)
        err.print(
            f"note: at NFE {budgets} the last evaluation is at σ up to {level:.2g}, and the samples are its D: smaller "
            "details are smoothed, which path errors hardly see; --steps edm ends at the model's lowest level, and "
            "`diffspace sweep` chooses by the distribution"
        )
    for line in comparison.excluded:
        err.print(f"not measured: {line}")
    for row in comparison.rows:
        if row.failure:
            err.print(f"failed: {row.solver}, {row.steps}, N = {row.num_steps}: {row.failure}")


def _smooths(row: Measurement, scale: float) -> bool:
    """Whether samples end as D at a level at which data still have details; levels that were found are left alone."""
    return row.last_sigma > 0.01 * scale and not row.sampler.fixed


def _options(row: Measurement) -> str:
    """The options of `diffspace sample` that choose this sampler."""
    from diffspace.config import to_text

    if row.solver == row.name:
        words = ["--sampler", row.name] + ([] if row.sampler.fixed else ["--steps", str(row.num_steps)])
    else:
        steps = to_text("steps", row.sampler.steps, omit=("num_steps",))
        words = ["--solver", row.solver, "--steps", f"{steps}{',' if ':' in steps else ':'}num_steps={row.num_steps}"]
    return shlex.join(words)


def _picture(comparison: SolverComparison, source: str) -> Figure:
    """The errors over the evaluations."""
    from diffspace.figures import draw_pareto
    from diffspace.figures.style import new_figure, plain

    figure = new_figure(8, 4.6)
    ax = figure.subplots()
    draw_pareto(ax, comparison)
    ax.set_title(f"{plain(source)}: error of the end points, {comparison.samples} samples", loc="left", fontsize=10)
    return figure
