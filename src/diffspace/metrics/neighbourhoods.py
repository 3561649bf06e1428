"""Precision, recall, density and coverage: samples and reference in the balls of each other's nearest neighbours."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from diffspace._shapes import Bool, Float, Int, Tensor
from diffspace.checks import check_integer
from diffspace.metrics.scores import Estimate, Features, check_pair

_ROWS = 512
_NEAREST = 8  # times k neighbours in a pool are known: of half the pool, the k-th is nearly surely among them
_GROUPS = 20  # of the jackknife
_ELEMENTS = 2**22  # of the differences of a block of pairs
_ROUNDING = 1e-12  # of squared distances by products, in units of squared norms


def precision_recall(samples: Features, reference: Features, *, k: int = 3) -> tuple[Estimate, Estimate]:
    """The shares of samples and of the reference within balls of the other (Kynkäänniemi et al. 2019).

    Precision is the share of samples within at least one of the balls around the items of the reference, each as large
    as the distance to its k-th nearest neighbour in the reference; recall is the same with the two exchanged. A
    distance equal to the radius is within. Standard errors are over fresh samples, the reference being fixed: the
    binomial one, and for recall the jackknife over 20 groups, which errs upwards.
    """
    check_integer("k", k, 1)
    check_pair(samples, reference, least=k + 2)
    inside = Inside.of(samples, reference, k)
    precision = (inside.counts(len(samples)) > 0).double()
    covered = Covered.by_balls_of_items(samples, reference, k)
    return _share(precision), _jackknifed(covered, len(samples))


def density_coverage(samples: Features, reference: Features, *, k: int = 5) -> tuple[Estimate, Estimate]:
    """Density and coverage (Naeem et al. 2020, arXiv:2002.09797).

    The balls are those around the reference's items, as for precision. Density is the mean number of balls that a
    sample is in, over k; it may exceed 1. Coverage is the share of balls that at least one sample is in. Standard
    errors are those of the mean, and for coverage the jackknife over 20 groups, which errs upwards.
    """
    check_integer("k", k, 1)
    check_pair(samples, reference, least=k + 2)
    inside = Inside.of(samples, reference, k)
    density = inside.counts(len(samples)).double() / k
    error = float(density.std()) / math.sqrt(len(samples))
    return (
        Estimate(float(density.mean()), error, len(samples)),
        _jackknifed(Covered(inside.items, inside.balls, len(reference)), len(samples)),
    )


def share_error(count: float, n: int) -> float:
    """The standard deviation of a binomial probability of which `count` of n are known, under a uniform prior.

    Near √(p(1 − p)/n), but not 0 where all or none of the items count.
    """
    p = (count + 1) / (n + 2)
    return math.sqrt(p * (1 - p) / (n + 3))


def _share(hits: Tensor) -> Estimate:
    n, count = len(hits), float(hits.sum())
    return Estimate(count / n, share_error(count, n), n)


def _jackknifed(covered: Covered, n: int) -> Estimate:
    groups = min(_GROUPS, n)
    group = torch.arange(n, dtype=torch.int64, device="cpu") % groups
    without = group != torch.arange(groups, dtype=torch.int64, device="cpu")[:, None]
    value = float(covered.of(torch.ones(1, n, dtype=torch.bool, device="cpu")))
    values = covered.of(without)
    variance = (groups - 1) / groups * float((values - values.mean()).square().sum())
    return Estimate(value, math.sqrt(variance), n)


def squared_distances(x: Tensor, y: Tensor, centre: Tensor) -> Float[Tensor, "n m"]:
    """|x_i − y_j|² in float64, by products of what is left after the centre is taken off."""
    a, b = x.double() - centre, y.double() - centre
    return torch.addmm(b.square().sum(1), a, b.T, alpha=-2).add_(a.square().sum(1)[:, None]).clamp_(min=0)


def _direct(x: Tensor, y: Tensor, i: Tensor, j: Tensor) -> Float[Tensor, "pairs"]:
    """|x_i − y_j|² of pairs in float64, by differences: the same for distances that are the same."""
    size = max(_ELEMENTS // x.shape[1], 1)
    parts = zip(torch.split(i, size), torch.split(j, size), strict=True)
    return torch.cat([(x[a].double() - y[b].double()).square().sum(1) for a, b in parts])


def _others(x: Tensor, centre: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Squared distances of each item to its k nearest other items, rising, and which they are; (n, k)."""
    distances, items = [], []
    for start in range(0, len(x), _ROWS):
        rows = x[start : start + _ROWS]
        best = torch.full((len(rows), k), math.inf, dtype=torch.float64, device="cpu")
        which = torch.full((len(rows), k), -1, dtype=torch.int64, device="cpu")
        for first in range(0, len(x), 8 * _ROWS):
            table = squared_distances(rows, x[first : first + 8 * _ROWS], centre)
            if first <= start < first + 8 * _ROWS:
                table[:, start - first :].fill_diagonal_(math.inf)
            near, at = table.topk(min(k, table.shape[1]), dim=1, largest=False)
            joined, order = torch.cat([best, near], 1).topk(k, dim=1, largest=False)
            best, which = joined, torch.cat([which, at + first], 1).gather(1, order)
        at = torch.arange(start, start + len(rows), dtype=torch.int64, device="cpu").repeat_interleave(k)
        best, order = _direct(x, x, at, which.flatten()).reshape(-1, k).sort(dim=1, stable=True)
        distances.append(best)
        items.append(which.gather(1, order))
    return torch.cat(distances), torch.cat(items)


