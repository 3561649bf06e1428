"""In which order samples come, and which are held out: pure functions of a seed.

The permutations sort the raw output of PCG64, whose stream numpy guarantees, so that an interrupted run and a
split are the same on every machine and with every version.
"""

from __future__ import annotations

import functools
import math

import torch

from diffspace._shapes import Bool, Int, Tensor
from diffspace.data._options import whole_number

__all__ = ["first_part", "held_out", "permutation", "stream", "windowed"]

_SPLIT, _EPOCHS = 0, 1  # streams that never meet, whatever the seed


def permutation(n: int, seed: int, *key: int) -> Int[Tensor, "n"]:
    """The numbers 0 … n − 1 in an order that `seed` and `key` decide; both are not negative."""
    import numpy as np

    whole_number("seed", seed, least=0)
    bits = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)).random_raw(n)
    return torch.from_numpy(np.argsort(bits, kind="stable"))


@functools.lru_cache(maxsize=4)
def _epoch(n: int, seed: int, epoch: int) -> Tensor:
    return permutation(n, seed, _EPOCHS, epoch)


def stream(n: int, seed: int, begin: int, end: int) -> Int[Tensor, "batch"]:
    """The places begin … end − 1 of an endless stream: range(n) in a new order for each epoch."""
    parts = []
    for epoch in range(begin // n, -(-end // n)):
        first = epoch * n
        parts.append(_epoch(n, seed, epoch)[max(begin - first, 0) : end - first])
    return torch.cat(parts)


@functools.lru_cache(maxsize=16)
def _window(n: int, seed: int, epoch: int, window: int) -> Tensor:
    return permutation(n, seed, _EPOCHS, epoch, window)


def windowed(n: int, seed: int, window: int, begin: int, end: int) -> Int[Tensor, "batch"]:
    """As `stream`, but in each epoch range(n) is cut into windows of so many, and each window has a new order.

    That is for samples that come one after the other, of which a window can be kept.
    """
    parts = []
    place = begin
    while place < end:
        epoch, offset = divmod(place, n)
        number = offset // window
        first = number * window
        order = _window(min(window, n - first), seed, epoch, number)
        parts.append(first + order[offset - first : offset - first + end - place])
        place += len(parts[-1])
    return torch.cat(parts)


def first_part(n: int, holdout: float | int | None) -> int:
    """How many samples at the beginning of a stream of n are held out: by default a fifth, at most 1000."""
    count = min(max(round(n / 5), 1), 1000) if holdout is None else _count(n, holdout)
    if not 1 <= count < n:
        raise ValueError(f"holdout: {holdout} is {count} of {n} samples; want at least 1, and one left for training")
    return count


def held_out(n: int, labels: Int[Tensor, "n"] | None, holdout: float | int | None, seed: int) -> Bool[Tensor, "n"]:
    """Which of n samples are held out, in proportion from each class; see `DataSet.split`."""
    groups = torch.zeros(n, dtype=torch.int64) if labels is None else labels
    sizes = torch.bincount(groups)
    count = _count(n, holdout)
    kept = int((sizes > 0).sum())
    if not 1 <= count <= n - kept:
        left = "one sample" if labels is None else "one sample of each class"
        raise ValueError(f"holdout: {holdout} is {count} of {n} samples; want at least 1, and {left} left for training")

    order = permutation(n, seed, _SPLIT)
    by_class = order[torch.argsort(groups[order], stable=True)]
    rank = torch.arange(n) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    out = torch.zeros(n, dtype=torch.bool)
    out[by_class] = rank < torch.tensor(_quotas(sizes.tolist(), count)).repeat_interleave(sizes)
    return out


def _quotas(sizes: list[int], count: int) -> list[int]:
    """How many of each class make up `count`: in proportion, by largest remainders, never a whole class."""
    shares = [count * size / sum(sizes) for size in sizes]
    quotas = [min(math.floor(share), max(size - 1, 0)) for share, size in zip(shares, sizes, strict=True)]
    while sum(quotas) < count:
        growing = [c for c, size in enumerate(sizes) if quotas[c] < size - 1]
        quotas[max(growing, key=lambda c: shares[c] - quotas[c])] += 1
    return quotas


def _count(n: int, holdout: float | int | None) -> int:
    if holdout is None:
        return min(max(round(n / 5), 1), 10_000)
    if isinstance(holdout, float):
        if not 0 < holdout < 1:
            raise ValueError(f"holdout: {holdout}; want a fraction between 0 and 1, or a whole number of samples")
        return round(n * holdout)
    return holdout
