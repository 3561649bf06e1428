"""The exact lines of a reference solution as a process shows them, in any number of dimensions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from diffspace._shapes import Float, Tensor
from diffspace.oracles import GaussianMixture
from diffspace.process import Process
from diffspace.solverlab.end_points import Reference
from diffspace.studies.flows import check_process, deviation


@dataclass(frozen=True)
class LinesAlong:
    """Exact flow lines over equal steps of a process's time from 0 to `t[-1]`, scaled: x_t = s(t)·x(σ(t))."""

    t: Float[Tensor, "times"]
    sigma: Float[Tensor, "times"]
    s: Float[Tensor, "times"]
    x: Float[Tensor, "times lines *dims"]
    deviation: float
    """As in `ScheduledLines`."""


def lines_along(truth: Reference, process: Process, t_max: float, *, columns: int = 121) -> LinesAlong:
    """The lines of a reference with a trajectory under a process; σ(t) may rise and fall, but not above its σ_max.

    Args:
        truth: `reference(…, execution=Execution(trajectory=True))`; `Reference.at` has the states between its steps.
        process, t_max: the process, and the time where the lines begin.
        columns: how many times.
    """
    check_process(process, t_max)
    t = t_max * torch.linspace(0, 1, columns, dtype=torch.float64, device="cpu")
    sigma, s = process.sigma(t), process.s(t)
    x = torch.stack([truth.at(level) for level in sigma.tolist()])
    x = s.reshape(-1, *[1] * (x.ndim - 1)) * x
    return LinesAlong(t, sigma, s, x, deviation(x))


def plane_density(
    data: GaussianMixture, sigma: float, s: float, reach: float, rows: int
) -> Float[Tensor, "{rows} {rows}"]:
    """p_t(x, y) = p((x, y)/s; σ)/s² of points of the plane: row i has y, column k has x, from −reach to reach."""
    if data.sample_shape != (2,):
        raise ValueError(f"data: expected points of the plane, of shape (2,), got {data.sample_shape}")
    places = reach * torch.linspace(-1, 1, rows, dtype=torch.float64, device="cpu") / s
    if data.axes is None:  # of isotropic modes each is a product of a function of x and one of y
        total = (data.variances + sigma**2).expand(-1, 2)
        z = (places[:, None, None] - data.means) / total.sqrt()
        x, y = ((-0.5 * z**2).exp() / (2 * math.pi * total).sqrt()).unbind(2)
        return (y * data.weights) @ x.T / s**2
    y, x = torch.meshgrid(places, places, indexing="ij")
    log = data.log_prob(torch.stack([x, y], -1).reshape(-1, 2), torch.tensor(sigma, dtype=torch.float64, device="cpu"))
    return (log.exp() / s**2).reshape(rows, rows)
