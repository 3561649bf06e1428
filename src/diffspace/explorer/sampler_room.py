"""Room 2: steps, solvers and noise on exact denoisers, each run beside the exact solution from the same latents."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch

import diffspace as ds
from diffspace._shapes import Float, Tensor
from diffspace.config import from_text, to_options
from diffspace.explorer.jobs import Job
from diffspace.explorer.sampler_python import front_python, sampler_python
from diffspace.explorer.sampler_settings import (
    BUDGETS,
    FIRST_SEED,
    FIT_SEEDS,
    FITS,
    FRONT,
    ITERATIONS,
    JUDGING,
    SOLVERS,
    FitSettings,
    FrontSettings,
    SamplerChoice,
    SamplerSettings,
)
from diffspace.explorer.settings import Data, exact_flow
from diffspace.oracles import GaussianMixture
from diffspace.protocols import Cond
from diffspace.solverlab import compare_solvers, search_solver
from diffspace.studies import plane_density
from diffspace.studies.problems import even, quantiles

_DIRECTIONS = 12  # of distances in the plane
_KEPT = 32  # fits


@functools.lru_cache(8)
def _fine_lines(data: Data, sigma_max: float, count: int) -> tuple[Tensor, Tensor]:
    """σ and the states of the exact flow there, densest near the data."""
    truth = exact_flow(data, sigma_max, 0, count, True)
    fine = sigma_max * torch.linspace(0, 1, 120, dtype=torch.float64, device="cpu") ** 3
    return fine, torch.stack([truth.at(level) for level in fine.tolist()])


def _noise(k: int, like: Tensor) -> Tensor:
    """The noise of a step: of all samples at once, which is faster than the streams of their seeds."""
    return torch.randn(like.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(k), device="cpu")


class _Recording:
    """An oracle that keeps where it was asked, of the first rows, and may pull towards the mean."""

    def __init__(self, oracle: GaussianMixture, rows: int, shrink: float) -> None:
        self.oracle, self.rows, self.asked = oracle, rows, list[tuple[float, Tensor]]()
        self.shrink, self.mean = shrink, oracle.mean()
        self.sample_shape, self.sigma_data = oracle.sample_shape, oracle.sigma_data

    def __call__(self, x: Tensor, sigma: Tensor, cond: Cond | None = None) -> Tensor:
        self.asked.append((float(sigma.max()), x[: self.rows].clone()))
        denoised = self.oracle(x, sigma, cond)
        return denoised + self.shrink * (self.mean - denoised) if self.shrink else denoised


def sampler_picture(settings: SamplerSettings, job: Job) -> dict[str, Any]:
    """Both runs, and the exact flow from the same latents."""
    truth = exact_flow(settings.data, settings.top, 0, settings.count, False)
    job.check()
    fine, x = _fine_lines(settings.data, settings.top, settings.lines)
    result: dict[str, Any] = {
        "dim": settings.data.dim,
        "sigma": fine,
        "x": x,
        "ends": truth.x,
        "known": truth.error.rms,
        "distance": _distance(settings.data, truth.x),
        "density": _density(settings.data),
    }
    choices = {"a": settings.a} | ({} if settings.b is None else {"b": settings.b})
    for name, choice in choices.items():
        try:
            result[name] = _run(settings, choice, truth)
        except ValueError as error:
            raise ValueError(f"{name}.{error}") from None
        job.check()
    return result | {"python": sampler_python(settings)}


def _run(settings: SamplerSettings, choice: SamplerChoice, truth: ds.Reference) -> dict[str, Any]:
    """States and ends of one sampler, and how far they are from the exact ones."""
    data, sampler = settings.data.mixture, settings.sampler(choice)
    recording, shown = _Recording(data, settings.lines, settings.shrink), settings.lines
    run = ds.sample(
        recording,
        seeds=range(settings.count),
        latents=truth.latents + settings.shift,
        sampler=sampler,
        noise=_noise if sampler.adds_noise else None,
        execution=ds.Execution(trajectory=True),
    )
    if run.trajectory is None:
        raise ValueError("num_steps: expected at least one step")
    denoised = run.trajectory.denoised[:, :shown]
    first = sampler.solver.evaluations(False) or 1
    skipped = int(sampler.solver.first_denoiser is not None)
    firsts = [max(0, i * first - skipped) for i in range(run.num_steps)]
    hats = [recording.asked[min(k, len(recording.asked) - 1)] for k in firsts]
    error = truth.error_of(run.x)
    elsewhere = (_mode(data, run.x) != _mode(data, truth.x)).double().mean()
    return {
        "sigma": run.sigmas,
        "x": run.trajectory.x[:, :shown],
        "denoised": denoised,
        "sigma_hat": torch.tensor([level for level, _ in hats], dtype=torch.float64, device="cpu"),
        "x_hat": torch.stack([x for _, x in hats]),
        "ends": run.x,
        "nfe": run.nfe,
        "num_steps": run.num_steps,
        "rms": error.rms,
        "median": error.median,
        "elsewhere": float(elsewhere),
        "distance": _distance(settings.data, run.x),
        "spread": float((run.x.var(0).sum() / _variance(data)).sqrt()),
        "adds_noise": sampler.adds_noise,
    }


def _variance(data: GaussianMixture) -> Tensor:
    """The variance of the data, over all dimensions together."""
    return data.covariance().trace()


def _mode(data: GaussianMixture, x: Float[Tensor, "n d"]) -> Tensor:
    """The mode that most likely made each point."""
    squares = (x[:, None] - data.means).square().sum(2)
    variance = data.variances[:, 0]
    return (data.weights.log() - 0.5 * squares / variance - 0.5 * x.shape[1] * variance.log()).argmax(1)


def _distance(data: Data, x: Float[Tensor, "n d"]) -> float:
    """The Wasserstein distance ∫|F_n − F| from samples to the data: in the plane, the mean over 12 directions."""
    exact, directions = _projected(data, len(x))
    return float(((x @ directions.T).sort(0).values - exact).abs().mean())


@functools.lru_cache(8)
def _projected(data: Data, count: int) -> tuple[Tensor, Tensor]:
    """The quantiles of the data along some directions, (count, directions), and the directions."""
    angles = math.pi * torch.arange(_DIRECTIONS, dtype=torch.float64, device="cpu") / _DIRECTIONS
    plane = torch.stack([angles.cos(), angles.sin()], 1)
    directions = plane if data.dim == 2 else torch.ones(1, 1, dtype=torch.float64, device="cpu")
    mixture, zero = data.mixture, torch.zeros(1, dtype=torch.float64, device="cpu")
    stds = mixture.variances[:, 0].sqrt()
    along = [GaussianMixture((mixture.means @ u)[:, None], stds, mixture.weights) for u in directions]
    return torch.stack([quantiles(one, even(count), zero)[0] for one in along], 1), directions


@functools.lru_cache(8)
def _density(data: Data) -> dict[str, Any]:
    """The density of the data on a line or a grid that holds them."""
    mixture = data.mixture
    reach = 1.15 * float((mixture.means.abs() + 3 * mixture.variances.sqrt()).max())
    if data.dim == 2:
        return {"reach": reach, "p": plane_density(mixture, 0.0, 1.0, reach, 96).float()}
    x = reach * torch.linspace(-1, 1, 801, dtype=torch.float64, device="cpu")
    return {"reach": reach, "p": mixture.log_prob(x[:, None], torch.zeros((), dtype=torch.float64, device="cpu")).exp()}


def front_picture(settings: FrontSettings, job: Job) -> dict[str, Any]:
    """RMS errors of known solvers over their evaluations, with the paper's steps, on the first 64 seeds."""
    return _front(settings)


