"""`diffspace sample`: samples of a model as a picture, as single pictures or as an array."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffspace.cli.options import Parts
from diffspace.cli.sampler_options import build_sampler, with_sampler_options

if TYPE_CHECKING:
    from torch.nn import Module

_SPEED = "Speed"


@with_sampler_options()
def sample_command(
    model: Annotated[
        str, typer.Argument(help="Folder of a model, a .pkl, .pt or .pth of others, or owner/name on the Hub.")
    ],
    out: Annotated[
        Path, typer.Option(help="A grid (x.png), an array with its seeds and labels (x.npz), or a folder of PNGs (x/).")
    ] = Path("samples.png"),
    seeds: Annotated[str, typer.Option(help="Seeds of the samples, such as 0-63,100.")] = "0-63",
    classes: Annotated[
        str | None,
        typer.Option(
            "--class", help="Class by name or index, or several dealt in turn: 0,1,2. Default: random by seed."
        ),
    ] = None,
    batch: Annotated[int, typer.Option(help="Samples made at a time.")] = 64,
    columns: Annotated[int | None, typer.Option(help="Columns of the grid.")] = None,
    subdirs: Annotated[bool, typer.Option("--subdirs", help="One folder for every 1000 seeds.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace what is at --out.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps. Default: the best there is.")] = None,
    part: Parts = None,
    precision: Annotated[
        str, typer.Option(help="Of the network: float32, bfloat16 or float16.", rich_help_panel=_SPEED)
    ] = "float32",
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile the network first; takes a minute.", rich_help_panel=_SPEED)
    ] = False,
    winograd: Annotated[
        bool,
        typer.Option(
            "--winograd", help="Faster 3×3 convolutions in float32 on a CPU, for more memory.", rich_help_panel=_SPEED
        ),
    ] = False,
    *,
    sampling: dict[str, Any],
) -> None:
    """Draw samples from a trained model."""
    from diffspace.cli.console import out as stdout, progress_bar
    from diffspace.cli.output import Output
    from diffspace.cli.parsing import check_positive, choose_labels, parse_seeds
    from diffspace.loading import load
    from diffspace.sampling import Execution, sample_batches
    from diffspace.train import choose_device

    seed_list = parse_seeds(seeds)
    check_positive("--batch", batch)
    sampler = build_sampler(sampling, model)
    loaded = load(model, device=choose_device(device))
    output = Output(out, loaded.transform, loaded.sample_shape, overwrite=overwrite, columns=columns, subdirs=subdirs)
    if output.is_folder and len(set(seed_list)) < len(seed_list):
        raise ValueError(f"--seeds: {seeds!r} names a seed twice, but a folder has one picture for each")
    labels = choose_labels(loaded, classes, seed_list)
    _prepare(loaded.denoiser.network, precision, compile, winograd)

    with output, progress_bar("samples") as bar:
        task = bar.add_task("sampling", total=len(seed_list), info="")

        def show(first: int, state: Any) -> None:
            bar.update(task, info=f"step {state.step}/{state.num_steps}, σ = {state.sigma:.3g}")

        done = 0
        execution = Execution(batch, progress=show)
        cond = None if labels is None else {"labels": labels}
        for samples in sample_batches(loaded, seeds=seed_list, sampler=sampler, cond=cond, execution=execution):
            rows = slice(done, done + len(samples.x))
            output.add(loaded.decode(samples.x), seed_list[rows], None if labels is None else labels[rows])
            done = rows.stop
            bar.update(task, completed=done)
    stdout.print(
        f"{out}: {len(seed_list)} samples, {samples.num_steps} steps, NFE {samples.nfe}, "
        f"σ {float(samples.sigmas[0]):g} … {float(samples.sigmas[-2]):g} → {float(samples.sigmas[-1]):g}",
        markup=False,
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
