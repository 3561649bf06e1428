"""Solvers of the stochastic equation of the paper, Eq. 6: the ODE and a Langevin term, which leaves p(x; σ) unchanged.

In the unscaled state and with β = η·σ̇/σ, which for η = 1 is Song's, Eq. 6 run backward is

    dx = (1 + η)·(x − D)/σ dσ + noise;    for a constant D    x⁺ = D + (σ⁺/σ)^{1+η}·(x − D) + σ⁺·√(1 − (σ⁺/σ)^{2η})·z.

The noise of every solver here comes from one Brownian motion B of each seed on one clock, τ = 1/σ²: a step has
z = (B(1/σ⁺²) − B(1/σ²))/√(1/σ⁺² − 1/σ²). For η = 1 that is exact, since then d(x/σ²) = D d(1/σ²) + dB; for any
other rate it is the same in the limit of small steps. So all solvers of one SDE, with any steps, approach the same end
point of a seed: the mean distance from it falls as 1/N for each of them (strong order 1, as measured on a mixture).
`order` is the weak one, of the law of the end points, as measured on Gaussians. A step to σ = 0 ends at D.

`GeneralSDE` and `PredictorCorrector` are not exact for a constant D: a long step leaves more noise than its end has,
which the next steps, told that level, do not remove. ValueError where it would be more than five times as much.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Literal

import torch

from diffspace._shapes import Tensor
from diffspace.checks import check_callable, check_choice, check_integer, check_number
from diffspace.protocols import Increment, Request
from diffspace.sampling.solvers.base import Point, Step, UnscaledSolver
from diffspace.sampling.solvers.quadrature import phi

_EXCESS = 5.0  # 18 EDM steps leave 4.9 times σ_min = 0.002, which nobody sees; 6 leave 72 times, and an error of 32


class _StochasticSolver(UnscaledSolver):
    stochastic = True

    def check_step(self, start: Point, end: Point) -> None:
        if not end.sigma < start.sigma:
            raise ValueError(f"steps: σ must fall for a solver that adds noise, got {start.sigma:g} to {end.sigma:g}")


def _check_excess(solver: object, start: Point, end: Point, kept: float, added: float) -> None:
    """ValueError for a step from x = D + σ·ε to D + kept·σ·ε + added·z with far more noise than σ⁺ for a constant D."""
    left = math.hypot(kept * start.sigma, added)
    if not left <= _EXCESS * end.sigma:
        raise ValueError(
            f"steps: from σ = {start.sigma:g} to {end.sigma:g} is too far for {type(solver).__name__}, which leaves "
            f"{left / end.sigma:.3g} times the noise of the end; use more steps, or a solver such as DPMSolverPP2MSDE"
        )


@dataclass(frozen=True)
class _Ancestral(_StochasticSolver):
    """The options of the solvers of k-diffusion: η, the amount of noise, and a factor on it."""

    eta: float = 1.0
    S_noise: float = 1.0

    def __post_init__(self) -> None:
        check_number("eta", self.eta, "[0, inf)")
        check_number("S_noise", self.S_noise, "[0, inf)")


def _noise(sigma: float, end: float) -> Generator[Increment, Tensor, Tensor]:
    """Unit-variance noise of the step from σ to `end` > 0."""
    start, stop = sigma**-2, end**-2
    return (yield Increment(start, stop)) / math.sqrt(stop - start)


def _split(sigma: float, end: float, eta: float) -> tuple[float, float]:
    """(σ_down, σ_up): a level below `end`, and the noise that leads up from it, σ_down² + σ_up² = end²."""
    up = min(end, eta * end * math.sqrt(max(1 - (end / sigma) ** 2, 0.0)))
    return math.sqrt(end**2 - up**2), up


@dataclass(frozen=True)
class EulerAncestral(_Ancestral):
    """Euler's step to σ_down, then noise of σ_up back to σ⁺, σ_up = η·σ⁺·√(1 − σ⁺²/σ²) (k-diffusion).

    It approaches Eq. 6 with β = η²·σ̇/σ; η = 0 is Euler.
    """

    order = 1

    def unscaled_step(self, x: Tensor, start: Point, end: Point, memory: None) -> Step:
        down, up = _split(start.sigma, end.sigma, self.eta)
        x = torch.lerp((yield Request(x, start.sigma)), x, down / start.sigma)
        if up > 0:
            x = x.add((yield from _noise(start.sigma, end.sigma)), alpha=up * self.S_noise)
        return x, None


@dataclass(frozen=True)
class DPMSolverPPSDE(_Ancestral):
    """DPM-Solver++ (stochastic, single step): two evaluations, the second at ln σ_r = (1 − r)·ln σ + r·ln σ⁺.

    Both stages are exact for a constant D and see one Brownian path (Lu et al. 2022, in the form of k-diffusion, with
    the noise of `EulerAncestral`: β = η²·σ̇/σ).
    """

    r: float = 0.5
    order = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("r", self.r, "(0, 1]")

    def unscaled_step(self, x: Tensor, start: Point, end: Point, memory: None) -> Step:
        sigma, middle = start.sigma, start.sigma * (end.sigma / start.sigma) ** self.r if self.r < 1 else end.sigma
        denoised = yield Request(x, sigma)
        # the noise of the whole step is that of its two parts, which do not overlap
        noise = (yield from _noise(sigma, middle)) if self.eta > 0 else None
        second = yield Request(self._advance(x, denoised, noise, sigma, middle), middle)
        if noise is not None and middle > end.sigma:
            share = math.sqrt((middle**-2 - sigma**-2) / (end.sigma**-2 - sigma**-2))
            rest = yield from _noise(middle, end.sigma)
            noise = noise.mul_(share).add_(rest, alpha=math.sqrt(1 - share**2))
        return self._advance(x, torch.lerp(denoised, second, 1 / (2 * self.r)), noise, sigma, end.sigma), None

    def _advance(self, x: Tensor, denoised: Tensor, noise: Tensor | None, sigma: float, end: float) -> Tensor:
        down, up = _split(sigma, end, self.eta)
        x = torch.lerp(denoised, x, down / sigma)
        return x if noise is None else x.add_(noise, alpha=up * self.S_noise)


@dataclass(frozen=True)
class _MultistepSDE(_Ancestral):
    """x⁺ = e^{−h'}·x + (1 − e^{−h'})·D + corrections + noise, h' = (1 + η)·ln(σ/σ⁺), exact for a constant D."""

    multistep = True
    order = 2

    @abstractmethod
    def _corrections(self, h: float, past: list[tuple[float, Tensor]]) -> list[tuple[Tensor, float]]:
        """Tensors to be added to x⁺ and their factors.

        h is ln(σ/σ⁺), `past` has ln σ and D of the last two or three evaluations, the latest first.
        """

    def unscaled_step(self, x: Tensor, start: Point, end: Point, memory: list[tuple[float, Tensor]] | None) -> Step:
        denoised = yield Request(x, start.sigma)
        past = [(math.log(start.sigma), denoised), *(memory or [])][:3]
        h = math.log(start.sigma / end.sigma)
        x = torch.lerp(denoised, x, math.exp(-(1 + self.eta) * h))
        for tensor, factor in self._corrections(h, past) if len(past) > 1 else ():
            x = x.add_(tensor, alpha=factor)
        if self.eta > 0:
            std = end.sigma * math.sqrt(-math.expm1(-2 * self.eta * h)) * self.S_noise
            x = x.add_((yield from _noise(start.sigma, end.sigma)), alpha=std)
        return x, past


