"""The article's figures of noise on the way: Langevin diffusion, forgotten errors, Algorithms 1 and 2 step by step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffspace._shapes import Tensor
from diffspace.figures.article.entry import Entry, Picture, Subject
from diffspace.figures.article.flows import draw_density
from diffspace.figures.style import DASHES, theme, tidy
from diffspace.oracles import GaussianMixture
from diffspace.sampling import Churn
from diffspace.studies import (
    AlgorithmSteps,
    Diffused,
    algorithm_steps,
    churning,
    diffused,
    distances,
    kolmogorov_smirnov,
    marginal,
)
from diffspace.studies.problems import even

_COUNT, _STEPS = 10_000, 80
_RATES, _LEVELS = (0.0, 1.0, 4.0), (1.0, 0.3, 0.03)
_SHIFT, _SHIFTED = 1.0, (0.0, 1.0, 2.0, 4.0)


def _beta(eta: float) -> str:
    """β in the paper's symbols."""
    rate = r"\dot\sigma/\sigma"
    return r"$\beta = 0$ (ODE)" if eta == 0 else rf"$\beta = {rate}$" if eta == 1 else rf"$\beta = {eta:g}\,{rate}$"


def _style(eta: float) -> dict[str, Any]:
    """The line of a rate, the same in all figures."""
    k = _SHIFTED.index(eta) if eta in _SHIFTED else -1
    return {"color": theme().palette[k], "ls": DASHES[k], "label": _beta(eta)}


def noise_axis(ax: Axes, least: float, greatest: float, ticks: Sequence[float]) -> None:
    """σ, lowest on the left, in coordinates √σ, which leave room for low noise and a place for 0."""
    ax.set_xlim(least**0.5, greatest**0.5)
    ax.set_xticks([tick**0.5 for tick in ticks], [f"{tick:g}" for tick in ticks])
    ax.set_xlabel(r"$\sigma$", labelpad=1)


def draw_marginals(ax: Axes, data: GaussianMixture, greatest: float, reach: float) -> None:
    """p(x; σ) as shades over √σ and x, from σ = 0 to the greatest, for |x| up to `reach`."""
    sigma = greatest * torch.linspace(0, 1, 200, dtype=torch.float64, device="cpu") ** 2
    draw_density(ax, greatest**0.5, reach, marginal(data, sigma, torch.ones_like(sigma), reach, 400))


def draw_paths(ax: Axes, data: GaussianMixture, states: Diffused, *, lines: int = 7) -> None:
    """Some paths of Eq. 6 over p(x; σ), data on the left, that begin at even shares; one of them stands out."""
    least, greatest = float(states.sigma[-1]), float(states.sigma[0])
    draw_marginals(ax, data, greatest, 2.6 * greatest)
    root, x = states.sigma.sqrt().numpy(), states.x[:, _spread(states, lines)].numpy()
    ax.plot(root, x, color=theme().ink, lw=0.5, alpha=0.7)
    ax.plot(root, x[:, -2], lw=1.3, **_style(states.eta) | {"ls": "-"})
    noise_axis(ax, least, greatest, (0.1, 0.3, 1, 3))
    ax.set_title(_beta(states.eta))


def _spread(states: Diffused, lines: int) -> Tensor:
    """The indices of states that begin at even shares of p(x; σ_max)."""
    return states.x[0].argsort()[(even(lines) * states.x.shape[1]).long()]


def draw_histograms(ax: Axes, data: GaussianMixture, runs: Sequence[Diffused], sigma: float) -> None:
    """The marginals of several runs at a noise level, as histograms over the exact density p(x; σ)."""
    level = runs[0].nearest(sigma)[0]
    at, reach = torch.tensor([level], dtype=torch.float64, device="cpu"), 2.6 * math.hypot(data.sigma_data or 0, level)
    x = np.linspace(-reach, reach, 600)
    density = marginal(data, at, torch.ones_like(at), reach, len(x))[0].numpy()
    ax.fill_between(x, density, color=theme().gray, alpha=0.4, lw=0, label=r"exact $p(x;\sigma)$")
    narrowest = math.hypot(float(data.variances.min()) ** 0.5, level)
    bins = np.linspace(-reach, reach, max(40, round(4 * reach / narrowest))).tolist()
    for run in runs:
        ax.hist(run.nearest(sigma)[1].numpy(), bins, density=True, histtype="step", lw=1.0, **_style(run.eta))
    ax.set_xlim(-reach, reach)
    ax.set_ylim(0, 1.15 * density.max())
    ax.set_yticks([])
    ax.set_xlabel("$x$", labelpad=1)
    ax.set_title(rf"$\sigma = {level:.2g}$")
    tidy(ax)
    ax.spines["left"].set_visible(False)


