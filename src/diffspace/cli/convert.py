"""`diffspace convert`: a checkpoint of another project as a model of diffspace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from diffspace.cli.options import Overwrite


def _fact(help: str) -> Any:
    """An option for what a checkpoint may not say about itself."""
    return Option(help=help, rich_help_panel="What a file may not say")


def convert_command(
    source: Annotated[Path, Argument(help="A .pkl, .pt, .pth or .safetensors file.")],
    out: Annotated[Path, Argument(metavar="DEST", help="Folder to write the model to.", show_default=False)],
    overwrite: Overwrite = False,
    push: Annotated[str | None, Option(help="Upload the model to the Hugging Face Hub, as owner/name.")] = None,
    private: Annotated[bool, Option(help="Make the repository of --push private.")] = False,
    size: Annotated[int | None, _fact("Side of the images.")] = None,
    channels: Annotated[int | None, _fact("Channels of the images. Default: 3.")] = None,
    betas: Annotated[str | None, _fact("Noise schedule of the training: cosine or linear.")] = None,
    num_steps: Annotated[int | None, _fact("Diffusion steps of the training.")] = None,
    num_heads: Annotated[int | None, _fact("Attention heads.")] = None,
    channels_per_head: Annotated[int | None, _fact("Channels of an attention head.")] = None,
    qkv_order: Annotated[str | None, _fact("How channels of q, k, v are grouped first: by heads or by qkv.")] = None,
) -> None:
    """Convert a checkpoint of another project without executing anything in it, and print what was converted."""
    from diffspace.cli.console import out as stdout
    from diffspace.cli.output import check_model_folder
    from diffspace.interop import convert

    if private and push is None:
        raise ValueError("--private: has no effect without --push")
    check_model_folder("DEST", out, overwrite)
    facts: dict[str, Any] = {"size": size, "channels": channels, "betas": betas, "num_steps": num_steps}
    facts |= {"num_heads": num_heads, "channels_per_head": channels_per_head, "qkv_order": qkv_order}
    model, report = convert(source, **facts)
    model.save(out)
    for line in report.lines():
        stdout.print(line)
    stdout.print(f"written          {out}")
    if push is not None:
        stdout.print(f"uploaded         {model.push(push, private=private)}")
