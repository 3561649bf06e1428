"""`diffspace solvers`: which solver, with which steps, for each number of evaluations."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeAlias

import typer

import diffspace as ds
from diffspace.cli.options import Classes, Device, Overwrite, Parts, integer_option
from diffspace.cli.sampler_options import FAMILY_FLAGS

if TYPE_CHECKING:
    import torch
    from rich.progress import Progress

    from diffspace.solverlab import Measurement, Recommendation, SolverComparison

_FIT_SEEDS = "1000000-1000127"
_Choice: TypeAlias = tuple[list[str] | None, tuple[str, ...]]  # names of solvers, None for all, and kinds of steps


def solvers_command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|ORACLE",
            help="A model as in `diffspace sample`, or an exact denoiser: mixture, ring, digits, oracle:DATA.",
        ),
    ],
    nfe: Annotated[str, typer.Option(help="Budgets: evaluations of the denoiser for a sample.")] = "5,8,10,15,20,35,50",
    seeds: Annotated[str, typer.Option(help="Seeds of the samples that are measured, such as 0-63.")] = "0-63",
    classes: Classes = None,
    solvers: Annotated[
        str | None,
        typer.Option(help="Solvers, such as heun,ab:k=4,prediction=x0. Default: all, some with several options."),
    ] = None,
    steps: Annotated[
        str | None,
        typer.Option(
            "--steps",
            *FAMILY_FLAGS,
            help="Kinds of steps, such as edm:rho=10,loglinear:sigma_min=0.02. Default: several.",
        ),
    ] = None,
    reference_steps: Annotated[
        int, typer.Option(help="Steps of the reference solution; a run with half of them estimates its error.")
    ] = 400,
    fit: Annotated[
        bool, typer.Option("--fit", help="First fit a solver to each budget, and keep it: samplers/fitted-N.json.")
    ] = False,
    fit_seeds: Annotated[
        str | None, typer.Option(help=f"Seeds to fit with, other than --seeds. Default: {_FIT_SEEDS}.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Draw the errors over the evaluations (x.png).")] = None,
    figures: Annotated[Path | None, typer.Option("--json", help="Write every figure (x.json).")] = None,
    overwrite: Overwrite = False,
    batch: Annotated[int | None, integer_option("Samples in a batch. Default: all of them.")] = None,
    device: Device = None,
    part: Parts = None,
) -> None:
    """Measure every solver with several kinds of steps against a reference solution, and recommend one per budget."""
    from diffspace.cli.console import progress_bar
    from diffspace.cli.options import parse_seeds
    from diffspace.cli.output import check_target
    from diffspace.solverlab import recommend

    for option, path, suffix in (("--out", out, ".png"), ("--json", figures, ".json")):
        if path is not None:
            check_target(option, path, suffix, overwrite)
    if not fit and fit_seeds is not None:
        raise ValueError("--fit-seeds: has no effect without --fit")
    budgets, seed_list = _parse_budgets(nfe), parse_seeds(seeds)
    calibration = parse_seeds(fit_seeds or _FIT_SEEDS, "--fit-seeds")
    if fit and set(calibration) & set(seed_list):
        raise ValueError("--fit-seeds: expected other seeds than --seeds, on which the result is judged")
    chosen = _parse_choice(solvers, steps, budgets)

    problem = _Problem.load(source, classes, device, batch, reference_steps)
    with progress_bar("evaluations") as bar:
        found = problem.found()
        if fit:
            found |= _fit(problem, calibration, budgets, bar, overwrite)
        comparison = _compare(problem, seed_list, budgets, chosen, found, bar)
    recommended = [(choice, _command(problem, choice.row)) for choice in recommend(comparison)]
    _print(comparison, recommended)
    _write(comparison, recommended, {"source": source, "seeds": seeds}, figures, out)


def _parse_budgets(text: str) -> list[int]:
    """`5,8,10` as numbers of evaluations in increasing order, each once."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise ValueError(f"--nfe: expected numbers of evaluations such as 5,8,10, got {text!r}")
    return sorted({int(word) for word in words})


def _parse_choice(solvers: str | None, steps: str | None, budgets: list[int]) -> _Choice:
    """The solvers and kinds of steps to combine; mistakes in them are reported before any work."""
    from diffspace.config import split_list
    from diffspace.solverlab import STEP_FAMILIES, default_samplers, plan_runs

    names = None if solvers is None else split_list(solvers)
    families = STEP_FAMILIES if steps is None else tuple(split_list(steps))
    if any(word.isdecimal() for word in families):
        raise ValueError(f"--steps: expected kinds of steps, got {steps}; the number of steps follows from --nfe")
    plan_runs(default_samplers(1.0, 0.0, names, families), budgets)
    return names, families


