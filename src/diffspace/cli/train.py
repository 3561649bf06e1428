"""`diffspace train`: from data to a model in one command."""

from __future__ import annotations

import contextlib
import functools
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from diffspace.cli.options import DATA, Context, Device, Parts, integer_option

if TYPE_CHECKING:
    from diffspace.train import Run

_TWICE_SECONDS = 2.0


def train_command(
    ctx: Context,
    data: Annotated[str | None, Argument(help=DATA)] = None,
    overrides: Annotated[
        list[str] | None, Argument(help="key=value, such as epochs=20 network.dropout=0.1", show_default=False)
    ] = None,
    recipe: Annotated[Path | None, Option(help="A YAML recipe instead of the proposed one.")] = None,
    out: Annotated[Path | None, Option(help="Folder of the run. Default: runs/ and the data's name.")] = None,
    resume: Annotated[Path | None, Option(help="Continue the run in this folder from its checkpoint.")] = None,
    transfer: Annotated[
        str | None, Option(metavar="MODEL", help="Start from this model's weights and network.")
    ] = None,
    measure: Annotated[
        list[str] | None, Option(metavar="MODULE:CLASS:every=N", help="A measurement of your own; repeatable.")
    ] = None,
    device: Device = None,
    part: Parts = None,
    processes: Annotated[
        int | None, integer_option("Processes. Default: one for each GPU, else one.", maximum=1024)
    ] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Print the recipe in full, with comments, and stop.")] = False,
) -> None:
    """Train a model. Ctrl-C and SIGTERM save the run after the current step, then stop."""
    from diffspace.cli import console
    from diffspace.cli.launch import is_launched, start_processes
    from diffspace.cli.output import check_place
    from diffspace.cli.runs import open_run, plan_run, read_run
    from diffspace.config import from_text
    from diffspace.train import Processes, check_measurements, choose_device, started_together

    words = list(overrides or [])
    if data is not None and "=" in data:
        words.insert(0, data)
        data = None
    for option, value in (("data", data), ("--recipe", recipe), ("--out", out), ("--transfer", transfer)):
        if resume is not None and value is not None:
            raise ValueError(f"--resume: uses the recipe in the folder, changed by key=value; remove {option}")
    if is_launched() or not dry_run:
        start_processes(processes if is_launched() or processes is not None else _default_count(device), ctx.obj)
    rank, _, local_rank = started_together()

    check_measurements([from_text("measurement", text) for text in measure or []])
    if measure:
        words.append(f"measure={json.dumps(measure)}")

    def warn(text: str) -> None:
        if rank == 0:
            console.warn(text)

    if resume is not None:
        full = read_run(resume, words)
        start = functools.partial(open_run, full, resume)
    else:
        if rank == 0 and not dry_run:
            check_place("--out", Path("runs") if out is None else out)
        plan = plan_run(data, words, recipe, transfer, choose_device(device, local_rank))
        full, start = plan.recipe, functools.partial(plan.start, out)
    if dry_run:
        console.out.print(full.to_yaml(comments=True), end="")
        return
    with Processes.join(device, full.strategy, warn) as group:
        run = start(group, warn)
        _train(run, resumed=resume is not None)


def _default_count(device: str | None) -> int:
    """One process for each GPU, unless the device says otherwise."""
    import torch

    alone = device is not None and (":" in device or not device.startswith("cuda"))
    return 1 if alone else max(1, torch.cuda.device_count())


@contextlib.contextmanager
def _signals_stop(run: Run) -> Iterator[list[int]]:
    """Stop the run on SIGINT and SIGTERM; the list has the first one that came."""
    from diffspace.cli.launch import handling, is_launched

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

    with handling(on_signal) as restore:
        yield received


def _train(run: Run, resumed: bool) -> None:
    """Train to the end of the recipe or the first signal, and print before and after what happens."""
    from diffspace.cli.conditions import example_words
    from diffspace.cli.console import err, out as stdout, progress_bar

    first, recipe, group = run.processes.first, run.recipe, run.processes
    if first:
        _describe(run)
        if resumed:
            stdout.print(f"continues after {run.trainer.images:,} images")
    report = None
    with _signals_stop(run) as received, progress_bar("images", shown=first) as bar:
        task = bar.add_task("training", total=recipe.images, completed=run.trainer.images, info="")
        for report in run.train():
            info = f"loss {report.loss:.4g}, lr {report.learning_rate:.2g}, {report.images_per_second:,.0f}/s"
            bar.update(task, completed=min(report.images, recipe.images), info=info)
            if first and "preview" in report.measured:
                err.print(f"samples after {report.images:,} images: {run.folder / report.measured['preview']}")
    if first and report is None:
        err.print(f"{run.folder}: nothing left to train")
    elif first and report is not None:
        early = f"stopped early: the held-out loss has not fallen for patience_images={recipe.patience_images} images; "
        how = "stopped; " if received else early if run.early_stop.stopped else ""
        skipped = f", {report.skipped} steps skipped" if report.skipped else ""
        stdout.print(f"{run.folder}: {how}{report.images:,} images seen, loss {report.loss:.4g}{skipped}; model saved")
        if report.images < recipe.images:
            stdout.print(f"continue with: diffspace train --resume {run.folder}")
        if not received:
            words = example_words(run.trainer.denoiser.network)
            stdout.print(f"next: diffspace sample {run.folder}{words}, diffspace evaluate {run.folder}")
    code = group.max(128 + received[0] if received else 0)  # processes that got no signal end like the others
    if code:
        raise typer.Exit(code)


def _describe(run: Run) -> None:
    from diffspace.cli.console import out
    from diffspace.sampling import EDMSteps
    from diffspace.sampling.steps import steps_for

    recipe, group = run.recipe, run.processes
    parameters = sum(p.numel() for p in run.trainer.denoiser.parameters())
    several = f"{group.count} processes on {group.device.type} ({recipe.strategy}, {recipe.batch_size} samples a step)"
    where = f"on {group.device if group.count == 1 else several}"
    out.print(
        f"{run.data.name}: {len(run.data)} training samples of {'×'.join(map(str, run.data.sample_shape))}, "
        f"{parameters:,} parameters, {recipe.images:,} images in {recipe.precision} {where}"
    )
    for note in run.data.notes:
        out.print(f"note: {note}")
    steps = steps_for(run.trainer.denoiser, EDMSteps())
    ends = f"sigma_max = {steps.sigma_max:g} and sigma_min = {steps.sigma_min:g}"
    out.print(f"note: the model will be sampled between {ends}")
