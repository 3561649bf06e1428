"""The same work on many items, on several threads where that pays."""

from __future__ import annotations

import functools
import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["Workers"]

_CHUNK = 1024  # items handed to the threads at a time
_TRIALS = 8
_QUICK = 250e-6  # seconds; measured: where threads begin to pay
_In = TypeVar("_In")
_Out = TypeVar("_Out")


class Workers:
    """So many threads; None are as many as there are processors for this process, where threads pay.

    Pillow decodes without holding the interpreter's lock, but what is quick is slower in threads, which then pass that
    lock to and fro: the first items tell. Results come in the order of the items, whatever the number.
    """

    def __init__(self, count: int | None = None) -> None:
        self.count = count
        self._tried, self._fastest = 0, math.inf

    def map(
        self,
        function: Callable[[_In], _Out],
        items: Sequence[_In],
        track: Callable[[int, int], None] | None = None,
    ) -> list[_Out]:
        """function(item) for each; `track(done, all)` is told how far it is."""
        results: list[_Out] = []
        if self.count is None:
            for item in items[: _TRIALS - self._tried]:
                start = time.perf_counter()
                results.append(function(item))
                self._fastest = min(self._fastest, time.perf_counter() - start)
                self._tried += 1
        threads = self.count or (_processors() if self._fastest > _QUICK else 1)
        run: Callable[..., Iterable[_Out]] = map if threads == 1 else _pool(threads, os.getpid()).map
        for begin in range(len(results), len(items), _CHUNK):
            results += run(function, items[begin : begin + _CHUNK])
            if track is not None:
                track(len(results), len(items))
        return results


@functools.cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """The threads of a process, which a fork does not inherit; none starts before it is asked to."""
    return ThreadPoolExecutor(threads)


def _processors() -> int:
    """The processors for this process, where several on this machine train together (torchrun says how many)."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, here // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
