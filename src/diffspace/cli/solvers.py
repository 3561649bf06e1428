"""`diffspace solvers`: which solver, with which steps, for how many evaluations."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from diffspace.cli.options import Parts
from diffspace.cli.sampler_options import FAMILY_FLAGS

if TYPE_CHECKING:
    import torch
    from rich.progress import Progress
    from rich.table import Table

    from diffspace.protocols import Cond, Denoiser
    from diffspace.sampling import Sampler
    from diffspace.solverlab import Measurement, Recommendation, Reference, SolverComparison


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
    classes: Annotated[
        str | None,
        typer.Option("--class", help="Class by name or index, or several in turn: 0,1,2. Default: random by seed."),
    ] = None,
    solvers: Annotated[
        str | None,
        typer.Option(help="Which ones, such as heun,ab:k=4,prediction=x0. Default: all, some with several options."),
    ] = None,
    steps: Annotated[
        str | None,
        typer.Option(
            "--steps",
            *FAMILY_FLAGS,
            help="Which kinds of steps, such as edm:rho=10,loglinear:sigma_min=0.02. Default: several.",
        ),
    ] = None,
    reference_steps: Annotated[
        int, typer.Option(help="Steps of the reference solution; a run with half of them tells its error.")
    ] = 400,
    fit: Annotated[
        bool, typer.Option("--fit", help="First fit a solver to each budget, and keep it: samplers/fitted-N.json.")
    ] = False,
    fit_seeds: Annotated[
        str | None, typer.Option(help="Seeds to fit with, other than --seeds. Default: 1000000-1000127.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Draw the errors over the evaluations (x.png).")] = None,
    figures: Annotated[Path | None, typer.Option("--json", help="Write every figure (x.json).")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace what is at --out, at --json and what was fitted.")] = False,
    batch: Annotated[int | None, typer.Option(help="Samples made at a time. Default: all.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps. Default: the best there is.")] = None,
    part: Parts = None,
) -> None:
    """Measure every solver with several kinds of steps against a reference solution, and recommend one per budget."""
    from diffspace.cli.console import err, out as stdout, progress_bar
    from diffspace.cli.output import check_target
    from diffspace.cli.parsing import check_positive, parse_budgets, parse_seeds
    from diffspace.config import split_list
    from diffspace.files import write_text
    from diffspace.solverlab import STEP_FAMILIES, default_samplers, plan_runs, recommend
    from diffspace.train import choose_device

    budgets, seed_list = parse_budgets(nfe), parse_seeds(seeds)
    check_positive("--batch", batch)
    for option, path, suffix in (("--out", out, ".png"), ("--json", figures, ".json")):
        if path is not None:
            check_target(option, path, suffix, overwrite)
    names = None if solvers is None else split_list(solvers)
    families = STEP_FAMILIES if steps is None else tuple(split_list(steps))
    if any(word.isdecimal() for word in families):
        raise ValueError(f"--steps: expected kinds of steps, got {steps}; the number of steps follows from --nfe")
    plan_runs(default_samplers(1.0, 0.0, names, families), budgets)  # reports mistakes in them before any work
    if not fit and fit_seeds is not None:
        raise ValueError("--fit-seeds: has no effect without --fit")
    calibration = parse_seeds("1000000-1000127" if fit_seeds is None else fit_seeds)
    if fit and set(calibration) & set(seed_list):
        raise ValueError("--fit-seeds: expected other seeds than --seeds, on which the result is judged")
    problem = _Problem.load(source, classes, choose_device(device), batch, reference_steps)
    with progress_bar("evaluations") as bar:
        found = problem.found()
        if fit:
            found |= _fit(problem, calibration, budgets, bar, overwrite)
        comparison = _compare(problem, seed_list, budgets, names, families, found, bar)
    chosen = recommend(comparison)

    stdout.print(_errors(comparison, chosen))
    stdout.print(
        f"\nRMS distance from the end points of the ODE over {comparison.samples} samples, in the model's space; "
        f"the reference is known to {comparison.reference_error.rms:.1e}.\n",
        markup=False,
    )
    stdout.print(_choices(chosen))
    stdout.print()
    for choice in chosen:
        stdout.print(f"NFE {choice.row.nfe:>3}  {_command(source, choice.row)}", markup=False)
    for line in comparison.excluded:
        err.print(f"not measured: {line}", markup=False)
    for row in comparison.rows:
        if row.failure:
            who = f"{row.solver}, {row.steps}, N = {row.num_steps}"
            err.print(f"failed: {who}: {row.failure}", markup=False)
    if figures is not None:
        record = {"source": source, "seeds": seeds, **comparison.as_dict()}
        record["recommended"] = [{**choice.as_dict(), "command": _command(source, choice.row)} for choice in chosen]
        write_text(figures, json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    if out is not None:
        _draw(out, comparison, source)
    written = [str(path) for path in (figures, out) if path is not None]
    if written:
        stdout.print("\n" + ", ".join(written), markup=False)


class _Problem(NamedTuple):
    """A model or an oracle, and how its reference solutions are made."""

    source: str
    denoiser: Denoiser
    is_oracle: bool
    classes: str | None
    device: torch.device
    batch: int | None
    reference_steps: int

    @classmethod
    def load(
        cls, source: str, classes: str | None, device: torch.device, batch: int | None, reference_steps: int
    ) -> _Problem:
        from diffspace.data import is_oracle, named_oracle
        from diffspace.loading import load

        exact = is_oracle(source)
        if exact and classes is not None:
            raise ValueError(f"--class: has no effect on {source}, which has no classes")
        denoiser = named_oracle(source) if exact else load(source, device=device)
        return cls(source, denoiser, exact, classes, device, batch, reference_steps)

    def found(self) -> dict[str, Sampler]:
        """The samplers that were found for a model and lie beside it; an oracle has none."""
        from diffspace.sampler_files import load_samplers

        return {} if self.is_oracle else load_samplers(self.source)

    def cond(self, seeds: list[int]) -> Cond | None:
        from diffspace.cli.parsing import choose_labels
        from diffspace.model import Model

        labels = choose_labels(self.denoiser, self.classes, seeds) if isinstance(self.denoiser, Model) else None
        return None if labels is None else {"labels": labels}

    def reference(self, seeds: list[int], bar: Progress, *, trajectory: bool = False) -> Reference:
        from diffspace.sampling import Execution
        from diffspace.solverlab import REFERENCE_SAMPLER, reference

        batches = 1 if self.batch is None else -(-len(seeds) // self.batch)
        task = bar.add_task("reference", total=self.reference_steps // 2 * 3 * batches, info="")

        def advance(first: int, state: Any) -> None:
            bar.update(task, advance=min(state.step, 1))

        truth = reference(
            self.denoiser,
            seeds=seeds,
            cond=self.cond(seeds),
            sampler=REFERENCE_SAMPLER.with_num_steps(self.reference_steps),
            execution=Execution(self.batch, self.device, trajectory=trajectory, progress=advance),
        )
        bar.remove_task(task)
        return truth


def _fit(
    problem: _Problem, seeds: list[int], budgets: Sequence[int], bar: Progress, overwrite: bool
) -> dict[str, Sampler]:
    """Fit a solver of so many evaluations to each budget, and write those of a model to its samplers.

    ValueError, before any work, where a file exists.
    """
    from diffspace.cli.console import err
    from diffspace.sampler_files import load_samplers, save_sampler
    from diffspace.sampling import Execution, sample
    from diffspace.solverlab import fit_solver

    source, denoiser = problem.source, problem.denoiser
    keep = not problem.is_oracle and Path(source).exists()
    names = {budget: f"fitted-{budget}" for budget in budgets}
    taken = sorted(set(names.values()) & set(load_samplers(source))) if keep else []
    if taken and not overwrite:
        raise ValueError(f"--fit: {source} has {', '.join(taken)} already; add --overwrite to fit them again")
    truth = problem.reference(seeds, bar, trajectory=True)
    task, found = bar.add_task("fitting", info=""), {}
    for budget, name in names.items():

        def show(i: int, iterations: int, rms: float, name: str = name) -> None:
            bar.update(task, description=name, completed=i, total=iterations, info=f"RMS {rms:.2e}")

        sampler = found[name] = fit_solver(denoiser, budget, truth, batch_size=problem.batch, progress=show)
        execution = Execution(problem.batch, problem.device)
        run = sample(denoiser, latents=truth.latents, cond=truth.cond, sampler=sampler, execution=execution)
        error = truth.error_of(run.x)
        if keep:
            notes = {"nfe": budget, "fit_seeds": len(seeds), "fit_rms": error.rms}
            path = save_sampler(sampler, source, name, notes=notes, overwrite=overwrite)
            bar.console.print(f"{path}: RMS {error.rms:.2e} on the seeds of the fit", markup=False, highlight=False)
    bar.remove_task(task)
    if not keep:
        err.print("note: the fitted solvers are not kept, since there is no folder of a model", markup=False)
    return found


def _compare(
    problem: _Problem,
    seeds: list[int],
    budgets: list[int],
    names: list[str] | None,
    families: tuple[str, ...],
    found: dict[str, Sampler],
    bar: Progress,
) -> SolverComparison:
    """The reference and all runs; prints beforehand what they will cost."""
    from diffspace.cli.console import err
    from diffspace.solverlab import compare_solvers, default_samplers, moments, plan_runs

    started = time.perf_counter()
    truth = problem.reference(seeds, bar)
    each = (time.perf_counter() - started) / truth.nfe
    samplers = default_samplers(*moments(truth), names, families) | found
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


def _draw(out: Path, comparison: SolverComparison, source: str) -> None:
    from diffspace.figures import draw_pareto
    from diffspace.figures.style import new_figure
    from diffspace.files import atomic_path

    figure = new_figure(8, 4.6)
    ax = figure.subplots()
    draw_pareto(ax, comparison)
    ax.set_title(f"{source}: error of the end points, {comparison.samples} samples", loc="left", fontsize=10)
    with atomic_path(out) as temporary:
        figure.savefig(temporary, format="png")


def _errors(comparison: SolverComparison, chosen: Sequence[Recommendation]) -> Table:
    """A line for each solver and a column for each budget: the least RMS, and by a letter with which steps."""
    from rich.markup import escape

    from diffspace.cli.console import table

    best: dict[tuple[str, int], Measurement] = {}
    for row in comparison.rows:
        at = row.solver, row.budget
        if at not in best or row.error.rms < best[at].error.rms:
            best[at] = row
    letters: dict[str, str] = {}
    for row in comparison.rows:
        letters.setdefault(row.steps, chr(ord("a") + len(letters)))
    taken = {(choice.budget, choice.row.solver, choice.row.num_steps) for choice in chosen}

    def cell(name: str, budget: int) -> str:
        row = best.get((name, budget))
        if row is None:
            return ""
        text = f"{row.error.rms:.1e} {letters[row.steps]}" if not row.failure else "failed"
        return f"[bold green]{text}[/]" if (budget, name, row.num_steps) in taken else text

    names = dict.fromkeys(name for name, _ in best)
    title = "  ".join(f"{letter}: {escape(name)}" for name, letter in letters.items())
    headings = ("solver", *(f"NFE ≤ {budget}" for budget in comparison.budgets))
    rows = [[escape(name), *(cell(name, budget) for budget in comparison.budgets)] for name in names]
    return table(headings, rows, title)


def _choices(chosen: Sequence[Recommendation]) -> Table:
    """One line for each budget."""
    from rich.markup import escape

    from diffspace.cli.console import table

    headings = ("budget", "NFE", "solver", "steps", "N", "RMS", "median", "why")
    rows = [
        (
            str(choice.budget),
            str(choice.row.nfe),
            escape(choice.row.solver),
            escape(choice.row.steps),
            str(choice.row.num_steps),
            f"{choice.row.error.rms:.2e}",
            f"{choice.row.error.median:.2e}",
            escape(choice.reason),
        )
        for choice in chosen
    ]
    return table(headings, rows)


def _command(source: str, row: Measurement) -> str:
    """How to draw samples with it: of this model, or of any where an oracle was measured."""
    from diffspace.data import is_oracle

    words = ["diffspace", "sample", "MODEL" if is_oracle(source) else source]
    if row.solver == row.name:
        words += ["--sampler", row.name]
    else:
        words += ["--solver", row.solver, "--disc", row.steps]
    if not row.sampler.fixed:
        words += ["--steps", str(row.num_steps)]
    return shlex.join(words)
