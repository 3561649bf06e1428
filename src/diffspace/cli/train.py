"""`diffspace train`: from data to a model in one command."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from diffspace.train import Run

__all__ = ["train_command"]

_TWICE_SECONDS = 2.0


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
    processes: Annotated[
        int | None, typer.Option(help="Processes on this machine. Default: one for each GPU, else one.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the recipe in full and stop.")] = False,
) -> None:
    """Train a model. Ctrl-C and SIGTERM stop after the step under way and save first."""
    from rich.markup import escape

    from diffspace.cli.console import err
    from diffspace.cli.console import out as stdout
    from diffspace.cli.launch import is_launched, launch
    from diffspace.cli.runs import open_run, plan_run, read_run
    from diffspace.train import Processes, choose_device

    words = list(overrides or [])
    if data is not None and "=" in data:
        words.insert(0, data)
        data = None
    for option, value in (("data", data), ("--recipe", recipe), ("--out", out), ("--transfer", transfer)):
        if resume is not None and value is not None:
            raise ValueError(f"--resume: goes on with the recipe in the folder, changed by key=value; give no {option}")
    if is_launched():
        if processes is not None:
            raise ValueError("--processes: has no effect on processes that were started together already")
    else:
        count = _count(processes, device)
        if count > 1 and not dry_run:
            options = {"--recipe": recipe, "--out": out, "--resume": resume, "--transfer": transfer, "--device": device}
            given = [word for name, value in options.items() if value is not None for word in (name, str(value))]
            raise typer.Exit(launch(count, ["train", *([] if data is None else [data]), *words, *given]))

    first = os.environ.get("RANK", "0") == "0"

    def warn(text: str) -> None:
        if first:
            err.print("[yellow]warning:[/]", escape(text))

    if resume is not None:
        kept = read_run(resume, words)
        with Processes.join(device, kept.strategy) as group:
            _train(open_run(kept, resume, group, warn), started=False)
        return
    plan = plan_run(data, words, recipe, transfer, choose_device(device, int(os.environ.get("LOCAL_RANK", "0"))))
    if dry_run:
        stdout.print(plan.recipe.to_yaml(), end="", markup=False)
        return
    with Processes.join(device, plan.recipe.strategy) as group:
        run, fresh = plan.start(out, group, warn)
        if fresh and first:
            err.print(f"weights that {transfer} does not have: {', '.join(fresh)}", markup=False)
        for warning in plan.warnings():
            warn(warning)
        _train(run, started=True)


def _count(processes: int | None, device: str | None) -> int:
    """How many processes to start."""
    import torch

    if processes is None:
        alone = device is not None and (":" in device or not device.startswith("cuda"))
        return 1 if alone else max(1, torch.cuda.device_count())
    if processes < 1:
        raise ValueError(f"--processes: {processes}; want at least 1")
    return processes


def _train(run: Run, started: bool) -> None:
    from diffspace.cli.console import err, progress_bar
    from diffspace.cli.console import out as stdout
    from diffspace.cli.launch import is_launched

    first, recipe = run.processes.first, run.recipe
    if first:
        parameters = sum(p.numel() for p in run.trainer.denoiser.parameters())
        stdout.print(
            f"{run.data.name}: {len(run.data)} training samples of {'×'.join(map(str, run.data.sample_shape))}, "
            f"{parameters:,} parameters, {recipe.images:,} images in {_where(run)}",
            markup=False,
        )
        if not started:
            stdout.print(f"going on after {run.trainer.images:,} images", markup=False)
    received: list[int] = []
    since = 0.0

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal since
        if not received:
            received.append(number)
            since = time.monotonic()
            run.stop()
        # a second one does not wait; but what signals a group of processes may reach each of them twice
        elif not is_launched() and time.monotonic() - since > _TWICE_SECONDS:
            for each, handler in previous.items():
                signal.signal(each, handler)
            signal.raise_signal(number)

    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in previous:
        signal.signal(number, on_signal)
    report = None
    try:
        with progress_bar("images", shown=first) as bar:
            task = bar.add_task("training", total=recipe.images, completed=run.trainer.images, info="")
            for report in run.train():
                if first:
                    info = f"loss {report.loss:.4g}, lr {report.learning_rate:.2g}, {report.images_per_second:,.0f}/s"
                    bar.update(task, completed=min(report.images, recipe.images), info=info)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if first and report is None:
        err.print(f"{run.folder}: nothing left to train")
    elif first and report is not None:
        how = ""
        if received:
            how = "stopped; "
        elif run.stopped_early:
            how = f"stopped early, for the held-out loss has not fallen for {recipe.patience_images:,} images; "
        skipped = f", {report.skipped} steps skipped" if report.skipped else ""
        stdout.print(
            f"{run.folder}: {how}{report.images:,} images seen, loss {report.loss:.4g}{skipped}; model saved",
            markup=False,
        )
        if report.images < recipe.images:
            stdout.print(f"go on with: diffspace train --resume {run.folder}", markup=False)
    code = run.processes.most(128 + received[0] if received else 0)  # those that were not told end alike
    if code:
        raise typer.Exit(code)


def _where(run: Run) -> str:
    """On what a run is trained, in words."""
    group, recipe = run.processes, run.recipe
    places = f"{group.device}" if group.count == 1 else f"{group.count} processes on {group.device.type}"
    how = f" ({recipe.strategy}, {recipe.batch_size} samples a step)" if group.count > 1 else ""
    return f"{recipe.precision} on {places}{how}"
