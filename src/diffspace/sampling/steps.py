"""Where the steps are put: the sequences of noise levels of Table 1, "Time steps".

Every class gives N levels from σ_max down, then the terminal one. `terminal="zero"` ends at σ = 0 after the N levels
i/(N−1), i < N; `terminal="sigma_min"` spaces the N+1 levels by i/N and ends at σ_min, for encoding and for
measurements of convergence.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, ClassVar, Literal, TypeVar

import torch

from diffspace._shapes import Float, Tensor
from diffspace.checks import MOST_LEVELS, as_tuple, check_choice, check_integer, check_number
from diffspace.process import IDDPMLevels, NoiseLevels, VPSchedule
from diffspace.protocols import PAPER_RANGE, Schedule, data_scale, sampling_range, sigma_range, stated
from diffspace.sampling.beta_distribution import beta_quantile

_ANY = (0.0, math.inf)


def _check_inside(name: str, low: float, high: float, model_range: tuple[float, float]) -> None:
    """ValueError where levels from `low` to `high` are not all in the model's range."""
    least, greatest = model_range
    if not least <= low <= high <= greatest:
        span = f"{low:g} is" if low == high else f"from {high:g} to {low:g} are"
        raise ValueError(
            f"{name}: {span} outside the model's range [{least:g}, {greatest:g}]; pass clip=True to move it inside"
        )


@dataclass(frozen=True)
class RangedSteps(ABC):
    """N steps over a range of σ.

    None stands for what the denoiser states as its `sampling_range`, else for the paper's default of that column times
    σ_data/0.5, as far as the range on which the model is defined allows. A given value outside that range is an error,
    or moved into it with `clip=True`.
    """

    num_steps: int = 18
    sigma_min: float | None = None
    sigma_max: float | None = None
    terminal: Literal["zero", "sigma_min"] = "zero"
    clip: bool = field(default=False, kw_only=True)
    scaled: ClassVar[bool] = True
    """Whether the default range is that of the paper's data."""

    def __post_init__(self) -> None:
        check_integer("num_steps", self.num_steps, 1, MOST_LEVELS)
        for name, value in (("sigma_min", self.sigma_min), ("sigma_max", self.sigma_max)):
            if value is not None:
                check_number(name, value, "(0, inf)")
        if self.sigma_min is not None and self.sigma_max is not None and self.sigma_min >= self.sigma_max:
            raise ValueError(f"sigma_min: {self.sigma_min} is not below sigma_max = {self.sigma_max}")
        check_choice("terminal", self.terminal, ("zero", "sigma_min"))

    def default_range(self) -> tuple[float, float]:
        """The paper's (σ_min, σ_max) of this column, for σ_data = 0.5: by default that of EDM."""
        return PAPER_RANGE

    def for_denoiser(self, denoiser: object) -> RangedSteps:
        """The steps with what they take from the denoiser beside its range: by default nothing."""
        return self

    @abstractmethod
    def _place(self, fractions: list[float], low: float, high: float, first: float) -> list[float]:
        """The levels at the given shares of the way from `first` to `low`; `high` is the σ_max of the whole range."""

    def resolve(
        self, model_range: tuple[float, float] = _ANY, default: tuple[float, float] | None = None
    ) -> tuple[float, float]:
        """(σ_min, σ_max) for a model defined on `model_range`; `default` is in place of `default_range()`."""
        ends = []
        for name, usual in zip(("sigma_min", "sigma_max"), default or self.default_range(), strict=True):
            given = getattr(self, name)
            if given is not None and not self.clip:
                _check_inside(name, given, given, model_range)
            ends.append(min(max(usual if given is None else given, model_range[0]), model_range[1]))
        low, high = ends
        if not low < high:
            raise ValueError(f"sigma_min: {low:g} is not below sigma_max = {high:g}")
        return low, high

    def sigmas(self, model_range: tuple[float, float] = _ANY, *, start: float | None = None) -> Float[Tensor, "levels"]:
        """The N+1 levels in float64, from `start` (default σ_max) to the terminal one."""
        low, high = self.resolve(model_range)
        first = high if start is None else start
        if not low < first <= model_range[1]:
            raise ValueError(
                f"sigma_start: expected a level above sigma_min = {low:g}, at most {model_range[1]:g}, got {first:g}"
            )
        to_zero = self.terminal == "zero"
        last = self.num_steps - 1 if to_zero else self.num_steps
        levels = self._place([i / max(last, 1) for i in range(last + 1)], low, high, first)
        # rounding may have left the range, and a table may not have the level of a given state
        levels[0] = min(levels[0], first) if start is None else start
        levels[-1] = max(levels[-1], low)
        if any(a <= b for a, b in pairwise(levels)):
            raise ValueError(f"steps: {self} puts two levels in one place")
        return torch.tensor([*levels, 0.0] if to_zero else levels, dtype=torch.float64, device="cpu")