class _Problem(NamedTuple):
    """A model or an oracle, and how its reference solutions are made."""

    source: str
    denoiser: ds.Denoiser
    is_oracle: bool
    classes: str | None
    device: torch.device
    batch: int | None
    reference_steps: int

    @classmethod
    def load(
        cls, source: str, classes: str | None, device: str | None, batch: int | None, reference_steps: int
    ) -> _Problem:
        from diffspace.cli.options import load_model
        from diffspace.data import is_oracle, named_oracle
        from diffspace.train import choose_device

        exact = is_oracle(source)
        if exact and classes is not None:
            raise ValueError(f"--class: has no effect on {source}, which has no classes")
        denoiser = named_oracle(source) if exact else load_model(source, device)
        return cls(source, denoiser, exact, classes, choose_device(device), batch, reference_steps)

    def found(self) -> dict[str, ds.Sampler]:
        """The samplers that were found for a model and lie beside it; an oracle has none."""
        return {} if self.is_oracle else ds.load_samplers(self.source)

    def cond(self, seeds: list[int]) -> ds.Cond | None:
        from diffspace.cli.options import choose_labels

        labels = choose_labels(self.denoiser, self.classes, seeds) if isinstance(self.denoiser, ds.Model) else None
        return None if labels is None else {"labels": labels}

    def reference(self, seeds: list[int], bar: Progress, *, trajectory: bool = False) -> ds.Reference:
        from diffspace.solverlab import REFERENCE_SAMPLER

        batches = 1 if self.batch is None else -(-len(seeds) // self.batch)
        task = bar.add_task("reference", total=self.reference_steps // 2 * 3 * batches, info="")

        def advance(first: int, state: Any) -> None:
            bar.update(task, advance=min(state.step, 1))

        truth = ds.reference(
            self.denoiser,
            seeds=seeds,
            cond=self.cond(seeds),
            sampler=REFERENCE_SAMPLER.with_num_steps(self.reference_steps),
            execution=ds.Execution(self.batch, self.device, trajectory=trajectory, progress=advance),
        )
        bar.remove_task(task)
        return truth


def _fit(
    problem: _Problem, seeds: list[int], budgets: Sequence[int], bar: Progress, overwrite: bool
) -> dict[str, ds.Sampler]:
    """Fit a solver to each budget and keep those of a model in its folder; ValueError first, where one exists."""
    from diffspace.cli.console import err

    source, denoiser = problem.source, problem.denoiser
    keep = not problem.is_oracle and Path(source).exists()
    names = {budget: f"fitted-{budget}" for budget in budgets}
    taken = sorted(set(names.values()) & set(ds.load_samplers(source))) if keep else []
    if taken and not overwrite:
        raise ValueError(f"--fit: {source} has {', '.join(taken)} already; add --overwrite to replace them")
    truth = problem.reference(seeds, bar, trajectory=True)
    task, found = bar.add_task("fitting", info=""), {}
    for budget, name in names.items():

        def show(i: int, iterations: int, rms: float, name: str = name) -> None:
            bar.update(task, description=name, completed=i, total=iterations, info=f"RMS {rms:.2e}")

        sampler = found[name] = ds.fit_solver(denoiser, budget, truth, batch_size=problem.batch, progress=show)
        execution = ds.Execution(problem.batch, problem.device)
        run = ds.sample(denoiser, latents=truth.latents, cond=truth.cond, sampler=sampler, execution=execution)
        error = truth.error_of(run.x)
        if keep:
            notes = {"nfe": budget, "fit_seeds": len(seeds), "fit_rms": error.rms}
            path = ds.save_sampler(sampler, source, name, notes=notes, overwrite=overwrite)
            bar.console.print(f"{path}: RMS {error.rms:.2e} on the seeds of the fit")
    bar.remove_task(task)
    if not keep:
        err.print("note: the fitted solvers are not kept, since there is no folder of a model")
    return found


def _compare(
    problem: _Problem,
    seeds: list[int],
    budgets: list[int],
    chosen: _Choice,
    found: dict[str, ds.Sampler],
    bar: Progress,
) -> SolverComparison:
    """The reference and all runs; prints beforehand what they will cost."""
    from diffspace.cli.console import err
    from diffspace.solverlab import compare_solvers, default_samplers, moments, plan_runs

    started = time.perf_counter()
    truth = problem.reference(seeds, bar)
    each = (time.perf_counter() - started) / truth.nfe
    samplers = default_samplers(*moments(truth), *chosen) | found
    plan = plan_runs(samplers, budgets)
    err.print(
        f"{len(plan.runs)} runs, {plan.nfe:,} evaluations of {len(seeds)} samples: at the speed of the {truth.nfe} for "
        f"the reference, about {plan.nfe * each / 60:.1f} minutes"
    )
    task = bar.add_task("measuring", info="")

    def show(done: int, total: int, name: str) -> None:
        bar.update(task, completed=done, total=total, info=name)

    options: dict[str, Any] = {"batch_size": problem.batch, "device": problem.device, "progress": show}
    return compare_solvers(problem.denoiser, truth, samplers, budgets, **options)


def _print(comparison: SolverComparison, recommended: list[tuple[Recommendation, str]]) -> None:
    """Two tables: the least RMS of each solver and budget, with a letter for the steps; and what is recommended."""
    from rich.text import Text

    from diffspace.cli.console import err, out, table

    best: dict[tuple[str, int], Measurement] = {}
    letters: dict[str, str] = {}
    for row in comparison.rows:
        letters.setdefault(row.steps, chr(ord("a") + len(letters)))
        at = row.solver, row.budget
        if at not in best or row.error.rms < best[at].error.rms:
            best[at] = row
    green = {(choice.budget, choice.row.solver, choice.row.num_steps) for choice, _ in recommended}

    def cell(name: str, budget: int) -> str | Text:
        row = best.get((name, budget))
        if row is None:
            return ""
        text = "failed" if row.failure else f"{row.error.rms:.1e} {letters[row.steps]}"
        return Text(text, style="bold green") if (budget, name, row.num_steps) in green else text

    title = "  ".join(f"{letter}: {name}" for name, letter in letters.items())
    headings = ("solver", *(f"NFE ≤ {budget}" for budget in comparison.budgets))
    names = dict.fromkeys(name for name, _ in best)
    out.print(
        table(headings, [[name, *(cell(name, budget) for budget in comparison.budgets)] for name in names], title)
    )
    out.print(
        f"\nRMS distance from the end points of the ODE over {comparison.samples} samples, in the model's space; "
        f"the reference is known to {comparison.reference_error.rms:.1e}.\n"
    )
    rows = []
    for choice, _ in recommended:
        row, error = choice.row, choice.row.error
        rows.append([str(choice.budget), str(row.nfe), row.solver, row.steps, str(row.num_steps)])
        rows[-1] += [f"{error.rms:.2e}", f"{error.median:.2e}", choice.reason]
    out.print(table(("budget", "NFE", "solver", "steps", "N", "RMS", "median", "why"), rows))
    out.print()
    for choice, command in recommended:
        out.print(f"NFE {choice.row.nfe:>3}  {command}")
    for line in comparison.excluded:
        err.print(f"not measured: {line}")
    for row in comparison.rows:
        if row.failure:
            err.print(f"failed: {row.solver}, {row.steps}, N = {row.num_steps}: {row.failure}")


def _write(
    comparison: SolverComparison,
    recommended: list[tuple[Recommendation, str]],
    about: dict[str, str],
    figures: Path | None,
    picture: Path | None,
) -> None:
    """Write the figures as JSON, and the picture of errors over evaluations."""
    from diffspace.cli.console import out
    from diffspace.cli.output import write_figure, write_json
    from diffspace.figures import draw_pareto
    from diffspace.figures.style import new_figure

    if figures is not None:
        choices = [{**choice.as_dict(), "command": command} for choice, command in recommended]
        write_json(figures, {**about, **comparison.as_dict(), "recommended": choices})
    if picture is not None:
        figure = new_figure(8, 4.6)
        ax = figure.subplots()
        draw_pareto(ax, comparison)
        title = f"{about['source']}: error of the end points, {comparison.samples} samples"
        ax.set_title(title, loc="left", fontsize=10)
        write_figure(picture, figure)
    if written := [str(path) for path in (figures, picture) if path is not None]:
        out.print("\n" + ", ".join(written))


def _command(problem: _Problem, row: Measurement) -> str:
    """How to draw samples with it: of this model, or of any where an oracle was measured."""
    words = ["diffspace", "sample", "MODEL" if problem.is_oracle else problem.source]
    if row.solver == row.name:
        words += ["--sampler", row.name]
    else:
        words += ["--solver", row.solver, "--disc", row.steps]
    if not row.sampler.fixed:
        words += ["--steps", str(row.num_steps)]
    return shlex.join(words)
