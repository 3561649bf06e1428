"""The report of a trained model: samples, loss, trajectories, solver error and scores in one file of HTML."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure

from diffspace._shapes import Tensor
from diffspace.data import DataSet
from diffspace.figures.errors import draw_loss_by_sigma, draw_solver_error
from diffspace.figures.samples import is_image, picture, samples_figure, save_image, trajectory_figure
from diffspace.figures.style import new_figure
from diffspace.metrics import Identity, default_extractor, nearest_neighbours
from diffspace.model import Model
from diffspace.objective import NoiseDistribution, loss_by_sigma
from diffspace.oracles import ByClass, FiniteData, Oracle
from diffspace.protocols import Cond, data_scale
from diffspace.sampling import AdamsBashforth, Euler, Execution, Heun, Sampler, sample
from diffspace.sampling.solvers.base import Solver
from diffspace.solverlab import REFERENCE_SAMPLER, compare_solvers, reference

_CLASSES, _PER_CLASS, _UNLABELLED, _POINTS, _LOSS_SAMPLES = 20, 10, 64, 2000, 512
_CLOSEST, _CLOSE_OF, _KNOWN = 8, 256, 20_000
_BAD = ("worse than real", "memorised", "too close")

_CSS = """
:root { color-scheme: light dark; --ink: #1f2933; --page: #fff; --gray: #616e7c; --line: #e4e7eb; --bad: #b42318; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7eb; --page: #14181d; --gray: #9aa5b1; --line: #323f4b; --bad: #ff8a7a; }
}
body { font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; color: var(--ink); background: var(--page);
  max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.5rem 4rem; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; letter-spacing: -.01em; }
