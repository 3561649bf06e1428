"""The article's figures of preconditioning and training: coefficients, variances, predictions, loss by noise level."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffspace._shapes import Tensor
from diffspace.figures.article.entry import Entry, Picture, Subject, Table
from diffspace.figures.style import theme, tidy
from diffspace.studies.coefficients import (
    COLUMNS,
    CoefficientCurves,
    TargetCurves,
    coefficient_curves,
    column,
    predictions,
    target_curves,
)
from diffspace.studies.problems import log_space

_LOW, _HIGH, _LEVELS = 0.002, 100.0, 241
_SIGMA = r"$\sigma$"
# columns that coincide are drawn over each other, the wider ones below
_STYLES: dict[str, dict[str, Any]] = {
    "VP": {"lw": 3.2, "alpha": 0.55},
    "VE": {"lw": 1.8, "ls": (0, (4, 2))},
    "EDM": {"lw": 1.8},
    "iDDPM": {"lw": 1.6, "ls": (0, (1, 1.6))},
}
_EDM_STYLES: tuple[tuple[int, dict[str, Any]], ...] = (
    (2, _STYLES["EDM"]),
    (4, {"lw": 1.4, "ls": (0, (6, 1.2, 1, 1.2))}),
    (5, {"lw": 1.4, "ls": (0, (3, 1))}),
)
_PREDICTIONS: dict[str, dict[str, Any]] = {
    "ε": {"lw": 2.4, "alpha": 0.7},
    "VE": {"lw": 1.5, "ls": (0, (4, 2))},
    "EDM": {"lw": 1.8},
    "v": {"lw": 1.5, "ls": (0, (5, 1.5, 1, 1.5))},
    "x₀": {"lw": 1.5, "ls": (0, (1, 1.4))},
    "flow": {"lw": 1.5, "ls": (0, (3, 1.2))},
}
_NAMES = {
    "ε": r"$\varepsilon$: VP, iDDPM",
    "VE": r"$-\varepsilon$: VE",
    "v": "$v$",
    "x₀": "$x_0$",
    "flow": r"flow: $\varepsilon - x_0$",
}


def _name(sigma_data: float) -> str:
    return rf"$\sigma_\mathrm{{data}} = {sigma_data:g}$"


def _over_sigma(ax: Axes, title: str) -> None:
    ax.set_xscale("log")
    ax.set_xlim(_LOW, _HIGH)
    ax.set_xticks([0.01, 0.1, 1, 10, 100], ["0.01", "0.1", "1", "10", "100"])
    ax.set_xticks([], minor=True)
    ax.set_title(title)
    tidy(ax)


def draw_coefficient(ax: Axes, curves: Mapping[str, CoefficientCurves], which: str, title: str) -> None:
    """One of the four functions of Eq. 7 over σ, a line for each column of Table 1; those of EDM for several σ_data."""
    styles = iter(_EDM_STYLES)
    for name, curve in curves.items():
        place, style = (list(_STYLES).index(name), _STYLES[name]) if name in _STYLES else next(styles)
        values = getattr(curve, which).abs() if which == "c_out" else getattr(curve, which)
        ax.plot(curve.sigma.numpy(), values.numpy(), color=theme().palette[place], label=name, **style)
    _over_sigma(ax, title)


def _few(sigma_data: Sequence[float]) -> Sequence[float]:
    if len(sigma_data) > len(_EDM_STYLES):
        raise ValueError(f"sigma_data: expected at most {len(_EDM_STYLES)} values, got {len(sigma_data)}")
    return sigma_data


def _preconditioning(subject: Subject) -> Picture:
    sigma = log_space(_LOW, _HIGH, _LEVELS)
    curves = {name: coefficient_curves(column(name, 0.5), sigma) for name in COLUMNS if name != "EDM"}
    for value in _few(subject.sigma_data):
        curves[f"EDM, {_name(value)}"] = coefficient_curves(column("EDM", value), sigma)
    indices = {name: curves[name] for name in ("VP", "iDDPM")}
    logarithms = {name: curve for name, curve in curves.items() if name not in indices}

    def draw(figure: Figure) -> None:
        axes = figure.subplots(2, 3)
        draw_coefficient(axes[0, 0], curves, "c_skip", r"$c_\mathrm{skip}$")
        axes[0, 0].set_ylim(-0.04, 1.08)
        draw_coefficient(axes[0, 1], curves, "c_out", r"$|c_\mathrm{out}|$")
        draw_coefficient(axes[0, 2], curves, "c_in", r"$c_\mathrm{in}$")
        for ax in axes[0, 1:]:
            ax.set_yscale("log")
        for value in subject.sigma_data:
            axes[0, 1].axhline(value, color=theme().gray, lw=0.8, ls=":")
        draw_coefficient(axes[1, 0], logarithms, "c_noise", r"$c_\mathrm{noise}$: VE, EDM")
        draw_coefficient(axes[1, 1], indices, "c_noise", r"$c_\mathrm{noise}$: VP, iDDPM")
        for ax in axes[1, :2]:
            ax.set_xlabel(_SIGMA)
        axes[1, 2].set_axis_off()
        handles, labels = axes[0, 0].get_legend_handles_labels()
        axes[1, 2].legend(handles, labels, loc="center", frameon=False, handlelength=3.2, fontsize=8)

    text = (
        "The four functions of Eq. 7 over σ. With VP, VE and iDDPM the input is passed on whole (c_skip = 1), and "
        "errors of the network are amplified by σ; EDM's c_out stays below σ_data (dotted). Lines end where the range "
        "of the network does."
    )
    table = {"sigma": sigma.tolist()}
    for name, curve in curves.items():
        plain = name.replace("$", "").replace(r"\sigma_\mathrm{data} = ", "sigma_data ")
        for which in ("c_skip", "c_out", "c_in", "c_noise"):
            table[f"{plain}: {which}"] = getattr(curve, which).tolist()
    return Picture(draw, {"": table}, 3.3, text)


def draw_by_prediction(ax: Axes, curves: Mapping[str, TargetCurves], which: str) -> None:
    """A quantity of `TargetCurves` over σ, a line for each prediction."""
    for (name, style), colour in zip(_PREDICTIONS.items(), theme().palette, strict=True):
        curve = curves[name]
        values = getattr(curve, which).numpy()
        ax.plot(curve.sigma.numpy(), values, color=colour, label=_NAMES.get(name, name), **style)
    tidy(ax)


def draw_targets(ax: Axes, curves: Mapping[str, TargetCurves]) -> None:
    """The target a·x₀ + b·ε in the plane of the standard deviations of its two parts, on its way from σ = 0 to ∞.

    On the circle its variance is 1.
    """
    angle = torch.linspace(0, 2 * math.pi, 181, dtype=torch.float64, device="cpu")
    ax.plot(angle.cos().numpy(), angle.sin().numpy(), color=theme().gray, lw=0.8, ls=":", zorder=1)
    ax.axhline(0, color=theme().grid, lw=0.7, zorder=0)
    ax.axvline(0, color=theme().grid, lw=0.7, zorder=0)
    for (name, style), colour in zip(_PREDICTIONS.items(), theme().palette, strict=True):
        curve = curves[name]
        x, y = (curve.signal * curve.sigma_data).numpy(), curve.noise.numpy()
        if abs(x[-1] - x[0]) + abs(y[-1] - y[0]) < 1e-6:
            ax.plot(x[:1], y[:1], "o", ms=6, color=colour, zorder=3)
        else:
            ax.plot(x, y, color=colour, **style, zorder=2)
            k = len(x) // 2
            arrow = {"arrowstyle": "-|>", "color": colour, "lw": 1.2, "shrinkA": 0, "shrinkB": 0}
            ax.annotate("", (x[k + 6], y[k + 6]), (x[k], y[k]), arrowprops=arrow, zorder=3)
    ax.set_aspect("equal")
    ax.set_xlim(-1.25, 1.25)
    ax.set_ylim(-1.25, 1.25)


def _variances(subject: Subject) -> Picture:
    own = subject.sigma_data
    several = _few(own) if len(own) > 1 else (own[0] / 4, own[0], own[0] * 4)
    sigma = log_space(_LOW, _HIGH, _LEVELS)
    curves = [
        {name: target_curves(*choice, sigma, value) for name, choice in predictions(value).items()} for value in several
    ]
    middle = curves[len(curves) // 2]

    def draw(figure: Figure) -> None:
        parts: Any = figure.subfigures(2, 1, height_ratios=[1.45, 1])
        upper, lower = parts
        axes = upper.subplots(3, len(several), sharex=True, sharey="row", height_ratios=[1.25, 1, 0.8], squeeze=False)
        for across, (value, chosen) in enumerate(zip(several, curves, strict=True)):
            for ax, which in zip(
                axes[:, across], ("input_variance", "target_variance", "effective_weight"), strict=True
            ):
                draw_by_prediction(ax, chosen, which)
                _over_sigma(ax, "")
                ax.set_yscale("log")
            squared = chosen["EDM"].c_out.square().numpy()
            (plain,) = axes[2, across].plot(sigma.numpy(), squared, color=theme().gray, lw=1.2, ls=":")
            axes[0, across].set_title(_name(value))
            axes[2, across].set_xlabel(_SIGMA)
        axes[0, 0].set_ylim(0.01, 1e4)
        axes[2, 0].set_ylim(1e-3, 30)
        axes[0, 0].set_ylabel("input variance")
        axes[1, 0].set_ylabel("target variance")
        axes[2, 0].set_ylabel(r"$\lambda\,c_\mathrm{out}^2$")
        left, right, key = lower.subplots(1, 3, width_ratios=[1, 1, 0.62])
        draw_targets(left, middle)
        left.set_xlabel(r"signal, $a\,\sigma_\mathrm{data}$")
        left.set_ylabel("noise, $b$")
        left.set_title(r"target $a\,x_0 + b\,\varepsilon$ as $\sigma$ rises")
        tidy(left)
        draw_by_prediction(right, middle, "signal_share")
        _over_sigma(right, "signal in the target's variance")
        right.set_ylim(-0.05, 1.05)
        right.set_xlabel(_SIGMA)
        key.set_axis_off()
        handles, labels = right.get_legend_handles_labels()
        lines, names = [*handles, plain], [*labels, r"EDM, $\lambda = 1$"]
        key.legend(lines, names, loc="center", frameon=False, handlelength=2.8, fontsize=8, borderaxespad=0)

    text = (
        "Above: variance of the network's input and of its target, and the effective weight of the loss. Of the four "
        "columns all have a target of variance 1 and a weight of 1 (dotted: EDM without weights); EDM alone has an "
        f"input of variance 1 for every σ_data. Below, for σ_data = {middle['EDM'].sigma_data:g}: the target "
        "a·x₀ + b·ε by the standard deviations of its parts (the circle is variance 1), and the share of signal. "
        "ε-prediction is always noise, x₀-prediction always signal; EDM and v go from one to the other."
    )
    return Picture(draw, {"": _target_table(sigma, curves)}, 5.6, text)


def _target_table(sigma: Tensor, curves: Sequence[Mapping[str, TargetCurves]]) -> Table:
    """All curves as columns "NAME, σ_data: QUANTITY"."""
    table = {"sigma": sigma.tolist()}
    quantities = ("c_out", "input_variance", "target_variance", "effective_weight", "signal", "noise")
    for chosen in curves:
        for name, curve in chosen.items():
            for which in quantities:
                table[f"{name}, sigma_data {curve.sigma_data:g}: {which}"] = getattr(curve, which).tolist()
    return table


ENTRIES = (
    Entry(
        "preconditioning",
        "What a preconditioning does with the noise level",
        "Table 1, article §4",
        _preconditioning,
        ("--sigma-data",),
    ),
    Entry(
        "variances",
        "What a network sees, and what it is trained to give",
        "Appendix B.6, article §4",
        _variances,
        ("--sigma-data",),
    ),
)
