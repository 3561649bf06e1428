"""`diffspace evaluate`: scores of a model beside those of real data, and a report with pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from diffspace.cli.options import Batch, Device, FirstSeed, Parts, Sets, Size, Steps

SCORES, REPORT = "scores.json", "report.html"


def evaluate_command(
    run: Annotated[Path, Argument(help="Folder of a training run.")],
    n: Size = None,
    sets: Sets = 4,
    steps: Steps = 18,
    first_seed: FirstSeed = 0,
    batch: Batch = 256,
    report: Annotated[bool, Option(help="Write report.html into the folder of the run.")] = True,
    device: Device = None,
    part: Parts = None,
) -> None:
    """Score a trained model and write scores.json and report.html into its folder.

    Samples take the classes of the held-out data in turn, and every score is printed beside that of real data.
    """
    from diffspace.cli.console import Stages, err, out as stdout, progress_bar, table, warn
    from diffspace.cli.options import load_model
    from diffspace.cli.output import check_place, write_json
    from diffspace.cli.runs import Scoring, load_data_of, open_recipe
    from diffspace.figures import render_report
    from diffspace.files import write_text

    recipe = open_recipe(run)
    check_place("RUN", run / SCORES)
    model = load_model(str(run), device)
    scoring = Scoring(load_data_of(run, recipe, model, warn), n, sets, steps, first_seed, batch)
    headings = ("score", "samples", "real data", "how")

    with progress_bar("steps") as bar:
        stage = Stages(bar)
        scores = scoring(model, stage)
        write_json(run / SCORES, scores.as_dict())
        rows = [(row.name, row.value, row.reference, row.note) for row in scores.rows()]
        if report:
            data = scoring.training, scoring.held_out
            page = render_report(model, *data, headings=headings, scores=rows, noise=recipe.noise, progress=stage)
            write_text(run / REPORT, page)
    stdout.print(table(headings, rows))
    for note in scores.notes:
        err.print(f"note: {note}")
    stdout.print(f"{run / SCORES}" + (f", {run / REPORT}" if report else ""))
