"""Solvers of the stochastic equation of the paper, Eq. 6: the ODE and a Langevin term that keeps p(x; σ) as it is.

In the unscaled state and with β = η·σ̇/σ, which for η = 1 is Song's, Eq. 6 run backward is

    dx = (1 + η)·(x − D)/σ dσ + noise;    for a constant D    x⁺ = D + (σ⁺/σ)^{1+η}·(x − D) + σ⁺·√(1 − (σ⁺/σ)^{2η})·z.

The noise of every solver here comes from one Brownian motion B of each seed on one clock, τ = 1/σ²: a step has
z = (B(1/σ⁺²) − B(1/σ²))/√(1/σ⁺² − 1/σ²). For η = 1 that is exact, since then d(x/σ²) = D d(1/σ²) + dB; for any
other rate it is the same in the limit of small steps. So all solvers, with any steps, see the same noise of a seed, and
all those of one SDE approach the same end point: the mean distance from it falls as 1/N for each of them (strong order
1, as measured on a mixture). `order` is the weak one, of the law of the end points, as measured on Gaussians
(`tests/convergence/test_stochastic_order.py`). A step to σ = 0 adds no noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from diffspace._shapes import Tensor
from diffspace.protocols import Increment, Request, SigmaPath, Step
from diffspace.sampling.solvers.quadrature import check_choice

__all__ = [
    "DPMSolverPP2MSDE",
    "DPMSolverPP3MSDE",
    "DPMSolverPPSDE",
    "EulerAncestral",
    "GeneralSDE",
    "PredictorCorrector",
]


def _check_amount(name: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name}: {value}; want a finite number, not negative")


def _noise(sigma: float, end: float) -> Generator[Increment, Tensor, Tensor]:
    """Unit-variance noise of the step from σ to `end` > 0."""
    start, stop = sigma**-2, end**-2
    increment = yield Increment(start, stop)
    return increment / math.sqrt(stop - start)


def _split(sigma: float, end: float, eta: float) -> tuple[float, float]:
    """(σ_down, σ_up): a level below `end`, and the noise that leads up from it, σ_down² + σ_up² = end²."""
    up = min(end, eta * end * math.sqrt(max(1 - (end / sigma) ** 2, 0.0)))
    return math.sqrt(end**2 - up**2), up


def _toward(x: Tensor, denoised: Tensor, ratio: float) -> Tensor:
    """ratio·x + (1 − ratio)·D: the ODE for a constant D, where σ falls by that ratio."""
    return torch.lerp(denoised, x, ratio)


def _enter(path: SigmaPath, x: Tensor, t: float, t_next: float) -> tuple[Tensor, float, float, float]:
    """The unscaled x, σ here and at the end, and the scale there; ValueError where σ does not fall."""
    (sigma, s), (end, s_end) = path.level(t), path.level(t_next)
    if not end < sigma:
        raise ValueError(f"steps: one goes from σ = {sigma:g} to {end:g}; a solver that adds noise wants σ to fall")
    return (x if s == 1 else x / s), sigma, end, s_end


def _scaled(x: Tensor, s: float) -> Tensor:
    return x if s == 1 else x * s


@dataclass(frozen=True)
class EulerAncestral:
    """Euler's step to σ_down, then noise of σ_up back to σ⁺, σ_up = η·σ⁺·√(1 − σ⁺²/σ²) (k-diffusion).

    It approaches Eq. 6 with β = η²·σ̇/σ. Weak order 1, strong order 1; η = 0 is Euler.
    """

    eta: float = 1.0
    S_noise: float = 1.0
    multistep: ClassVar[bool] = False
    stochastic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_amount("eta", self.eta)
        _check_amount("S_noise", self.S_noise)

    @property
    def order(self) -> int:
        return 1

    def evaluations(self, to_zero: bool) -> int:
        return 1

    def step(self, path: SigmaPath, x: Tensor, t: float, t_next: float, memory: None) -> Step:
        x, sigma, end, s_end = _enter(path, x, t, t_next)
        down, up = _split(sigma, end, self.eta)
        x = _toward(x, (yield Request(x, sigma)), down / sigma)
        if up > 0:
            x = x.add((yield from _noise(sigma, end)), alpha=up * self.S_noise)
        return _scaled(x, s_end), None


@dataclass(frozen=True)
class DPMSolverPPSDE:
    """DPM-Solver++ (stochastic, single step): two evaluations, the second at ln σ_r = (1 − r)·ln σ + r·ln σ⁺.

    Both stages are exact for a constant D and see one Brownian path (Lu et al. 2022, in k-diffusion's form, with noise
    as `EulerAncestral` has it: β = η²·σ̇/σ). Weak order 2, strong order 1. A step to σ = 0 is one evaluation.
    """

    eta: float = 1.0
    S_noise: float = 1.0
    r: float = 0.5
    multistep: ClassVar[bool] = False
    stochastic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_amount("eta", self.eta)
        _check_amount("S_noise", self.S_noise)
        if not 0 < self.r <= 1:
            raise ValueError(f"r: {self.r}; want more than 0 and at most 1")

    @property
    def order(self) -> int:
        return 2

    def evaluations(self, to_zero: bool) -> int:
        return 1 if to_zero else 2

    def step(self, path: SigmaPath, x: Tensor, t: float, t_next: float, memory: None) -> Step:
        x, sigma, end, s_end = _enter(path, x, t, t_next)
        denoised = yield Request(x, sigma)
        if end == 0:
            return _scaled(denoised, s_end), None
        # the noise of the whole step is that of its two parts, which do not overlap
        between = sigma * (end / sigma) ** self.r if self.r < 1 else end
        noise = (yield from _noise(sigma, between)) if self.eta > 0 else None
        x_between = self._advance(x, denoised, noise, sigma, between)
        second = yield Request(x_between, between)
        if noise is not None and between > end:
            share = math.sqrt((between**-2 - sigma**-2) / (end**-2 - sigma**-2))
            rest = yield from _noise(between, end)
            noise = noise.mul_(share).add_(rest, alpha=math.sqrt(1 - share**2))
        x = self._advance(x, torch.lerp(denoised, second, 1 / (2 * self.r)), noise, sigma, end)
        return _scaled(x, s_end), None

    def _advance(self, x: Tensor, denoised: Tensor, noise: Tensor | None, sigma: float, end: float) -> Tensor:
        down, up = _split(sigma, end, self.eta)
        x = _toward(x, denoised, down / sigma)
        return x if noise is None else x.add_(noise, alpha=up * self.S_noise)


@dataclass(frozen=True)
class _MultistepSDE:
    """x⁺ = e^{−h'}·x + (1 − e^{−h'})·D + corrections + noise, h' = (1 + η)·ln(σ/σ⁺), exact for a constant D."""

    eta: float = 1.0
    S_noise: float = 1.0
    multistep: ClassVar[bool] = True
    stochastic: ClassVar[bool] = True
    reach: ClassVar[int]

    def __post_init__(self) -> None:
        _check_amount("eta", self.eta)
        _check_amount("S_noise", self.S_noise)

    def evaluations(self, to_zero: bool) -> int:
        return 1

    def _corrections(self, h: float, past: list[tuple[float, Tensor]]) -> list[tuple[float, Tensor]]:
        """Factors and tensors to be added; `past` holds (ln σ, D), latest first, h is ln(σ/σ⁺)."""
        raise NotImplementedError

    def step(
        self, path: SigmaPath, x: Tensor, t: float, t_next: float, memory: list[tuple[float, Tensor]] | None
    ) -> Step:
        x, sigma, end, s_end = _enter(path, x, t, t_next)
        denoised = yield Request(x, sigma)
        past = [(math.log(sigma), denoised), *(memory or [])][: self.reach]
        if end == 0:
            return _scaled(denoised, s_end), past
        h = math.log(sigma / end)
        x = _toward(x, denoised, math.exp(-(1 + self.eta) * h))
        for factor, tensor in self._corrections(h, past):
            x = x.add_(tensor, alpha=factor)
        if self.eta > 0:
            std = end * math.sqrt(-math.expm1(-2 * self.eta * h)) * self.S_noise
            x = x.add_((yield from _noise(sigma, end)), alpha=std)
        return _scaled(x, s_end), past


