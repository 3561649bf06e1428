"""Scores of samples beside those of as many real items, and whether the difference is more than chance."""

from __future__ import annotations

import collections
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import torch

from diffspace.checks import check_choice, check_integer, check_seed
from diffspace.metrics.exchanges import NEIGHBOURS, PROJECTIONS, Splits
from diffspace.metrics.features import FeatureStatistics
from diffspace.metrics.judgement import HIGHER, LEVEL, Outcome, judge, tolerance_of
from diffspace.metrics.neighbourhoods import density_coverage, precision_recall
from diffspace.metrics.scores import (
    BLOCK,
    Estimate,
    Features,
    check_pair,
    frechet,
    frechet_infinity,
    inception_score,
    kid,
    mind,
)

_EXTRAPOLATED = "frechet_infinity"
SCORES = ("frechet", _EXTRAPOLATED, "kid", "mind", "precision", "recall", "density", "coverage", "inception")
_NAMES = {
    "frechet": "Fréchet distance",
    _EXTRAPOLATED: "Fréchet, n → ∞",
    "kid": "KID",
    "mind": "MIND",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "inception": "Inception score",
}
LEAST = {"frechet": 2, "kid": 4, "mind": 2, "precision": 5, "recall": 5, "density": 7, "coverage": 7, "inception": 20}
"""The least n that each score needs."""
_SPANNED = 4  # items for each feature, from which on a distance is about linear in 1/n
_QUADRATIC = ("kid", "precision", "recall", "density", "coverage")  # take time quadratic in the number of items


@dataclass(frozen=True)
class ScoreRow:
    """A score of sets of n samples beside that of sets of n real items, both against one reference.

    `samples` and `real` are means over sets, `sets` and `real_sets` the value of each. `floor` is the value from which
    on samples are called worse: what is better cannot be told from real data. `z` is the difference to real data in
    standard errors, positive where samples are worse, and `p_value` the probability of such a difference or a greater
    one if samples were like real data, from random exchanges of samples and real items, so that it holds for any n.
    `limit` is by how much the samples may be worse, with 95 % confidence; n is too small where it is above `tolerance`.
    The distance extrapolated to n → ∞ is of the first set alone, and has no verdict beside that of the distance.
    """

    score: str
    extractor: str
    dim: int
    n: int
    samples: Estimate
    sets: tuple[float, ...]
    real: Estimate | None
    real_sets: tuple[float, ...]
    higher_is_better: bool
    floor: float | None
    z: float | None
    p_value: float | None
    limit: float | None
    tolerance: float | None
    outcome: Outcome

    @property
    def name(self) -> str:
        """The score's name."""
        return _NAMES[self.score]

    @property
    def best(self) -> float:
        """The best of the sets, as papers report the lowest of three Fréchet distances."""
        return max(self.sets) if self.higher_is_better else min(self.sets)

    @property
    def verdict(self) -> str:
        """The result as a sentence."""
        return self.verdict_in(1.0)

    def verdict_in(self, scale: float) -> str:
        """The result as a sentence, where the score is shown times `scale`."""
        if self.z is None or self.limit is None:
            return "no real data to compare with" if self.real is None else "judged as the distance of n items is"
        if self.outcome in ("worse", "better"):
            return f"{self.outcome} than real by {abs(self.z):.1f} standard errors"
        limit = f"{scale * self.limit:.2g}"
        if self.outcome == "no worse":
            return f"not worse than real by more than {limit}"
        return f"n is too small to tell: may be worse by {limit}"


