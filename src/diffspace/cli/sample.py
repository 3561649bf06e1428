"""`diffspace sample`: samples of a model as a picture, as single pictures or as an array."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

import diffspace as ds
from diffspace.cli.options import (
    AnyModel,
    Batch,
    Classes,
    Conditions,
    Context,
    Device,
    Overwrite,
    Parts,
    ProcessCount,
    Proportions,
    integer_option,
)
from diffspace.cli.sampler_options import build_sampler, with_sampler_options

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from diffspace.cli.drawing import Drawing, Known, Start
    from diffspace.cli.sample_files import SampleWriter
    from diffspace.train import Processes

_RESAMPLINGS = 10
_BEHIND = 2000  # held-out data behind points and lines
_IMAGES = "From an image, or an array (.npy) of other data"


def _speed(flag: str, help: str) -> Any:
    return Option(flag, help=help, rich_help_panel="Speed")


def _guiding(flag: str, metavar: str, help: str) -> Any:
    return Option(flag, metavar=metavar, help=help, rich_help_panel="Guidance")


def _given(flag: str, metavar: str, help: str) -> Any:
    return Option(flag, metavar=metavar, help=help, rich_help_panel=_IMAGES)


@with_sampler_options()
def sample_command(
    ctx: Context,
    model: AnyModel,
    out: Annotated[Path, Option(help="A grid (x.png), an array (x.npz) or a folder of PNGs (x/).")] = Path(
        "samples.png"
    ),
    seeds: Annotated[str, Option(help="Seeds of the samples, such as 0-63,100.")] = "0-63",
    classes: Classes = None,
    proportions: Proportions = False,
    conditions: Conditions = None,
    guidance: Annotated[
        str | None,
        _guiding("--guidance", "W[:low,high]", "Weight of guidance, where low < σ ≤ high if given; 1: none."),
    ] = None,
    guide: Annotated[
        str | None, _guiding("--guide", "MODEL", "Guide by this weaker model, not by the null condition.")
    ] = None,
    init: Annotated[Path | None, _given("--init", "IMAGE", "Start from an image with noise of --sigma-start.")] = None,
    sigma_start: Annotated[
        float | None, _given("--sigma-start", "S", "The level σ of the noise added to --init.")
    ] = None,
    inpaint: Annotated[Path | None, _given("--inpaint", "IMAGE", "Keep an image but for --mask, drawn anew.")] = None,
    mask: Annotated[Path | None, _given("--mask", "IMAGE", "White is drawn anew, black is kept to the bit.")] = None,
    resamplings: Annotated[
        int | None,
        integer_option(
            f"Times that each step of --inpaint is drawn, {_RESAMPLINGS}; more agree better.",
            "--resamplings",
            maximum=10_000,
            panel=_IMAGES,
        ),
    ] = None,
    batch: Batch = 64,
    processes: ProcessCount = None,
    columns: Annotated[int | None, integer_option("Columns of the grid.")] = None,
    subdirs: Annotated[bool, Option("--subdirs", help="One folder for every 1000 seeds.")] = False,
    overwrite: Overwrite = False,
    device: Device = None,
    part: Parts = None,
    precision: Annotated[str, _speed("--precision", "Of the network: float32, bfloat16 or float16.")] = "float32",
    compile: Annotated[bool, _speed("--compile", "Compile the network first; takes a minute.")] = False,
    winograd: Annotated[bool, _speed("--winograd", "Faster 3×3 convolutions on a CPU; needs memory.")] = False,
    *,
    sampling: dict[str, Any],
) -> None:
    """Draw samples from a trained model. A folder or array that was interrupted goes on: give the command again."""
    from diffspace.cli.conditions import choose_cond
    from diffspace.cli.console import out as stdout, warn
    from diffspace.cli.drawing import Drawing, identity
    from diffspace.cli.guided import guide_model
    from diffspace.cli.launch import signals_interrupt, start_processes
    from diffspace.cli.options import parse_seeds
    from diffspace.cli.sample_files import sample_writer
    from diffspace.train import Processes

    seed_list = parse_seeds(seeds)
    if processes is not None and processes > (batches := -(-len(seed_list) // batch)):
        raise ValueError(f"--processes: {processes}, but the seeds are {batches} batches of {batch}; lower --batch")
    start_processes(processes, ctx.obj)
    build_sampler(sampling, model)  # complains before the model is loaded
    with signals_interrupt(), Processes.join(device, warn=warn) as group:
        loaded = ds.load(model, device=group.device)
        weaker = None if guide is None else ds.load(guide, device=group.device)
        note = warn if group.first else (lambda text: None)
        sampler = build_sampler(sampling, model, denoiser=loaded, note=note if sigma_start is None else None)
        cond = choose_cond(loaded, conditions, classes, seed_list, proportions, note)
        images = _read_images(loaded, init, sigma_start, inpaint, mask, resamplings, note)
        drawing = Drawing(loaded, loaded, sampler, seed_list, cond, batch, images)
        drawing = dataclasses.replace(drawing, denoiser=guide_model(loaded, guidance, weaker, drawing.sigmas(), cond))
        speed = {"precision": precision, "compile": compile, "winograd": winograd}
        request = {"guidance": guidance, "guide": weaker and identity(weaker), **speed, **drawing.facts()}
        writer = None
        if group.first:
            layout: dict[str, Any] = {"columns": columns, "behind": _held_out(model, loaded, out), "subdirs": subdirs}
            writer = sample_writer(out, loaded, seed_list, cond, batch, request, overwrite=overwrite, **layout)
        for each in [loaded] if weaker is None else [loaded, weaker]:
            _prepare(each.denoiser.network, precision, compile, winograd)
        told = _draw(drawing, writer, group)
    if group.first:
        stdout.print(f"{out}: {told}")


def _read_images(
    model: ds.Model,
    init: Path | None,
    sigma_start: float | None,
    inpaint: Path | None,
    mask: Path | None,
    resamplings: int | None,
    note: Callable[[str], None],
) -> Start | Known | None:
    """What samples start from, or complete; ValueError for options that do not belong together."""
    from diffspace.checks import check_number
    from diffspace.cli.drawing import Known, Start
    from diffspace.cli.given import read_given, read_mask

    if init is not None and inpaint is not None:
        raise ValueError("--init, --inpaint: expected one of the two")
    for option, value, needed, there in (
        ("--init", init, "--sigma-start", sigma_start),
        ("--sigma-start", sigma_start, "--init", init),
        ("--inpaint", inpaint, "--mask", mask),
        ("--mask", mask, "--inpaint", inpaint),
        ("--resamplings", resamplings, "--inpaint", inpaint),
    ):
        if value is not None and there is None:
            raise ValueError(f"{option}: has no effect without {needed}")
    if init is not None and sigma_start is not None:
        check_number("--sigma-start", sigma_start, "(0, inf)")
        return Start(model.transform.forward(read_given("--init", init, model, note).raw), sigma_start)
    if inpaint is not None and mask is not None:
        known = read_given("--inpaint", inpaint, model, note)
        return Known(known.raw, read_mask(mask, model, known), resamplings or _RESAMPLINGS)
    return None


def _held_out(source: str, model: ds.Model, out: Path) -> Tensor | None:
    """Held-out data to draw behind points and lines, where the model is that of a run whose data are there."""
    from diffspace.cli.runs import load_data_of, open_recipe

    if out.suffix != ".png" or len(model.sample_shape) > 2:
        return None
    try:
        recipe = open_recipe(Path(source))
        held_out = load_data_of(Path(source), recipe, model, lambda text: None)[1]
        return held_out.raw(held_out.sample_numbers(_BEHIND)) if len(held_out) else None
    except (ValueError, OSError):  # a model without a run, or data that have moved: the samples are drawn alone
        return None


def _draw(drawing: Drawing, writer: SampleWriter | None, group: Processes) -> str:
    """Draw what is missing; a line that says what was done, on the first process, which has a writer."""
    from diffspace.cli.console import Stages, progress_bar

    last, evaluations, count = None, 0, len(drawing.seeds)
    with writer or contextlib.nullcontext(), progress_bar("steps", shown=group.first) as bar:
        missing: list[int] = group.broadcast(writer and writer.missing)
        stage, total = Stages(bar, "sampling"), -(-len(missing) // group.count) * drawing.states
        reports = itertools.count(1)

        def show(first: int, state: ds.State) -> None:
            if state.step:
                stage.show(next(reports), total, f"σ = {state.sigma:.3g}")

        for number, drawn in group.spread(lambda k: (k, drawing.draw(k, show)), missing):
            if writer is not None:
                writer.add(number, drawn.raw)
            last, evaluations = drawn.run, max(evaluations, drawn.run.nfe)
    if last is None:
        return f"{count} samples, all there already"
    there = count - sum(len(drawing.batches.rows(k)) for k in missing)
    before = f" ({there} there already)" if there else ""
    levels = " → ".join((f"{last.sigmas[0]:g} … {last.sigmas[-2]:g}", f"{last.sigmas[-1]:g}"))
    return f"{count} samples{before}, {last.num_steps} steps, NFE {evaluations}, σ {levels}"


def _prepare(network: Module, precision: str, compile: bool, winograd: bool) -> None:
    """Convert the network to a precision, and replace or compile its kernels."""
    import torch

    from diffspace.checks import check_choice
    from diffspace.networks import use_winograd

    check_choice("--precision", precision, ("float32", "bfloat16", "float16"))
    network.to(getattr(torch, precision))
    if winograd:
        use_winograd(network)
    if compile:
        # on a CPU, weights as constants are kept in the layout that the kernels like best
        network.compile(options={"freezing": next(network.parameters()).device.type == "cpu"})
