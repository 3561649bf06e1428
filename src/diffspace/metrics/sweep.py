"""Quality against cost: scores of samplers of one model from the same seeds, and which reach a quality first."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, Literal, NamedTuple

import torch

from diffspace._shapes import Tensor
from diffspace.checks import check_integer, check_number
from diffspace.metrics.features import frechet_distance
from diffspace.metrics.scores import Features, frechet_slopes, kid, kid_slopes

Score = Literal["frechet", "kid"]

TARGET, TARGET_NFE = "heun", 35
"""The reference's default, 18 steps of Heun with the paper's steps, whose quality others are to equal."""

BLOCKS = 20
_SURE = 2.0  # standard errors


@dataclass(frozen=True)
class Quality:
    """A score of n samples, less being better, and what each of G equal blocks of them adds to it, to first order.

    Scores of the same seeds have the same blocks, so that the error of a difference is known too, and is smaller than
    that of either: samplers of one ODE make nearly the same samples.
    """

    value: float
    blocks: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.blocks) < 2 or not all(map(math.isfinite, (self.value, *self.blocks))):
            raise ValueError(f"blocks: expected finite numbers, at least 2, and a finite value, got {self}")

    @classmethod
    def of(cls, score: Score, samples: Features, reference: Features) -> Quality:
        """The score of at least 4 samples, in their order, against a reference; 20 blocks, of few samples less."""
        check_integer("number of samples", len(samples), 4)
        count = min(BLOCKS, len(samples) // 2)
        value, slopes = SCORES[score](samples, reference)
        means = [float(part.mean()) for part in torch.tensor_split(slopes, count)]
        centre = fmean(means)
        return cls(value, tuple(mean - centre for mean in means))

    @property
    def standard_error(self) -> float:
        """√(Σ_g b_g²/(G(G − 1))): over fresh samples, the reference being fixed."""
        count = len(self.blocks)
        return math.sqrt(sum(block**2 for block in self.blocks) / (count * (count - 1)))

    def above(self, other: Quality, factor: float = 1.0) -> Quality:
        """self − `factor`·other, of the same seeds."""
        pairs = zip(self.blocks, other.blocks, strict=True)
        return Quality(self.value - factor * other.value, tuple(a - factor * b for a, b in pairs))


def _frechet(samples: Features, reference: Features) -> tuple[float, Tensor]:
    target = reference.statistics
    value = frechet_distance(samples.statistics, target)
    return value, frechet_slopes(samples.values, samples.statistics, target)


def _kid(samples: Features, reference: Features) -> tuple[float, Tensor]:
    return kid(samples, reference).value, kid_slopes(samples, reference)


SCORES: Mapping[str, Callable[[Features, Features], tuple[float, Tensor]]] = {"frechet": _frechet, "kid": _kid}
"""The value of a score, and what each sample adds to it."""
SCORE_NAMES: Mapping[str, str] = {"frechet": "Fréchet distance", "kid": "KID"}


@dataclass(frozen=True)
class SweepPoint:
    """One sampler at one budget.

    Args:
        method: its name, the same at every budget.
        budget: evaluations that it may take.
        nfe: evaluations of the denoiser that it takes for a sample.
        seconds: wall-clock time of a sample, in the batch that took the least.
        cpu_seconds: processor time of a sample, which other work on the machine disturbs less.
        quality: of the samples; None where the run failed.
        rms: root mean square distance of some samples from the end points of the ODE; None where noise is added.
        guidance: the weight, as it was typed; "" without.
        churn: S_churn.
        sampler: the sampler in one word.
        failure: why there are no samples.
    """

    method: str
    budget: int
    nfe: int
    seconds: float
    cpu_seconds: float
    quality: Quality | None
    rms: float | None = None
    guidance: str = ""
    churn: float = 0.0
    sampler: str = ""
    failure: str = ""

    @property
    def name(self) -> str:
        """The method with its churn and guidance."""
        parts = [self.method]
        parts += [f"churn {self.churn:g}"] if self.churn else []
        parts += [f"guidance {self.guidance}"] if self.guidance else []
        return ", ".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; `from_dict` reads it."""
        error = None if self.quality is None else self.quality.standard_error
        return {**asdict(self), "standard_error": error}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> SweepPoint:
        """The point of a mapping that `as_dict` made."""
        values = {name: value for name, value in record.items() if name != "standard_error"}
        if values["quality"] is not None:
            values["quality"] = Quality(values["quality"]["value"], tuple(values["quality"]["blocks"]))
        return cls(**values)


