"""How far conditional samplers end from the exact posterior of a Gaussian, without drawing samples.

On a Gaussian all of them are affine in their noise, so a run on the origin and on each unit vector tells where N(0, I)
ends: the figures have no Monte-Carlo error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from matplotlib.axes import Axes

from diffspace._shapes import Float, Tensor
from diffspace.figures.style import DASHES, theme, tidy
from diffspace.guidance import DPS, MMPS, Mask, Matrix, PiGDM, Replacement, repaint
from diffspace.metrics import FeatureStatistics, frechet_distance
from diffspace.oracles import Gaussian
from diffspace.protocols import Denoiser
from diffspace.sampling import EDMSteps, Sampler, sample, sample_from
from diffspace.sampling.steps import steps_for


@dataclass(frozen=True)
class PosteriorError:
    """The 2-Wasserstein distance of a sampler's ends from the exact posterior, in its rms spreads, at each NFE."""

    name: str
    nfe: tuple[int, ...]
    error: tuple[float, ...]


def affine_ends(run: Callable[[Tensor], Tensor], inputs: int) -> tuple[Float[Tensor, "d"], Float[Tensor, "d d"]]:
    """Mean and covariance of run(z), flattened, for z ~ N(0, I): `run` is affine and maps (B, inputs) to (B, *dims)."""
    ends = run(
        torch.cat(
            [
                torch.zeros(1, inputs, dtype=torch.float32, device="cpu"),
                torch.eye(inputs, dtype=torch.float32, device="cpu"),
            ]
        ).to(torch.float64)
    ).flatten(1)
    columns = ends[1:] - ends[0]
    return ends[0], columns.T @ columns


def posterior_error(
    exact: Gaussian,
    denoisers: Mapping[str, Denoiser],
    *,
    steps: Sequence[int] = (8, 12, 18, 27, 40, 60, 90, 135, 200),
    sigma_max: float | None = None,
) -> list[PosteriorError]:
    """The 2-Wasserstein distance of what each denoiser makes from `exact`, over the rms spread √tr Σ of that.

    The denoisers are affine in x. Heun's method with EDM steps begins at `exact` with noise of σ_max, by default that
    of the steps for the denoiser, so nothing else than the denoiser and the steps is to blame.
    """
    covariance = exact.axes * exact.variances @ exact.axes.T
    truth = FeatureStatistics.from_moments(2, exact.mean, covariance)
    spread = math.sqrt(float(exact.variances.sum()))

    def error(denoiser: Denoiser, num_steps: int) -> tuple[int, float]:
        nfe = 0

        def run(z: Tensor) -> Tensor:
            nonlocal nfe
            placed = steps_for(denoiser, EDMSteps(num_steps, sigma_max=sigma_max))
            first = float(placed.sigmas()[0])
            x = exact.mean + z * (exact.variances + first**2).sqrt() @ exact.axes.T
            result = sample_from(denoiser, x.reshape(-1, *exact.sample_shape), first, sampler=Sampler(placed))
            nfe = result.nfe
            return result.x

        ends = FeatureStatistics.from_moments(2, *affine_ends(run, len(exact.mean)))
        return nfe, math.sqrt(max(frechet_distance(ends, truth), 0.0)) / spread

    results = []
    for name, denoiser in denoisers.items():
        points = [error(denoiser, n) for n in steps]
        results.append(PosteriorError(name, tuple(nfe for nfe, _ in points), tuple(value for _, value in points)))
    return results


def _unknown(run: Callable[[Tensor], Tensor], inputs: int) -> tuple[float, float]:
    """Mean and variance of the second coordinate of what a sampler makes of its noise."""
    mean, covariance = affine_ends(run, inputs)
    return float(mean[1]), float(covariance[1, 1])