h2 { font-size: 1.15rem; margin: 2.8rem 0 .4rem; }
p { margin: .4rem 0 .8rem; max-width: 46rem; }
.facts { color: var(--gray); margin-top: 0; }
.parts { display: flex; flex-wrap: wrap; gap: 1.5rem; align-items: flex-start; }
figure { margin: .5rem 0; flex: 1 1 20rem; min-width: 0; }
figure img { max-width: 100%; height: auto; display: block; border-radius: 3px; }
figure.pixels img { width: 100%; }
figcaption { font-size: .86rem; color: var(--gray); margin-top: .35rem; }
table { border-collapse: collapse; font-size: .92rem; margin: .6rem 0; }
th, td { text-align: left; padding: .38rem 1.1rem .38rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; } td.num { font-variant-numeric: tabular-nums; white-space: nowrap; }
td.note { color: var(--gray); font-size: .86rem; } td.bad { color: var(--bad); font-weight: 600; }
"""


def _in_turn(model: Model, count: int) -> Tensor | None:
    """The classes that had data, in turn, for a model that knows classes."""
    classes = model.sampled_classes
    labels = [classes[k % len(classes)] for k in range(count)] if classes else None
    return None if labels is None else torch.tensor(labels, dtype=torch.int64, device="cpu")


def _as_cond(labels: Tensor | None) -> Cond | None:
    return None if labels is None else {"labels": labels}


def _drawn(model: Model, held_out: DataSet, count: int, step: int = 1) -> Cond | None:
    """Conditions to sample with: those of held-out data in turn, or every `step`-th class where there are no others."""
    if not model.conditioning:
        labels = _in_turn(model, step * count)
        return _as_cond(None if labels is None else labels[::step])
    return held_out.cond(_turns(count, held_out), model.condition_names)


def _turns(count: int, data: DataSet) -> Tensor:
    return torch.arange(count, dtype=torch.int64, device="cpu") % len(data)


def _samples_section(model: Model, held_out: DataSet) -> str:
    images, names = is_image(model.sample_shape), model.class_names
    real = held_out.labels if names and not model.conditioning else None
    chosen = torch.arange(min(_UNLABELLED if images else _POINTS, len(held_out)), dtype=torch.int64, device="cpu")
    drawn = _in_turn(model, len(chosen)) if real is None else real[chosen]
    rows: tuple[str, ...] = ()
    cells, columns, text = None, 8, "Nothing was selected."
    if real is not None and images:
        there, columns = set(real.tolist()), _PER_CLASS
        classes = sorted(sorted(model.sampled_classes, key=lambda c: c not in there)[:_CLASSES])
        drawn = torch.tensor(classes, dtype=torch.int64, device="cpu").repeat_interleave(columns)
        places = [(real == c).nonzero().flatten()[:columns] for c in classes]
        chosen = torch.cat(places)
        cells = [row * columns + column for row, found in enumerate(places) for column in range(len(found))]
        rows = tuple(names[c] for c in classes)
        of = "each class" if len(rows) == len(names) else f"{len(rows)} of {len(names)} classes"
        text = f"One row for {of} ({', '.join(rows)}); nothing was selected."
        if len(chosen) < len(drawn):
            text += f" Gaps: the class has fewer than {columns} held-out items."

    def show(raw: Tensor, labels: Tensor | None, cells: Sequence[int] | None) -> Figure | np.ndarray:
        if images:
            return picture(raw, model.transform, columns, cells=cells, names=rows)
        return samples_figure(raw, model.transform, labels, names)

    count = len(chosen) if drawn is None else len(drawn)
    cond = _drawn(model, held_out, count) if model.conditioning else _as_cond(drawn)
    if model.conditioning:
        text = "Each sample has the conditions of the held-out item at its place. Nothing was selected."
    samples = sample(model, seeds=range(count), cond=cond, execution=Execution(batch_size=256))
    return _section(
        "Samples beside real data",
        text,
        _picture(show(model.decode(samples.x), drawn, None), f"samples, seeds 0 to {count - 1}"),
        _picture(show(held_out.raw(chosen), None if real is None else real[chosen], cells), "held-out real data"),
    )


def _neighbours_section(model: Model, training: DataSet, held_out: DataSet) -> str:
    """Samples, of many those closest to the training data, above their nearest training items."""
    count = min(_CLOSE_OF, len(held_out))
    cond = _drawn(model, held_out, count)
    run = sample(model, seeds=range(count), cond=cond, execution=Execution(batch_size=256))
    samples = model.transform.forward(model.decode(run.x.to(torch.float32)))
    numbers = training.sample_numbers(_KNOWN).sort().values
    known, new = training.batch(numbers), held_out.batch(_turns(count, held_out))
    extractor = default_extractor(known, transform=model.transform)
    spaces: list[tuple[str, Callable[[Tensor], Tensor]]] = [("pixels", lambda x: x)]
    if not isinstance(extractor, Identity):
        spaces.append((extractor.name.split()[0], extractor))
    references = [take(known) for _, take in spaces]
    rows = ("sample", *(f"in {name}" for name, _ in spaces))

    def show(x: Tensor, names: Sequence[str], caption: str) -> str:
        distance = nearest_neighbours(x, known)[0]
        chosen = distance.argsort()[:_CLOSEST]
        found = [nearest_neighbours(take(x[chosen]), r)[1] for (_, take), r in zip(spaces, references, strict=True)]
        drawn = torch.cat([x[chosen], *(known[each] for each in found)])
        text = f"{caption}; distances in pixels {float(distance[chosen[0]]):.3g} to {float(distance[chosen[-1]]):.3g}"
        return _picture(picture(model.transform.inverse(drawn), model.transform, len(chosen), names=names), text)

    return _section(
        "Nearest training items",
        f"Of {count} samples the {min(_CLOSEST, count)} that are closest to the training data, each above the training "
        f"item that is nearest to it ({', '.join(name for name, _ in spaces)}). Beside them the same of held-out data, "
        "which no model has copied: samples that resemble their neighbours more than these do are copies.",
        show(samples, rows, f"of samples, seeds 0 to {count - 1}"),
        show(new, ("held out", *rows[1:]), f"of {count} held-out items"),
    )


def _subset(data: DataSet, count: int, names: Sequence[str]) -> tuple[Tensor, Cond | None]:
    # every k-th sample, so that sorted classes are all there
    places = torch.linspace(0, len(data) - 1, min(count, len(data)), dtype=torch.float32, device="cpu").round().long()
    return data.batch(places), data.cond(places, names)


def _loss_section(model: Model, training: DataSet, held_out: DataSet, noise: NoiseDistribution | None) -> str:
    names = [name for name in model.condition_names if name != "labels" or training.class_names]
    sigmas = data_scale(model) * torch.logspace(-2.5, 1.5, 17, dtype=torch.float64, device="cpu")
    sigmas = sigmas[(sigmas >= model.sigma_min) & (sigmas <= model.sigma_max)]
    seen, seen_cond = _subset(training, _LOSS_SAMPLES, names)
    new, new_cond = _subset(held_out, _LOSS_SAMPLES, names)
    known, known_cond = _subset(training, 20_000, names)
    ideal: Oracle | None = None if model.conditioning else FiniteData(known)  # given all of a sample, it knows which
    if known_cond is not None and ideal is not None:
        of_class = [known[known_cond["labels"] == c] for c in range(len(model.class_names))]
        # a class without data is not asked for
        ideal = ByClass([FiniteData(part if len(part) else known) for part in of_class])
    curves = {
        "held-out data": loss_by_sigma(model, new, new_cond, sigmas=sigmas),
        "training data": loss_by_sigma(model, seen, seen_cond, sigmas=sigmas, oracle=ideal),
    }
    figure = new_figure(6.6, 4.2)
    draw_loss_by_sigma(figure.subplots(), curves, noise)
    text = "Where the solid lines lie far below the dotted ones, the model has learnt something. "
    if ideal is not None:
        text += (
            "The dashed line is the denoiser that knows the training data by heart: a model that comes down to it "
            "where it falls copies them. "
        )
    text += "The gap between training and held-out data is what it has over-fitted."
    return _section("Loss by noise level", text, _picture(figure, "bands: ±2 standard errors"))


def _trajectory_section(model: Model, held_out: DataSet) -> str:
    few = math.prod(model.sample_shape) <= 2
    count = 256 if few else 3
    run = sample(
        model,
        seeds=range(count),
        cond=_drawn(model, held_out, count, step=3),  # classes that are not neighbours
        execution=Execution(batch_size=256, trajectory=True),
    )
    figure = trajectory_figure(run, model.transform)
    text = "The states x of samples on the way from σ_max to 0, and where they end."
    if not few:
        text = (
            "The state x (scaled to the range of the data) and the denoiser's answer D on the way from σ_max to 0. "
            "D is a blur, the mean of all that x may become, until the noise is low enough to decide."
        )
    return _section("On the way", text, _picture(figure, f"Heun, N = {run.num_steps}, NFE {run.nfe}"))


def _solver_section(model: Model, held_out: DataSet) -> str:
    seeds, sampler = range(8), REFERENCE_SAMPLER.with_num_steps(200)
    truth = reference(model, seeds=seeds, cond=_drawn(model, held_out, len(seeds)), sampler=sampler)
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
    return _section("What an evaluation buys", text, _picture(figure, "EDM steps, ρ = 7"))


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
    parts: dict[str, Callable[[], str]] = {
        "samples": lambda: _samples_section(model, held_out),
        "nearest training items": lambda: _neighbours_section(model, training, held_out),
        "loss by noise level": lambda: _loss_section(model, training, held_out, noise),
        "trajectories": lambda: _trajectory_section(model, held_out),
        "solver error": lambda: _solver_section(model, held_out),
    }
    if not is_image(model.sample_shape):
        del parts["nearest training items"]
    sections = []
    for name, make in parts.items():
        progress(name)
        sections.append(make())
    text = (
        "Each score stands beside that of as many real items, with standard errors. The floor is the value from which "
        "on samples are called worse than real data; if they are not, that happens to each score in 5 % of cases."
    )
    sections.insert(1, _section("Scores", text, _table(headings, scores)))
    parameters = sum(p.numel() for p in model.parameters())
    shape = "×".join(map(str, model.sample_shape))
    notes = [
        f"{name}: {f'{v:,}' if isinstance(v, int) else v}" for name, v in model.notes.items() if not isinstance(v, dict)
    ]
    facts = f"{parameters:,} parameters, samples of {shape}, {len(training)} training and {len(held_out)} held-out"
    title, below = (
        html.escape(f"diffspace: {model.notes.get('data', 'model')}"),
        html.escape(", ".join([facts, *notes])),
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_CSS}</style></head>\n'
        f'<body><h1>{title}</h1><p class="facts">{below}</p>\n{"".join(sections)}\n</body></html>\n'
    )


def _picture(source: Figure | np.ndarray, caption: str) -> str:
    """A figure, or a picture, with a caption below."""
    png = io.BytesIO()
    if isinstance(source, Figure):
        source.savefig(png, format="png", dpi=160)
    else:
        save_image(png, source)
    kind = "" if isinstance(source, Figure) else ' class="pixels"'
    uri = "data:image/png;base64," + base64.b64encode(png.getvalue()).decode("ascii")
    text = html.escape(caption)
    return f'<figure{kind}><img src="{uri}" alt="{text}"><figcaption>{text}</figcaption></figure>'


def _table(headings: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows of text under headings; the first column names, the last one may explain."""
    head = "".join(f"<th>{html.escape(heading)}</th>" for heading in headings)
    body = []
    for row in rows:
        bad = " bad" if row[-1].startswith(_BAD) else ""
        kinds = ["", *[' class="num"'] * (len(row) - 2), f' class="note{bad}"']
        cells = (f"<td{kind}>{html.escape(cell)}</td>" for kind, cell in zip(kinds, row, strict=True))
        body.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table><tr>{head}</tr>{''.join(body)}</table>"


def _section(title: str, text: str, *parts: str) -> str:
    """A heading, a paragraph, and pictures or tables side by side."""
    head = f"<h2>{html.escape(title)}</h2><p>{html.escape(text)}</p>"
    return f'{head}<div class="parts">{"".join(parts)}</div>'