Steps = TypeVar("Steps")


def steps_for(denoiser: object, steps: Steps) -> Steps:
    """The steps with their σ range for a denoiser: given, else stated by it, else the paper's moved to its σ_data.

    Steps whose levels are given one by one are returned unchanged.
    """
    if not isinstance(steps, RangedSteps):
        return steps
    made: Any = steps.for_denoiser(denoiser)
    low, high = made.default_range()
    scale = data_scale(denoiser) if made.scaled else 1.0
    low, high = made.resolve(sigma_range(denoiser), sampling_range(denoiser) or (scale * low, scale * high))
    ranged: Steps = replace(made, sigma_min=low, sigma_max=high)
    return ranged


@dataclass(frozen=True)
class EDMSteps(RangedSteps):
    """σ_i = (σ_max^{1/ρ} + i/(N−1)·(σ_min^{1/ρ} − σ_max^{1/ρ}))^ρ (Eq. 5)."""

    rho: float = 7.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("rho", self.rho, "(0, inf)")

    def _place(self, fractions: list[float], low: float, high: float, first: float) -> list[float]:
        try:
            a, b = math.pow(first, 1 / self.rho), math.pow(low, 1 / self.rho)
        except OverflowError:
            raise ValueError(f"rho: {self.rho:g} is too small: σ_max^(1/ρ) is beyond float64") from None
        return [math.pow(a + fraction * (b - a), self.rho) for fraction in fractions]


@dataclass(frozen=True)
class LogLinearSteps(RangedSteps):
    """σ_i = σ_max·(σ_min/σ_max)^{i/(N−1)}: equal steps in ln σ (exponential steps), over the paper's EDM range."""

    def _place(self, fractions: list[float], low: float, high: float, first: float) -> list[float]:
        return [first * math.pow(low / first, fraction) for fraction in fractions]


@dataclass(frozen=True)
class VESteps(LogLinearSteps):
    """σ_i² = σ_max²·(σ_min²/σ_max²)^{i/(N−1)} (Table 1, VE): equal steps in ln σ, over the range of VE models."""

    def default_range(self) -> tuple[float, float]:
        return 0.02, 100.0


class _InTime(RangedSteps):
    """Equal steps in the time t of a schedule: σ(t_i), t_i from σ⁻¹(σ_max) to σ⁻¹(σ_min)."""

    @abstractmethod
    def _schedule(self, low: float, high: float) -> Schedule: ...

    def _place(self, fractions: list[float], low: float, high: float, first: float) -> list[float]:
        schedule = self._schedule(low, high)
        start, end = schedule.sigma_inv(first), schedule.sigma_inv(low)
        return [schedule.sigma(start + fraction * (end - start)) for fraction in fractions]


