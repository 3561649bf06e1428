"""`edmkit evaluate`: scores of a model beside those of real data, and a report with pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from edmkit.data import DataSet
    from edmkit.metrics import Scores
    from edmkit.model import Model

__all__ = ["evaluate_command"]

SCORES, REPORT = "scores.json", "report.html"


def evaluate_command(
    run: Annotated[Path, typer.Argument(help="Folder of a training run.")],
    n: Annotated[
        int | None, typer.Option("--n", help="Samples in a set. Default: as many as held-out data, at most 10,000.")
    ] = None,
    sets: Annotated[int, typer.Option(help="Sets of n samples; distances are their mean.")] = 4,
    steps: Annotated[int, typer.Option(help="Steps of the Heun sampler.")] = 18,
    first_seed: Annotated[int, typer.Option(help="The samples have this seed and those that follow.")] = 0,
    batch: Annotated[int, typer.Option(help="Samples made at a time.")] = 256,
    report: Annotated[bool, typer.Option(help="Write report.html into the folder of the run.")] = True,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps. Default: the best there is.")] = None,
) -> None:
    """Score a trained model and write scores.json and report.html into its folder.

    Samples take the classes of the held-out data in turn, and every score stands beside what real data reach.
    """
    from edmkit.cli.console import err, progress_bar, table
    from edmkit.cli.console import out as stdout
    from edmkit.cli.runs import open_recipe
    from edmkit.figures import render_report
    from edmkit.files import write_text
    from edmkit.loading import load
    from edmkit.registry import from_config
    from edmkit.sampling import EDMSteps
    from edmkit.train import choose_device

    if n is not None and n < 2:
        raise ValueError(f"--n: {n}; want at least 2 samples")
    if sets < 1:
        raise ValueError(f"--sets: {sets}; want at least 1")
    if first_seed < 0:
        raise ValueError(f"--first-seed: {first_seed}; want a number that is not negative")
    time_steps = EDMSteps(steps)
    recipe = open_recipe(run)
    model = load(run, device=choose_device(device))
    training, held_out = recipe.data.load()
    size = min(len(held_out), len(training), 10_000) if n is None else n
    count = size * sets
    seeds = range(first_seed, first_seed + count)

    with progress_bar("steps") as bar:
        task = bar.add_task("evaluating", total=None, info="")

        def tell(part: str) -> None:
            bar.update(task, description=part, completed=0, total=None, info="")

        def show(first: int, state: Any) -> None:
            done = first // batch * steps + state.step
            bar.update(task, completed=done, total=-(-count // batch) * steps, info=f"σ = {state.sigma:.3g}")

        tell("sampling")
        scores = _score(model, training, held_out, seeds, size, time_steps, batch, tell, show)
        write_text(run / SCORES, json.dumps(scores.as_dict(), indent=2, ensure_ascii=False) + "\n")
        headings = ("score", "samples", "real data", "how")
        rows = [(row.name, row.value, row.reference, row.note) for row in scores.rows()]
        if report:
            noise = from_config("noise", recipe.noise)
            page = render_report(model, training, held_out, headings=headings, scores=rows, noise=noise, progress=tell)
            write_text(run / REPORT, page)
    stdout.print(table(headings, rows))
    for note in scores.notes:
        err.print(f"note: {note}", markup=False)
    stdout.print(f"{run / SCORES}" + (f", {run / REPORT}" if report else ""))


def _score(
    model: Model,
    training: DataSet,
    held_out: DataSet,
    seeds: range,
    n: int,
    steps: Any,
    batch: int,
    tell: Any,
    show: Any,
) -> Scores:
    """Sample, train the classifier where the data have classes, and measure."""
    import torch

    from edmkit.metrics import evaluate, train_classifier
    from edmkit.sampling import sample

    real, new = training.batch(), held_out.batch()
    labels = None
    if model.class_names and held_out.labels is not None:
        labels = held_out.labels[torch.arange(n) % len(held_out)].repeat(len(seeds) // n)
    samples = sample(
        model,
        seeds=seeds,
        steps=steps,
        cond=None if labels is None else {"labels": labels},
        batch_size=batch,
        progress=show,
    ).x.to(torch.float32)
    # what is stored of a sample is what is scored: clipped and rounded as the data are
    samples = model.transform.forward(model.decode(samples))
    classifier = None
    if labels is not None and training.labels is not None:
        tell("training the classifier of real data")
        classifier = train_classifier(real, training.labels, len(training.class_names))
    tell("scoring")
    return evaluate(
        samples,
        real,
        new,
        seeds=seeds,
        sample_labels=labels,
        train_labels=None if labels is None else training.labels,
        held_out_labels=None if labels is None else held_out.labels,
        n=n,
        classifier=classifier,
    )