def _phi_2(h: float) -> float:
    """1 − (1 − e^{−h})/h, without cancellation at small h."""
    return h / 2 - h * h / 6 + h**3 / 24 if h < 1e-4 else 1 + math.expm1(-h) / h


@dataclass(frozen=True)
class DPMSolverPP2MSDE(_MultistepSDE):
    """DPM-Solver++(2M) SDE: D and the one before it as a line in ln σ; `kind` "midpoint" or "heun" (exact weights).

    Weak order 2, strong order 1, with either kind; "midpoint" errs less. η = 0 with "midpoint" is DPM-Solver++(2M).
    """

    kind: Literal["midpoint", "heun"] = "midpoint"
    reach: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("kind", self.kind, Literal["midpoint", "heun"])

    @property
    def order(self) -> int:
        return 2

    def _corrections(self, h: float, past: list[tuple[float, Tensor]]) -> list[tuple[float, Tensor]]:
        if len(past) < 2:
            return []
        (here, denoised), (before, earlier) = past
        full = (1 + self.eta) * h
        weight = -0.5 * math.expm1(-full) if self.kind == "midpoint" else _phi_2(full)
        return [(weight * h / (before - here), denoised - earlier)]


@dataclass(frozen=True)
class DPMSolverPP3MSDE(_MultistepSDE):
    """DPM-Solver++(3M) SDE of k-diffusion: D and the two before it.

    As published, the weight of the second difference is half of what a parabola through the three would have: weak
    order 2 at any η, with half the error of "midpoint" 2M SDE, and strong order 1.
    """

    reach: ClassVar[int] = 3

    @property
    def order(self) -> int:
        return 2

    def _corrections(self, h: float, past: list[tuple[float, Tensor]]) -> list[tuple[float, Tensor]]:
        if len(past) < 2:
            return []
        full = (1 + self.eta) * h
        phi_2 = _phi_2(full)
        (here, denoised), (before, earlier) = past[:2]
        r0 = (before - here) / h
        first = (denoised - earlier) / r0
        if len(past) == 2:
            return [(phi_2, first)]
        at, earliest = past[2]
        r1 = (at - before) / h
        second = (first - (earlier - earliest) / r1) / (r0 + r1)
        return [(phi_2, first + r0 * second), (0.5 - phi_2 / full, second)]


