"""The article's figures of flow lines: the strange process, the same lines under many schedules, tangents, steps."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffspace._shapes import Tensor
from diffspace.figures.article.entry import Animation, Entry, Picture, Subject
from diffspace.figures.style import DASHES, theme, tidy
from diffspace.studies import (
    FlowLines,
    ScheduledLines,
    Tangents,
    between,
    flow_lines,
    lines_under,
    octave_errors,
    processes,
    strange_process,
    tangents,
)
from diffspace.studies.problems import log_space

_LEVELS = (0.002, 80.0)
_SHOWN = 25.0  # the noise level up to which the paper's Figure 3 shows flow lines
_HOLD, _MORPH = 16, 12  # frames that a schedule stands still, and on the way to the next


def draw_density(ax: Axes, t_max: float, reach: float, density: Tensor) -> None:
    """p_t(x) as shades over t and x, each time on the scale of its own greatest value: noise is seen beside data."""
    shade = (density / density.amax(1, keepdim=True)).sqrt()
    extent = (0.0, t_max, -reach, reach)
    ax.imshow(
        shade.T.numpy(), cmap=theme().shades, extent=extent, origin="lower", aspect="auto", interpolation="bilinear"
    )
    ax.set_xlim(0, t_max)
    ax.set_ylim(-reach, reach)


def draw_flow_lines(ax: Axes, lines: FlowLines) -> None:
    """Flow lines over p_t(x), data on the left, as in the article's "strange" process."""
    draw_density(ax, float(lines.t[0]), lines.reach, lines.density)
    ax.plot(lines.t.numpy(), lines.x.numpy(), color=theme().ink, lw=0.7, alpha=0.85)
    ax.set_xlabel("$t$")
    ax.set_ylabel("$x_t$")


def draw_coefficients(ax: Axes, lines: FlowLines) -> None:
    """σ(t), s(t) and the standard deviation s·σ of the perturbation kernel N(s·x₀, s²σ²·I)."""
    order = lines.t.argsort()
    t, sigma, s = (values[order].numpy() for values in (lines.t, lines.sigma, lines.s))
    for number, (values, name) in enumerate(
        [(sigma, r"$\sigma(t)$"), (s, "$s(t)$"), (s * sigma, r"$s(t)\,\sigma(t)$")]
    ):
        ax.plot(t, values, color=theme().palette[number], ls=DASHES[number], label=name)
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


def draw_scheduled(ax: Axes, lines: ScheduledLines) -> None:
    """Flow lines over p_t(x) in the process's own time."""
    t = torch.linspace(0, lines.t_max, len(lines.sigma), dtype=torch.float64, device="cpu")
    draw_density(ax, lines.t_max, lines.reach, lines.density)
    ax.plot(t.numpy(), lines.x.numpy(), color=theme().ink, lw=0.6, alpha=0.85)


def _schedules(subject: Subject) -> Picture:
    known = processes()
    shown = {
        name: lines_under(subject.data, process, process.sigma_inv(_SHOWN)) for name, (process, _) in known.items()
    }
    near = {name: lines_under(subject.data, process, process.sigma_inv(1.0)) for name, (process, _) in known.items()}
    order = list(shown)

    def draw(figure: Figure) -> None:
        axes = figure.subplots(2, len(order))
        for (above, below), name in zip(axes.T, order, strict=True):
            draw_scheduled(above, shown[name])
            draw_scheduled(below, near[name])
            above.set_title(f"{name}\nbent by {100 * shown[name].deviation:.2g} %", fontsize=8)
            below.set_xlabel("$t$", labelpad=1)
            for ax in (above, below):
                ax.tick_params(labelsize=6.5, pad=2)
                ax.locator_params(axis="x", nbins=3)
                ax.locator_params(axis="y", nbins=5)
        axes[0, 0].set_ylabel(rf"$x_t$, up to $\sigma = {_SHOWN:g}$")
        axes[1, 0].set_ylabel(r"$x_t$, up to $\sigma = 1$")

    stops = list(zip(order, order[1:] + order[:1], strict=True))
    frames = len(stops) * (_HOLD + _MORPH)

    def draw_frame(figure: Figure, k: int) -> None:
        stop, place = divmod(k, _HOLD + _MORPH)
        here, there = stops[stop]
        share = max(0.0, (place - _HOLD + 1) / _MORPH)
        smooth = share * share * (3 - 2 * share)
        (process, _), (other, _) = known[here], known[there]
        shown = between(process, process.sigma_inv(_SHOWN), other, other.sigma_inv(_SHOWN), smooth)
        lines = lines_under(subject.data, *shown, columns=120, rows=120)
        figure.set_layout_engine("none")  # which would take most of the time
        ax = figure.add_axes((0.09, 0.14, 0.89, 0.77))
        draw_scheduled(ax, lines)
        ax.set_xlabel("$t$")
        ax.set_ylabel("$x_t$")
        ax.set_title(here if share == 0 else there if share == 1 else f"{here} → {there}", loc="left")

    text = (
        f"The same data and latents under five schedules, up to σ = {_SHOWN:g} and, below, near the data, over the "
        "density p_t(x). Bent by: the RMS distance of the lines from straight ones, as a part of the way that they go."
    )
    tables = {name.replace(" ", "-").lower(): lines.columns() for name, lines in shown.items()}
    return Picture(draw, tables, 3.2, text, animation=Animation(frames, draw_frame, 3.4))


