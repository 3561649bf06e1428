"""Verdicts by one rule: an effect is shown where it is larger than chance makes it in 2.5 % of cases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Literal

from scipy import stats

Verdict = Literal["shown", "not shown", "cannot tell"]
RULE = (
    "An effect is positive where the statement says so. It is *shown* where it exceeds its standard error t times, "
    "with t the 97.5 % quantile of Student's distribution (1.96 for many degrees of freedom, 2.78 for two groups of "
    "three seeds that spread alike); *not shown* where it is below 0, or below what the statement needs, by as much; "
    "otherwise these numbers *cannot tell*. Where the statement says that two things are alike, the effect is the "
    "stated tolerance less their difference."
)
_LEVEL = 0.975


@dataclass(frozen=True)
class Effect:
    """A difference in the direction of a statement, its standard error, and the degrees of freedom of that."""

    value: float
    error: float
    dof: float = math.inf

    @property
    def critical(self) -> float:
        """The number of standard errors that chance exceeds in 2.5 % of cases."""
        return float(stats.norm.ppf(_LEVEL) if math.isinf(self.dof) else stats.t.ppf(_LEVEL, self.dof))

    @property
    def verdict(self) -> Verdict:
        """By the rule; an error that is unknown (not finite, as of one seed) tells nothing."""
        if not (math.isfinite(self.value) and math.isfinite(self.error)):
            return "cannot tell"
        margin = self.critical * self.error
        if self.value > margin:
            return "shown"
        return "not shown" if self.value < -margin else "cannot tell"

    @property
    def sure(self) -> str:
        """The effect in standard errors, beside the number that is needed."""
        if not math.isfinite(self.error):
            return "one measurement: the spread is not known"
        if self.error == 0:
            return "exact"
        effect = self.value / self.error
        told = f"{effect:+.1f}" if abs(effect) <= 100 else f"beyond {math.copysign(100, effect):+.0f}"
        return f"{told} standard errors, {self.critical:.2f} needed"


@dataclass(frozen=True)
class Claim:
    """A statement of the article or the paper: what it says, the paper's number, the number here, and the verdict.

    Args:
        part: where it was measured.
        says: the statement.
        paper: the paper's number, "" where it gives none.
        here: the number measured here.
        verdict: by the rule.
        sure: what the verdict rests on.
    """

    part: str
    says: str
    paper: str
    here: str
    verdict: Verdict
    sure: str

    @classmethod
    def of(cls, part: str, says: str, paper: str, here: str, effect: Effect, basis: str) -> Claim:
        """The statement with the verdict on an effect; `basis` says of what the error is."""
        return cls(part, says, paper, here, effect.verdict, f"{effect.sure}; {basis}")


def welch(a: Sequence[float], b: Sequence[float]) -> Effect:
    """mean(a) − mean(b) of independent measurements, with Welch's degrees of freedom."""
    value = fmean(a) - fmean(b)
    if len(a) < 2 or len(b) < 2:
        return Effect(value, math.inf)
    u, v = variance(a) / len(a), variance(b) / len(b)
    if u + v == 0:
        return Effect(value, 0.0)
    return Effect(value, math.sqrt(u + v), (u + v) ** 2 / (u**2 / (len(a) - 1) + v**2 / (len(b) - 1)))


def paired(differences: Sequence[float]) -> Effect:
    """The mean of differences of the same seeds."""
    count = len(differences)
    if count < 2:
        return Effect(fmean(differences), math.inf)
    return Effect(fmean(differences), math.sqrt(variance(differences) / count), count - 1)


def alike(effect: Effect, tolerance: float) -> Effect:
    """How much less than a tolerance a difference is."""
    return Effect(tolerance - abs(effect.value), effect.error, effect.dof)


def mean_of(values: Sequence[float]) -> str:
    """`1.23 ± 0.04`, the mean and the spread of several seeds."""
    spread = f" ± {math.sqrt(variance(values)):.2g}" if len(values) > 1 else ""
    return f"{fmean(values):.3g}{spread}"
