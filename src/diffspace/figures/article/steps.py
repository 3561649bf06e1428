"""The article's figures of steps: Heun against Euler, where the steps are put, and the errors that they make."""

from __future__ import annotations

from typing import Any, cast

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffspace._shapes import Tensor
from diffspace.data import named_oracle
from diffspace.figures.article.entry import Entry, Picture, Subject, Table
from diffspace.figures.style import DASHES, plain, theme, tidy
from diffspace.oracles import GaussianMixture
from diffspace.preconditioning import EDMPreconditioning
from diffspace.sampling import EDMSteps, initial_latents
from diffspace.studies import (
    SOLVERS,
    LocalErrors,
    OneStep,
    SteppedLines,
    StepSizes,
    TruncationErrors,
    even_levels,
    local_errors,
    one_step,
    step_sizes,
    stepped_lines,
    train_small,
    truncation_errors,
)

_SIGMA_MAX = 80.0
_NOTE: Any = {"textcoords": "offset points", "fontsize": 7.5}
_BESIDE: Any = {**_NOTE, "ha": "right", "va": "center"}


def _solver_style(name: str) -> dict[str, Any]:
    """Euler's and Heun's colour, dash and marker, the same in all figures here."""
    return {"color": theme().palette[name != "Heun"], "ls": "-" if name == "Heun" else "--"}


def draw_one_step(ax: Axes, step: OneStep) -> None:
    """A step of Euler's and of Heun's method on a flow line, with the slopes of Algorithm 1; data on the left."""
    low, high, reach = step.sigma - step.h, step.sigma, 0.16 * step.h
    euler, heun, slope = _solver_style("Euler"), _solver_style("Heun"), theme().palette[2]
    trial = [step.euler - reach * step.trial_slope, step.euler + reach * step.trial_slope]
    ax.plot(step.fine.numpy(), step.exact.numpy(), color=theme().gray, lw=3, alpha=0.6)
    ax.plot([high, low], [step.start, step.euler], **euler)
    ax.plot([low - reach, low + reach], trial, color=slope, ls=":", lw=2.2)
    ax.plot([high, low], [step.start, step.heun], **heun)
    for shift, x, style in ((0.4, step.euler, euler), (0.13, step.heun, heun)):
        ax.plot(low, x, "o", ms=5.5, color=style["color"], zorder=4)
        place = low - shift * step.h
        ax.plot([place, place], [step.end, x], marker="_", ms=6, lw=1, color=style["color"])
        text = f"error\n{abs(x - step.end):.3f}"
        ax.annotate(text, (place, (step.end + x) / 2), (-4, 0), color=style["color"], **_BESIDE)
    ax.plot([high, low], [step.start, step.end], "o", ms=5.5, color=theme().ink, zorder=4)
    middle, ink = (low + high) / 2, theme().ink
    above, below = (step.start + step.euler) / 2, (step.start + step.heun) / 2
    for text, at, shift_by, colour in (
        ("$x_i$", (high, step.start), (2, 6), ink),
        ("Euler's end,\nHeun's trial point", (low, step.euler), (-72, 8), euler["color"]),
        ("Heun's end", (low, step.heun), (9, -11), heun["color"]),
        ("exact end", (low, step.end), (9, -5), ink),
        ("tangent, slope $d_i$", (middle, above), (6, 5), euler["color"]),
        (r"slope $d_i^{\prime}$ there", (low + reach, trial[1]), (5, -3), slope),
        (r"mean slope $\frac{1}{2}\,(d_i + d_i^{\prime})$", (middle, below), (-4, -14), heun["color"]),
    ):
        ax.annotate(text, at, shift_by, color=colour, **_NOTE)
    ax.set_xlim(low - 0.62 * step.h, high + 0.14 * step.h)
    ax.margins(y=0.1)
    ax.set_xticks([low, high], ["$t_{i+1}$", "$t_i$"])
    ax.set_ylabel("$x$")
    ax.set_title("one step, and its errors")
    tidy(ax)


def draw_local_errors(ax: Axes, errors: LocalErrors, step: float | None = None) -> None:
    """Local errors over h on logarithmic axes, with fitted slopes; `step` marks one h."""
    middle = len(errors.h) // 2
    for name, error in errors.errors.items():
        style = _solver_style(name)
        ax.loglog(errors.h.numpy(), error.numpy(), **style, marker="o", ms=3)
        above = name == "Euler"
        place: Any = {"ha": "right", "va": "bottom"} if above else {"ha": "left", "va": "top"}
        text = f"{name}\nslope {errors.slopes[name]:.2f}"
        at = float(errors.h[middle]), float(error[middle])
        ax.annotate(text, at, (-4, 4) if above else (5, -4), color=style["color"], **place, **_NOTE)
    if step is not None:
        ax.axvline(step, color=theme().gray, lw=0.9, ls=":")
        ax.annotate("the step\non the left", (step, 0.04), (-3, 0), ax.get_xaxis_transform(), ha="right", **_NOTE)
    ax.set_xlabel("$h = t_i - t_{i+1}$")
    ax.set_title("local error of one step")
    tidy(ax)


