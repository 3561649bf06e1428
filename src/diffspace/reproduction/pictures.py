"""The pictures of the reproduction, drawn from the rows of its parts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from diffspace.figures.article.entry import Picture, Table
from diffspace.figures.draw_curves import logarithmic_axis
from diffspace.figures.errors import nfe_axes
from diffspace.figures.style import DASHES, theme, tidy
from diffspace.metrics.sweep import Quality

Rows = Sequence[Mapping[str, Any]]
_SCORE = "Fréchet distance"


def _style(k: int) -> dict[str, Any]:
    return {"color": theme().palette[k % 6], "ls": DASHES[k % 6], "marker": "o", "ms": 3.5}


def _errors(rows: Rows) -> list[float]:
    return [Quality(row["frechet"], tuple(row["blocks"])).standard_error for row in rows]


def _table(rows: Rows) -> Table:
    """What rows have besides lists; a mapping within gives a column for each of its numbers."""
    flat = []
    for row in rows:
        inner = {f"{k}_{n}": v for k, each in row.items() if isinstance(each, Mapping) for n, v in each.items()}
        flat.append({k: v for k, v in {**row, **inner}.items() if not isinstance(v, Mapping | list)})
    return {name: [row.get(name, "") for row in flat] for name in dict.fromkeys(key for row in flat for key in row)}


def _bound(ax: Axes, values: Sequence[float], real: float | None) -> None:
    """A logarithmic axis of scores; what is far above the best is cut off."""
    least = min(values)
    logarithmic_axis(ax, min([least, *([real] if real else [])]), min(max(values), 30 * least))
    ax.set_ylabel(_SCORE)
    tidy(ax)
    if real:
        ax.axhline(real, color=theme().ink, ls=":", lw=1.0)


def _draw_table2(rows: Rows, real: Mapping[str, float], figure: Figure) -> None:
    sources = list(dict.fromkeys(row["data"] for row in rows))
    for ax, source in zip(figure.subplots(1, len(sources), squeeze=False)[0], sources, strict=True):
        own = [row for row in rows if row["data"] == source]
        names = list(dict.fromkeys(row["configuration"] for row in own))
        shown = []
        for k, kind in enumerate(("deterministic", "stochastic")):
            groups = [[row[kind]["frechet"] for row in own if row["configuration"] == name] for name in names]
            places = [x + 0.12 * (2 * k - 1) for x in range(len(names))]
            for x, group in zip(places, groups, strict=True):
                ax.plot([x] * len(group), group, "o", ms=3.5, color=theme().palette[k], alpha=0.6)
            ax.plot(places, [fmean(group) for group in groups], "_", ms=12, mew=2, color=theme().palette[k], label=kind)
            shown += [value for group in groups for value in group]
        ax.set_xticks(range(len(names)), names)
        ax.set_title(source)
        _bound(ax, shown, real.get(source))
        ax.legend(frameon=False)


def _draw_figure2(rows: Rows, real: Mapping[str, float], figure: Figure) -> None:
    names = list(dict.fromkeys(row["column"] for row in rows))
    axes = figure.subplots(2, len(names), squeeze=False, sharex=True, sharey="row")
    for k, name in enumerate(names):
        own = [row for row in rows if row["column"] == name]
        for j, line in enumerate(dict.fromkeys(row["line"] for row in own)):
            points = [row for row in own if row["line"] == line]
            nfes = [row["nfe"] for row in points]
            axes[0, k].plot(nfes, [fmean(row["squares"]) ** 0.5 for row in points], label=line, **_style(j))
            axes[1, k].errorbar(nfes, [row["frechet"] for row in points], _errors(points), elinewidth=0.8, **_style(j))
        for ax in axes[:, k]:
            nfe_axes(ax, [], "")
            ax.set_xticks(nfes, [str(nfe) for nfe in nfes])
            ax.set_xlabel("NFE" if ax is axes[1, k] else "")
        _bound(axes[1, k], [row["frechet"] for row in rows], next(iter(real.values()), None))
        axes[0, k].set_title(name)
        axes[0, 0].set_ylabel("RMS distance")
        axes[1, k].set_ylabel("" if k else _SCORE)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)


def _draw_figure4(rows: Rows, real: Mapping[str, float], figure: Figure) -> None:
    networks = {"short": "imperfect network", "good": "good network"}
    for ax, (network, title) in zip(figure.subplots(1, 2), networks.items(), strict=True):
        own = [row for row in rows if row["network"] == network and row["kind"] == "grid"]
        for k, nfe in enumerate(sorted({row["nfe"] for row in own})):
            points = [row for row in own if row["nfe"] == nfe]
            values = [row["frechet"] for row in points]
            ax.errorbar([row["churn"] for row in points], values, _errors(points), label=f"NFE {nfe}", **_style(k))
        ax.set_title(title)
        ax.set_xlabel(r"$S_\mathrm{churn}$")
        _bound(ax, [row["frechet"] for row in own], next(iter(real.values()), None))
        ax.legend(frameon=False)


def _draw_tuning(rows: Rows, real: Mapping[str, float], figure: Figure) -> None:
    names = ("S_churn", "S_tmin", "S_tmax", "S_noise")
    axes = figure.subplots(1, len(names), sharey=True)
    trials = [row for row in rows if row["kind"] == "trial"]
    for ax, name in zip(axes, names, strict=True):
        for k, network in enumerate(("short", "good")):
            own = [row for row in trials if row["network"] == network]
            label = "imperfect" if network == "short" else network
            ax.plot(
                [r[name] for r in own],
                [r["frechet"] for r in own],
                "os"[k],
                ms=3,
                color=theme().palette[k],
                label=label,
            )
        if name in ("S_tmin", "S_tmax"):
            ax.set_xscale("log")
            ax.set_xticks([0.01, 0.1, 1] if name == "S_tmin" else [1, 10, 80], minor=False)
            ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
            ax.xaxis.set_minor_formatter(NullFormatter())
        elif name == "S_noise":
            ax.set_xticks([0.99, 1, 1.01, 1.02])
        ax.set_xlabel(rf"$S_\mathrm{{{name[2:]}}}$")
        _bound(ax, [row["frechet"] for row in trials], next(iter(real.values()), None))
        ax.set_ylabel(_SCORE if ax is axes[0] else "")
    axes[0].legend(frameon=False)


def _draw_augmentation(rows: Rows, real: Mapping[str, float], figure: Figure) -> None:
    kinds = {"held_out_loss": "loss of held-out data", "nearer": "share nearer than 5 % of real", "frechet": _SCORE}
    for ax, (key, title) in zip(figure.subplots(1, 3), kinds.items(), strict=True):
        for k, augmented in enumerate((False, True)):
            values = [row[key] for row in rows if row["augmented"] is augmented]
            ax.plot([k] * len(values), values, "o", ms=4, alpha=0.7, color=theme().palette[k])
            ax.plot([k], [fmean(values)], "_", ms=14, mew=2, color=theme().palette[k])
        ax.set_xticks([0, 1], ["without", "with"])
        ax.set_xlim(-0.6, 1.6)
        ax.set_title(title)
        tidy(ax)


_Draw = Callable[[Rows, Mapping[str, float], Figure], None]
_DRAWN: Mapping[str, tuple[_Draw, float, str]] = {
    "table2": (_draw_table2, 2.8, "A dot for each seed, a dash for their mean; dotted: real data."),
    "figure2": (
        _draw_figure2,
        4.2,
        "Distance from the end points of the ODE, and quality, over evaluations; bars are standard errors; dotted: "
        "real data.",
    ),
    "figure4": (_draw_figure4, 2.8, "Quality over S_churn for several numbers of evaluations; dotted: real data."),
    "tuning": (_draw_tuning, 2.4, "The combinations that optuna tried, over each of the four parameters."),
    "augmentation": (
        _draw_augmentation,
        2.4,
        "Without and with augmentation: a dot for each seed, a dash for their mean.",
    ),
}


def pictures(results: Mapping[str, Rows], real: Mapping[str, float]) -> dict[str, Picture]:
    """A picture for each measured part that has one, with its numbers; `real` is the score of real data by source."""
    made = {}
    for part, rows in results.items():
        if part in _DRAWN:
            draw, height, caption = _DRAWN[part]
            made[part] = Picture(functools.partial(draw, rows, real), {"": _table(rows)}, height, caption, 6.6)
    return made