@dataclass(frozen=True)
class VPSteps(_InTime):
    """σ(t_i) of the VP schedule with t_i = 1 + i/(N−1)·(ε_s − 1) (Table 1, VP).

    Where the range is not that of β_d and β_min, both are recomputed so that σ(ε_s) = σ_min and σ(1) = σ_max.
    """

    beta_d: float = 19.9
    beta_min: float = 0.1
    epsilon_s: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        VPSchedule(self.beta_d, self.beta_min)
        check_number("epsilon_s", self.epsilon_s, "(0, 1)")

    def default_range(self) -> tuple[float, float]:
        schedule = VPSchedule(self.beta_d, self.beta_min)
        return schedule.sigma(self.epsilon_s), schedule.sigma(1.0)

    def _schedule(self, low: float, high: float) -> VPSchedule:
        own = (low, high) == self.default_range()
        return VPSchedule(self.beta_d, self.beta_min) if own else VPSchedule.spanning(low, high, self.epsilon_s)


@dataclass(frozen=True)
class ScheduleSteps(_InTime):
    """σ(t_i) at equal steps in the time t of any schedule: `FlowSchedule()` makes the even steps of flow matching."""

    schedule: Schedule = field(default_factory=VPSchedule)

    def _schedule(self, low: float, high: float) -> Schedule:
        return self.schedule


@dataclass(frozen=True)
class BetaSteps(ScheduleSteps):
    """σ(t_i) with t_i spread as the quantiles of a Beta distribution over the times of a schedule (Lee et al. 2024).

    t_i = t_min + (t_max − t_min)·Q(1 − i/(N−1)), where Q is the quantile function of Beta(α, β): α and β below 1 put
    steps near both ends, at 1 they are even. ValueError where two levels would fall in one.
    """

    alpha: float = 0.6
    beta: float = 0.6

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("alpha", self.alpha, "(0, inf)")
        check_number("beta", self.beta, "(0, inf)")

    def _place(self, fractions: list[float], low: float, high: float, first: float) -> list[float]:
        # the share of the way down, 1 − Q(1 − f) of Beta(α, β), is the quantile at f of Beta(β, α)
        return super()._place([beta_quantile(f, self.beta, self.alpha) for f in fractions], low, high, first)


class _TabledSteps(RangedSteps):
    """N of the levels of a table, chosen by index; with a range given, of those inside it. ValueError for more."""

    levels: NoiseLevels | None

    def _falling_levels(self) -> list[float]:
        if self.levels is None:
            raise ValueError(
                "levels: no table is given, and the denoiser states none; expected one, such as DiscreteLevels(…)"
            )
        rising: list[float] = self.levels.table().tolist()
        return rising[::-1]

    @abstractmethod
    def _choose(self, count: int, size: int) -> list[int]:
        """Rising indices of `count` levels into a falling table of `size`."""

    def _place(self, fractions: list[float], low: float, high: float, first: float) -> list[float]:
        table = [level for level in self._falling_levels() if low <= level <= first]
        if len(table) < len(fractions):
            raise ValueError(f"num_steps: {self.num_steps}, but only {len(table)} levels are in [{low:g}, {first:g}]")
        return [table[index] for index in self._choose(len(fractions), len(table))]


@dataclass(frozen=True)
class IDDPMSteps(_TabledSteps):
    """N of the levels u_j, evenly by index: u_⌊j₀ + (M−1−j₀)/(N−1)·i + ½⌋ (Table 1, iDDPM + DDIM).

    With a range given, the indices run over the u_j inside it.
    """

    M: int = 1000
    C_1: float = 0.001
    C_2: float = 0.008
    j0: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "levels", IDDPMLevels(self.M, self.C_1, self.C_2))
        check_integer("j0", self.j0, 0, self.M - 2)

    def default_range(self) -> tuple[float, float]:
        u = self._falling_levels()
        return u[-1], u[self.j0]

    def _choose(self, count: int, size: int) -> list[int]:
        return [math.floor(i / max(count - 1, 1) * (size - 1) + 0.5) for i in range(count)]