@dataclass(frozen=True, eq=False)
class Inside:
    """Pairs of an item and a ball of the reference that it is in."""

    items: Int[Tensor, "pairs"]
    balls: Int[Tensor, "pairs"]

    @classmethod
    def of(cls, pool: Features, reference: Features, k: int) -> Inside:
        centre = reference.values.mean(0, dtype=torch.float64)
        radii = _others(reference.values, centre, k)[0][:, -1]
        items, balls = _close(pool.values, reference.values, centre, radii[None, :].expand(len(pool), -1))
        return cls(items, balls)

    def counts(self, n: int) -> Int[Tensor, "n"]:
        """In how many balls each of n items is."""
        return torch.bincount(self.items, minlength=n)


def _close(x: Tensor, y: Tensor, centre: Tensor, radii: Tensor) -> tuple[Tensor, Tensor]:
    """The pairs (i, j) with |x_i − y_j|² ≤ radii[i, j], which are distances by `_direct`.

    Products tell which; of those that are too near the radius for their rounding, differences do.
    """
    least = [_ROUNDING * (each.double() - centre).square().sum(1) for each in (x, y)]
    first, second = [], []
    for start in range(0, len(x), _ROWS):
        for other in range(0, len(y), 8 * _ROWS):
            rows, columns = slice(start, start + _ROWS), slice(other, other + 8 * _ROWS)
            limits = radii[rows, columns]
            beyond = squared_distances(x[rows], y[columns], centre) - limits
            unsure = least[0][rows, None] + least[1][columns]
            inside = beyond <= unsure
            i, j = (inside & (beyond >= -unsure)).nonzero(as_tuple=True)
            if len(i):
                inside[i, j] = _direct(x[rows], y[columns], i, j) <= limits[i, j]
            i, j = inside.nonzero(as_tuple=True)
            first.append(i + start)
            second.append(j + other)
    return torch.cat(first), torch.cat(second)


@dataclass(frozen=True, eq=False)
class Covered:
    """The share of the reference that is covered, for any part of a pool of items.

    Item i covers item j of the reference where (i, j) is one of the pairs; with `neighbours`, the nearest others of
    each item of the pool, rising, and `closer`, how many of them are closer to i than j is, only if fewer than k of
    those are in the part as well.
    """

    items: Int[Tensor, "pairs"]
    balls: Int[Tensor, "pairs"]
    size: int
    closer: Int[Tensor, "pairs"] | None = None
    neighbours: Int[Tensor, "n nearest"] | None = None
    k: int = 0

    @classmethod
    def by_balls_of_reference(cls, pool: Features, reference: Features, k: int) -> Covered:
        """With the balls of the reference, for coverage."""
        inside = Inside.of(pool, reference, k)
        return cls(inside.items, inside.balls, len(reference))

    @classmethod
    def by_balls_of_items(cls, pool: Features, reference: Features, k: int) -> Covered:
        """With the balls of a part's own k-th nearest neighbours, for recall."""
        centre = reference.values.mean(0, dtype=torch.float64)
        distances, neighbours = _others(pool.values, centre, min(_NEAREST * k, len(pool) - 1))
        reach = distances[:, -1:].expand(-1, len(reference))
        items, balls = _close(pool.values, reference.values, centre, reach)
        closer = torch.zeros_like(items)
        for at in torch.split(torch.arange(len(items), dtype=torch.int64, device="cpu"), 2**16):
            difference = pool.values[items[at]].double() - reference.values[balls[at]].double()
            own = difference.square().sum(1, keepdim=True) * (1 - 1e-12)  # equal, but for rounding, is not closer
            closer[at] = (distances[items[at]] < own).sum(1)
        return cls(items, balls, len(reference), closer, neighbours, k)

    def of(self, parts: Bool[Tensor, "b n"]) -> Float[Tensor, "b"]:
        """The covered share for each part of the pool."""
        return torch.stack([self._of(part) for part in parts])

    def _of(self, part: Tensor) -> Tensor:
        on = part[self.items]
        if self.neighbours is not None and self.closer is not None:
            within = torch.zeros(len(part), self.neighbours.shape[1] + 1, dtype=torch.int64, device="cpu")
            within[:, 1:] = part[self.neighbours].cumsum(1)
            on = on & (within[self.items, self.closer] < self.k)
        hit = torch.zeros(self.size, dtype=torch.bool, device="cpu")
        hit[self.balls[on]] = True
        return hit.double().mean()