@dataclass(frozen=True)
class GeneralSDE:
    """Eq. 6 with any rate β(t) of the Langevin term, by Euler–Maruyama or, with two `stages`, as Heun would.

    dx = (σ̇/σ + β)·(x − D) dt + √(2β)·σ dω, backward in t, in the unscaled state. `beta` is a function of t; None is
    η·σ̇/σ, so that η = 1 is Song's reverse SDE and η = 0 the ODE. Two stages take the mean of both ends for drift and
    noise, and two evaluations. Weak order 1 or, with two stages, 2; strong order 1. Steps are in t, so that the error
    depends on the process. A step to σ = 0 ends at D.
    """

    eta: float = 1.0
    stages: int = 1
    beta: Callable[[float], float] | None = None
    multistep: ClassVar[bool] = False
    stochastic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_amount("eta", self.eta)
        if self.stages not in (1, 2):
            raise ValueError(f"stages: {self.stages}; want 1 (Euler–Maruyama) or 2")
        if self.beta is not None and not callable(self.beta):
            raise ValueError(f"beta: {self.beta!r}; want a function of t")
        if self.beta is not None and self.eta != 1:
            raise ValueError(f"eta: {self.eta} has no effect beside beta")

    @property
    def order(self) -> int:
        return self.stages

    def evaluations(self, to_zero: bool) -> int:
        return 1 if to_zero else self.stages

    def _rates(self, path: SigmaPath, t: float) -> tuple[float, float]:
        """σ̇/σ + β, and √(2β)·σ; ValueError where β is negative."""
        point = path.at(t)
        rate = point.b / point.s
        beta = self.eta * rate if self.beta is None else self.beta(t)
        if not (math.isfinite(beta) and beta >= 0):
            raise ValueError(f"beta: {beta} at t = {t:g}; want a finite number, not negative")
        return rate + beta, math.sqrt(2 * beta) * point.sigma

    def step(self, path: SigmaPath, x: Tensor, t: float, t_next: float, memory: None) -> Step:
        x, sigma, end, s_end = _enter(path, x, t, t_next)
        denoised = yield Request(x, sigma)
        if end == 0:
            return _scaled(denoised, s_end), None
        h = t_next - t
        rate, spread = self._rates(path, t)
        drift = (x - denoised).mul_(rate)
        noise: Any = 0.0
        rate_end, spread_end = self._rates(path, t_next) if self.stages == 2 else (0.0, 0.0)
        if spread > 0 or spread_end > 0:
            noise = (yield from _noise(sigma, end)) * math.sqrt(abs(h))
        there = x + h * drift + spread * noise
        if self.stages == 2:
            second = yield Request(there, end)
            drift = drift.add_((there - second).mul_(rate_end)).mul_(0.5)
            there = x + h * drift + 0.5 * (spread + spread_end) * noise
        return _scaled(there, s_end), None