def compare(
    samples: Features,
    real: Features | None,
    reference: Features | FeatureStatistics,
    *,
    n: int | None = None,
    scores: Sequence[str] | None = None,
    permutations: int = 999,
    seed: int = 0,
    most: int = 10_000,
    disjoint: bool = False,
) -> list[ScoreRow]:
    """Scores of samples against a reference, beside those of real items, and a verdict about each.

    If samples were like real items, nothing would change on average if items were exchanged between the two. So the
    difference of their scores is compared with those after `permutations` random exchanges, the reference being fixed:
    samples are called worse if at most 5 % of the differences are as large. That holds exactly, for any score, n and
    data, if the real items have no part in the reference: for each of them an item of the same values is taken out of
    it, if there is one, unless the two are known to be `disjoint`. With labels on both sides, real items are chosen and
    exchanged within classes.

    Args:
        samples: features of samples, one or more sets of n.
        real: features of real items that the reference does not have; None gives values without verdicts.
        reference: features of real data, or their statistics, which allow the Fréchet distance alone.
        n: the number of items in a set; default: as many as there are samples and real items of.
        scores: which of `SCORES`; default: all that these features allow.
        permutations: the number of exchanges.
        seed: of the choice of real items and of the exchanges.
        most: the most items of a set, and of the reference, of which KID and the scores by neighbours are taken, and of
            either side in the exchanges for these and MIND.
        disjoint: no real item is one of the reference's, though some may have the same values.
    """
    check_pair(samples, reference)
    check_seed("seed", seed)
    check_integer("permutations", permutations, 19)
    sizes = [len(samples)] if real is None else [len(samples), len(real)]
    n = min(sizes) if n is None else n
    check_integer("n", n, 2, min(sizes))
    possible = _possible(samples, real, reference, n)
    for score in scores or ():
        check_choice("scores", score, possible)
    generator = torch.Generator().manual_seed(seed)
    parts = [samples.part(first, first + n) for first in range(0, len(samples) - n + 1, n)]
    others = [] if real is None else _matching(parts, real, generator)
    if others and isinstance(reference, Features) and not disjoint:
        reference = _without(reference, others)
    chosen = list(scores or possible)
    near = _at_most(most, reference, generator)
    against = {score: near if score in _QUADRATIC else reference for score in chosen}
    once = {score: target for score, target in against.items() if score != _EXTRAPOLATED}  # which takes long
    values, real_values = (
        [_values(part, once if k else against, most) for k, part in enumerate(each)] for each in (parts, others)
    )
    splits = Splits.of(parts, others, permutations, most, generator) if others else None
    return [_row(score, parts[0], values, real_values, against[score], splits) for score in chosen]


def is_worse(rows: Sequence[ScoreRow]) -> bool:
    """Whether samples are worse than real data by any score, at 5 % for all of them together (Bonferroni)."""
    found = [row.p_value for row in rows if row.p_value is not None]
    return bool(found) and min(found) <= LEVEL / len(found)


def _possible(
    samples: Features, real: Features | None, reference: Features | FeatureStatistics, n: int
) -> tuple[str, ...]:
    with_logits = samples.logits is not None and (real is None or real.logits is not None)
    found = [score for score in SCORES if score != "inception" or with_logits]
    if isinstance(reference, FeatureStatistics):
        found = [score for score in found if score in ("frechet", _EXTRAPOLATED, "inception")]
    else:
        n = min(n, len(reference))
    least = LEAST | {_EXTRAPOLATED: max(20, _SPANNED * samples.dim)}
    return tuple(score for score in found if n >= least[score])


# ---- which real items