def _heun_step(subject: Subject) -> Picture:
    step, errors = one_step(subject.data), local_errors(subject.data)

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, width_ratios=[1.7, 1])
        draw_one_step(left, step)
        draw_local_errors(right, errors, step.h)

    text = (
        "Euler's method follows the tangent of the flow line for the whole step; Heun's method takes that end as a "
        "trial point, and repeats the step with the mean of the slopes at both ends. Right: the error of one step over "
        f"its size. Halving the step divides it by {2 ** errors.slopes['Euler']:.1f} for Euler's method and by "
        f"{2 ** errors.slopes['Heun']:.1f} for Heun's: orders 1 and 2."
    )
    return Picture(draw, {"step": step.columns(), "errors": errors.columns()}, 3.0, text)


def draw_levels(ax: Axes, steps: StepSizes) -> None:
    """σ_i over i for each ρ, on a logarithmic axis; the last, σ_N = 0, has no place on it."""
    for k, rho in enumerate(steps.rhos):
        levels = steps.sigma[k, :-1].numpy()
        ax.semilogy(levels, color=theme().palette[k], ls=DASHES[k], marker="o", ms=2.5, label=rf"$\rho = {rho:g}$")
    ax.set_xlabel("$i$")
    ax.set_title(r"noise levels $\sigma_i$")
    ax.legend()
    tidy(ax)


def draw_sizes(ax: Axes, steps: StepSizes) -> None:
    """The sizes of the steps over where they begin, but for the last one, which leads from σ_min to 0."""
    for k, sizes in enumerate(steps.sizes):
        style: Any = {"color": theme().palette[k], "ls": DASHES[k], "marker": "o", "ms": 2.5}
        ax.loglog(steps.sigma[k, :-2].numpy(), sizes[:-1].numpy(), **style)
    ax.axline((1, 1), (10, 10), color=theme().gray, lw=0.9)
    ax.annotate("to 0 in one step", (0.5, 0.5), (-5, 0), **_BESIDE)
    ax.set_xlabel(r"$\sigma_i$")
    ax.set_title(r"step sizes $\sigma_i - \sigma_{i+1}$")
    tidy(ax)


def _step_sizes(subject: Subject) -> Picture:
    steps = step_sizes()

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        draw_levels(left, steps)
        draw_sizes(right, steps)

    text = (
        "The noise levels of Eq. 5 for N = 18, σ_max = 80, σ_min = 0.002, and the sizes of the steps between them. "
        "ρ = 1 makes equal steps, all but one of which end above σ = 4; a larger ρ makes steps that shrink with σ, "
        "with ρ → ∞ in proportion to it. The paper samples with ρ = 7."
    )
    return Picture(draw, {"": steps.columns()}, 2.8, text)


def draw_stepped(ax: Axes, lines: SteppedLines, solver: str) -> None:
    """A solver's states, joined by its straight steps, over the exact flow lines, with the error of the ends."""
    ax.plot(lines.fine.numpy(), lines.exact.numpy(), color=theme().gray, lw=1.6, alpha=0.6)
    ax.plot(lines.sigma.numpy(), lines.x.numpy(), **_solver_style(solver) | {"ls": "-"}, lw=0.9, marker="o", ms=2.2)
    ax.set_title(f"RMS error {lines.error:.3f}", loc="right", fontsize=8)
    tidy(ax)


def _lines_table(sigma: Tensor, x: Tensor) -> Table:
    """σ, and x of each line there."""
    return {"sigma": sigma.tolist()} | {f"x_{k}": x[:, k].tolist() for k in range(x.shape[1])}


