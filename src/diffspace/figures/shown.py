"""The pictures and tables that notebooks show of results."""

from __future__ import annotations

import base64
import functools
import html
import io
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from diffspace.figures.article.entry import Picture
from diffspace.figures.errors import draw_pareto
from diffspace.figures.samples import is_image, picture, samples_figure
from diffspace.figures.style import new_figure
from diffspace.metrics import Scores
from diffspace.metrics.evaluation import Row
from diffspace.model import Model
from diffspace.sampling import Samples
from diffspace.solverlab import SolverComparison
from diffspace.transform import Transform

_MOST = 100  # images in a grid


@functools.singledispatch
def shown(value: Any) -> Figure | str:
    """The figure of a result, or its table as text."""
    raise TypeError(f"value: nothing is known to be shown of {type(value).__name__}")


@shown.register
def _(value: Samples) -> Figure:
    transform = value.transform if isinstance(value.transform, Transform) else Transform()
    raw = transform.inverse(value.x.detach().to("cpu"))
    if not is_image(raw.shape[1:]):
        return samples_figure(raw, transform)
    pixels = picture(raw[:_MOST], transform)
    height, width = pixels.shape[:2]
    figure = new_figure(4.5, 4.5 * height / width)
    figure.set_layout_engine("none")
    ax = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    ax.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    ax.set_axis_off()
    return figure


@shown.register
def _(value: SolverComparison) -> Figure:
    figure = new_figure(8, 4.6)
    draw_pareto(figure.subplots(), value)
    return figure


@shown.register
def _(value: Picture) -> Figure:
    figure = new_figure(value.width, value.height)
    value.draw(figure)
    return figure


@shown.register
def _(value: Model) -> str:
    return _as_text(_facts(value))


@shown.register
def _(value: Scores) -> str:
    return _as_text([("", "samples", "real data", ""), *map(_words, value.rows())])


def as_html(value: Any) -> str:
    """The figure of a result as a PNG within HTML, or its table."""
    if isinstance(value, Model):
        return _as_table(_facts(value))
    if isinstance(value, Scores):
        return _as_table([_words(row) for row in value.rows()], ("", "samples", "real data", ""))
    found = shown(value)
    if isinstance(found, str):
        return f"<pre>{html.escape(found)}</pre>"
    data = io.BytesIO()
    found.savefig(data, format="png")
    width, height = (round(110 * size) for size in found.get_size_inches())
    code = base64.b64encode(data.getvalue()).decode()
    facts = html.escape(_caption(value))
    return f'<img width="{width}" height="{height}" src="data:image/png;base64,{code}"><br><small>{facts}</small>'


def _caption(value: Any) -> str:
    if isinstance(value, Samples):
        shape = "×".join(map(str, value.x.shape[1:]))
        count = f"{len(value.x)} samples of {shape}"
        first = f"the first {_MOST} of " if is_image(value.x.shape[1:]) and len(value.x) > _MOST else ""
        return f"{first}{count}, {value.num_steps} steps, NFE {value.nfe}"
    if isinstance(value, SolverComparison):
        return f"{value.samples} samples; the end points are known to {value.reference_error.rms:.1e} (RMS)"
    return value.caption if isinstance(value, Picture) else ""


def _facts(model: Model) -> list[tuple[str, str]]:
    network = model.denoiser.network
    low, high = model.sampling_range or (model.sigma_min, model.sigma_max)
    count = sum(p.numel() for p in network.parameters())
    return [
        ("network", f"{type(network).__name__}, {count:,} parameters"),
        ("preconditioning", type(model.denoiser.preconditioning).__name__),
        ("a sample", "×".join(map(str, model.sample_shape))),
        ("σ range of sampling", f"{low:g} to {high:g}"),
        ("σ_data", "unknown" if model.sigma_data is None else f"{model.sigma_data:g}"),
        ("classes", ", ".join(model.class_names) or "none"),
        *((f"condition {name!r}", str(condition)) for name, condition in model.conditioning.items()),
        ("data", str(model.notes.get("data", "unknown"))),
    ]


def _words(row: Row) -> tuple[str, ...]:
    return row.name, row.value, row.reference, row.note


def _as_text(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _as_table(rows: Sequence[Sequence[str]], heading: Sequence[str] = ()) -> str:
    cells = "".join(f"<th>{html.escape(cell)}</th>" for cell in heading)
    lines = [f"<tr>{cells}</tr>"] if heading else []
    lines += ["<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    return f"<table>{''.join(lines)}</table>"