def _matching(parts: Sequence[Features], real: Features, generator: torch.Generator) -> list[Features]:
    """Disjoint sets of real items, at most as many as of samples; of the same classes where all of them have labels."""
    order = torch.randperm(len(real), generator=generator, dtype=torch.int64, device="cpu")
    n = len(parts[0])
    if real.labels is not None and parts[0].labels is not None:
        found, labels = [], real.labels.cpu()
        free = {c: order[labels[order] == c] for c in set(labels.tolist())}
        for counts in (collections.Counter([] if part.labels is None else part.labels.tolist()) for part in parts):
            if any(len(free.get(c, ())) < count for c, count in counts.items()):
                break
            found.append(real.take(torch.cat([free[c][:count] for c, count in counts.items()])))
            free |= {c: free[c][count:] for c, count in counts.items()}
        if found:
            return found
    return [real.take(order[first : first + n]) for first in range(0, min(len(real) // n, len(parts)) * n, n)]


def _without(reference: Features, others: Sequence[Features]) -> Features:
    """The reference without the items of `others`, which would score too well against it: one for each of them."""
    taken = collections.Counter(digest for part in others for digest in _digests(part))
    kept = []
    for place, digest in enumerate(_digests(reference)):
        if taken[digest]:
            taken[digest] -= 1
        else:
            kept.append(place)
    if len(kept) == len(reference):
        return reference
    if len(kept) < 2:
        raise ValueError("reference: has no other items than real; give real items that it does not have")
    return reference.take(torch.tensor(kept, dtype=torch.int64, device="cpu"))


def _digests(features: Features) -> Iterator[bytes]:
    """A hash of the values of each item, by which it is found again."""
    for block in torch.split(features.values, BLOCK):
        for row in (block.cpu().double() + 0.0).contiguous().numpy():  # 0 and −0 are alike
            yield hashlib.blake2b(row.tobytes(), digest_size=16).digest()


# ---- values and verdicts


def _values(part: Features, against: Mapping[str, Features | FeatureStatistics], most: int) -> dict[str, Estimate]:
    """The value of each score against its reference."""
    found = {}
    few = part.part(0, most)
    for score, reference in against.items():
        if score in found:
            continue
        if score == "frechet":
            found[score] = frechet(part, reference)
        elif score == _EXTRAPOLATED:
            found[score] = frechet_infinity(part, reference)
        elif score == "inception":
            found[score] = inception_score(part)
        elif not isinstance(reference, Features):
            raise ValueError(f"reference: {score} needs features of items, got statistics alone")
        elif score == "kid":
            found[score] = kid(few, reference)
        elif score == "mind":
            found[score] = mind(part, reference, projections=PROJECTIONS)
        elif score in ("precision", "recall"):
            found["precision"], found["recall"] = precision_recall(few, reference, k=NEIGHBOURS[score])
        else:
            found["density"], found["coverage"] = density_coverage(few, reference, k=NEIGHBOURS[score])
    return found


def _at_most(
    most: int, reference: Features | FeatureStatistics, generator: torch.Generator
) -> Features | FeatureStatistics:
    """Some items of a reference with more, at random, since data may be sorted."""
    if isinstance(reference, FeatureStatistics) or len(reference) <= most:
        return reference
    return reference.take(torch.randperm(len(reference), generator=generator, dtype=torch.int64, device="cpu")[:most])


def _mean(estimates: Sequence[Estimate]) -> Estimate:
    errors = [e.standard_error for e in estimates if e.standard_error is not None]
    error = math.sqrt(fmean(e**2 for e in errors) / len(errors)) if errors else None
    return Estimate(fmean(e.value for e in estimates), error, estimates[0].n, estimates[0].note)


def _row(
    score: str,
    first: Features,
    values: Sequence[Mapping[str, Estimate]],
    real_values: Sequence[Mapping[str, Estimate]],
    reference: Features | FeatureStatistics,
    splits: Splits | None,
) -> ScoreRow:
    ours, theirs = ([v[score] for v in each if score in v] for each in (values, real_values))
    row = ScoreRow(
        score=score,
        extractor=first.extractor,
        dim=first.dim,
        n=ours[0].n,
        samples=_mean(ours),
        sets=tuple(e.value for e in ours),
        real=_mean(theirs) if theirs else None,
        real_sets=tuple(e.value for e in theirs),
        higher_is_better=score in HIGHER,
        floor=None,
        z=None,
        p_value=None,
        limit=None,
        tolerance=None,
        outcome="not compared",
    )
    if splits is None or row.real is None or score == _EXTRAPOLATED:
        return row
    return _judged(row, row.real, reference, splits)


def _judged(row: ScoreRow, real: Estimate, reference: Features | FeatureStatistics, splits: Splits) -> ScoreRow:
    differences = splits.differences(row.score, reference)
    if row.score == "inception":  # the slopes are those of its logarithm
        differences = differences * real.value
    tolerance = tolerance_of(row.score, reference, real.value)
    found = judge(differences, tolerance)
    sign = -1.0 if row.higher_is_better else 1.0
    return replace(
        row,
        floor=real.value + sign * found.quantile,
        z=found.z,
        p_value=found.p_value,
        limit=found.limit,
        tolerance=tolerance,
        outcome=found.outcome,
    )
