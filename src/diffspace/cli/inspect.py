"""`diffspace inspect`: what a data set holds, and what it asks of a model."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["inspect_command"]


def inspect_command(
    data: Annotated[
        str,
        typer.Argument(help="digits, a point set (swissroll, …), a folder or .zip of images, an array, …"),
    ],
    options: Annotated[
        list[str] | None,
        typer.Argument(help="Options of the source, such as size=64 crop=center", show_default=False),
    ] = None,
) -> None:
    """Print count, shape, range and statistics of a data set, and the settings they suggest with the reasons."""
    from diffspace.cli.console import out
    from diffspace.data import load_data
    from diffspace.inspection import inspect
    from diffspace.train import parse_override

    given = {}
    for text in options or []:
        path, value = parse_override(text)
        if len(path) != 1:
            raise ValueError(f"{text!r}: want an option of the source, such as size=64")
        given[path[0]] = tuple(value) if isinstance(value, list) else value
    for line in inspect(load_data(data, **given)).lines():
        out.print(line, markup=False)