def _langevin(subject: Subject) -> Picture:
    runs = [diffused(subject.data, eta, num_steps=_STEPS, count=_COUNT) for eta in _RATES]
    tests: dict[str, list[float]] = {"beta over sigma_dot/sigma": [], "sigma": [], "KS": []}
    for run in runs:
        for sigma, x in map(run.nearest, _LEVELS):
            row = (run.eta, sigma, kolmogorov_smirnov(subject.data, x, sigma))
            for column, value in zip(tests.values(), row, strict=True):
                column.append(value)
    paths = {"sigma": runs[0].sigma.tolist()}
    shown = _spread(runs[0], 7).tolist()
    paths |= {f"x_{k} at beta {run.eta:g}": run.x[:, i].tolist() for run in runs for k, i in enumerate(shown)}

    def draw(figure: Figure) -> None:
        above, below = figure.subplots(2, 3, height_ratios=[1.5, 1])
        for ax, run in zip(above, runs, strict=True):
            draw_paths(ax, subject.data, run)
            ax.tick_params(labelleft=ax is above[0])
        above[0].set_ylabel("$x$")
        for ax, sigma in zip(below, _LEVELS, strict=True):
            draw_histograms(ax, subject.data, runs, sigma)
        figure.legend(*below[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)

    text = (
        "The SDE of Eq. 6 as the probability-flow ODE and a Langevin term of rate β, in units of σ̇/σ. Above: the same "
        "starts and the same Brownian motion for each β, data on the left; noise lets a path change its mind. Below: "
        f"however much noise, the marginal stays p(x; σ): histograms of {_COUNT} paths over the exact density. The "
        f"Kolmogorov–Smirnov distance is at most {max(tests['KS']):.4f}; 1 in 100 sets of exact draws has more than "
        f"{1.63 / _COUNT**0.5:.4f}."
    )
    return Picture(draw, {"paths": paths, "tests": tests}, 4.2, text)


def draw_forgetting(ax: Axes, sigma: Tensor, errors: Sequence[tuple[float, Tensor]], floor: Tensor) -> None:
    """The distance of marginals from p(x; σ) over σ after an error at the greatest σ, for several rates."""
    for eta, distance in errors:
        ax.plot(sigma.sqrt().numpy(), distance.numpy(), **_style(eta))
    ax.fill_between(sigma.sqrt().numpy(), floor.numpy(), color=theme().gray, alpha=0.4, lw=0, label="no error")
    noise_axis(ax, float(sigma[-1]), float(sigma[0]), (0.03, 0.1, 0.3, 1, 2))
    ax.set_ylim(0, 1.1 * float(errors[0][1].max()))
    ax.set_ylabel(r"$W_1$ to $p(x;\sigma)$, in standard deviations")
    tidy(ax)


def _forgotten(subject: Subject) -> Picture:
    runs = [
        diffused(subject.data, eta, sigma_max=2.0, num_steps=_STEPS, count=_COUNT, shift=_SHIFT) for eta in _SHIFTED
    ]
    right = diffused(subject.data, 1.0, sigma_max=2.0, num_steps=_STEPS, count=_COUNT)
    spread = (subject.data.moments()[1] + right.sigma**2).sqrt()
    errors = [(run.eta, distances(subject.data, run) / spread) for run in runs]
    floor = distances(subject.data, right) / spread

    def draw(figure: Figure) -> None:
        grid = figure.add_gridspec(2, 2, width_ratios=[1.7, 1])
        left = figure.add_subplot(grid[:, 0])
        draw_forgetting(left, right.sigma, errors, floor)
        left.set_title(rf"an error at $\sigma = {float(right.sigma[0]):g}$: all states shifted by {_SHIFT:g}")
        for place, run in ((grid[0, 1], runs[0]), (grid[1, 1], runs[-1])):
            ax = figure.add_subplot(place)
            draw_histograms(ax, subject.data, [run], 0.0)
            ax.set_title(f"the end, {_beta(run.eta)}")
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)

    text = (
        f"All states are shifted by {_SHIFT:g} at σ = 2, in {_COUNT} paths each. Left: how far the marginal then is "
        "from p(x; σ), in its standard deviations: the ODE keeps the error, Langevin diffusion forgets it, the more "
        "of it the faster, until the modes part, between which no state moves. No error: the same without the shift. "
        "Right: the histograms of the ends over the exact density."
    )
    table = {"sigma": right.sigma.tolist()}
    table |= {f"W1 at beta {eta:g}": distance.tolist() for eta, distance in errors}
    return Picture(draw, {"": table | {"W1 without the error": floor.tolist()}}, 3.1, text)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], **style: Any) -> None:
    """An arrow from (√σ, x) to (√σ, x)."""
    options = {"shrinkA": 0, "shrinkB": 2, "arrowstyle": "-|>", "mutation_scale": 7, **style}
    ax.annotate("", end, start, arrowprops=options)


