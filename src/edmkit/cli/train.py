"""`edmkit train`: from data to a model in one command."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edmkit.train import Run

__all__ = ["train_command"]


def train_command(
    data: Annotated[
        str | None,
        typer.Argument(help="digits, a point set (swissroll, …), a folder or .zip of images, an array, …"),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="key=value, such as epochs=20 network.dropout=0.1", show_default=False),
    ] = None,
    recipe: Annotated[Path | None, typer.Option(help="A YAML recipe instead of the proposed one.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run. Default: runs/ and the name of the data.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this folder, from its checkpoint.")] = None,
    transfer: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Begin with the weights of this model, by default in its network."),
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps. Default: the best there is.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the recipe in full and stop.")] = False,
) -> None:
    """Train a model. Ctrl-C stops after the step under way and saves first."""
    from rich.markup import escape

    from edmkit.cli.console import err
    from edmkit.cli.console import out as stdout
    from edmkit.cli.runs import open_run, plan_run

    words = list(overrides or [])
    if data is not None and "=" in data:
        words.insert(0, data)
        data = None
    if resume is not None:
        if data is not None or words or recipe is not None or out is not None or transfer is not None:
            raise ValueError(
                "--resume: goes on with the recipe in the folder; give no data, overrides, recipe, out or transfer"
            )
        run = open_run(resume, device)
    else:
        plan = plan_run(data, words, recipe, transfer)
        if dry_run:
            stdout.print(plan.recipe.to_yaml(), end="", markup=False)
            return
        run, fresh = plan.start(out, device)
        if fresh:
            err.print(f"weights that {transfer} does not have: {', '.join(fresh)}", markup=False)
        for warning in plan.warnings():
            err.print(f"[yellow]warning:[/] {escape(warning)}")
    _train(run)


def _train(run: Run) -> None:
    from edmkit.cli.console import err, progress_bar
    from edmkit.cli.console import out as stdout

    parameters = sum(p.numel() for p in run.trainer.denoiser.parameters())
    stdout.print(
        f"{run.data.name}: {len(run.data)} training samples of {'×'.join(map(str, run.data.sample_shape))}, "
        f"{parameters:,} parameters on {run.device}, {run.recipe.images:,} images",
        markup=False,
    )

    def on_signal(number: int, frame: FrameType | None) -> None:
        run.stop()
        signal.signal(signal.SIGINT, previous)  # a second Ctrl-C does not wait

    previous = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    report = None
    try:
        with progress_bar("images") as bar:
            task = bar.add_task("training", total=run.recipe.images, completed=run.trainer.images, info="")
            for report in run.train():
                info = f"loss {report.loss:.4g}, lr {report.learning_rate:.2g}, {report.images_per_second:,.0f}/s"
                bar.update(task, completed=min(report.images, run.recipe.images), info=info)
    finally:
        signal.signal(signal.SIGINT, previous)
    if report is None:
        err.print(f"{run.folder}: nothing left to train")
    else:
        stopped = "" if report.images >= run.recipe.images else "stopped; "
        stdout.print(
            f"{run.folder}: {stopped}{report.images:,} images seen, loss {report.loss:.4g}; model saved", markup=False
        )
        if stopped:
            stdout.print(f"go on with: edmkit train --resume {run.folder}", markup=False)
