"""`diffspace evaluate`: scores of a model beside those of real data, and a report with pictures."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from diffspace.cli.options import Batch, Context, Device, FirstSeed, Overwrite, Parts, ProcessCount, Sets, Size
from diffspace.cli.sampler_options import build_sampler, with_sampler_options

if TYPE_CHECKING:
    import diffspace as ds
    from diffspace.cli.console import Stages
    from diffspace.cli.scoring import Scoring
    from diffspace.metrics import Scores

SCORES, REPORT, _PARTS = "scores.json", "report.html", ".scores.parts"
_HEADINGS = ("score", "samples", "real data", "how")


@with_sampler_options()
def evaluate_command(
    ctx: Context,
    run: Annotated[Path, Argument(help="Folder of a training run.")],
    n: Size = None,
    sets: Sets = 3,
    first_seed: FirstSeed = 0,
    guidance: Annotated[
        str | None, Option("--guidance", metavar="W[:low,high]", help="Weight of guidance; 1: none.")
    ] = None,
    guide: Annotated[
        str | None, Option("--guide", metavar="MODEL", help="Guide by this weaker model, not by the null condition.")
    ] = None,
    keep: Annotated[Path | None, Option(help="Keep the samples: a folder of PNGs, or an array (x.npz).")] = None,
    overwrite: Overwrite = False,
    batch: Batch = 256,
    processes: ProcessCount = None,
    report: Annotated[bool, Option(help="Write report.html into the folder of the run.")] = True,
    device: Device = None,
    part: Parts = None,
    *,
    sampling: dict[str, Any],
) -> None:
    """Score a trained model and write scores.json and report.html into its folder.

    Samples take the classes of the held-out data in turn, and every score is printed beside that of real data. A
    command that was interrupted goes on: give it again.
    """
    import diffspace as ds
    from diffspace.cli.console import Stages, progress_bar, warn
    from diffspace.cli.drawing import identity
    from diffspace.cli.guided import guide_model
    from diffspace.cli.launch import signals_interrupt, start_processes
    from diffspace.cli.output import check_place
    from diffspace.cli.runs import load_data_of, open_recipe
    from diffspace.cli.sample_files import sample_writer
    from diffspace.cli.scoring import Scoring
    from diffspace.cli.taking import drawn_items
    from diffspace.train import Processes

    recipe = open_recipe(run)
    check_place("RUN", run / SCORES)
    build_sampler(sampling, str(run))  # complains before the model is loaded
    start_processes(processes, ctx.obj)
    with signals_interrupt(), Processes.join(device, warn=warn) as group:
        loaded = ds.load(str(run), device=group.device)
        weaker = None if guide is None else ds.load(guide, device=group.device)
        data = load_data_of(run, recipe, loaded, warn if group.first else _say_nothing)
        scoring = Scoring(data, n, sets, first_seed=first_seed, batch=batch, group=group, folder=run / _PARTS)
        drawing = scoring.drawing(loaded, build_sampler(sampling, str(run), denoiser=loaded))
        drawing = dataclasses.replace(
            drawing, denoiser=guide_model(loaded, guidance, weaker, drawing.sigmas(), drawing.cond)
        )
        request = {"guidance": guidance, "guide": weaker and identity(weaker)}
        writer = None
        if keep is not None and group.first:
            facts = {**request, **drawing.facts()}
            writer = sample_writer(keep, loaded, scoring.seeds, drawing.cond, batch, facts, overwrite=overwrite)
        with progress_bar("steps", shown=group.first) as bar:
            stage = Stages(bar)
            taken = scoring.take(drawn_items(drawing, request), stage, writer)
            scores = None if taken is None else scoring.measure(loaded, taken, stage)
            if scores is not None:
                page = _page(loaded, scoring, scores, recipe.noise, stage) if report else None
                _write(run, scores, request | drawing.facts(), page)
    if scores is not None:
        _print(run, scores, report)
        shutil.rmtree(run / _PARTS, ignore_errors=True)


def _say_nothing(text: str) -> None: ...


def _rows(scores: Scores) -> list[tuple[str, ...]]:
    return [(row.name, row.value, row.reference, row.note) for row in scores.rows()]


def _page(model: ds.Model, scoring: Scoring, scores: Scores, noise: Any, stage: Stages) -> str:
    from diffspace.figures import render_report

    data = scoring.training, scoring.held_out
    return render_report(model, *data, headings=_HEADINGS, scores=_rows(scores), noise=noise, progress=stage)


def _write(folder: Path, scores: Scores, request: dict[str, Any], page: str | None) -> None:
    """Write the scores, with how the samples were drawn, and the page."""
    from diffspace.cli.output import write_json
    from diffspace.files import write_text

    write_json(folder / SCORES, {**scores.as_dict(), "sampling": request})
    if page is not None:
        write_text(folder / REPORT, page)


def _print(folder: Path, scores: Scores, report: bool) -> None:
    from diffspace.cli.console import err, out, table

    out.print(table(_HEADINGS, _rows(scores)))
    for note in scores.notes:
        err.print(f"note: {note}")
    out.print(f"{folder / SCORES}" + (f", {folder / REPORT}" if report else ""))
