"""The article's last figure: the discrete Heun sampler for a pretrained DDPM, an exact one and one trained here."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from diffspace._shapes import Float, Tensor
from diffspace.data import Digits
from diffspace.figures.article.entry import Entry, Picture, Subject
from diffspace.figures.samples import grid, to_pixels
from diffspace.figures.style import DASHES, theme, tidy
from diffspace.studies import DDPMComparison, classes_oracle, compare_ddpm, ddpm_table, exact_ddpm, trained_ddpm
from diffspace.transform import Transform

_SHOWN, _NFE = 16, 11


def draw_ddpm_errors(ax: Axes, comparison: DDPMComparison) -> None:
    """The RMS distance from the ends of the ODE over NFE, both logarithmic."""
    for k, (name, (nfe, error)) in enumerate(comparison.errors().items()):
        ax.plot(nfe, error, color=theme().palette[k], ls=DASHES[k], marker="o", ms=3, label=name)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ticks = [7, 15, 25, 49, 99]
    ax.set_xticks(ticks, [str(tick) for tick in ticks])
    ax.minorticks_off()
    ax.set_xlabel("NFE", labelpad=1)
    tidy(ax)


def draw_rows(ax: Axes, rows: Mapping[str, Float[Tensor, "batch 1 height width"]], transform: Transform) -> None:
    """Digits side by side, a row for each name."""
    raw = transform.inverse(torch.cat([samples[:_SHOWN] for samples in rows.values()]).float())
    picture = grid(to_pixels(raw, transform), _SHOWN)
    paper = LinearSegmentedColormap.from_list("ink on paper", [theme().ink, theme().paper])
    ax.imshow(picture, cmap=paper, vmin=0, vmax=255, interpolation="nearest", aspect="equal")
    pitch = len(picture) / len(rows)
    ax.set_yticks([pitch * (k + 0.5) for k in range(len(rows))], list(rows))
    ax.set_xticks([])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def _ddpm_heun(subject: Subject) -> Picture:
    data, table = Digits().load(), ddpm_table()
    training = data.split()[0]
    exact = exact_ddpm(classes_oracle(training), table)
    trained = trained_ddpm(training.batch(), table, progress=subject.progress)
    runs = {
        name: compare_ddpm(denoiser, progress=subject.progress)
        for name, denoiser in (("exact DDPM", exact), ("DDPM trained here", trained))
    }
    shown = runs["DDPM trained here"]
    rows = {"exact ODE": shown.reference.x} | {name: shown.at(name, _NFE).x for name in shown.samples}

    def draw(figure: Figure) -> None:
        spaces = figure.add_gridspec(2, 2, height_ratios=[1.15, 1])
        left = figure.add_subplot(spaces[0, 0])
        right = figure.add_subplot(spaces[0, 1], sharey=left)
        right.tick_params(labelleft=False, left=False)
        for ax, (name, comparison) in zip((left, right), runs.items(), strict=True):
            draw_ddpm_errors(ax, comparison)
            ax.set_title(name)
        left.set_ylabel("RMS distance from the ODE's ends")
        right.legend(loc="upper right")
        below = figure.add_subplot(spaces[1, :])
        draw_rows(below, rows, data.transform)
        below.set_title(f"DDPM trained here, NFE {_NFE}")

    ends = " and ".join(f"{comparison.reference.error.rms:.0e}" for comparison in runs.values())
    exact_ratio, ratio = (_ratios(comparison) for comparison in runs.values())
    text = (
        "The same DDPM under DDIM, Heun's method with the DDPM's own levels evenly by index, Heun's method with the "
        "levels nearest to EDM steps, and solvers fitted on other seeds. Left: a DDPM that is exact for a Gaussian of "
        "each class of digits; right: a small network, trained with the DDPM's loss at its 1000 levels from one seed. "
        f"Distances are of {len(shown.reference.x)} samples from one set of latents, from ends of the ODE that are "
        f"known to {ends}. With few evaluations Heun's long steps do worse than DDIM's: its error is that of DDIM "
        f"times {exact_ratio[0]:.2g} (left) and {ratio[0]:.2g} (right) at the fewest, {exact_ratio[1]:.2g} and "
        f"{ratio[1]:.2g} at the most."
    )
    return Picture(draw, {"": _table(runs)}, 4.7, text)


def _ratios(comparison: DDPMComparison) -> tuple[float, float]:
    """Heun's error with the DDPM's levels as a multiple of DDIM's, at the fewest and at the most evaluations."""
    (_, heun), (_, ddim) = (comparison.errors()[name] for name in ("Heun", "DDIM"))
    return heun[0] / ddim[0], heun[-1] / ddim[-1]


def _table(runs: Mapping[str, DDPMComparison]) -> dict[str, list[float | str]]:
    """The lines of the figure, one below the other."""
    table: dict[str, list[float | str]] = {"model": [], "sampler": [], "NFE": [], "RMS": []}
    for model, comparison in runs.items():
        for sampler, line in comparison.errors().items():
            for nfe, error in zip(*line, strict=True):
                row: tuple[float | str, ...] = (model, sampler, nfe, error)
                for column, value in zip(table.values(), row, strict=True):
                    column.append(value)
    return table


ENTRIES = (Entry("ddpm-heun", "The discrete Heun sampler for a pretrained DDPM", "article, Applications", _ddpm_heun),)
