"""`diffspace evaluate`: scores of samples beside those of real data, and a report with pictures."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from typer import Argument, Option

from diffspace.cli.options import (
    Batch,
    Context,
    Device,
    FirstSeed,
    Overwrite,
    Parts,
    ProcessCount,
    Sets,
    Size,
    check_effect,
)
from diffspace.cli.sampler_options import ALIASES, build_sampler, with_sampler_options

if TYPE_CHECKING:
    import diffspace as ds
    from diffspace.cli.console import Stages
    from diffspace.cli.sample_files import SampleWriter
    from diffspace.cli.scores.scoring import Compared, Scoring
    from diffspace.cli.scores.subject import Subject
    from diffspace.cli.scores.taking import Items
    from diffspace.data import DataSet
    from diffspace.metrics import Scores

SCORES, REPORT, _PARTS = "scores.json", "report.html", ".scores.parts"
_HEADINGS = ("score", "samples", "real data", "how")
_OF_DRAWING = (*ALIASES, "first_seed", "guidance", "guide", "keep", "overwrite")
_DRAWN, _COMPARED = "Samples of a model", "What is compared"


def _of_drawing(flag: str, metavar: str, help: str) -> Any:
    return Option(flag, metavar=metavar, help=help, rich_help_panel=_DRAWN)


def _compared(flag: str, metavar: str, help: str) -> Any:
    return Option(flag, metavar=metavar, help=help, rich_help_panel=_COMPARED, show_default=False)


@with_sampler_options()
def evaluate_command(
    ctx: Context,
    model: Annotated[
        str | None, Argument(help="Folder of a training run; another model needs --against.", show_default=False)
    ] = None,
    samples: Annotated[
        str | None, _compared("--samples", "DIR|ZIP|NPZ|NPY", "Score these samples, of the model or of anything.")
    ] = None,
    against: Annotated[
        str | None,
        _compared("--against", "DATA|FILE.npz", "Real data, of which a part is held out, or statistics of features."),
    ] = None,
    features: Annotated[
        list[str] | None,
        _compared(
            "--features",
            "NAME",
            "inception, dinov2, efficientnet, classifier, pca, identity, a TorchScript file, module:Class; repeatable.",
        ),
    ] = None,
    weights: Annotated[
        str | None, _compared("--weights", "FILE|download", "The published weights of --features.")
    ] = None,
    n: Size = None,
    sets: Sets = 3,
    first_seed: FirstSeed = 0,
    guidance: Annotated[
        str | None, _of_drawing("--guidance", "W[:low,high]", "Weight of guidance, where low < σ ≤ high; 1: none.")
    ] = None,
    guide: Annotated[
        str | None, _of_drawing("--guide", "MODEL", "Guide by this weaker model, not by the null condition.")
    ] = None,
    keep: Annotated[Path | None, _of_drawing("--keep", "DIR|NPZ", "Keep the samples, as PNGs or in an array.")] = None,
    overwrite: Overwrite = False,
    batch: Batch = 256,
    processes: ProcessCount = None,
    out: Annotated[
        Path | None, Option(help="Folder of scores.json and report.html. Default: that of the run, else scores.")
    ] = None,
    report: Annotated[bool, Option(help="Write report.html, where there are a model and data.")] = True,
    device: Device = None,
    part: Parts = None,
    *,
    sampling: dict[str, Any],
) -> None:
    """Score a model, or samples from anywhere, and write scores.json and report.html.

    Samples take the classes of the held-out data in turn, and every score is printed beside that of real data. A
    command that was interrupted goes on: give it again.
    """
    import diffspace as ds
    from diffspace.cli.console import Stages, progress_bar, warn
    from diffspace.cli.launch import signals_interrupt, start_processes
    from diffspace.cli.output import check_place
    from diffspace.cli.scores.scoring import Scoring
    from diffspace.cli.scores.subject import open_subject
    from diffspace.train import Processes

    if samples is not None:
        check_effect(ctx, "with --samples", *_OF_DRAWING)
    if keep is None:
        check_effect(ctx, "without --keep", "overwrite")
    start_processes(processes, ctx.obj)
    if model is not None:
        build_sampler(sampling, model)  # complains before the model is loaded
    with signals_interrupt(), Processes.join(device, warn=warn) as group:
        note = warn if group.first else (lambda text: None)
        subject = open_subject(model, samples, against, features or (), group.device, note)
        folder = out or subject.run or Path("scores")
        if group.first:
            check_place("--out" if subject.run is None else "RUN", folder / SCORES)
        scoring = Scoring(
            subject.data,
            *subject.sizes(n, sets),
            first_seed=first_seed,
            batch=batch,
            features=features or (),
            weights=weights,
            statistics=subject.statistics,
            known=subject.known,
            group=group,
            folder=folder / _PARTS,
        )
        if subject.samples is not None and samples is not None:
            request = _given(subject.samples, samples, scoring)
        elif subject.model is not None:
            sampler = build_sampler(sampling, model or "", denoiser=subject.model, note=note)
            weaker = None if guide is None else ds.load(guide, device=group.device)
            request = _drawn(subject.model, scoring, sampler, guidance, weaker, keep, overwrite)
        with progress_bar("steps", shown=group.first) as bar:
            stage = Stages(bar)
            taken = scoring.take(request.items, stage, request.writer)
            if taken is None:
                return
            scores = scoring.measure(taken, stage, request.model)
            page = _page(subject, scores, stage) if report else None
        _write(folder, scores, {**request.facts, "against": against}, page)


class _Request(NamedTuple):
    """What features are taken of, who keeps it, and what was asked for, in JSON types."""

    items: Items
    writer: SampleWriter | None
    facts: dict[str, Any]
    model: ds.Model | None


def _given(samples: DataSet, name: str, scoring: Scoring) -> _Request:
    """The samples from anywhere that are scored: as many as sets of n take, drawn with a fixed seed."""
    from diffspace.cli.scores.taking import data_items

    numbers = samples.sample_numbers(scoring.n * scoring.sets)  # in files they may be sorted by class
    numbers = numbers.sort().values if scoring.sets == 1 else numbers
    return _Request(data_items("samples", samples, numbers, scoring.batch), None, {"samples": name}, None)


def _drawn(
    model: ds.Model,
    scoring: Scoring,
    sampler: ds.Sampler,
    guidance: str | None,
    weaker: ds.Model | None,
    keep: Path | None,
    overwrite: bool,
) -> _Request:
    """The samples of a model, guided or not, with the conditions of held-out data."""
    from diffspace.cli.drawing import identity
    from diffspace.cli.guided import guide_model
    from diffspace.cli.sample_files import sample_writer
    from diffspace.cli.scores.taking import drawn_items

    drawing = scoring.drawing(model, sampler)
    denoiser = guide_model(model, guidance, weaker, drawing.sigmas(), drawing.cond)
    drawing = dataclasses.replace(drawing, denoiser=denoiser)
    items = drawn_items(drawing, {"guidance": guidance, "guide": weaker and identity(weaker)})
    writer = None
    if keep is not None and scoring.group.first:
        seeds, cond = drawing.seeds, drawing.cond
        writer = sample_writer(keep, model, seeds, cond, scoring.batch, items.facts, overwrite=overwrite)
    return _Request(items, writer, dict(items.facts), model)


def _rows(scores: Scores | Compared) -> list[tuple[str, ...]]:
    return [(row.name, row.value, row.reference, row.note) for row in scores.rows()]


def _page(subject: Subject, scores: Scores | Compared, stage: Stages) -> str | None:
    """The report, where there are a model and data."""
    from diffspace.figures import render_report

    if subject.model is None or subject.data is None:
        return None
    noise = None if subject.recipe is None else subject.recipe.noise
    return render_report(
        subject.model, *subject.data, headings=_HEADINGS, scores=_rows(scores), noise=noise, progress=stage
    )


def _write(folder: Path, scores: Scores | Compared, request: dict[str, Any], page: str | None) -> None:
    """Write the scores, with how the samples were drawn, and the page; print them; remove what is no longer needed."""
    from diffspace.cli.console import err, out, table
    from diffspace.cli.output import write_json
    from diffspace.files import write_text, writing

    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / SCORES, {**scores.as_dict(), "request": request})
    if page is not None:
        write_text(folder / REPORT, page)
    out.print(table(_HEADINGS, _rows(scores)))
    for note in scores.notes:
        err.print(f"note: {note}")
    out.print(f"{folder / SCORES}" + (f", {folder / REPORT}" if page is not None else ""))
    shutil.rmtree(folder / _PARTS, ignore_errors=True)
