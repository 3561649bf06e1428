"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from diffspace.config import import_part


def _import(names: list[str] | None) -> list[str] | None:
    for name in names or []:
        import_part(name)
    return names


Parts = Annotated[
    list[str] | None,
    typer.Option(
        "--part",
        metavar="MODULE:CLASS",
        help="Import a class of your own that the files name, such as the network of the model.",
        callback=_import,
        show_default=False,
    ),
]
