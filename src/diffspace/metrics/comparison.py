"""Scores of samples beside those of as many real items, and whether the difference is more than chance."""

from __future__ import annotations

import collections
import hashlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import torch

from diffspace._shapes import Bool, Int, Tensor
from diffspace.checks import check_choice, check_integer, check_seed
from diffspace.metrics.features import FeatureStatistics
from diffspace.metrics.judgement import HIGHER, LEVEL, Outcome, judge, tolerance_of
from diffspace.metrics.neighbourhoods import Covered, Inside, density_coverage, precision_recall
from diffspace.metrics.scores import (
    BLOCK,
    Estimate,
    Features,
    check_pair,
    frechet,
    frechet_slopes,
    inception_score,
    inception_slopes,
    kid,
    kid_slopes,
    mind,
    mind_slopes,
)

SCORES = ("frechet", "kid", "mind", "precision", "recall", "density", "coverage", "inception")
_NAMES = {
    "frechet": "Fréchet distance",
    "kid": "KID",
    "mind": "MIND",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "inception": "Inception score",
}
_PROJECTIONS = 200
_QUADRATIC = ("kid", "precision", "recall", "density", "coverage")  # take time quadratic in the number of items


@dataclass(frozen=True)
class ScoreRow:
    """A score of sets of n samples beside that of sets of n real items, both against one reference.

    `samples` and `real` are means over sets, `sets` and `real_sets` the value of each. `floor` is the value from which
    on samples are called worse: what is better cannot be told from real data. `z` is the difference to real data in
    standard errors, positive where samples are worse, and `p_value` the probability of such a difference or a greater
    one if samples were like real data, from random exchanges of samples and real items, so that it holds for any n.
    `limit` is by how much the samples may be worse, with 95 % confidence; n is too small where it is above `tolerance`.
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
            return "no real data to compare with"
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
) -> list[ScoreRow]:
    """Scores of samples against a reference, beside those of real items, and a verdict about each.

    If samples were like real items, nothing would change on average if items were exchanged between the two. So the
    difference of their scores is compared with those after `permutations` random exchanges, the reference being fixed:
    samples are called worse if at most 5 % of the differences are as large. That holds exactly, for any score, n and
    data, if the real items have no part in the reference; those that have are taken out of it. With labels on both
    sides, real items are chosen and exchanged within classes.

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
    if others and isinstance(reference, Features):
        reference = _without(reference, others)
    chosen = list(scores or possible)
    near = _at_most(most, reference, generator)
    against = {score: near if score in _QUADRATIC else reference for score in chosen}
    values, real_values = ([_values(part, against, most) for part in each] for each in (parts, others))
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
        found = [score for score in found if score in ("frechet", "inception")]
    else:
        n = min(n, len(reference))
    return tuple(score for score in found if n >= LEAST[score])


def _range(start: int, stop: int) -> Tensor:
    return torch.arange(start, stop, dtype=torch.int64, device="cpu")


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
    """The reference without the items of `others`, which would score too well against it."""
    taken = {digest for part in others for digest in _digests(part)}
    kept = [place for place, digest in enumerate(_digests(reference)) if digest not in taken]
    if len(kept) == len(reference):
        return reference
    if len(kept) < 2:
        raise ValueError("reference: has no other items than real; give real items that it does not have")
    return reference.take(torch.tensor(kept, dtype=torch.int64, device="cpu"))


def _digests(features: Features) -> Iterator[bytes]:
    """A hash of the bits of each item, by which it is found again."""
    for block in torch.split(features.values, BLOCK):
        for row in block.cpu().contiguous().numpy():
            yield hashlib.blake2b(row.tobytes(), digest_size=16).digest()


# ---- the test


