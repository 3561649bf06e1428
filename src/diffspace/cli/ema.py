"""`diffspace ema`: averages of the weights, of any width, after training, and which width is best."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

import diffspace as ds
from diffspace.cli.options import Batch, Context, Device, FirstSeed, Overwrite, Parts, Sets, Size, Steps, check_effect

if TYPE_CHECKING:
    from diffspace.averages import Reconstruction, Snapshot
    from diffspace.cli.scores.scoring import Scoring
    from diffspace.metrics import FrechetScore

SWEEP, PICTURE, MODELS = "ema.json", "ema.png", "ema"


def ema_command(
    ctx: Context,
    run: Annotated[Path, Argument(help="Folder of a training run with snapshots.")],
    width: Annotated[float | None, Option(help="Write the model with the average of this relative width.")] = None,
    sweep: Annotated[str | None, Option(help="Widths to score, such as 0.03,0.05, into ema.json and ema.png.")] = None,
    listing: Annotated[bool, Option("--list", help="List the snapshots.")] = False,
    images: Annotated[int | None, Option(help="Images seen. Default: those of the last snapshots.")] = None,
    out: Annotated[Path | None, Option(help="Folder of the model. Default: RUN/ema/IMAGES-WIDTH.")] = None,
    overwrite: Overwrite = False,
    n: Size = None,
    sets: Sets = 4,
    steps: Steps = 18,
    first_seed: FirstSeed = 0,
    batch: Batch = 256,
    device: Device = None,
    part: Parts = None,
) -> None:
    """Make the average of any width from the snapshots of a run, or score several and name the best."""
    from diffspace.averages import Reconstruction, Snapshots
    from diffspace.cli.console import warn
    from diffspace.cli.options import load_model
    from diffspace.cli.output import check_target
    from diffspace.cli.runs import load_data_of, open_recipe
    from diffspace.cli.scores.scoring import Scoring

    if (width is not None) + (sweep is not None) + listing != 1:
        raise ValueError("--width, --sweep, --list: give one of them")
    if sweep is None:
        check_effect(ctx, "without --sweep", "n", "sets", "steps", "first_seed", "batch", "device")
    if width is None:
        check_effect(ctx, "without --width", "out")
    if listing:
        check_effect(ctx, "without --width or --sweep", "images", "overwrite")
    if not run.is_dir():
        raise ValueError(f"RUN: there is no folder {run}")
    snapshots = Snapshots(run).all()
    if listing:
        _list(snapshots)
    elif width is not None:
        _write(run, Reconstruction.plan(snapshots, width, images), out, overwrite)
    else:
        plans = [Reconstruction.plan(snapshots, each, images) for each in _parse_widths(sweep or "")]
        for name in (SWEEP, PICTURE):
            check_target("--sweep", run / name, Path(name).suffix, overwrite)
        model = load_model(str(run), device)
        data = load_data_of(run, open_recipe(run), model, warn)
        _sweep(run, model, plans, Scoring(data, n, sets, steps, first_seed, batch, scores=("frechet",)))


def _parse_widths(text: str) -> list[float]:
    """`0.03,0.05` as widths in increasing order, each once."""
    try:
        return sorted({float(word) for word in text.split(",")})
    except ValueError:
        raise ValueError(f"--sweep: expected widths such as 0.03,0.05,0.1, got {text!r}") from None


def _list(snapshots: Sequence[Snapshot]) -> None:
    from diffspace.averages import attainable
    from diffspace.cli.console import out as stdout, table

    rows = []
    for images in sorted({s.images for s in snapshots}):
        here = [s for s in snapshots if s.images == images]
        size = sum(s.path.stat().st_size for s in here) / 1e6
        rows.append((str(images), ", ".join(f"{s.width:g}" for s in here), f"{size:.2f}"))
    stdout.print(table(("images", "widths", "MB"), rows))
    low, high = attainable(snapshots, snapshots[-1].images)
    stdout.print(f"after {snapshots[-1].images} images, widths of {low:.3g} to {high:.3g} can be reconstructed")


def _average(run: Path, model: ds.Model, plan: Reconstruction) -> ds.Model:
    """The model with the weights of an average in place of its own."""
    try:
        model.denoiser.load_state_dict(plan.compute())
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ValueError(f"{run}: its snapshots are of another model: {reason}") from None
    notes = {name: value for name, value in model.notes.items() if name != "steps"}
    notes |= {"images": plan.images, "ema_width": plan.width}
    return ds.Model(model.denoiser, model.transform, model.class_names, notes, model.class_counts).eval()


def _write(run: Path, plan: Reconstruction, out: Path | None, overwrite: bool) -> None:
    from diffspace.cli.console import out as stdout
    from diffspace.cli.output import check_model_folder

    folder = run / MODELS / f"{plan.images:012d}-{plan.width!r}" if out is None else out
    check_model_folder("--out", folder, overwrite)
    _average(run, ds.load(run), plan).save(folder)
    stdout.print(
        f"{folder}: width {plan.width:g} after {plan.images} images, of {len(plan.parts)} snapshots; "
        f"its profile is matched to {plan.mismatch:.1e}"
    )


def _sweep(run: Path, model: ds.Model, plans: Sequence[Reconstruction], scoring: Scoring) -> None:
    """Score each width, and the run's own average beside them."""
    from diffspace.cli.console import Stages, out as stdout, progress_bar, table
    from diffspace.cli.output import write_figure, write_json
    from diffspace.figures import draw_ema_sweep
    from diffspace.figures.style import new_figure

    scores: list[tuple[FrechetScore, ...]] = []
    with progress_bar("steps") as bar:
        own = scoring(model, Stages(bar, "the run's own average: "))
        for i, plan in enumerate(plans, 1):
            stage = Stages(bar, f"width {plan.width:g} ({i} of {len(plans)}): ")
            stage("reading snapshots")
            scores.append(scoring(_average(run, model, plan), stage).frechet)
    k = min(range(len(plans)), key=lambda k: scores[k][0].value)
    best, images, width = scores[k][0], plans[k].images, plans[k].width
    record = {
        "images": images,
        "snapshots": len({s for plan in plans for s in plan.parts}),
        "seeds": own.seeds,
        "steps": scoring.steps,
        "own": {"images": model.notes.get("images"), "frechet": [dataclasses.asdict(f) for f in own.frechet]},
        "widths": [
            {"width": plan.width, "mismatch": plan.mismatch, "frechet": [dataclasses.asdict(f) for f in each]}
            for plan, each in zip(plans, scores, strict=True)
        ],
        "best": width,
    }
    write_json(run / SWEEP, record)
    figure = new_figure(6, 4)
    ax = figure.subplots()
    beside = own.frechet[0] if model.notes.get("images") == images else None
    draw_ema_sweep(ax, [plan.width for plan in plans], [each[0] for each in scores], beside)
    ax.set_title(f"{best.sets} × {best.n} samples after {images} images")
    write_figure(run / PICTURE, figure)

    after = f", after {model.notes['images']} images" if "images" in model.notes else ""
    rows = [_row(f"{plan.width:g}", each, f"{plan.mismatch:.1e}") for plan, each in zip(plans, scores, strict=True)]
    rows.append(_row(f"the run's own{after}", own.frechet, ""))
    headings = ("width", *(f"Fréchet distance, {f.extractor}" for f in own.frechet), "real data", "mismatch")
    stdout.print(table(headings, rows))
    near = [
        f"{plan.width:g}"
        for plan, (score, *_) in zip(plans, scores, strict=True)
        if score is not best and score.value - best.value <= math.hypot(score.standard_error, best.standard_error)
    ]
    others = f"; {', '.join(near)} within the standard error" if near else ""
    stdout.print(f"best width: {width:g}{others}\n{run / SWEEP}, {run / PICTURE}")


def _row(name: str, scores: Sequence[FrechetScore], mismatch: str) -> tuple[str, ...]:
    cells = (f"{s.value:.4g}" + (f" ± {s.standard_error:.2g}" if s.value_std is not None else "") for s in scores)
    return name, *cells, f"{scores[0].real:.4g}", mismatch
