"""The report of a trained model: samples, loss, trajectories, solver error and scores in one file of HTML."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence

import torch

from diffspace._shapes import Tensor
from diffspace.data import DataSet
from diffspace.figures.loss_curve import draw_loss_by_sigma
from diffspace.figures.page import Picture, Section, Table, render_page
from diffspace.figures.samples import grid, is_image, samples_figure, to_pixels
from diffspace.figures.solver_error import draw_solver_error
from diffspace.figures.style import new_figure, png_to_data_uri, to_data_uri
from diffspace.figures.trajectory import trajectory_figure
from diffspace.model import Model
from diffspace.objective import NoiseDistribution, loss_by_sigma
from diffspace.oracles import ByClass, FiniteData, Oracle
from diffspace.sampling import AdamsBashforth, EDMSteps, Euler, Execution, Heun, Sampler, sample
from diffspace.sampling.solvers.base import Solver
from diffspace.solverlab import REFERENCE_SAMPLER, compare_solvers, reference
from diffspace.transform import Transform

_PER_CLASS = 10
_UNLABELLED = 64
_POINTS = 2000
_LOSS_SAMPLES = 512


def _picture(raw: Tensor, transform: Transform, caption: str, columns: int | None) -> Picture:
    if not is_image(raw.shape[1:]):
        return Picture(to_data_uri(samples_figure(raw, transform)), caption)
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(grid(to_pixels(raw, transform), columns)).save(buffer, format="png")
    return Picture(png_to_data_uri(buffer.getvalue()), caption, pixels=True)


def _samples_section(model: Model, held_out: DataSet) -> Section:
    classes = list(range(len(model.class_names)))[:20]
    if classes and held_out.labels is not None:
        found = {c: int((held_out.labels == c).sum()) for c in classes}
        rows = [c for c in classes if found[c]]
        each = min(_PER_CLASS, *(found[c] for c in rows))
        labels = torch.tensor(rows).repeat_interleave(each)
        drawn = sample(model, seeds=range(len(labels)), cond={"labels": labels}, execution=Execution(batch_size=256)).x
        real = held_out.raw(torch.cat([(held_out.labels == c).nonzero().flatten()[:each] for c in rows]))
        text = f"One row for each class ({', '.join(model.class_names[c] for c in rows)}); nothing was selected."
        columns = each
    else:
        count = min(_UNLABELLED if is_image(model.sample_shape) else _POINTS, len(held_out))
        cond = {"labels": torch.arange(count) % len(classes)} if classes else None
        drawn = sample(model, seeds=range(count), cond=cond, execution=Execution(batch_size=256)).x
        real = held_out.raw(torch.arange(count))
        text, columns = "Nothing was selected.", 8
    pictures = (
        _picture(model.decode(drawn), model.transform, f"samples, seeds 0 to {len(drawn) - 1}", columns),
        _picture(real, model.transform, "held-out real data", columns),
    )
    return Section("Samples beside real data", text, pictures)


def _subset(data: DataSet, count: int, conditional: bool) -> tuple[Tensor, dict[str, Tensor] | None]:
    # every k-th sample, so that sorted classes are all there
    places = torch.linspace(0, len(data) - 1, min(count, len(data))).round().long()
    cond = {"labels": data.labels[places]} if conditional and data.labels is not None else None
    return data.batch(places), cond


def _loss_section(model: Model, training: DataSet, held_out: DataSet, noise: NoiseDistribution | None) -> Section:
    conditional = bool(model.class_names)
    sigmas = torch.logspace(-2.5, 1.5, 17, dtype=torch.float64)
    low, high = max(model.sigma_min, float(sigmas[0])), min(model.sigma_max, float(sigmas[-1]))
    sigmas = sigmas[(sigmas >= low) & (sigmas <= high)]
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
    return Section("Loss by noise level", text, (Picture(to_data_uri(figure), "bands: ±2 standard errors"),))


def _trajectory_section(model: Model) -> Section:
    count = 3 if is_image(model.sample_shape) else 256
    cond = {"labels": torch.arange(count) * 3 % len(model.class_names)} if model.class_names else None
    run = sample(model, seeds=range(count), cond=cond, execution=Execution(batch_size=256, trajectory=True))
    figure = trajectory_figure(run, model.transform)
    text = (
        "The state x (scaled to the range of the data) and the denoiser's answer D on the way from σ_max to 0. "
        "D is a blur, the mean of all that x may become, until the noise is low enough to decide."
    )
    return Section("On the way", text, (Picture(to_data_uri(figure), f"Heun, N = {run.num_steps}, NFE {run.nfe}"),))


def _solver_section(model: Model) -> Section:
    seeds = range(8)
    cond = {"labels": torch.arange(len(seeds)) % len(model.class_names)} if model.class_names else None
    truth = reference(model, seeds=seeds, cond=cond, sampler=REFERENCE_SAMPLER.with_num_steps(200))
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
    return Section("What an evaluation buys", text, (Picture(to_data_uri(figure), "EDM steps, ρ = 7"),))


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
    parts: Mapping[str, Callable[[], Section]] = {
        "samples": lambda: _samples_section(model, held_out),
        "loss by noise level": lambda: _loss_section(model, training, held_out, noise),
        "trajectories": lambda: _trajectory_section(model),
        "solver error": lambda: _solver_section(model),
    }
    sections = []
    for name, make in parts.items():
        progress(name)
        sections.append(make())
    text = f"Samples of Heun with {EDMSteps().num_steps} steps; each score stands beside that of real data."
    sections.insert(1, Section("Scores", text, (Table(headings, tuple(scores)),)))
    parameters = sum(p.numel() for p in model.parameters())
    shape = "×".join(map(str, model.sample_shape))
    notes = [f"{name}: {f'{v:,}' if isinstance(v, int) else v}" for name, v in model.notes.items()]
    facts = f"{parameters:,} parameters, samples of {shape}, {len(training)} training and {len(held_out)} held-out"
    return render_page(f"diffspace: {model.notes.get('data', 'model')}", ", ".join([facts, *notes]), sections)
