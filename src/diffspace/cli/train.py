"""`diffspace train`: from data to a model in one command."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from diffspace.checks import check_integer
from diffspace.cli.options import Parts

if TYPE_CHECKING:
    from diffspace.train import Run

_TWICE_SECONDS = 2.0


def train_command(
    data: Annotated[
        str | None, typer.Argument(help="digits, a point set (swissroll, …), a folder or .zip of images, an array, …")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value, such as epochs=20 network.dropout=0.1", show_default=False)
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
    measure: Annotated[
        list[str] | None,
        typer.Option(metavar="MODULE:CLASS:every=N", help="A measurement of your own. May be given several times."),
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps. Default: the best there is.")] = None,
    part: Parts = None,
    processes: Annotated[
        int | None, typer.Option(help="Processes on this machine. Default: one for each GPU, else one.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the recipe in full and stop.")] = False,
) -> None:
    """Train a model. Ctrl-C and SIGTERM stop after the step under way and save first."""
    from rich.markup import escape

    from diffspace.cli.console import err, out as stdout
    from diffspace.cli.launch import is_launched, launch
    from diffspace.cli.runs import open_run, plan_run, read_run
    from diffspace.config import from_text
    from diffspace.train import Processes, check_measurements, choose_device

    words = list(overrides or [])
    if data is not None and "=" in data:
        words.insert(0, data)
        data = None
    for option, value in (("data", data), ("--recipe", recipe), ("--out", out), ("--transfer", transfer)):
        if resume is not None and value is not None:
            raise ValueError(f"--resume: uses the recipe in the folder, changed by key=value; remove {option}")
    if is_launched():
        if processes is not None:
            raise ValueError("--processes: has no effect on processes that were started together already")
    elif (count := _count(processes, device)) > 1 and not dry_run:
        options = {"--recipe": recipe, "--out": out, "--resume": resume, "--transfer": transfer, "--device": device}
        given = [word for name, value in options.items() if value is not None for word in (name, str(value))]
        lists = {"--part": part, "--measure": measure}
        given += [word for name, values in lists.items() for value in values or [] for word in (name, value)]
        raise typer.Exit(launch(count, ["train", *([] if data is None else [data]), *words, *given]))

    measurements = [from_text("measurement", text) for text in measure or []]
    check_measurements(measurements)
    first = os.environ.get("RANK", "0") == "0"

    def warn(text: str) -> None:
        if first:
            err.print("[yellow]warning:[/]", escape(text))

    if resume is not None:
        kept = read_run(resume, words)
        with Processes.join(device, kept.strategy) as group:
            run = open_run(kept, resume, group, warn)
            run.measurements += measurements
            _train(run, started=False)
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
        run.measurements += measurements
        _train(run, started=True)


def _count(processes: int | None, device: str | None) -> int:
    """How many processes to start."""
    import torch

    if processes is None:
        alone = device is not None and (":" in device or not device.startswith("cuda"))
        return 1 if alone else max(1, torch.cuda.device_count())
    check_integer("--processes", processes, 1)
    return processes


@contextlib.contextmanager
def _signals_stop(run: Run) -> Iterator[list[int]]:
    """Stop the run on SIGINT and SIGTERM; the list has the first one that came."""
    from diffspace.cli.launch import is_launched

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
            restore()
            signal.raise_signal(number)

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    previous = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        restore()


def _train(run: Run, started: bool) -> None:
    from diffspace.cli.console import err, out as stdout, progress_bar

    first, recipe, group = run.processes.first, run.recipe, run.processes
    if first:
        parameters = sum(p.numel() for p in run.trainer.denoiser.parameters())
        where = f"{recipe.precision} on {group.device}"
        if group.count > 1:
            where = f"{recipe.precision} on {group.count} processes on {group.device.type}"
            where += f" ({recipe.strategy}, {recipe.batch_size} samples a step)"
        stdout.print(
            f"{run.data.name}: {len(run.data)} training samples of {'×'.join(map(str, run.data.sample_shape))}, "
            f"{parameters:,} parameters, {recipe.images:,} images in {where}",
            markup=False,
        )
        if not started:
            stdout.print(f"going on after {run.trainer.images:,} images", markup=False)
    report = None
    with _signals_stop(run) as received, progress_bar("images", shown=first) as bar:
        task = bar.add_task("training", total=recipe.images, completed=run.trainer.images, info="")
        for report in run.train():
            info = f"loss {report.loss:.4g}, lr {report.learning_rate:.2g}, {report.images_per_second:,.0f}/s"
            bar.update(task, completed=min(report.images, recipe.images), info=info)
    if first and report is None:
        err.print(f"{run.folder}: nothing left to train")
    elif first and report is not None:
        how = "stopped; " if received else ""
        if run.early_stop.stopped and not received:
            how = (
                f"stopped early: the held-out loss has not fallen for patience_images={recipe.patience_images} images; "
            )
        skipped = f", {report.skipped} steps skipped" if report.skipped else ""
        seen = f"{report.images:,} images seen, loss {report.loss:.4g}{skipped}"
        stdout.print(f"{run.folder}: {how}{seen}; model saved", markup=False)
        if report.images < recipe.images:
            stdout.print(f"go on with: diffspace train --resume {run.folder}", markup=False)
    code = group.max(128 + received[0] if received else 0)  # processes that got no signal end like the others
    if code:
        raise typer.Exit(code)