@functools.lru_cache(16)
def _front(settings: FrontSettings) -> dict[str, Any]:
    truth = exact_flow(settings.data, settings.sigma_max, 0, 64, False)
    steps = ds.EDMSteps(18, settings.sigma_min, settings.sigma_max)
    samplers = {word: ds.Sampler(steps, from_text("solver", word)) for word in FRONT}
    rows = compare_solvers(settings.data.mixture, truth, samplers, BUDGETS).rows
    found: dict[str, dict[int, float]] = {word: {} for word in FRONT}
    for row in rows:
        if not row.failure:
            found[row.name][row.nfe] = row.error.rms
    curves = [
        {"solver": SOLVERS[word], "nfe": list(errors), "rms": list(errors.values())} for word, errors in found.items()
    ]
    return {"curves": curves, "known": truth.error.rms, "python": front_python(settings)}


def fit_picture(settings: FitSettings, job: Job) -> dict[str, Any]:
    """Find the best sampler of N evaluations, and keep it for `SamplerChoice`."""
    if settings not in FITS:
        seeds = (settings.data, settings.sigma_max, FIRST_SEED)
        truth = exact_flow(*seeds, FIT_SEEDS, True)
        ends = exact_flow(settings.data, settings.sigma_max, FIRST_SEED + FIT_SEEDS, JUDGING, False)

        def tell(done: int, total: int, rms: float) -> None:
            job.tell(done=done, total=total, rms=rms)

        found = search_solver(
            settings.data.mixture, settings.num_steps, truth, validation=ends, iterations=ITERATIONS, progress=tell
        )
        while len(FITS) >= _KEPT:
            FITS.pop(next(iter(FITS)))
        FITS[settings] = found
    found = FITS[settings]
    levels = ds.sample(settings.data.mixture, seeds=[0], sampler=found.sampler).sigmas
    return {
        "choice": found.choice.name,
        "rms": found.choice.error.rms,
        "standard_error": found.standard_error,
        "seen": found.fit.error.rms,
        "samples": found.comparison.samples,
        "sigma": levels,
        "config": to_options(found.sampler),
    }