@dataclass(frozen=True)
class LevelSteps(_TabledSteps):
    """N of the M levels that a model was trained on, chosen by their index n as in Lin et al. 2024, Table 2.

    - "linspace": n = (M−1)·(1 − i/(N−1)), rounded: both ends, evenly; only σ_max for N = 1.
    - "leading": n = (N−1−i)·⌊M/N⌋ + `offset`: ends at n = `offset`, and begins well below σ_max.
    - "trailing": n = M − i·M/N, rounded, − 1: begins at σ_max, ends well above σ_min.

    `levels` is the table, by default that which the denoiser states; ValueError where it states none. The default range
    is the whole table. With a range given, M counts the levels inside it.
    """

    levels: NoiseLevels | None = None
    spacing: Literal["linspace", "leading", "trailing"] = "linspace"
    offset: int = 0
    scaled: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("spacing", self.spacing, ("linspace", "leading", "trailing"))
        if self.spacing == "trailing" and self.terminal == "sigma_min":
            raise ValueError("terminal: spacing='trailing' does not reach 'sigma_min'; use 'zero'")
        if self.offset < 0 or (self.offset > 0 and (self.spacing != "leading" or self.terminal == "sigma_min")):
            raise ValueError(
                f"offset: expected 0, or more with spacing='leading' and terminal='zero', got {self.offset}"
            )

    def for_denoiser(self, denoiser: object) -> LevelSteps:
        return self if self.levels is not None else replace(self, levels=stated(denoiser, "levels"))

    def default_range(self) -> tuple[float, float]:
        table = self._falling_levels()
        return table[-1], table[0]

    def _choose(self, count: int, size: int) -> list[int]:
        # round() takes a half to the even neighbour, as numpy does in the schedulers that use these names
        if self.spacing == "linspace":
            # an N of 1 is the highest level, though linspace(0, M − 1, 1) would be the lowest
            gap = (size - 1) / max(count - 1, 1)
            n = [round(i * gap) for i in reversed(range(count))] if count > 1 else [size - 1]
        elif self.spacing == "leading":
            n = [i * (size // count) + self.offset for i in reversed(range(count))]
        else:
            gap = size - (size - size / count)  # the difference as numpy's arange rounds it, which decides at a half
            n = [round(size - i * gap) - 1 for i in range(count)]
        if n[0] >= size:
            raise ValueError(f"offset: {self.offset} with {count} steps leads beyond the {size} levels")
        return [size - 1 - index for index in n]


@dataclass(frozen=True)
class GivenSteps:
    """Levels given one by one, falling to the terminal one, which may be 0; `clip` as in `RangedSteps`.

    A list, a tensor or an array of levels becomes a tuple.
    """

    levels: tuple[float, ...]
    clip: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", as_tuple("levels", self.levels))
        for level in self.levels:
            check_number("levels", level)
        falling = all(a > b for a, b in zip(self.levels, self.levels[1:], strict=False))
        if len(self.levels) < 2 or not falling or self.levels[-1] < 0 or not math.isfinite(self.levels[0]):
            raise ValueError("levels: expected at least two finite noise levels, falling, none negative")

    @property
    def num_steps(self) -> int:
        return len(self.levels) - 1

    def sigmas(self, model_range: tuple[float, float] = _ANY, *, start: float | None = None) -> Float[Tensor, "levels"]:
        """The levels as given; `start`, if any, is the first of them."""
        levels = torch.tensor(self.levels, dtype=torch.float64, device="cpu")
        if self.clip:
            levels = torch.where(levels > 0, levels.clamp(*model_range), levels)
        else:
            _check_inside("levels", min(level for level in self.levels if level > 0), self.levels[0], model_range)
        if start is not None and not math.isclose(start, self.levels[0], rel_tol=1e-9):
            raise ValueError(
                f"sigma_start: {start:g}, but the given levels begin at {self.levels[0]!r}; pass those from there on"
            )
        return levels


@dataclass(frozen=True)
class GivenTimes:
    """Times t given one by one, as in `GivenSteps`, for a process whose σ(t) has no inverse; σ may be 0 at the last."""

    times: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "times", as_tuple("times", self.times))
        if len(self.times) < 2 or not all(math.isfinite(t) for t in self.times):
            raise ValueError("times: expected at least two finite times")

    @property
    def num_steps(self) -> int:
        return len(self.times) - 1
