"""Batches for training, addressed by their number, and work done ahead on threads."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeAlias, TypeVar

from diffspace._shapes import Tensor
from diffspace.checks import check_integer
from diffspace.data.dataset import DataSet

Batch: TypeAlias = tuple[Tensor, Tensor | None]
"""x in the model's space, (B, *dims), and the class numbers (B,) or None."""

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def batches(
    data: DataSet, batch_size: int, seed: int, start: int = 0, prefetch: int = 0, part: tuple[int, int] | None = None
) -> Iterator[Batch]:
    """Batches number `start`, `start` + 1, … without end.

    Batch k holds the places k·B … (k+1)·B − 1 of an order in which every epoch is all samples, shuffled anew. It
    depends on (data, batch_size, seed, k) alone: training resumed at batch k continues exactly as without the
    interruption. Batches run over the ends of epochs, and `batch_size` may exceed the size of the data set.

    Args:
        data: The data set.
        batch_size: Samples in a batch.
        seed: Determines the order.
        start: The number of the first batch.
        prefetch: Batches that a thread prepares ahead, useful if samples are decoded on demand. 0: no thread.
        part: (begin, end): only these places of each batch, for one of several processes that share it.
    """
    check_integer("batch_size", batch_size, 1)
    check_integer("seed", seed, 0)
    check_integer("start", start, 0)
    check_integer("prefetch", prefetch, 0)
    begin, end = (0, batch_size) if part is None else part
    if not 0 <= begin < end <= batch_size:
        raise ValueError(f"part: expected 0 ≤ begin < end ≤ batch_size = {batch_size}, got {part}")

    def batch(number: int) -> Batch:
        indices = data.training_order(seed, number * batch_size + begin, number * batch_size + end)
        return data.batch(indices), data.classes(indices)

    numbers = itertools.count(start)
    return ordered_map(batch, numbers, threads=1, ahead=prefetch) if prefetch else map(batch, numbers)


def ordered_map(function: Callable[[_In], _Out], items: Iterable[_In], threads: int, ahead: int) -> Iterator[_Out]:
    """function(item) for each item, in order, computed on `threads` threads up to `ahead` items before its turn.

    An exception is raised in the turn of its item.
    """
    pool = ThreadPoolExecutor(threads)
    waiting = deque[Future[_Out]]()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def available_processors() -> int:
    """The processors for this process: its share if several train together on this machine (torchrun's variable)."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, here // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