@dataclass(frozen=True)
class DPMSolverPP2MSDE(_MultistepSDE):
    """DPM-Solver++(2M) SDE: D and the one before it as a line in ln σ; `variant` "midpoint" or "heun" (exact weights).

    The error of "midpoint" is smaller; with η = 0 it is DPM-Solver++(2M).
    """

    variant: Literal["midpoint", "heun"] = "midpoint"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("variant", self.variant, Literal["midpoint", "heun"])

    def _corrections(self, h: float, past: list[tuple[float, Tensor]]) -> list[tuple[Tensor, float]]:
        (here, denoised), (before, earlier) = past[:2]
        full = (1 + self.eta) * h
        weight = -0.5 * math.expm1(-full) if self.variant == "midpoint" else full * phi(2, -full)
        return [(denoised - earlier, weight * h / (before - here))]


@dataclass(frozen=True)
class DPMSolverPP3MSDE(_MultistepSDE):
    """DPM-Solver++(3M) SDE of k-diffusion: D and the two before it.

    As published, the weight of the second difference is half of what a parabola through the three would have: order 2
    at any η, with half the error of "midpoint" 2M SDE.
    """

    def _corrections(self, h: float, past: list[tuple[float, Tensor]]) -> list[tuple[Tensor, float]]:
        full = (1 + self.eta) * h
        phi_2 = phi(2, -full)
        (here, denoised), (before, earlier) = past[:2]
        r0 = (before - here) / h
        first = (denoised - earlier) / r0
        if len(past) == 2:
            return [(first, full * phi_2)]
        at, earliest = past[2]
        r1 = (at - before) / h
        second = (first - (earlier - earliest) / r1) / (r0 + r1)
        return [(first + r0 * second, full * phi_2), (second, 0.5 - phi_2)]