def targets(points: Sequence[SweepPoint]) -> dict[str, SweepPoint]:
    """The target among some points, for each guidance, where it has a score."""
    return {
        point.guidance: point
        for point in points
        if (point.method, point.nfe, point.churn) == (TARGET, TARGET_NFE, 0.0) and point.quality is not None
    }


class Reached(NamedTuple):
    """When one method is as good as the target.

    `shown` is the first point that is at most `tolerance` worse with two standard errors to spare, `possible` the first
    that may be, within two standard errors; None where there is none.
    """

    name: str
    possible: SweepPoint | None
    shown: SweepPoint | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the evaluations and the time of a sample."""
        pairs = {"possible": self.possible, "shown": self.shown}
        return {
            "name": self.name,
            **{
                k: None if p is None else {"nfe": p.nfe, "seconds": p.seconds, "cpu_seconds": p.cpu_seconds}
                for k, p in pairs.items()
            },
        }


def reach(points: Sequence[SweepPoint], target: SweepPoint, tolerance: float = 0.05) -> list[Reached]:
    """For each method at the target's guidance, from how many evaluations on it is as good as the target.

    As good is a score that is above the target's by at most a share `tolerance` of its absolute value. Both points are
    of the same seeds, and the error is that of their difference.
    """
    check_number("tolerance", tolerance, "[0, inf)")
    if target.quality is None:
        raise ValueError(f"target: {target.name} at NFE {target.nfe} has no score: {target.failure}")
    methods: dict[str, list[SweepPoint]] = {}
    for point in sorted(points, key=lambda point: (point.nfe, point.seconds)):
        if point.guidance == target.guidance:
            methods.setdefault(point.name, []).append(point)

    def first(line: Sequence[SweepPoint], sign: int) -> SweepPoint | None:
        for point in line:
            if point is target:
                return point
            if point.quality is not None and target.quality is not None:
                excess = point.quality.above(target.quality, 1 + math.copysign(tolerance, target.quality.value))
                if excess.value + sign * _SURE * excess.standard_error <= 0:
                    return point
        return None

    return [Reached(name, first(line, -1), first(line, 1)) for name, line in methods.items()]


class Least(NamedTuple):
    """The point with the least score of all within a budget, and the others that the same seeds cannot tell from it."""

    budget: int
    point: SweepPoint
    close: tuple[SweepPoint, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: names and evaluations."""
        best, *close = ({"name": point.name, "nfe": point.nfe} for point in (self.point, *self.close))
        return {"budget": self.budget, **best, "close": close}


def least(points: Sequence[SweepPoint], guidance: str = "") -> list[Least]:
    """For each budget the least score of a guidance weight, and those of other methods within two standard errors."""
    scored = [(point, point.quality) for point in points if point.guidance == guidance and point.quality is not None]
    found = []
    for budget in sorted({point.budget for point, _ in scored}):
        within = sorted((p for p in scored if p[0].nfe <= budget), key=lambda each: (each[1].value, each[0].nfe))
        best, quality = within[0]
        close: dict[str, SweepPoint] = {}  # the least of each other method
        for point, other in within[1:]:
            excess = other.above(quality)
            if point.name != best.name and excess.value <= _SURE * excess.standard_error:
                close.setdefault(point.name, point)
        found.append(Least(budget, best, tuple(close.values())))
    return found


def best_of(reached: Sequence[Reached], prefix: str) -> Reached | None:
    """The one of the methods whose name begins with `prefix` that is shown to reach the target in the least time.

    The least of several is partly lucky, in their favour.
    """

    def rank(one: Reached) -> tuple[float, float]:
        shown, possible = (math.inf if point is None else point.seconds for point in (one.shown, one.possible))
        return shown, possible

    return min((one for one in reached if one.name.startswith(prefix)), key=rank, default=None)
