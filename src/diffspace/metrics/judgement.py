"""From the differences after random exchanges of samples and real items to a verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from diffspace._shapes import Float, Tensor
from diffspace.metrics.features import FeatureStatistics
from diffspace.metrics.scores import Features, kernel_variance

LEVEL = 0.05
"""The probability with which samples that are like real data are called worse."""

HIGHER = ("precision", "recall", "density", "coverage", "inception")
"""The scores of which more is better."""

Outcome = Literal["worse", "no worse", "better", "too small", "not compared"]

_SHARES = 0.05
_OF_VARIANCE = 0.01


@dataclass(frozen=True)
class Judgement:
    """What random exchanges say of a difference: in standard errors, its probability, its upper 95 % limit."""

    z: float
    p_value: float
    quantile: float
    limit: float
    outcome: Outcome


def judge(differences: Float[Tensor, "b"], tolerance: float) -> Judgement:
    """Judge the first difference by the others, which are those after exchanges; positive ones are worse."""
    observed, exchanged = float(differences[0]), differences[1:]
    rounding = 1e-9 * float(exchanged.abs().max())
    chance = 1 + len(exchanged)
    p_value = (1 + int((exchanged >= observed - rounding).sum())) / chance
    p_better = (1 + int((exchanged <= observed + rounding).sum())) / chance
    mean, error = float(exchanged.mean()), float(exchanged.std())
    quantile = float(exchanged.quantile(1 - LEVEL)) - mean
    limit = max(observed - mean, 0.0) + quantile
    outcome: Outcome = "no worse" if limit <= tolerance else "too small"
    if p_value <= LEVEL:
        outcome = "worse"
    elif p_better <= LEVEL:
        outcome = "better"
    return Judgement((observed - mean) / error if error > 0 else 0.0, p_value, quantile, limit, outcome)


def tolerance_of(score: str, reference: Features | FeatureStatistics, real: float) -> float:
    """The excess over real data that n has to be able to tell.

    0.05 of the shares and of density, 1 % of the variance of features in the units of a distance, 5 % of the Inception
    score of real data above 1.
    """
    if score == "inception":
        return _SHARES * (real - 1)
    if score in HIGHER:
        return _SHARES
    if score == "kid" and isinstance(reference, Features):
        return _OF_VARIANCE * kernel_variance(reference)
    target = reference.statistics if isinstance(reference, Features) else reference
    return _OF_VARIANCE * float(target.covariance.trace()) * (3 if score == "mind" else 1)