@dataclass(frozen=True)
class GeneralSDE(_StochasticSolver):
    """Eq. 6 with any rate β(t) of the Langevin term, by Euler–Maruyama or, with two `stages`, by Heun's method.

    dx = (σ̇/σ + β)·(x − D) dt + √(2β)·σ dω, backward in t, in the unscaled state. `beta` is a function of t; None is
    η·σ̇/σ, so that η = 1 is Song's reverse SDE and η = 0 the ODE. Two stages take the mean of both ends for drift and
    noise, and two evaluations. Weak order 1, or 2 with two stages. Steps are in t: the error depends on the process.
    The paper's range takes at least 18 EDM steps, or 23 with two stages; ValueError for longer ones.
    """

    eta: float = 1.0
    stages: int = 1
    in_sigma = False
    beta: Callable[[float], float] | None = None

    def __post_init__(self) -> None:
        check_number("eta", self.eta, "[0, inf)")
        check_integer("stages", self.stages, 1, 2)
        if self.beta is not None:
            check_callable("beta", self.beta, "beta(t)")
            if self.eta != 1:
                raise ValueError(f"eta: {self.eta} has no effect beside beta")

    @property
    def order(self) -> int:
        return self.stages

    def _rates(self, point: Point) -> tuple[float, float]:
        """σ̇/σ + β, and √(2β)·σ; ValueError where β is negative."""
        rate = point.ode[1] / point.s
        beta = self.eta * rate if self.beta is None else self.beta(point.t)
        check_number(f"beta at t = {point.t:g}", beta, "[0, inf)")
        return rate + beta, math.sqrt(2 * beta) * point.sigma

    def check_step(self, start: Point, end: Point) -> None:
        super().check_step(start, end)
        h, (rate, spread) = end.t - start.t, self._rates(start)
        kept, added = 1 + h * rate, spread
        if self.stages == 2:
            rate_end, spread_end = self._rates(end)
            kept, added = 1 + 0.5 * h * (rate + rate_end * kept), 0.5 * (spread + spread_end + h * rate_end * spread)
        _check_excess(self, start, end, kept, added * math.sqrt(abs(h)))

    def unscaled_step(self, x: Tensor, start: Point, end: Point, memory: None) -> Step:
        h = end.t - start.t
        denoised = yield Request(x, start.sigma)
        rate, spread = self._rates(start)
        rate_end, spread_end = self._rates(end) if self.stages == 2 else (0.0, 0.0)
        drift = (x - denoised).mul_(rate)
        noise: Any = 0.0
        if spread > 0 or spread_end > 0:
            noise = (yield from _noise(start.sigma, end.sigma)) * math.sqrt(abs(h))
        there = x + h * drift + spread * noise
        if self.stages == 2:
            second = yield Request(there, end.sigma)
            drift = drift.add_((there - second).mul_(rate_end)).mul_(0.5)
            there = x + h * drift + 0.5 * (spread + spread_end) * noise
        return there, None


@dataclass(frozen=True)
class PredictorCorrector(_StochasticSolver):
    """Song et al. 2021, Algorithms 1 and 2 (VE): a step of the reverse diffusion, then Langevin steps at the new level.

    Predictor: x + (σ² − σ⁺²)·score + √(σ² − σ⁺²)·z. Corrector, `corrections` times: x + ε·score + √(2ε)·z with
    ε = 2·(snr·σ⁺)². Song's ε has ‖z‖/‖score‖ of a batch in place of σ⁺, which is the same where the score is that of
    noise; measured norms would make a sample depend on its batch, or, measured for each sample, bias the law.
    """

    corrections: int = 1
    snr: float = 0.16
    order = 1
    multistep = True

    def __post_init__(self) -> None:
        check_integer("corrections", self.corrections, 0)
        check_number("snr", self.snr, "(0, inf)")

    def evaluations(self, to_zero: bool) -> int:
        return 1 if to_zero else 1 + self.corrections

    def check_step(self, start: Point, end: Point) -> None:
        super().check_step(start, end)
        added = math.sqrt(max(start.sigma**2 - end.sigma**2, 0.0))
        _check_excess(self, start, end, (end.sigma / start.sigma) ** 2, added)

    def unscaled_step(self, x: Tensor, start: Point, end: Point, memory: int | None) -> Step:
        denoised = yield Request(x, start.sigma)
        noise = yield from _noise(start.sigma, end.sigma)
        std = math.sqrt(start.sigma**2 - end.sigma**2)
        x = torch.lerp(denoised, x, (end.sigma / start.sigma) ** 2).add_(noise, alpha=std)
        drawn = memory or 0
        for _ in range(self.corrections):
            if end.sigma < math.exp(-30):
                raise ValueError(f"sigma: expected levels of at least e^-30 for corrections, got {end.sigma:g}")
            score = ((yield Request(x, end.sigma)) - x).div_(end.sigma**2)
            # cells of the clock far above 1/σ², each as long as the path resolves: independent of all others
            first, last = (math.exp(60 + k / 256) for k in (drawn, drawn + 1))
            noise = (yield Increment(first, last)) / math.sqrt(last - first)
            drawn += 1
            size = 2 * (self.snr * end.sigma) ** 2
            x = x.add(score, alpha=size).add_(noise, alpha=math.sqrt(2 * size))
        return x, drawn
