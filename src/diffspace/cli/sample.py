"""`diffspace sample`: samples of a model as a picture, as single pictures or as an array."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

import diffspace as ds
from diffspace.cli.conditions import Conditions
from diffspace.cli.options import AnyModel, Batch, Classes, Device, Overwrite, Parts, Proportions, integer_option
from diffspace.cli.sampler_options import build_sampler, with_sampler_options

if TYPE_CHECKING:
    from torch.nn import Module


def _speed(flag: str, help: str) -> Any:
    return Option(flag, help=help, rich_help_panel="Speed")


@with_sampler_options()
def sample_command(
    model: AnyModel,
    out: Annotated[Path, Option(help="A grid (x.png), an array (x.npz) or a folder of PNGs (x/).")] = Path(
        "samples.png"
    ),
    seeds: Annotated[str, Option(help="Seeds of the samples, such as 0-63,100.")] = "0-63",
    classes: Classes = None,
    proportions: Proportions = False,
    conditions: Conditions = None,
    batch: Batch = 64,
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
    """Draw samples from a trained model."""
    from diffspace.cli.conditions import choose_cond
    from diffspace.cli.console import Stages, out as stdout, progress_bar, warn
    from diffspace.cli.options import load_model, parse_seeds
    from diffspace.cli.output import SampleWriter

    seed_list = parse_seeds(seeds)
    build_sampler(sampling, model)  # complains before the model is loaded
    loaded = load_model(model, device)
    sampler = build_sampler(sampling, model, denoiser=loaded)
    writer = SampleWriter(
        out,
        loaded.transform,
        loaded.sample_shape,
        class_names=loaded.class_names,
        overwrite=overwrite,
        columns=columns,
        subdirs=subdirs,
    )
    if writer.is_folder and len(set(seed_list)) < len(seed_list):
        raise ValueError(f"--seeds: {seeds!r} names a seed twice, but a folder has one picture for each")
    cond = choose_cond(loaded, conditions, classes, seed_list, proportions, warn)
    _prepare(loaded.denoiser.network, precision, compile, winograd)

    done = 0
    with writer, progress_bar("steps") as bar:
        execution = ds.Execution(batch, progress=Stages(bar, "sampling").steps(len(seed_list), batch))
        for samples in ds.sample_batches(loaded, seeds=seed_list, sampler=sampler, cond=cond, execution=execution):
            rows = slice(done, done + len(samples.x))
            own = {name: value[rows] for name, value in (cond or {}).items()}
            writer.add(loaded.decode(samples.x), seed_list[rows], own)
            done = rows.stop
    stdout.print(
        f"{out}: {len(seed_list)} samples, {samples.num_steps} steps, NFE {samples.nfe}, "
        f"σ {float(samples.sigmas[0]):g} … {float(samples.sigmas[-2]):g} → {float(samples.sigmas[-1]):g}"
    )


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
