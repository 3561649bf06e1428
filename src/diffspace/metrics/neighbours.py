"""Whether samples are copies of training data: their nearest neighbours beside those of held-out data."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy import stats

from diffspace._shapes import Float, Int, Tensor
from diffspace.tensors import check_floating

_QUANTILES = (0.01, 0.05)
_SIGNIFICANCE = 0.01
_BLOCK_ELEMENTS = 2**23  # of float64 that are held at once: 64 MB


@dataclass(frozen=True)
class Closeness:
    """How many samples are closer to the training data than the closest few held-out items are.

    `threshold` is the distance of the k-th closest of m held-out items, k = max(1, ⌊quantile·(m + 1)⌋). Were
    the n samples like held-out data, the number of them below it would be beta-binomial(n, k, m + 1 − k),
    exactly and for data of any kind, ties aside. Hence the mean share `expected` = k/(m + 1), its standard
    deviation `standard_error`, which counts the sampling error of both sides, and `p_value`, the probability
    of at least the share `observed`.
    """

    quantile: float
    threshold: float
    expected: float
    standard_error: float
    observed: float
    p_value: float


@dataclass(frozen=True)
class Memorisation:
    """Distances of n samples to their nearest training items, beside those of held-out data."""

    n: int
    train_n: int
    held_out_n: int
    median: float
    held_out_median: float
    closeness: tuple[Closeness, ...]
    copies: tuple[tuple[int, int], ...]
    held_out_copies: int
    significance: float

    @property
    def clean(self) -> bool:
        """Whether there are no more copies than in held-out data, and not significantly many samples too close."""
        return not self._too_many_copies and not self._too_close

    @property
    def verdict(self) -> str:
        """The result as a sentence."""
        if self._too_many_copies:
            return f"memorised: {len(self.copies)} of {self.n} samples are exact copies of training items"
        if self._too_close:
            worst = min(self.closeness, key=lambda c: c.p_value)
            return (
                f"too close: {worst.observed:.1%} of the samples are closer to the training data than "
                f"{worst.expected:.1%} of held-out data are (p = {worst.p_value:.1g})"
            )
        if 2 * self.held_out_copies > self.held_out_n:
            return "cannot tell: most of the held-out data are themselves copies of training items"
        return "clean: no closer to the training data than held-out data are"

    @property
    def _too_close(self) -> bool:
        return any(c.p_value < self.significance / len(self.closeness) for c in self.closeness)

    @property
    def _too_many_copies(self) -> bool:
        chance = self.held_out_copies / self.held_out_n
        return float(stats.binom.sf(len(self.copies) - 1, self.n, chance)) < self.significance


def nearest_neighbours(
    x: Float[Tensor, "n *dims"], reference: Float[Tensor, "m *dims"]
) -> tuple[Float[Tensor, "n"], Int[Tensor, "n"]]:
    """Euclidean distance of each item of x to the nearest item of `reference`, and that item's index.

    The nearest is found by matrix products in float64, block by block; its distance is then taken from the difference
    itself, so that a copy is at exactly 0. Results are on the CPU.
    """
    if x.shape[1:] != reference.shape[1:] or len(reference) == 0:
        raise ValueError(f"reference: expected items as in x, {tuple(x.shape)}, got shape {tuple(reference.shape)}")
    queries, others = x.detach().cpu().flatten(1), reference.detach().cpu().flatten(1)
    centre = others.mean(0, dtype=torch.float64)
    rows = max(1, min(2048, _BLOCK_ELEMENTS // (2 * queries.shape[1] + 2048)))
    distance, index = [], []
    for block in torch.split(queries, rows):
        wide = block - centre
        best = torch.full((len(block),), math.inf, dtype=torch.float64, device="cpu")
        nearest = torch.zeros(len(block), dtype=torch.int64, device="cpu")
        for start in range(0, len(others), rows):
            candidates = others[start : start + rows] - centre
            # |q − r|² less |q|², which does not move the minimum
            low, at = torch.addmm(candidates.square().sum(1), wide, candidates.T, alpha=-2).min(1)
            nearest = torch.where(low < best, at + start, nearest)
            best = torch.minimum(low, best)
        distance.append((block.double() - others[nearest].double()).square().sum(1).sqrt())
        index.append(nearest)
    return torch.cat(distance), torch.cat(index)


def memorisation(
    samples: Float[Tensor, "n *dims"], train: Float[Tensor, "m *dims"], held_out: Float[Tensor, "k *dims"]
) -> Memorisation:
    """Compare the nearest-neighbour distances of samples to the training data with those of held-out data.

    A copy is a sample whose distance is at most a millionth of the held-out data's median. Samples that are like
    held-out data are called too close with a probability of at most 1 %.
    """
    if len(samples) == 0 or len(held_out) == 0:
        raise ValueError(f"samples, held_out: expected at least one of each, got {len(samples)} and {len(held_out)}")
    for name, x in (("samples", samples), ("train", train), ("held_out", held_out)):
        check_floating(name, x)
        if not all(bool(block.isfinite().all()) for block in torch.split(x, 1024)):
            raise ValueError(f"{name}: holds values that are not finite")
    distance, index = nearest_neighbours(samples, train)
    reference = nearest_neighbours(held_out, train)[0].sort().values
    median = float(reference.median())
    tolerance = 1e-6 * median
    copies = (distance <= tolerance).nonzero().flatten()
    return Memorisation(
        n=len(samples),
        train_n=len(train),
        held_out_n=len(held_out),
        median=float(distance.median()),
        held_out_median=median,
        closeness=tuple(_closeness(distance, reference, q) for q in _QUANTILES),
        copies=tuple(zip(copies.tolist(), index[copies].tolist(), strict=True)),
        held_out_copies=int((reference <= tolerance).sum()),
        significance=_SIGNIFICANCE,
    )


def _closeness(distance: Tensor, reference: Tensor, quantile: float) -> Closeness:
    n, m = len(distance), len(reference)
    k = max(1, math.floor(quantile * (m + 1)))
    threshold = float(reference[k - 1])
    below = int((distance < threshold).sum())
    chance = stats.betabinom(n, k, m + 1 - k)
    return Closeness(
        quantile=quantile,
        threshold=threshold,
        expected=k / (m + 1),
        standard_error=float(chance.std()) / n,
        observed=below / n,
        p_value=float(chance.sf(below - 1)),
    )
