"""The report of a trained model: samples, loss, trajectories, solver error and scores in one file of HTML."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure

from diffspace._shapes import Int, Tensor
from diffspace.data import DataSet
from diffspace.figures.errors import draw_loss_by_sigma, draw_solver_error
from diffspace.figures.page import picture, render_page, section, table
from diffspace.figures.samples import grid, is_image, samples_figure, to_pixels, trajectory_figure
from diffspace.figures.style import new_figure
from diffspace.model import Model
from diffspace.objective import NoiseDistribution, loss_by_sigma
from diffspace.oracles import ByClass, FiniteData, Oracle
from diffspace.protocols import Cond
from diffspace.sampling import AdamsBashforth, Euler, Execution, Heun, Sampler, Samples, sample
from diffspace.sampling.solvers.base import Solver
from diffspace.solverlab import REFERENCE_SAMPLER, compare_solvers, reference

_PER_CLASS, _UNLABELLED, _POINTS, _LOSS_SAMPLES = 10, 64, 2000, 512


def _cond(model: Model, labels: Int[Tensor, "batch"]) -> Cond | None:
    """These classes, modulo their number, for a model that knows classes."""
    return {"labels": labels % len(model.class_names)} if model.class_names else None


def _draw(model: Model, labels: Int[Tensor, "batch"], trajectory: bool = False) -> Samples:
    execution = Execution(batch_size=256, trajectory=trajectory)
    return sample(model, seeds=range(len(labels)), cond=_cond(model, labels), execution=execution)


def _samples_section(model: Model, held_out: DataSet) -> str:
    names = model.class_names[:20]
    if names and held_out.labels is not None:
        places = [(held_out.labels == c).nonzero().flatten() for c in range(len(names))]
        rows = [c for c in range(len(names)) if len(places[c])]
        columns = min(_PER_CLASS, *(len(places[c]) for c in rows))
        labels = torch.tensor(rows).repeat_interleave(columns)
        chosen = torch.cat([places[c][:columns] for c in rows])
        text = f"One row for each class ({', '.join(names[c] for c in rows)}); nothing was selected."
    else:
        count = _UNLABELLED if is_image(model.sample_shape) else _POINTS
        labels = chosen = torch.arange(min(count, len(held_out)))
        text, columns = "Nothing was selected.", 8

    def show(raw: Tensor) -> Figure | np.ndarray:
        if is_image(model.sample_shape):
            return grid(to_pixels(raw, model.transform), columns)
        return samples_figure(raw, model.transform)

    return section(
        "Samples beside real data",
        text,
        picture(show(model.decode(_draw(model, labels).x)), f"samples, seeds 0 to {len(labels) - 1}"),
        picture(show(held_out.raw(chosen)), "held-out real data"),
    )


def _subset(data: DataSet, count: int, conditional: bool) -> tuple[Tensor, Cond | None]:
    # every k-th sample, so that sorted classes are all there
    places = torch.linspace(0, len(data) - 1, min(count, len(data))).round().long()
    labels = data.classes(places) if conditional else None
    return data.batch(places), None if labels is None else {"labels": labels}


def _loss_section(model: Model, training: DataSet, held_out: DataSet, noise: NoiseDistribution | None) -> str:
    conditional = bool(model.class_names)
    sigmas = torch.logspace(-2.5, 1.5, 17, dtype=torch.float64)
    sigmas = sigmas[(sigmas >= model.sigma_min) & (sigmas <= model.sigma_max)]
    seen, seen_cond = _subset(training, _LOSS_SAMPLES, conditional)
    new, new_cond = _subset(held_out, _LOSS_SAMPLES, conditional)
    known, known_cond = _subset(training, 20_000, conditional)
    ideal: Oracle = FiniteData(known)
    if known_cond is not None:
        of_class = [known[known_cond["labels"] == c] for c in range(len(model.class_names))]
        if all(len(part) for part in of_class):
            ideal = ByClass([FiniteData(part) for part in of_class])
    curves = {
        "held-out data": loss_by_sigma(model, new, new_cond, sigmas=sigmas),
        "training data": loss_by_sigma(model, seen, seen_cond, sigmas=sigmas, oracle=ideal),
    }
    figure = new_figure(6.6, 4.2)
    draw_loss_by_sigma(figure.subplots(), curves, noise)
    text = (
        "Where the solid lines lie far below the dotted ones, the model has learnt something. The dashed line is the "
        "denoiser that knows the training data by heart: a model that comes down to it where it falls copies them, and "
        "the gap between training and held-out data is what it has over-fitted."
    )
    return section("Loss by noise level", text, picture(figure, "bands: ±2 standard errors"))


def _trajectory_section(model: Model) -> str:
    run = _draw(model, torch.arange(3 if is_image(model.sample_shape) else 256) * 3, trajectory=True)
    figure = trajectory_figure(run, model.transform)
    text = (
        "The state x (scaled to the range of the data) and the denoiser's answer D on the way from σ_max to 0. "
        "D is a blur, the mean of all that x may become, until the noise is low enough to decide."
    )
    return section("On the way", text, picture(figure, f"Heun, N = {run.num_steps}, NFE {run.nfe}"))


def _solver_section(model: Model) -> str:
    seeds, sampler = range(8), REFERENCE_SAMPLER.with_num_steps(200)
    truth = reference(model, seeds=seeds, cond=_cond(model, torch.arange(len(seeds))), sampler=sampler)
    multistep = AdamsBashforth(3, "epsilon", "log_sigma")
    solvers: dict[str, Solver] = {"Euler": Euler(), "Heun": Heun(), "Adams–Bashforth 3": multistep}
    samplers = {name: Sampler(solver=solver) for name, solver in solvers.items()}
    comparison = compare_solvers(model, truth, samplers, (3, 5, 7, 11, 15, 23, 35, 53, 79))
    figure = new_figure(6.0, 3.6)
    draw_solver_error(figure.subplots(), comparison)
    text = (
        f"Distance of the end points from those of a reference solution (known to {truth.error.rms:.0e}), over "
        f"{len(seeds)} seeds, in the model's space. `diffspace solvers` measures every solver."
    )
    return section("What an evaluation buys", text, picture(figure, "EDM steps, ρ = 7"))


def render_report(
    model: Model,
    training: DataSet,
    held_out: DataSet,
    *,
    headings: tuple[str, ...],
    scores: Sequence[tuple[str, ...]],
    noise: NoiseDistribution | None = None,
    progress: Callable[[str], None] = lambda part: None,
) -> str:
    """The page as HTML.

    Args:
        model: the trained model.
        training: the data that it was trained on.
        held_out: data that it was not trained on.
        headings: the headings of the table of scores.
        scores: rows of text under these headings.
        noise: the noise distribution of the training, which is marked in the picture of the loss.
        progress: called with the name of each part before it is made.
    """
    parts: Mapping[str, Callable[[], str]] = {
        "samples": lambda: _samples_section(model, held_out),
        "loss by noise level": lambda: _loss_section(model, training, held_out, noise),
        "trajectories": lambda: _trajectory_section(model),
        "solver error": lambda: _solver_section(model),
    }
    sections = []
    for name, make in parts.items():
        progress(name)
        sections.append(make())
    sections.insert(1, section("Scores", "Each score stands beside that of real data.", table(headings, scores)))
    parameters = sum(p.numel() for p in model.parameters())
    shape = "×".join(map(str, model.sample_shape))
    notes = [f"{name}: {f'{v:,}' if isinstance(v, int) else v}" for name, v in model.notes.items()]
    facts = f"{parameters:,} parameters, samples of {shape}, {len(training)} training and {len(held_out)} held-out"
    return render_page(f"diffspace: {model.notes.get('data', 'model')}", ", ".join([facts, *notes]), sections)
