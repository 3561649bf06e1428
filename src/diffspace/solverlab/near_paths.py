"""Solvers judged and improved without evaluations: a stand-in for the denoiser near the exact paths of its samples."""

from __future__ import annotations

from dataclasses import replace

import torch

from diffspace._shapes import Tensor
from diffspace.protocols import Cond, Denoiser, stated
from diffspace.sampling.runs import Trajectory
from diffspace.solverlab.end_points import Reference
from diffspace.solverlab.family import Family, Runs, Table, in_float64

_SAMPLES, _ELEMENTS = 64, 2**14  # to compare levels by: samples at least, and elements in all


class NearPaths:
    """D near the exact paths of calibration samples, from their reference alone.

        D(x; σ) ≈ D*(σ) + C·(C + σ²)⁻¹·(x − x*(σ))

    x* and D* are those of the path of the same sample (`Reference.along`), and C is the covariance of the end points:
    the slope is that of a Gaussian. As a denoiser it takes all samples of the reference, in their order, and states
    what `denoiser` does.
    """

    def __init__(self, denoiser: Denoiser, truth: Reference) -> None:
        self.denoiser, self.truth = denoiser, truth
        ends = in_float64(truth.x.flatten(1)).cpu()
        _, spreads, axes = torch.linalg.svd(ends - ends.mean(0), full_matrices=False)
        self.axes = axes.to(truth.x)
        self.variances = (spreads.square() / len(ends)).to(truth.x)

    def __getattr__(self, name: str) -> object:
        if (found := stated(self.denoiser, name)) is None:
            raise AttributeError(name)
        return found

    def __call__(self, x: Tensor, sigma: Tensor, cond: Cond | None = None) -> Tensor:
        return self.estimate(x.flatten(1), float(sigma.flatten()[0])).reshape(x.shape)

    def estimate(self, x: Tensor, sigma: float, rows: slice = slice(None)) -> Tensor:
        """D of (…, b, elements), for some of the samples."""
        state, denoised = (part[rows].flatten(1) for part in self.truth.along(sigma))
        return denoised + self.slope(x - state, sigma)

    def few(self) -> NearPaths:
        """The same of some samples, at least 64, and some elements of each, which are enough to compare levels by."""
        truth, size = self.truth, self.truth.x[0].numel()
        generator = torch.Generator(device="cpu").manual_seed(0)
        order = torch.randperm(size, generator=generator, dtype=torch.int64, device="cpu")
        own = order[: _ELEMENTS // min(len(truth.x), _SAMPLES)]
        truth = truth.rows(slice(0, max(_ELEMENTS // size, _SAMPLES)))
        latents, x = (part.flatten(1)[:, own.to(part.device)] for part in (truth.latents, truth.x))
        path = truth.path and Trajectory(*(part.flatten(2)[:, :, own.to(part.device)] for part in truth.path))
        return NearPaths(self.denoiser, replace(truth, latents=latents, x=x, path=path))

    def slope(self, moved: Tensor, sigma: float) -> Tensor:
        """By how much D changes where x does, to first order."""
        gains = self.variances / (self.variances + sigma**2).clamp_min(torch.finfo(moved.dtype).tiny)
        change: Tensor = (moved @ self.axes.T * gains) @ self.axes
        return change


class NearFamily(Family):
    """The family of a denoiser for which `NearPaths` stands in: without any evaluation."""

    def __init__(self, near: NearPaths, mean: float | None) -> None:
        super().__init__(near, near.truth, None, mean)
        self.near = near

    def denoise(self, i: int, x: Tensor, sigma: float, rows: slice = slice(None)) -> Tensor:
        if i == 0 and self.mean is not None:
            return torch.full_like(x, self.mean)
        return self.near.estimate(x, sigma, rows)


class SecantFamily(Family):
    """A family whose runs are true, and whose slopes take no evaluation.

    They are those of `NearPaths`, except in the direction from the path to the state, in which the run itself has told
    the change of D.
    """

    tries = 3  # where slopes are estimates, shorter steps help little

    def __init__(self, family: Family, near: NearPaths) -> None:
        super().__init__(family.denoiser, family.truth, family.batch_size, family.mean)
        self.near = near

    def cost(self, table: Table, levels: bool) -> int:
        return 0

    def nudged(self, i: int, runs: Runs, x: Tensor, levels: tuple[float, float], rows: slice) -> Tensor:
        state, denoised = runs.states[i], runs.denoised[i]
        away = state - self.near.truth.at(levels[0])[rows].flatten(1)
        before = self.near.estimate(state, levels[0], rows)
        size = away.square().sum(-1, keepdim=True) + 1e-12 * levels[0] ** 2
        share = ((x - state) * away).sum(-1, keepdim=True) / size
        return denoised + self.near.estimate(x, levels[1], rows) - before + share * (denoised - before)
