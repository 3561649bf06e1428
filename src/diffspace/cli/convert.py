"""`diffspace convert`: the checkpoint of others as a model of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_UNSAID = "What a file may not say"


def convert_command(
    source: Annotated[Path, typer.Argument(help="A .pkl, .pt, .pth or .safetensors file.")],
    out: Annotated[Path, typer.Argument(metavar="DEST", help="Folder of the model to be written.", show_default=False)],
    overwrite: Annotated[bool, typer.Option(help="Replace the model in that folder.")] = False,
    push: Annotated[
        str | None, typer.Option(help="Upload the model to the Hugging Face Hub too, as owner/name.")
    ] = None,
    private: Annotated[bool, typer.Option(help="Make the repository of --push private.")] = False,
    size: Annotated[int | None, typer.Option(help="Side of the images.", rich_help_panel=_UNSAID)] = None,
    channels: Annotated[int | None, typer.Option(help="Channels of the images, 3.", rich_help_panel=_UNSAID)] = None,
    betas: Annotated[
        str | None, typer.Option(help="Noise schedule of the training: cosine or linear.", rich_help_panel=_UNSAID)
    ] = None,
    num_steps: Annotated[
        int | None, typer.Option(help="Diffusion steps of the training.", rich_help_panel=_UNSAID)
    ] = None,
    num_heads: Annotated[int | None, typer.Option(help="Attention heads.", rich_help_panel=_UNSAID)] = None,
    channels_per_head: Annotated[
        int | None, typer.Option(help="Channels of an attention head.", rich_help_panel=_UNSAID)
    ] = None,
    qkv_order: Annotated[
        str | None, typer.Option(help="Channels of q, k, v grouped by heads or by qkv first.", rich_help_panel=_UNSAID)
    ] = None,
) -> None:
    """Make a model of a foreign checkpoint, without executing anything in it, and say what became of it."""
    from diffspace.cli.console import out as stdout
    from diffspace.cli.output import check_model_folder
    from diffspace.interop import convert

    if private and push is None:
        raise ValueError("--private: has no effect without --push")
    check_model_folder("DEST", out, overwrite)
    model, report = convert(
        source,
        size=size,
        channels=channels,
        betas=betas,
        num_steps=num_steps,
        num_heads=num_heads,
        channels_per_head=channels_per_head,
        qkv_order=qkv_order,
    )
    model.save(out)
    for line in report.lines():
        stdout.print(line, markup=False)
    stdout.print(f"written          {out}", markup=False)
    if push is not None:
        stdout.print(f"uploaded         {model.push(push, private=private)}", markup=False)
