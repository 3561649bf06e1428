"""`diffspace export`: a model as a file that runs without diffspace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument

from diffspace.cli.options import AnyModel, Overwrite, Parts


def export_command(
    model: AnyModel,
    out: Annotated[
        Path, Argument(metavar="OUT", help="x.onnx, or x.pt2 of torch.export, to write.", show_default=False)
    ],
    overwrite: Overwrite = False,
    part: Parts = None,
) -> None:
    """Write the denoiser of a model as ONNX or as a program of torch.export, and compare the two on 20 inputs."""
    from diffspace.cli.console import out as stdout
    from diffspace.cli.output import check_target
    from diffspace.exporting import SUFFIXES, check_packages, export
    from diffspace.loading import load

    if out.suffix not in SUFFIXES:
        raise ValueError(f"OUT: expected a name that ends in {' or '.join(SUFFIXES)}, got {out}")
    check_target("OUT", out, out.suffix, overwrite)
    check_packages(out)
    for line in export(load(model), out).lines():
        stdout.print(line)
