"""`diffspace solvers`: which solver, with which steps, for how many evaluations."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import torch
    from rich.table import Table

    from diffspace.protocols import Cond, Denoiser
    from diffspace.sampling import Sampler
    from diffspace.solverlab import Measurement, Recommendation, SolverComparison

__all__ = ["found_samplers", "solvers_command"]


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
        typer.Option(
            "--class",
            help="Class by name or index, or several dealt in turn: 0,1,2. Default: random by seed.",
        ),
    ] = None,
    solvers: Annotated[
        str | None,
        typer.Option(help="Which ones, such as heun,ab:k=4,prediction=x0. Default: all, some with several options."),
    ] = None,
    steps: Annotated[
        str | None, typer.Option(help="Which steps, such as edm:rho=10,loglinear:sigma_min=0.02. Default: several.")
    ] = None,
    reference_steps: Annotated[
        int, typer.Option(help="Steps of the reference solution; a run with half of them tells its error.")
    ] = 400,
    fit: Annotated[
        bool,
        typer.Option(
            "--fit",
            help="First find a solver for each budget, and keep it beside the model: samplers/fitted-N.json.",
        ),
    ] = False,
    fit_seeds: Annotated[
        str | None, typer.Option(help="Seeds to find them with, other than --seeds. Default: 1000000-1000127.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Draw the errors over the evaluations (x.png).")] = None,
    figures: Annotated[Path | None, typer.Option("--json", help="Write every figure (x.json).")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace what is at --out, at --json and what was fitted.")] = False,
    batch: Annotated[int | None, typer.Option(help="Samples made at a time. Default: all.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps. Default: the best there is.")] = None,
) -> None:
    """Measure every solver with several kinds of steps against a reference solution, and recommend one per budget."""
    from diffspace.cli.console import err
    from diffspace.cli.console import out as stdout
    from diffspace.cli.fitting import fit_samplers
    from diffspace.cli.output import check_target
    from diffspace.cli.parsing import parse_budgets, parse_seeds
    from diffspace.config import split_list
    from diffspace.files import atomic_path, write_text
    from diffspace.solverlab import STEP_FAMILIES, default_samplers, plan_runs, recommend
    from diffspace.train import choose_device

    budgets, seed_list = parse_budgets(nfe), parse_seeds(seeds)
    if batch is not None and batch < 1:
        raise ValueError(f"--batch: {batch}; want at least 1")
    for option, path, suffix in (("--out", out, ".png"), ("--json", figures, ".json")):
        if path is not None:
            check_target(option, path, suffix, overwrite)
    names = None if solvers is None else split_list(solvers)
    families = STEP_FAMILIES if steps is None else tuple(split_list(steps))
    plan_runs(default_samplers(1.0, 0.0, names, families), budgets)  # a mistake in them is told before any work
    target = choose_device(device)
    if not fit and fit_seeds is not None:
        raise ValueError("--fit-seeds: has no effect without --fit")
    calibration = parse_seeds("1000000-1000127" if fit_seeds is None else fit_seeds)
    if fit and set(calibration) & set(seed_list):
        raise ValueError("--fit-seeds: overlaps with --seeds, on which what is found shall be judged")
    denoiser, cond = _denoiser(source, classes, seed_list, target)
    found = found_samplers(source)
    if fit:
        labels = _denoiser(source, classes, calibration, target)[1]
        fresh = fit_samplers(
            denoiser, source, calibration, labels, budgets, reference_steps, target, batch=batch, overwrite=overwrite
        )
        found |= fresh
    comparison = _compare(denoiser, cond, seed_list, budgets, names, families, found, reference_steps, batch, target)
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
        from diffspace.figures import draw_pareto
        from diffspace.figures.style import new_figure

        figure = new_figure(8, 4.6)
        ax = figure.subplots()
        draw_pareto(ax, comparison)
        ax.set_title(f"{source}: error of the end points, {comparison.samples} samples", loc="left", fontsize=10)
        with atomic_path(out) as temporary:
            figure.savefig(temporary, format="png")
    written = [str(path) for path in (figures, out) if path is not None]
    if written:
        stdout.print("\n" + ", ".join(written), markup=False)


def found_samplers(source: str) -> dict[str, Sampler]:
    """The samplers that were found for a model and lie beside it, by their names; an oracle has none."""
    from diffspace.data import is_oracle
    from diffspace.sampler_files import load_samplers

    if is_oracle(source):
        return {}
    return load_samplers(source)


def _denoiser(source: str, classes: str | None, seeds: list[int], device: torch.device) -> tuple[Denoiser, Cond | None]:
    """The model or the oracle, and the classes of the samples where it has some."""
    from diffspace.cli.parsing import parse_classes
    from diffspace.data import is_oracle, named_oracle
    from diffspace.loading import load
    from diffspace.sampling import random_labels

    if is_oracle(source):
        if classes is not None:
            raise ValueError(f"--class: has no effect on {source}, which has no classes")
        return named_oracle(source), None
    model = load(source, device=device)
    if classes is not None:
        return model, {"labels": parse_classes(classes, model.class_names, len(seeds))}
    if model.class_names:
        return model, {"labels": random_labels(seeds, model.sample_shape, len(model.class_names))}
    return model, None


def _compare(
    denoiser: Denoiser,
    cond: Cond | None,
    seeds: list[int],
    budgets: list[int],
    names: list[str] | None,
    families: tuple[str, ...],
    found: dict[str, Sampler],
    reference_steps: int,
    batch: int | None,
    device: torch.device,
) -> SolverComparison:
    """The reference and all runs, with a bar; what they will cost is told before."""
    from diffspace.cli.console import err, progress_bar
    from diffspace.sampling import Execution
    from diffspace.solverlab import REFERENCE_SAMPLER, compare_solvers, default_samplers, moments, plan_runs, reference

    with progress_bar("evaluations") as bar:
        batches = 1 if batch is None else -(-len(seeds) // batch)
        task = bar.add_task("reference", total=reference_steps // 2 * 3 * batches, info="")

        def advance(_: int, state: Any) -> None:
            bar.update(task, advance=min(state.step, 1))

        started = time.perf_counter()
        truth = reference(
            denoiser,
            seeds=seeds,
            cond=cond,
            sampler=REFERENCE_SAMPLER.with_num_steps(reference_steps),
            execution=Execution(batch, device, progress=advance),
        )
        each = (time.perf_counter() - started) / truth.nfe
        samplers = default_samplers(*moments(truth), names, families) | found
        plan = plan_runs(samplers, budgets)
        err.print(
            f"{len(plan.runs)} runs, {plan.nfe:,} evaluations of {len(seeds)} samples: as the {truth.nfe} for the "
            f"reference went, about {plan.nfe * each / 60:.1f} minutes"
        )

        def show(done: int, total: int, name: str) -> None:
            bar.update(task, description="measuring", completed=done, total=total, info=name)

        return compare_solvers(denoiser, truth, samplers, budgets, batch_size=batch, device=device, progress=show)


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
    if row.sampler.fixed:
        words += ["--sampler", row.name]
    else:
        words += ["--solver", row.solver, "--disc", row.steps, "--steps", str(row.num_steps)]
    return shlex.join(words)
