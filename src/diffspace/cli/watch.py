"""`diffspace watch`: the curves of a run, in the terminal while it trains, or as a picture."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from diffspace.checks import check_number
from diffspace.cli.options import Overwrite

if TYPE_CHECKING:
    from rich.console import RenderableType

    from diffspace.figures import Curves


def watch_command(
    runs: Annotated[list[Path], Argument(metavar="RUN...", help="Folders of runs, made by `diffspace train`.")],
    out: Annotated[Path | None, Option(help="Draw the curves into a picture (x.png) instead.")] = None,
    overwrite: Overwrite = False,
    once: Annotated[bool, Option("--once", help="Print the curves once and stop.")] = False,
    every: Annotated[float, Option(help="Seconds after which the log is read again.")] = 2.0,
) -> None:
    """Draw loss, held-out loss, error by noise level and more, until the run ends or Ctrl-C; compare several runs."""
    from diffspace.cli.console import out as stdout
    from diffspace.cli.output import check_target, write_figure
    from diffspace.cli.watch_view import view
    from diffspace.figures import curves_figure

    check_number("--every", every, "[0.1, 3600]")
    if out is not None and once:
        raise ValueError("--once: has no effect with --out")
    watched = [_Watched(folder, name) for folder, name in zip(runs, _names(runs), strict=True)]
    curves = [one.curves() for one in watched]
    if out is not None:
        check_target("--out", out, ".png", overwrite)
        write_figure(out, curves_figure(curves))
        stdout.print(str(out))
        return
    if overwrite:
        raise ValueError("--overwrite: has no effect without --out")
    follow = stdout.is_terminal and not once

    def picture() -> RenderableType:
        return view(curves, [one.silent() for one in watched], stdout.width - 1, stdout.height if follow else None)

    if not follow:
        stdout.print(picture())
        return
    from rich.live import Live

    with Live(picture(), console=stdout, auto_refresh=False, vertical_overflow="crop") as live:
        try:
            while not all(run.finished for run in curves):
                time.sleep(every)
                curves = [one.curves() for one in watched]
                live.update(picture(), refresh=True)
        except KeyboardInterrupt:
            return


class _Watched:
    """A run's folder, whose log is read as it grows."""

    def __init__(self, folder: Path, name: str) -> None:
        from diffspace.train import LOG, RECIPE, read_recipe

        if not folder.is_dir():
            raise ValueError(f"{folder}: there is no such folder")
        recipe, log = folder / RECIPE, folder / LOG
        if not recipe.is_file() and not log.is_file() and any(folder.iterdir()):
            raise ValueError(f"{folder}: is not the folder of a training run: it has no {RECIPE} and no {LOG}")
        self._name, self._log = name, log
        config = read_recipe(recipe) if recipe.is_file() else {}
        lengths = (config.get("images"), config.get("patience_images"))
        self._total, self._patience = (length if isinstance(length, int) else None for length in lengths)

    def curves(self) -> Curves:
        from diffspace.figures import Curves
        from diffspace.train import read_log

        return Curves.of(self._name, read_log(self._log), self._total, self._patience or 0)

    def silent(self) -> float:
        """The seconds since the last line of the log."""
        try:
            return time.time() - self._log.stat().st_mtime
        except FileNotFoundError:
            return 0.0


def _names(runs: list[Path]) -> list[str]:
    """The last parts of the paths, as few as distinguish them."""
    parts = [run.resolve().parts for run in runs]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(p[-count:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    raise ValueError(f"runs: {runs[0]} is named twice")
