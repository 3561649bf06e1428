"""Batches for training: endless, shuffled anew each epoch, and addressed by their number."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TypeAlias

from diffspace._shapes import Tensor
from diffspace.data._options import whole_number
from diffspace.data.ahead import ahead
from diffspace.data.dataset import DataSet

__all__ = ["Batch", "batches"]

Batch: TypeAlias = tuple[Tensor, Tensor | None]
"""x in the model's space, (B, *dims), and the class numbers (B,) or None."""


def batches(
    data: DataSet,
    batch_size: int,
    seed: int,
    start: int = 0,
    prefetch: int = 0,
    part: tuple[int, int] | None = None,
) -> Iterator[Batch]:
    """Batches number `start`, `start` + 1, … without end.

    Batch k holds the places k·B … (k+1)·B − 1 of a stream in which every epoch is all samples in a new order,
    so that it depends on (data, batch_size, seed, k) alone: a run that is taken up again at k goes on exactly
    as it would have gone. Batches run over the ends of epochs; `batch_size` may exceed the size of the data
    set. Of each batch, `part` = (begin, end) gives the places begin … end − 1 alone, for one of several
    processes that share it. With `prefetch` > 0 a thread prepares that many batches ahead, which pays where
    samples are decoded on demand.
    """
    whole_number("batch_size", batch_size, least=1)
    whole_number("seed", seed, least=0)
    whole_number("start", start, least=0)
    whole_number("prefetch", prefetch, least=0)

    begin, end = (0, batch_size) if part is None else part
    if not 0 <= begin < end <= batch_size:
        raise ValueError(f"part: {part}; want 0 ≤ begin < end ≤ batch_size = {batch_size}")

    def batch(number: int) -> Batch:
        indices = data.places(seed, number * batch_size + begin, number * batch_size + end)
        return data.batch(indices), data.classes(indices)

    numbers = itertools.count(start)
    return ahead(batch, numbers, prefetch) if prefetch else map(batch, numbers)
