"""The article's figures of flow lines: the strange process, the same lines under many schedules, tangents, steps."""

from __future__ import annotations

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffspace._shapes import Tensor
from diffspace.figures.article.entry import Entry, Picture, Subject
from diffspace.figures.style import theme, tidy
from diffspace.studies import FlowLines, ScheduledLines, flow_lines, strange_process

_LEVELS = (0.002, 80.0)
_SHOWN = 25.0  # the noise level up to which the paper's Figure 3 shows flow lines
_HOLD, _MORPH = 14, 18  # frames that a schedule stands still, and on the way to the next


def draw_density(ax: Axes, t: Tensor, positions: Tensor, density: Tensor) -> None:
    """p_t(x) as shades, each column on the scale of its own greatest value, so that noise is seen beside data."""
    shade = density / density.amax(1, keepdim=True)
    times = t[:, None].expand_as(positions)
    ax.pcolormesh(
        times.numpy(), positions.numpy(), shade.sqrt().numpy(), cmap=theme().shades, shading="gouraud", rasterized=True
    )


def draw_flow_lines(ax: Axes, lines: FlowLines) -> None:
    """Flow lines over p_t(x), data on the left, as in the article's "strange" process."""
    draw_density(ax, lines.at, lines.positions, lines.density)
    ax.plot(lines.t.numpy(), lines.x.numpy(), color=theme().ink, lw=0.7, alpha=0.85)
    ax.set_xlim(0, float(lines.t[0]))
    reach = 1.1 * float(lines.x.abs().max())
    ax.set_ylim(-reach, reach)
    ax.set_xlabel("$t$")
    ax.set_ylabel("$x_t$")


def draw_coefficients(ax: Axes, lines: FlowLines) -> None:
    """σ(t), s(t) and the standard deviation s·σ of the perturbation kernel N(s·x₀, s²σ²·I)."""
    order = lines.t.argsort()
    t, sigma, s = (values[order].numpy() for values in (lines.t, lines.sigma, lines.s))
    for number, (values, name) in enumerate(
        [(sigma, r"$\sigma(t)$"), (s, "$s(t)$"), (s * sigma, r"$s(t)\,\sigma(t)$")]
    ):
        ax.plot(t, values, color=theme().palette[number], ls=("-", "--", ":")[number], label=name)
    ax.set_xlim(0, float(t[-1]))
    ax.set_ylim(bottom=0)
    ax.legend(loc="upper left")
    tidy(ax)


def draw_drift(ax: Axes, lines: FlowLines) -> None:
    """f(t) and g(t) of dx = f·x dt + g dω; g is not real where σ falls."""
    t = lines.at.numpy()
    ax.plot(t, lines.f.numpy(), color=theme().palette[0], label="$f(t)$")
    ax.plot(t, lines.g.numpy(), color=theme().palette[1], ls="--", label="$g(t)$")
    ax.axhline(0, color=theme().gray, lw=0.6)
    finite = torch.cat([lines.f, lines.g])
    bound = float(finite[torch.isfinite(finite)].abs().quantile(0.97)) * 1.3
    ax.set_ylim(-bound, bound)
    ax.set_xlim(0, float(t[-1]))
    ax.set_xlabel("$t$")
    ax.legend(loc="lower right")
    tidy(ax)


def _strange(subject: Subject) -> Picture:
    process, t_max = subject.process or strange_process(), subject.t_max or 1.0
    lines = flow_lines(subject.data, process, t_max)

    def draw(figure: Figure) -> None:
        grid = figure.add_gridspec(2, 2, width_ratios=[1.7, 1])
        draw_flow_lines(figure.add_subplot(grid[:, 0]), lines)
        above = figure.add_subplot(grid[0, 1])
        draw_coefficients(above, lines)
        above.tick_params(labelbottom=False)
        draw_drift(figure.add_subplot(grid[1, 1]), lines)

    text = (
        "Flow lines of the probability-flow ODE for an unusual σ(t), s(t), over the density p_t(x): however they "
        "swing, they end at the data. Right: σ, s and the standard deviation sσ of the perturbation kernel "
        "N(s·x₀, s²σ²I); f and g of the same process, where g is not real while σ falls."
    )
    table = {"t": lines.at.tolist(), "f": lines.f.tolist(), "g": lines.g.tolist()}
    return Picture(draw, {"lines": lines.columns(), "coefficients": table}, 3.0, text)


def draw_scheduled(ax: Axes, lines: ScheduledLines, *, t_max: float | None = None) -> None:
    """Flow lines over p_t(x) in the process's own time."""
    t = torch.linspace(0, lines.t_max, len(lines.sigma), dtype=torch.float64, device="cpu")
    draw_density(ax, t, lines.positions, lines.density)
    ax.plot(t.numpy(), lines.x.numpy(), color=theme().ink, lw=0.6, alpha=0.85)
    ax.set_xlim(0, lines.t_max)
    reach = 1.08 * float(lines.x.abs().max())
    ax.set_ylim(-reach, reach)


ENTRIES = (Entry("strange", "A strange process that works", "article §1", _strange, ("--sigma", "--s", "--t-max")),)
