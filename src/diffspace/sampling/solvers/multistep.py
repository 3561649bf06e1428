"""Linear multistep solvers: one evaluation a step, and a combination of it with earlier ones."""

from __future__ import annotations

import functools
import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from diffspace._shapes import Tensor
from diffspace.checks import check_choice, check_integer, check_number
from diffspace.protocols import PAPER_SIGMA_DATA, Cond, Request, data_scale
from diffspace.sampling.solvers.base import Point, Step, UnscaledSolver, combine
from diffspace.sampling.solvers.quadrature import Prediction, Variable, lagrange_weights, normalizer, predict
from diffspace.sampling.steps import GivenSteps

_LARGEST = 1e30  # of the numbers of a fitted solver: sums of them and of D stay finite in single precision


class Past(NamedTuple):
    """One earlier evaluation: its noise level, and g there as a tensor and the factor on it (see `predict`)."""

    sigma: float
    value: Tensor
    factor: float


def add_past(x: Tensor, ratio: float, past: tuple[Past, ...], weights: tuple[float, ...]) -> Tensor:
    """ratio·x + Σ_j w_j·g_j."""
    return combine(x, ratio, ((g.value, w * g.factor) for g, w in zip(past, weights, strict=True)))


class LinearMultistep(UnscaledSolver):
    """x⁺ = (m⁺/m)·x + Σ_j w_j·g_j over the last k evaluations, fewer in the first steps; a subclass gives `weights_at`.

    g and m are those of `prediction` (see `quadrature`). With `lower_final` the last k − 1 steps of a run use fewer
    evaluations too, down to the last one's own: steadier where few steps are long in ln σ, but of second order for any
    k, with a small factor. A step to σ = 0 ends at D.
    """

    multistep = True
    k: int
    prediction: Prediction
    sigma_data: float | None = None
    lower_final: bool = False

    @property
    def scale(self) -> float:
        """σ_d."""
        return PAPER_SIGMA_DATA if self.sigma_data is None else self.sigma_data

    @abstractmethod
    def weights_at(self, sigmas: tuple[float, ...], end: float) -> tuple[float, ...]:
        """The weight of each g in the state at `end`; `sigmas` are the levels of the evaluations, newest first."""

    def corrected(self, x: Tensor, past: tuple[Past, ...]) -> Tensor:
        """The state at the newest evaluation, now that it is known; the others are those that led to it."""
        return x

    def unscaled_step(self, x: Tensor, start: Point, end: Point, memory: tuple[Past, ...] | None) -> Step:
        denoised = yield Request(x, start.sigma)
        newest = Past(start.sigma, *predict(self.prediction, start.sigma, x, denoised, self.scale))
        past = (newest, *(memory or ()))
        left = start.steps_left if self.lower_final else self.k
        x = self.corrected(x, past[: 1 + min(self.k, left + 1)])
        used = past[: min(self.k, left)]
        m, m_end = (normalizer(self.prediction, point.sigma, self.scale) for point in (start, end))
        weights = _weights(self, tuple(node.sigma for node in used), end.sigma)
        return add_past(x, m_end / m, used, weights), past[: self.k]


@functools.lru_cache(maxsize=4096)
def _weights(solver: LinearMultistep, sigmas: tuple[float, ...], end: float) -> tuple[float, ...]:
    return solver.weights_at(sigmas, end)


def polynomial_weights(
    prediction: Prediction,
    variable: Variable,
    nodes: tuple[float, ...],
    end: float,
    sigma_data: float = PAPER_SIGMA_DATA,
) -> tuple[float, ...]:
    """m(end)·∫ ℓ_j(u) dμ from the first node to `end`: the weights of g at each node there (see `quadrature`)."""
    at, to = (torch.tensor(values, dtype=torch.float64, device="cpu") for values in (nodes, end))
    weights = lagrange_weights(prediction, variable, at, to, sigma_data) * normalizer(prediction, end, sigma_data)
    return tuple(weights.tolist())


