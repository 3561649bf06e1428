"""`diffspace inspect`: the contents of a data set, and the settings that they suggest."""

from __future__ import annotations

from typing import Annotated

from typer import Argument

from diffspace.cli.options import DATA, DataOptions


def inspect_command(data: Annotated[str, Argument(help=DATA)], options: DataOptions = None) -> None:
    """Print count, shape, range and statistics of a data set, and the settings they suggest with the reasons."""
    from diffspace.cli.console import out
    from diffspace.data import load_data
    from diffspace.inspection import inspect
    from diffspace.parts import import_typed
    from diffspace.train import apply_overrides

    import_typed({"source": data})
    for line in inspect(load_data(data, **apply_overrides({}, options or []))).lines():
        out.print(line)