def draw_tangents(ax: Axes, found: Tangents) -> None:
    """Lines under σ = t with tangents that meet σ = 0 at the denoiser's output."""
    ax.plot(found.sigma.numpy(), found.x.numpy(), color=theme().ink, lw=0.9)
    for k, level in enumerate(found.at.tolist()):
        colour = theme().palette[k % len(theme().palette)]
        for x, denoised in zip(found.x_at[k].tolist(), found.denoised[k].tolist(), strict=True):
            ax.plot([level, 0], [x, denoised], color=colour, lw=0.8, ls="--")
            ax.plot(level, x, "o", ms=2.6, color=colour)
            ax.plot(0, denoised, "o", ms=3, color=colour, mfc=theme().paper, mew=0.9, clip_on=False, zorder=4)
    ax.set_xlim(0, float(found.sigma[-1]))
    ax.set_xlabel(r"$t = \sigma$")
    ax.set_ylabel("$x$")
    ax.set_title(r"tangents point to $D(x;\,\sigma)$", loc="left", fontsize=8.5)
    ax.spines[["top", "right"]].set_visible(False)


def draw_curvature(ax: Axes, levels: Tensor, errors: Mapping[str, Tensor]) -> None:
    """The error of an Euler step from σ to σ/2 over σ, in units of the data, for each schedule."""
    for k, (name, values) in enumerate(errors.items()):
        ax.plot(levels.numpy(), values.numpy(), color=theme().palette[k], ls=DASHES[k], label=name)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(float(levels[0]), float(levels[-1]))
    ax.set_xlabel(r"noise level $\sigma$")
    ax.set_title(r"error of an Euler step $\sigma \to \sigma/2$", loc="left", fontsize=8.5)
    ax.legend(loc="best", fontsize=6.5)
    tidy(ax)


def _tangents(subject: Subject) -> Picture:
    found, levels = tangents(subject.data), log_space(*_LEVELS, 61)
    known = dict(processes())
    if subject.process is not None:
        known["yours"] = (subject.process, subject.t_max or 1.0)
    errors = {name: octave_errors(subject.data, process, levels) for name, (process, _) in known.items()}

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, width_ratios=[1.15, 1])
        draw_tangents(left, found)
        draw_curvature(right, levels, errors)

    text = (
        "Left: with σ(t) = t, s(t) = 1 a tangent of a flow line meets t = 0 at the denoiser's output, which changes "
        "slowly with σ, so that the line is nearly straight. Right: how curved lines are over σ, as the error of one "
        "step of Euler's method from σ to σ/2 in the time of each schedule (RMS, unscaled). Above the width of modes "
        "EDM's and rectified flow's steps, which are the same, and those of VP are best; below it lines are smooth in "
        "σ², the clock of VE, but there all errors are small."
    )
    table = {"sigma": levels.tolist(), **{name: values.tolist() for name, values in errors.items()}}
    return Picture(draw, {"curvature": table}, 2.9, text)


ENTRIES = (
    Entry("strange", "A strange process that works", "article §1", _strange, ("--sigma", "--s", "--t-max")),
    Entry("schedules", "Flow lines under many schedules", "article §2; paper, Figure 3", _schedules),
    Entry("tangents", "Tangents and curvature", "article §2", _tangents),
)