def inpainted_normals() -> tuple[dict[str, tuple[float, float]], tuple[float, float]]:
    """The distribution of the second of two correlated numbers given the first, by several samplers, and the exact one.

    Both have a standard deviation of ½ and a correlation of 0.8; the known one is 0.6.
    """
    pair = Gaussian(_numbers(0.0, 0.0), _numbers(0.25, 0.2, 0.2, 0.25).reshape(2, 2))
    mask, steps = torch.tensor([True, False], dtype=torch.bool, device="cpu"), EDMSteps(18)
    replaced = Replacement(pair, mask, _numbers(0.6, 0.0))
    measured = _numbers(0.6).reshape(1, 1)
    mmps = MMPS(pair, Mask(mask), measured, 0.0)

    def repainted(times: int) -> tuple[float, float]:
        def run(z: Tensor) -> Tensor:
            z = z.reshape(len(z), -1, 2)
            return repaint(
                replaced, latents=z[:, 0], sampler=Sampler(steps), resamplings=times, noise=lambda k, like: z[:, 1 + k]
            ).x

        return _unknown(run, 2 + 2 * (times - 1) * steps.num_steps)

    normals = {"Replacement": _unknown(lambda z: sample(replaced, latents=z, steps=steps).x, 2)}
    normals |= {f"repaint, {times} times": repainted(times) for times in (2, 5, 20)}
    normals["MMPS"] = _unknown(lambda z: sample(mmps, latents=z, steps=steps).x, 2)
    exact = pair.posterior(Mask(mask), measured, 0.0)
    return normals, (float(exact.mean[1]), float(exact.variances.max()))


def measured_errors(steps: Sequence[int] = (8, 16, 32, 64)) -> list[PosteriorError]:
    """How far samplers end from the posterior of six correlated numbers, three combinations of which are measured."""
    places = torch.arange(6, dtype=torch.float64, device="cpu")
    prior = Gaussian(0 * places, 0.25 * torch.exp(-(places[:, None] - places).abs() / 3))
    combinations = _numbers(1, 1, 0, 0, 0, 0, 0, 0, 1, 0, -1, 0, 0, 0.5, 0.5, 0.5, 0, 0).reshape(3, 6)
    operator, measured = Matrix(combinations), _numbers(0.4, -0.3, 0.2).reshape(1, 3)
    denoisers: Mapping[str, Denoiser] = {
        "MMPS, and exact": MMPS(prior, operator, measured, 0.1),
        "ΠGDM": PiGDM(prior, operator, measured, 0.1, sigma_data=0.5),
        "DPS": DPS(prior, operator, measured, 0.1),
        "DPS, w = 0.1": DPS(prior, operator, measured, 0.1, weight=0.1),
    }
    return posterior_error(prior.posterior(operator, measured, 0.1), denoisers, steps=steps)


def _numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, device="cpu")


def draw_normals(ax: Axes, normals: Mapping[str, tuple[float, float]], exact: tuple[float, float]) -> None:
    """Densities of normal distributions given as (mean, variance), over the exact one as a filled area."""
    widest = max(variance for _, variance in (*normals.values(), exact)) ** 0.5
    centres = [mean for mean, _ in (*normals.values(), exact)]
    x = torch.linspace(min(centres) - 3 * widest, max(centres) + 3 * widest, 400, dtype=torch.float64, device="cpu")

    def density(mean: float, variance: float) -> Tensor:
        return (-0.5 * (x - mean) ** 2 / variance).exp() / math.sqrt(2 * math.pi * variance)

    ax.fill_between(x.numpy(), density(*exact).numpy(), color=theme().gray, alpha=0.35, lw=0, label="exact")
    for (name, normal), colour, dash in zip(normals.items(), theme().palette, DASHES, strict=False):
        ax.plot(x.numpy(), density(*normal).numpy(), color=colour, ls=dash, label=name)
    ax.set_xlim(float(x[0]), float(x[-1]))
    ax.set_ylim(bottom=0)
    ax.set_ylabel("density")
    ax.legend(fontsize=8, loc="upper left")
    tidy(ax)