class _Polynomial(LinearMultistep):
    """The Adams–Bashforth method for `prediction` as a polynomial in `variable`."""

    variable: Variable

    def __post_init__(self) -> None:
        check_integer("k", self.k, 1, 6)

    @property
    def order(self) -> int:
        return min(self.k, 2) if self.lower_final else self.k

    def weights_at(self, sigmas: tuple[float, ...], end: float) -> tuple[float, ...]:
        return polynomial_weights(self.prediction, self.variable, sigmas, end, self.scale)

    def step_to_zero(self, x: Tensor, start: Point, end: Point, memory: tuple[Past, ...] | None) -> Step:
        """By the weights where they are finite, else to D."""
        finite = self.prediction != "x0" and self.variable != "log_sigma"
        return (self.step if finite else super().step_to_zero)(x, start, end, memory)


@dataclass(frozen=True)
class AdamsBashforth(_Polynomial):
    """The Adams–Bashforth method with weights for the actual steps: of order k on any steps, after the first k − 1.

    x⁺/m⁺ = x/m + Σ_j w_j·g_j over the last k evaluations, w_j = ∫ ℓ_j(u) dμ (see `quadrature`). `prediction` says what
    is interpolated (ε, x₀ or v), `variable` in which variable it is a polynomial:

    - ε in σ: `LMS`; ε in "vp": `DEIS`;
    - ε or x₀ in ln σ: exponential Adams–Bashforth, which DPM-Solver and DPM-Solver++ truncate;
    - v in the angle arctan(σ/σ_d): no step is singular, not even the one to σ = 0.

    A step to σ = 0 is Euler's, but for ε and v in a variable that is finite there. `sigma_data`, by default what the
    denoiser states, else the paper's 0.5, has an effect on v, on the angle and on "vp" alone, whose time goes from
    σ = 0.004·σ_data to 160·σ_data.
    """

    k: int = 3
    prediction: Prediction = "epsilon"
    variable: Variable = "log_sigma"
    sigma_data: float | None = None
    lower_final: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("prediction", self.prediction, Prediction)
        check_choice("variable", self.variable, Variable)
        if self.sigma_data is not None:
            check_number("sigma_data", self.sigma_data, "(0, inf)")

    def for_denoiser(self, denoiser: object) -> AdamsBashforth:
        if self.sigma_data is not None or (self.prediction != "v" and self.variable not in ("angle", "vp")):
            return self
        return replace(self, sigma_data=PAPER_SIGMA_DATA * data_scale(denoiser))


@dataclass(frozen=True)
class LMS(_Polynomial):
    """The linear multistep method of k-diffusion: Adams–Bashforth with ε a polynomial in σ, of order k.

    iPNDM_v is meant to be this method, but its published coefficients for unequal steps are not those of a polynomial.
    """

    k: int = 4
    prediction = "epsilon"
    variable = "sigma"


@dataclass(frozen=True)
class DEIS(_Polynomial):
    """tAB-DEIS (Zhang and Chen 2023): Adams–Bashforth with ε a polynomial in the time of a VP schedule, of order k.

    The time is that of σ = 0.004·σ_data to 160·σ_data; `sigma_data` is by default what the denoiser states, else 0.5.
    """

    k: int = 3
    sigma_data: float | None = None
    prediction = "epsilon"
    variable = "vp"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sigma_data is not None:
            check_number("sigma_data", self.sigma_data, "(0, inf)")

    def for_denoiser(self, denoiser: object) -> DEIS:
        known = PAPER_SIGMA_DATA * data_scale(denoiser) if self.sigma_data is None else self.sigma_data
        return replace(self, sigma_data=known)


_EQUAL_STEPS = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))


@dataclass(frozen=True)
class IPNDM(LinearMultistep):
    """x⁺ = x + (σ⁺ − σ)·Σ_j c_j·ε_j, c_j of Adams and Bashforth for equal steps (Zhang and Chen 2023).

    On steps that are not equal in σ the method is of second order for any k ≥ 2. A step to σ = 0 is Euler's.
    """

    k: int = 4
    prediction = "epsilon"

    def __post_init__(self) -> None:
        check_integer("k", self.k, 1, 4)

    @property
    def order(self) -> int:
        return min(self.k, 2)

    def weights_at(self, sigmas: tuple[float, ...], end: float) -> tuple[float, ...]:
        return tuple((end - sigmas[0]) * c for c in _EQUAL_STEPS[len(sigmas) - 1])


