"""Random exchanges of samples and real items, and how each changes a score: what verdicts come from."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from diffspace._shapes import Bool, Int, Tensor
from diffspace.metrics.features import FeatureStatistics
from diffspace.metrics.neighbourhoods import Covered, Inside
from diffspace.metrics.scores import BLOCK, Features, frechet_slopes, inception_slopes, kid_slopes, mind_slopes

PROJECTIONS = 200
"""Of MIND."""
NEIGHBOURS = {"precision": 3, "recall": 3, "density": 5, "coverage": 5}
"""The k of the scores by the k-th nearest neighbour."""


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
            return _of_slopes(mind_slopes(pool, reference, projections=PROJECTIONS), splits)
        if score in ("precision", "density"):
            counts = Inside.of(pool, reference, NEIGHBOURS[score]).counts(len(pool))
            slopes = counts.clamp(max=1) if score == "precision" else counts / NEIGHBOURS[score]
            return _of_slopes(-slopes.double(), splits)
        covered = Covered.by_balls_of_items if score == "recall" else Covered.by_balls_of_reference
        cover = covered(pool, reference, NEIGHBOURS[score])
        return cover.of(~splits) - cover.of(splits)


def _of_slopes(slopes: Tensor, splits: Tensor) -> Tensor:
    """Mean over the samples less that over the real items, for each split."""
    centred = slopes - slopes.mean()
    count = int(splits[0].sum())
    sums = torch.cat([part.double() @ centred for part in torch.split(splits, 64)])
    return sums / count + sums / (len(slopes) - count)


def _range(start: int, stop: int) -> Tensor:
    return torch.arange(start, stop, dtype=torch.int64, device="cpu")
