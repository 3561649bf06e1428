"""`diffspace ema`: averages of the weights, of any width, after training, and which width is best."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffspace.cli.options import Parts
from diffspace.cli.scoring import Batch, Device, FirstSeed, Scoring, Sets, Size, Steps

if TYPE_CHECKING:
    from diffspace.averages import Reconstruction, Snapshot
    from diffspace.metrics import FrechetScore
    from diffspace.model import Model

SWEEP, PICTURE, MODELS = "ema.json", "ema.png", "ema"


def ema_command(
    run: Annotated[Path, typer.Argument(help="Folder of a training run with snapshots.")],
    width: Annotated[
        float | None, typer.Option(help="Write the model that an average of this relative width would have given.")
    ] = None,
    sweep: Annotated[
        str | None, typer.Option(help="Widths such as 0.03,0.05,0.1 to be scored; writes ema.json and ema.png.")
    ] = None,
    listing: Annotated[bool, typer.Option("--list", help="List the snapshots.")] = False,
    images: Annotated[int | None, typer.Option(help="Images seen. Default: those of the last snapshots.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the model. Default: ema/ with images and width, within the run.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    n: Size = None,
    sets: Sets = None,
    steps: Steps = None,
    first_seed: FirstSeed = None,
    batch: Batch = None,
    device: Device = None,
    part: Parts = None,
) -> None:
    """Make the average of any width from the snapshots of a run, or score several and name the best."""
    from diffspace.averages import Reconstruction, Snapshots
    from diffspace.cli.runs import open_recipe

    if (width is not None) + (sweep is not None) + listing != 1:
        raise ValueError("--width, --sweep, --list: give one of them")
    scoring = {"n": n, "sets": sets, "steps": steps, "first_seed": first_seed, "batch": batch}
    if sweep is None:
        _check_effect("--sweep", scoring | {"device": device})
    if width is None:
        _check_effect("--width", {"out": out})
    if listing:
        _check_effect("--width or --sweep", {"images": images, "overwrite": overwrite or None})
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
            if (run / name).exists() and not overwrite:
                raise ValueError(f"--sweep: {run / name} exists already; add --overwrite to replace it")
        _sweep(run, plans, Scoring.of(open_recipe(run), **scoring), device)


def _check_effect(mode: str, options: Mapping[str, object]) -> None:
    """ValueError where an option was given that needs another mode."""
    for name, value in options.items():
        if value is not None:
            raise ValueError(f"--{name.replace('_', '-')}: has no effect without {mode}")


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


def _average(run: Path, model: Model, plan: Reconstruction) -> Model:
    """The model with the weights of an average in place of its own."""
    from diffspace.model import Model

    try:
        model.denoiser.load_state_dict(plan.compute())
    except RuntimeError as error:
        raise ValueError(f"{run}: its snapshots are not of its model: {str(error).splitlines()[-1].strip()}") from None
    notes = {name: value for name, value in model.notes.items() if name != "steps"}
    notes |= {"images": plan.images, "ema_width": plan.width}
    return Model(model.denoiser, model.transform, model.class_names, notes).eval()


def _write(run: Path, plan: Reconstruction, out: Path | None, overwrite: bool) -> None:
    from diffspace.cli.console import out as stdout
    from diffspace.cli.output import check_model_folder
    from diffspace.loading import load

    folder = run / MODELS / f"{plan.images:012d}-{plan.width!r}" if out is None else out
    check_model_folder("--out", folder, overwrite)
    _average(run, load(run), plan).save(folder)
    stdout.print(
        f"{folder}: width {plan.width:g} after {plan.images} images, of {len(plan.parts)} snapshots; "
        f"its profile is matched to {plan.mismatch:.1e}",
        markup=False,
    )


def _sweep(run: Path, plans: Sequence[Reconstruction], scoring: Scoring, device: str | None) -> None:
    """Score each width, and the run's own average beside them."""
    from diffspace.cli.console import out as stdout, progress_bar, table
    from diffspace.figures import draw_ema_sweep
    from diffspace.figures.style import new_figure
    from diffspace.files import atomic_path, write_text
    from diffspace.loading import load
    from diffspace.train import choose_device

    model = load(run, device=choose_device(device))
    scores: list[tuple[FrechetScore, ...]] = []
    with progress_bar("steps") as bar:
        own = scoring(model, *scoring.watch(bar, "the run's own average: "))
        for i, plan in enumerate(plans, 1):
            tell, show = scoring.watch(bar, f"width {plan.width:g} ({i} of {len(plans)}): ")
            tell("reading snapshots")
            scores.append(scoring(_average(run, model, plan), tell, show).frechet)
    pairs = list(zip(plans, scores, strict=True))
    best_plan, (best, *_) = min(pairs, key=lambda pair: pair[1][0].value)
    images = model.notes.get("images")
    record: dict[str, Any] = {
        "images": best_plan.images,
        "snapshots": len({s for plan in plans for s in plan.parts}),
        "seeds": own.seeds,
        "steps": scoring.steps,
        "own": {"images": images, "frechet": [dataclasses.asdict(f) for f in own.frechet]},
        "widths": [
            {"width": plan.width, "mismatch": plan.mismatch, "frechet": [dataclasses.asdict(f) for f in each]}
            for plan, each in pairs
        ],
        "best": best_plan.width,
    }
    write_text(run / SWEEP, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    figure = new_figure(6, 4)
    ax = figure.subplots()
    beside = own.frechet[0] if images == best_plan.images else None
    draw_ema_sweep(ax, [plan.width for plan in plans], [each[0] for each in scores], beside)
    ax.set_title(f"{best.sets} × {best.n} samples after {best_plan.images} images")
    with atomic_path(run / PICTURE) as temporary:
        figure.savefig(temporary, format="png", dpi=160)

    after = "" if images is None else f", after {images} images"
    rows = [
        (f"{plan.width:g}", *map(_cell, each), f"{each[0].ratio:.2f}", f"{plan.mismatch:.1e}") for plan, each in pairs
    ]
    rows.append((f"the run's own{after}", *map(_cell, own.frechet), f"{own.frechet[0].ratio:.2f}", ""))
    headings = ("width", *(f"Fréchet distance, {f.extractor}" for f in own.frechet), "of real", "mismatch")
    stdout.print(table(headings, rows))
    near = [
        f"{plan.width:g}"
        for plan, (score, *_) in pairs
        if plan is not best_plan and score.value - best.value <= math.hypot(score.standard_error, best.standard_error)
    ]
    others = f"; {', '.join(near)} within the standard error" if near else ""
    stdout.print(f"best width: {best_plan.width:g}{others}", markup=False)
    stdout.print(f"{run / SWEEP}, {run / PICTURE}", markup=False)


def _cell(score: FrechetScore) -> str:
    return f"{score.value:.4g}" + (f" ± {score.standard_error:.2g}" if score.value_std is not None else "")