def _constant(value: float, x: Tensor, sigma: Tensor, cond: Cond | None = None) -> Tensor:
    return torch.full_like(x, value)


def _rows_of(levels: Sequence[float], weights: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], ...]:
    """The rows of `FittedSolver` that do the same as weights of (x_j − D_j)/σ_j."""
    n = len(weights)
    states = torch.zeros(n + 1, n + 1, dtype=torch.float64, device="cpu")  # x_0, x_1, … as shares of x_0, D_0, D_1, …
    states[0, 0] = 1
    rows = []
    for i, row in enumerate(weights):
        shares = states.new_tensor(row) / states.new_tensor(levels[: i + 1])
        new = states[i] + shares @ states[: i + 1]
        new[1 : i + 2] -= shares
        if float(new[0].abs()) > 1e9 * float(states[i, 0].abs()):
            raise ValueError(f"weights: step {i} brings back what the steps before have removed")
        a = float(new[0] / states[i, 0]) if states[i, 0] else 0.0
        rows.append((a, *(new - a * states[i])[1 : i + 1].tolist()))
        states[i + 1] = new
    return tuple(rows)


@dataclass(frozen=True)
class FittedSolver(UnscaledSolver):
    """A linear multistep solver found for one denoiser and one sequence of levels (`fit_solver`), as plain numbers.

    x⁺ = D_i + a_i·(x − D_i) + Σ_{j < i} w_ij·(D_j − D_i) in step i, with D_j of every earlier evaluation. `levels` are
    N+1, falling; row i of `rows` holds a_i and then w_i0 … w_i,i−1. It steps between these levels alone, which its
    `Sampler` holds as `GivenSteps`. With `mean`, that of the data, D_0 is this number, its limit as σ → ∞, and not
    evaluated: a run of N steps takes N − 1 evaluations. A table for one grid has no limit of many steps: `order` is 1
    by declaration only.

    Earlier files have `weights` instead of rows: x⁺ = x + Σ_{j ≤ i} v_ij·(x_j − D_j)/σ_j. They are converted to rows.
    """

    levels: tuple[float, ...]
    rows: tuple[tuple[float, ...], ...] = ()
    mean: float | None = None
    weights: tuple[tuple[float, ...], ...] | None = None
    order = 1
    multistep = True

    def __post_init__(self) -> None:
        name, given = ("rows", self.rows) if self.weights is None else ("weights", self.weights)
        lengths = [len(row) for row in given]
        if lengths != list(range(1, GivenSteps(self.levels).num_steps + 1)):
            raise ValueError(f"{name}: expected rows of 1, 2, … {len(self.levels) - 1} numbers, got {lengths}")
        if not all(abs(number) <= _LARGEST for row in given for number in row):
            raise ValueError(f"{name}: expected finite numbers up to {_LARGEST:g}")
        if self.weights is not None:
            if self.rows:
                raise ValueError("weights: give these or rows")
            object.__setattr__(self, "rows", _rows_of(self.levels, self.weights))
            object.__setattr__(self, "weights", None)
        if self.mean is not None:
            check_number("mean", self.mean)
            if len(lengths) == 1:
                raise ValueError("mean: a run of one step would have no evaluation")
            object.__setattr__(self, "first_denoiser", functools.partial(_constant, self.mean))

    def unscaled_step(self, x: Tensor, start: Point, end: Point, memory: tuple[Tensor, int] | None) -> Step:
        past, i = memory or (x.new_empty(len(self.rows), *x.shape), 0)
        pairs = zip((start.sigma, end.sigma), self.levels[i:], strict=False)
        if not all(math.isclose(a, b, rel_tol=1e-6) for a, b in pairs):
            raise ValueError(
                f"steps: step {i} goes from σ = {start.sigma:g} to {end.sigma:g}, but the solver was fitted to others; "
                "use GivenSteps(solver.levels)"
            )
        past[i] = yield Request(x, start.sigma)  # in one block, which a single product combines
        a, *weights = self.rows[i]
        shares = x.new_tensor([*weights, 1 - a - math.fsum(weights)])
        return torch.addmv(x.flatten(), past[: i + 1].flatten(1).T, shares, beta=a).reshape(x.shape), (past, i + 1)

    step_to_zero = UnscaledSolver.step