def _steps_on_lines(subject: Subject) -> Picture:
    made = {
        (name, kind): stepped_lines(subject.data, levels, solver=SOLVERS[name])
        for name, n in (("Euler", 35), ("Heun", 18))
        for kind, levels in (
            ("uniform", even_levels(n, _SIGMA_MAX)),
            ("EDM", EDMSteps(n, 0.002, _SIGMA_MAX).sigmas().tolist()),
        )
    }

    def draw(figure: Figure) -> None:
        axes = figure.subplots(2, 2, sharex=True, sharey=True)
        for ax, ((name, kind), lines) in zip(axes.flat, made.items(), strict=True):
            draw_stepped(ax, lines, name)
            ax.set_title(f"{name}, {kind} steps", loc="left")
        axes[0, 0].set(xlim=(-0.06, 5), ylim=(-3.3, 3.3))
        for ax in axes[:, 0]:
            ax.set_ylabel("$x$")
        for ax in axes[1]:
            ax.set_xlabel(r"$\sigma$")

    text = (
        "Steps from σ_max = 80 on the flow lines of a 1-D mixture, near their end; all four take 35 evaluations, in "
        "N = 35 steps of Euler's method and N = 18 of Heun's. Exact lines are gray: straight where σ is large, bent "
        "where it is small. Uniform steps spend nearly all evaluations beyond the right edge, and leave one or two for "
        "the bends; EDM steps (ρ = 7) spend them there."
    )
    exact = next(iter(made.values()))
    tables: dict[str, Table] = {"exact": _lines_table(exact.fine, exact.exact)}
    tables |= {f"{name}-{kind}".lower(): _lines_table(lines.sigma, lines.x) for (name, kind), lines in made.items()}
    rms: Table = {"steps": [" ".join(key) for key in made], "rms_error": [lines.error for lines in made.values()]}
    return Picture(draw, tables | {"errors": rms}, 4.3, text)


def draw_truncation(ax: Axes, errors: TruncationErrors, solver: str) -> None:
    """The RMS error of one step over where it begins, for each ρ."""
    for k, rho in enumerate(errors.rhos):
        style: Any = {"color": theme().palette[k], "ls": DASHES[k], "marker": "o", "ms": 2.2, "lw": 1.2}
        ax.loglog(errors.sigma[k].numpy(), errors.errors[solver][k].numpy(), **style, label=rf"$\rho = {rho:g}$")
    tidy(ax)


def _network_errors(subject: Subject, data: GaussianMixture) -> TruncationErrors:
    """The errors of steps with the subject's model, of random classes where it has any, else with a new network."""
    model, cond = subject.model, None
    if model is None:
        preconditioning = EDMPreconditioning(data.sigma_data or 0.5)
        trained = train_small(data, preconditioning, steps=600, shares=(1.0,), progress=subject.progress).trained
        return truncation_errors(trained, initial_latents(range(64), data.sample_shape))
    if model.class_names:
        cond = {"labels": model.random_labels(range(16))}
    return truncation_errors(model, initial_latents(range(16), model.sample_shape), cond=cond)


def _truncation(subject: Subject) -> Picture:
    data = cast(GaussianMixture, named_oracle("mixture"))
    subject.progress("truncation errors of an exact denoiser")
    oracle = truncation_errors(data, initial_latents(range(64), data.sample_shape))
    subject.progress("truncation errors of a network")
    network = _network_errors(subject, data)
    names = "exact denoiser", plain(subject.model_name) or "trained network"

    def draw(figure: Figure) -> None:
        axes = figure.subplots(2, 2, sharex=True, sharey="row", height_ratios=[1, 1.3])
        for row, solver in zip(axes, SOLVERS, strict=True):
            for ax, errors in zip(row, (oracle, network), strict=True):
                draw_truncation(ax, errors, solver)
            row[0].set_ylabel(f"RMS error, {solver}")
        for ax, name in zip(axes[0], names, strict=True):
            ax.set_title(name)
        for ax in axes[1]:
            ax.set_xlabel(r"$\sigma_i$")
        axes[0, 0].legend(loc="lower center")

    text = (
        "RMS error of one step from σ_i to σ_{i+1}, N = 18, where each step begins on the exact trajectory. Left: the "
        "exact denoiser of ten Gaussians fitted to digits; right: a network. Errors are largest where flow lines bend, "
        "near the standard deviation of the data. Equal steps (ρ = 1) make nearly all of their error in the last one "
        "shown; the larger ρ, the more of it moves from low σ to high σ. At low σ a network is less smooth than the "
        "exact denoiser, which Heun's method shows."
    )
    tables = {"oracle": oracle.columns(), "network": network.columns()}
    return Picture(draw, tables, 4.8, text)


ENTRIES = (
    Entry("heun-step", "One step of Euler's and of Heun's method", "article §2, improvement 1", _heun_step),
    Entry("step-sizes", "Noise levels and step sizes", "article §2, improvement 2", _step_sizes),
    Entry("steps-on-lines", "Uniform and EDM steps on flow lines", "article §2, improvement 2", _steps_on_lines),
    Entry("truncation-error", "Truncation error over σ", "paper D.1, Figure 13", _truncation, ("--model",)),
)
