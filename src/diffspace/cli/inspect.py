"""`diffspace inspect`: the contents of a data set, and the settings that they suggest."""

from __future__ import annotations

from typing import Annotated

from typer import Argument

from diffspace.cli.options import DATA, DataOptions


def inspect_command(data: Annotated[str, Argument(help=DATA)], options: DataOptions = None) -> None:
    """Print count, shape, range and statistics of a data set, and the settings they suggest with the reasons.

    With holdout, split or mirror, those of the training part.
    """
    from diffspace.cli.console import out
    from diffspace.data import load_data
    from diffspace.inspection import inspect
    from diffspace.parts import import_typed
    from diffspace.train import apply_overrides, default_config, make_data_recipe

    import_typed({"source": data})
    given = apply_overrides({}, [word.removeprefix("data.") for word in options or []])  # as `train` spells them
    recipe = make_data_recipe({"source": data, **given})
    if recipe.options == given:
        loaded = load_data(data, **given)
    else:
        loaded, held_out = recipe.load()
        out.print(f"the training part, without the {len(held_out)} held-out samples:")
    found = inspect(loaded)
    for line in found.lines():
        out.print(line)
    proposed = default_config(loaded, recipe, found)
    words = proposed["preconditioning"] | proposed["noise"] | proposed
    other = [f"{p.name} = {words[p.name]:g}" for p in found.proposals if f"{words[p.name]:.3g}" != f"{p.value:.3g}"]
    why = f", but {', '.join(other)}: the paper's, moved to this sigma_data, gave better samples of such data"
    out.print(f"diffspace train takes these values, as measured on the training part alone{why if other else ''}")
