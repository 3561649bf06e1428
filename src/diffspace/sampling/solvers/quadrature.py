"""The mathematics that multistep and exponential solvers share: integrals of polynomials through known values.

In the unscaled state x the ODE is dx/dσ = (x − D)/σ. Three changes of variables remove its linear part, d(x/m) = g dμ,
each with a different g to interpolate:

- "epsilon":  m = 1,            g = (x − D)/σ,                        μ = σ
- "x0":       m = σ,            g = D,                                μ = 1/σ
- "v":        m = √(σ² + σ_d²), g = ((σ² + σ_d²)·D − σ_d²·x)/(σ·σ_d·m), μ = −arctan(σ/σ_d)

("v" interpolates F of Eq. 7 with the paper's preconditioning; for σ_d = 1 it is minus the v of Salimans and Ho 2022.)
A solver of the family takes x⁺/m⁺ = x/m + Σ_j w_j·g_j with w_j = ∫ ℓ_j(u) dμ over the step, where ℓ_j are the Lagrange
polynomials through the nodes in a variable u(σ): σ itself, ln σ, arctan(σ/σ_d), or the time of a VP schedule.
Single-step solvers in ln σ need the same integrals of powers only, which are φ-functions for "epsilon" and "x0".
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Literal

import torch

from diffspace._shapes import Float, Tensor
from diffspace.process import VPSchedule

Prediction = Literal["epsilon", "x0", "v"]
Exponential = Literal["epsilon", "x0"]  # those of exponential integrators in ln σ
Variable = Literal["sigma", "log_sigma", "angle", "vp"]

# DEIS places its polynomials in the time of the VP schedule that goes from σ = 0.002 to 80 (Zhang and Chen 2023),
# for data with σ_data = 0.5
_VP = VPSchedule.spanning(0.002, 80.0, 1e-3)
_POINTS = 32  # of Gauss and Legendre, in each piece of a step
_PIECE = 2.0  # in ln σ: exact to rounding for every measure and variable


def normalizer(prediction: Prediction, sigma: float, sigma_data: float = 1.0) -> float:
    """m(σ)."""
    if prediction == "epsilon":
        return 1.0
    return sigma if prediction == "x0" else math.hypot(sigma, sigma_data)


def predict(
    prediction: Prediction, sigma: float, x: Tensor, denoised: Tensor, sigma_data: float = 1.0
) -> tuple[Tensor, float]:
    """g of the unscaled x and its D at σ > 0, as a tensor and the factor on it: one pass over memory, none for "x0"."""
    if prediction == "epsilon":
        return torch.sub(x, denoised), 1 / sigma
    if prediction == "x0":
        return denoised, 1.0
    m = math.hypot(sigma, sigma_data)
    return torch.sub(x, denoised, alpha=(m / sigma_data) ** 2), -sigma_data / (sigma * m)


def phi(k: int, z: float) -> float:
    """φ_k(z) = ∫₀¹ e^{(1−u)z}·u^{k−1}/(k−1)! du = Σ_j z^j/(j+k)!, k ≥ 1 (Hochbruck and Ostermann 2010, Eq. 2.10)."""
    if abs(z) < 1:  # where the recurrence would subtract near equals
        return sum(z**j / math.factorial(j + k) for j in range(20))
    value = math.expm1(z) / z
    for i in range(1, k):
        value = (value - 1 / math.factorial(i)) / z
    return value


def exponential_moments(prediction: Exponential, sigma: float, end: float, count: int) -> tuple[float, ...]:
    """e_i = m(end)·∫ u^i/i! dμ over the step from σ to `end`, u = ln(σ/·)/h from 0 to 1, h = ln(σ/end), i < count.

    If g = Σ_i c_i·u^i/i!, then x⁺ = (m⁺/m)·x + Σ_i e_i·c_i. With z = h for "epsilon" and −h for "x0", e_i is
    −z·φ_{i+1}(z), times `end` for "epsilon".
    """
    h = math.log(sigma / end)
    z, scale = (h, end) if prediction == "epsilon" else (-h, 1.0)
    return tuple(-scale * z * phi(i + 1, z) for i in range(count))


def line_weights(mean: float, slope: float, sigma: float, other: float, end: float) -> tuple[float, float]:
    """The weights of g at σ and at `other`, for mean·g(σ) + slope·(the rise of g over the step from σ to `end`).

    The rise is that of the straight line through the two, in ln σ.
    """
    weight = slope * math.log(sigma / end) / math.log(sigma / other)
    return mean - weight, weight


def _measure(prediction: Prediction, sigma: Tensor, sigma_data: float) -> Tensor:
    """dμ/dσ."""
    if prediction == "epsilon":
        return torch.ones_like(sigma)
    return -(sigma**-2) if prediction == "x0" else -sigma_data / (sigma**2 + sigma_data**2)


# u(σ), σ(u) and dσ/du for each variable, as functions of that and σ_d
_CHANGES: Mapping[Variable, tuple[Callable[[Tensor, float], Tensor], ...]] = {
    "sigma": (lambda sigma, _: sigma, lambda u, _: u, lambda u, _: torch.ones_like(u)),
    "log_sigma": (lambda sigma, _: sigma.log(), lambda u, _: u.exp(), lambda u, _: u.exp()),
    "angle": (lambda sigma, d: torch.atan(sigma / d), lambda u, d: d * u.tan(), lambda u, d: d / u.cos() ** 2),
    "vp": (
        lambda sigma, d: _VP.sigma_inv(sigma * (0.5 / d)),
        lambda u, d: _VP.sigma(u) * (2 * d),
        lambda u, d: _VP.sigma_dot(u) * (2 * d),
    ),
}


@functools.cache
def _legendre() -> tuple[Tensor, Tensor]:
    """Points and weights of Gauss's quadrature on [0, 1], by the eigenvalues of Jacobi's matrix (Golub and Welsch)."""
    k = torch.arange(1, _POINTS, dtype=torch.float64, device="cpu")
    off = k / (4 * k**2 - 1).sqrt()
    values, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    return 0.5 * (values + 1), vectors[0] ** 2


def lagrange_weights(
    prediction: Prediction, variable: Variable, nodes: Float[Tensor, "k"], end: Float[Tensor, ""], sigma_data: float
) -> Float[Tensor, "k"]:
    """w_j = ∫ ℓ_j(u) dμ from σ = nodes[0] to `end`, for the polynomial through the nodes; differentiable in all σ.

    In float64. `end` may be 0 for "epsilon" and "v" in a variable that is finite there (all but "log_sigma").
    """
    variable_of, inverse, derivative = _CHANGES[variable]
    u = variable_of(nodes, sigma_data)
    ends = _pieces(nodes[0], end, sigma_data)
    places, measures = [], []
    for one, other in pairwise(ends):
        points, weights = _legendre()
        if variable == "vp" and other == 0:  # where σ is like the root of u − u_end: u is smooth in that root
            points, weights = points * (2 - points), 2 * weights * (1 - points)
        start, length = variable_of(one, sigma_data), variable_of(other, sigma_data) - variable_of(one, sigma_data)
        at = start + length * points
        measure = _measure(prediction, inverse(at, sigma_data), sigma_data)
        places.append(at)
        measures.append(weights * derivative(at, sigma_data) * measure * length)
    at = torch.cat(places)
    others = [[i for i in range(len(nodes)) if i != j] for j in range(len(nodes))]
    basis = [((at[:, None] - u[rest]) / (u[j] - u[rest])).prod(1) for j, rest in enumerate(others)]
    return torch.stack(basis) @ torch.cat(measures)


def _pieces(start: Tensor, end: Tensor, sigma_data: float) -> list[Tensor]:
    """The levels from `start` to `end` that divide a step for the quadrature; the last piece to 0 is from σ_d on."""
    length = float((start / (end if end > 0 else sigma_data)).detach().log())
    if not math.isfinite(length):
        return [start, end]
    count = max(1, math.ceil(abs(length) / _PIECE)) if end > 0 else max(0, math.ceil(length / _PIECE))
    inner = [start * math.exp(-length * i / count) for i in range(1, count if end > 0 else count + 1)]
    return [start, *inner, end]