@dataclass(frozen=True)
class PredictorCorrector:
    """Song et al. 2021, Algorithms 1 and 2 (VE): a step of the reverse diffusion, then Langevin steps at the new level.

    Predictor: x + (σ² − σ⁺²)·score + √(σ² − σ⁺²)·z. Corrector, `corrections` times: x + ε·score + √(2ε)·z with
    ε = 2·(snr·σ⁺)². Theirs has ‖z‖/‖score‖ of a batch in the place of σ⁺, which is the same where the score is that of
    noise; measured norms would make a sample depend on its neighbours, or, of a sample by itself, bias the law.
    A step to σ = 0 is the predictor's mean, D. The predictor alone is of weak order 1.
    """

    corrections: int = 1
    snr: float = 0.16
    multistep: ClassVar[bool] = True
    stochastic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not (isinstance(self.corrections, int) and self.corrections >= 0):
            raise ValueError(f"corrections: {self.corrections!r}; want a number of steps, 0 or more")
        if not (math.isfinite(self.snr) and self.snr > 0):
            raise ValueError(f"snr: {self.snr}; want a positive finite number")

    @property
    def order(self) -> int:
        return 1

    def evaluations(self, to_zero: bool) -> int:
        return 1 if to_zero else 1 + self.corrections

    def step(self, path: SigmaPath, x: Tensor, t: float, t_next: float, memory: int | None) -> Step:
        x, sigma, end, s_end = _enter(path, x, t, t_next)
        denoised = yield Request(x, sigma)
        if end == 0:
            return _scaled(denoised, s_end), None
        ratio = (end / sigma) ** 2
        noise = yield from _noise(sigma, end)
        x = _toward(x, denoised, ratio).add_(noise, alpha=math.sqrt(sigma**2 - end**2))
        drawn = memory or 0
        for _ in range(self.corrections):
            score = ((yield Request(x, end)) - x).div_(end**2)
            # cells of the clock far above 1/σ², each as long as the path resolves: independent of all else
            start, stop = (math.exp(60 + k / 256) for k in (drawn, drawn + 1))
            noise = (yield Increment(start, stop)) / math.sqrt(stop - start)
            drawn += 1
            size = 2 * (self.snr * end) ** 2
            x = x.add(score, alpha=size).add_(noise, alpha=math.sqrt(2 * size))
        return _scaled(x, s_end), drawn