def draw_steps(ax: Axes, data: GaussianMixture, steps: AlgorithmSteps, *, greatest: float) -> None:
    """One sample's steps over p(x; σ): noise leads up in σ, to the right, and the solver down, to the left."""
    draw_marginals(ax, data, greatest, 2.6 * greatest)
    down, up, trial = (theme().palette[0], "-"), (theme().palette[1], "--"), (theme().ink, ":")
    root, root_hat = steps.sigma.sqrt(), steps.sigma_hat.sqrt()
    before, lifted, after = (
        list(zip(u.tolist(), x.tolist(), strict=False))
        for u, x in ((root, steps.x), (root_hat, steps.x_hat), (root[1:], steps.x[1:]))
    )
    for k, tried in enumerate(steps.tried.tolist()):
        if steps.std[k] > 0:
            _arrow(ax, before[k], lifted[k], color=up[0], ls=up[1], lw=1.2)
        _arrow(ax, lifted[k], after[k], color=down[0], lw=1.4)
        ax.plot([lifted[k][0], after[k][0]], [lifted[k][1], tried], color=trial[0], ls=trial[1], lw=0.8)
        ax.plot(after[k][0], tried, "o", mfc=theme().paper, mec=trial[0], ms=3, mew=0.7, zorder=3)
    ax.plot(root.numpy(), steps.x.numpy(), "o", color=theme().ink, ms=3, zorder=4, clip_on=False)
    for (color, dash), label in (
        (up, r"noise, from $\sigma_i$ up to $\hat\sigma_i$"),
        (down, r"the step, from $\hat\sigma_i$ down to $\sigma_{i+1}$"),
        (trial, "Euler's step, uncorrected"),
    ):
        ax.plot([], [], color=color, ls=dash, label=label)
    noise_axis(ax, 0.0, greatest, (0, 0.05, 0.1, 0.2, 0.5, 1, 2))
    ax.set_ylabel("$x$")


def mark_churn(ax: Axes, churn: Churn, num_steps: int) -> None:
    """S_tmin and S_tmax, between which noise is added, and how much S_churn and S_noise make it."""
    low, high = ax.get_ylim()
    for at, name in ((churn.S_tmin, "tmin"), (churn.S_tmax, "tmax")):
        ax.axvline(at**0.5, color=theme().ink, lw=0.8, ls=(0, (1, 2)))
        ax.text(at**0.5, high - 0.03 * (high - low), rf" $S_\mathrm{{{name}}} = {at:g}$", va="top")
    share = rf"\gamma = \min(S_\mathrm{{churn}}/N, \sqrt{{2}}-1) = {churn.gamma(churn.S_tmax, num_steps):.2f}"
    std = r"S_\mathrm{noise}\sqrt{\hat\sigma_i^2-\sigma_i^2}"
    text = rf"$\hat\sigma_i = (1+\gamma)\,\sigma_i,\ \ {share}$" + "\n" + rf"noise of standard deviation ${std}$"
    ax.text((1.15 * churn.S_tmin) ** 0.5, low + 0.05 * (high - low), text, va="bottom", linespacing=2.0)


def _algorithms(subject: Subject) -> Picture:
    samplers = {"deterministic": churning(0.0), "stochastic": churning()}
    # of this seed the two samples of the default data end in different modes
    runs = {name: algorithm_steps(subject.data, sampler, seed=14) for name, sampler in samplers.items()}
    churn, num_steps = samplers["stochastic"].churn, samplers["stochastic"].steps.num_steps
    greatest = 1.05 * max(float(steps.sigma_hat.max()) for steps in runs.values())
    states = torch.cat([torch.cat([steps.x, steps.x_hat]) for steps in runs.values()])

    def draw(figure: Figure) -> None:
        above, below = axes = figure.subplots(2, 1)
        for ax, steps in zip(axes, runs.values(), strict=True):
            draw_steps(ax, subject.data, steps, greatest=greatest)
            ax.set_ylim(float(states.min()) - 0.7, float(states.max()) + 1.2)
        above.set_xlabel("")
        above.set_title("Algorithm 1: deterministic")
        below.set_title(
            rf"Algorithm 2: stochastic, $S_\mathrm{{churn}} = {churn.S_churn:g}$, "
            rf"$S_\mathrm{{noise}} = {churn.S_noise:g}$, $N = {num_steps}$"
        )
        mark_churn(below, churn, num_steps)
        figure.legend(*below.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)

    text = (
        "One sample's steps over p(x; σ), data on the left, from the same latent. Algorithm 2 first adds noise, which "
        "leads up from σ_i to σ̂_i, and then takes the step of Algorithm 1 down to σ_{i+1}. Dotted is Euler's step, "
        "whose end (open) Heun's method corrects (black). All points are what `diffspace.sample` visits."
    )
    return Picture(draw, {name: steps.columns() for name, steps in runs.items()}, 4.7, text)


ENTRIES = (
    Entry("langevin", "The SDE as ODE plus Langevin diffusion", "article §3, paper Eq. 6", _langevin),
    Entry("errors-forgotten", "The SDE forgets an error, the ODE keeps it", "article §3", _forgotten),
    Entry("algorithms", "Algorithms 1 and 2 step by step", "article §2 and §3", _algorithms),
)