@dataclass(frozen=True, eq=False)
class Splits:
    """Sets of samples and of real items, and random exchanges between them; the first row is what they are.

    `few` are some items of either side, by their places, for the scores that take time quadratic in their number.
    """

    parts: Sequence[Features]
    is_sample: Bool[Tensor, "b n"]
    few: Int[Tensor, "k"]

    @classmethod
    def of(
        cls,
        parts: Sequence[Features],
        others: Sequence[Features],
        permutations: int,
        most: int,
        generator: torch.Generator,
    ) -> Splits:
        everyone = [*parts, *others]
        count, real = sum(map(len, parts)), sum(map(len, others))
        known = [part.labels for part in everyone if part.labels is not None]
        one = torch.zeros(count + real, dtype=torch.int64, device="cpu")
        labels = torch.cat(known).cpu() if len(known) == len(everyone) else one
        truth = _range(0, count + real) < count
        rows = [truth]
        by_class = labels.argsort(stable=True)
        for _ in range(permutations):
            drawn = torch.rand(count + real, generator=generator, dtype=torch.float64, device="cpu")
            order = drawn.argsort()
            order = order[labels[order].argsort(stable=True)]
            row = torch.empty_like(truth)
            row[order] = truth[by_class]
            rows.append(row)
        few = torch.cat([_range(0, min(count, most)), _range(count, count + min(real, most))])
        return cls(everyone, torch.stack(rows), few)

    def _some(self) -> Features:
        """The items of `few`."""
        starts = itertools.accumulate(map(len, self.parts), initial=0)
        found = []
        for start, part in zip(starts, self.parts, strict=False):
            here = self.few[(self.few >= start) & (self.few < start + len(part))] - start
            found.append(part.take(here) if len(here) < len(part) else part)
        return Features(torch.cat([part.values for part in found]), self.parts[0].extractor)

    def differences(self, score: str, reference: Features | FeatureStatistics) -> Tensor:
        """How much worse samples are than real items, for what they are and for every exchange."""
        if score == "frechet":
            target = reference.statistics if isinstance(reference, Features) else reference
            blocks = (block for part in self.parts for block in torch.split(part.values, 4 * BLOCK))
            around = FeatureStatistics.of_blocks(blocks)
            each = [frechet_slopes(part.values, around, target) for part in self.parts]
            return _of_slopes(torch.cat(each), self.is_sample)
        if score == "inception":
            logits = [part.logits for part in self.parts if part.logits is not None]
            return _of_slopes(-inception_slopes(torch.cat(logits)), self.is_sample)
        if not isinstance(reference, Features):
            raise ValueError(f"reference: {score} needs features of items, got statistics alone")
        pool, splits = self._some(), self.is_sample[:, self.few]
        if score == "kid":
            return _of_slopes(kid_slopes(pool, reference), splits)
        if score == "mind":
            return _of_slopes(mind_slopes(pool, reference, projections=_PROJECTIONS), splits)
        if score in ("precision", "density"):
            counts = Inside.of(pool, reference, _K[score]).counts(len(pool))
            slopes = counts.clamp(max=1) if score == "precision" else counts / _K[score]
            return _of_slopes(-slopes.double(), splits)
        covered = Covered.by_balls_of_items if score == "recall" else Covered.by_balls_of_reference
        cover = covered(pool, reference, _K[score])
        return cover.of(~splits) - cover.of(splits)


LEAST = {"frechet": 2, "kid": 4, "mind": 2, "precision": 5, "recall": 5, "density": 7, "coverage": 7, "inception": 20}
"""The least n that each score needs."""

_K = {"precision": 3, "recall": 3, "density": 5, "coverage": 5}


def _of_slopes(slopes: Tensor, splits: Tensor) -> Tensor:
    """Mean over the samples less that over the real items, for each split."""
    centred = slopes - slopes.mean()
    count = int(splits[0].sum())
    sums = torch.cat([part.double() @ centred for part in torch.split(splits, 64)])
    return sums / count + sums / (len(slopes) - count)


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
        elif score == "inception":
            found[score] = inception_score(part)
        elif not isinstance(reference, Features):
            raise ValueError(f"reference: {score} needs features of items, got statistics alone")
        elif score == "kid":
            found[score] = kid(few, reference)
        elif score == "mind":
            found[score] = mind(part, reference, projections=_PROJECTIONS)
        elif score in ("precision", "recall"):
            found["precision"], found["recall"] = precision_recall(few, reference, k=_K[score])
        else:
            found["density"], found["coverage"] = density_coverage(few, reference, k=_K[score])
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
    ours, theirs = [v[score] for v in values], [v[score] for v in real_values]
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
    return row if splits is None or row.real is None else _judged(row, row.real, reference, splits)


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
