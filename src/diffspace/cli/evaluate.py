"""`diffspace evaluate`: scores of a model beside those of real data, and a report with pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from diffspace.cli.options import Parts
from diffspace.cli.scoring import Batch, Device, FirstSeed, Scoring, Sets, Size, Steps

SCORES, REPORT = "scores.json", "report.html"


def evaluate_command(
    run: Annotated[Path, typer.Argument(help="Folder of a training run.")],
    n: Size = None,
    sets: Sets = None,
    steps: Steps = None,
    first_seed: FirstSeed = None,
    batch: Batch = None,
    report: Annotated[bool, typer.Option(help="Write report.html into the folder of the run.")] = True,
    device: Device = None,
    part: Parts = None,
) -> None:
    """Score a trained model and write scores.json and report.html into its folder.

    Samples take the classes of the held-out data in turn, and every score stands beside what real data reach.
    """
    from diffspace.cli.console import err, out as stdout, progress_bar, table
    from diffspace.cli.runs import open_recipe
    from diffspace.figures import render_report
    from diffspace.files import write_text
    from diffspace.loading import load
    from diffspace.train import choose_device

    recipe = open_recipe(run)
    scoring = Scoring.of(recipe, n, sets, steps, first_seed, batch)
    model = load(run, device=choose_device(device))
    training, held_out = scoring.training, scoring.held_out

    with progress_bar("steps") as bar:
        tell, show = scoring.watch(bar)
        scores = scoring(model, tell, show)
        write_text(run / SCORES, json.dumps(scores.as_dict(), indent=2, ensure_ascii=False) + "\n")
        headings = ("score", "samples", "real data", "how")
        rows = [(row.name, row.value, row.reference, row.note) for row in scores.rows()]
        if report:
            page = render_report(
                model, training, held_out, headings=headings, scores=rows, noise=recipe.noise, progress=tell
            )
            write_text(run / REPORT, page)
    stdout.print(table(headings, rows))
    for note in scores.notes:
        err.print(f"note: {note}", markup=False)
    stdout.print(f"{run / SCORES}" + (f", {run / REPORT}" if report else ""))
