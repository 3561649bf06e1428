"""Work done ahead of its use."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["ahead"]

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def ahead(function: Callable[[_In], _Out], items: Iterable[_In], depth: int) -> Iterator[_Out]:
    """function(item) for each, in order; a thread is up to `depth` of them ahead. An error comes in its turn."""
    thread = ThreadPoolExecutor(max_workers=1)
    waiting: deque[Future[_Out]] = deque()
    left = iter(items)
    try:
        while True:
            waiting.extend(thread.submit(function, item) for item in itertools.islice(left, depth + 1 - len(waiting)))
            if not waiting:
                return
            yield waiting.popleft().result()
    finally:
        thread.shutdown(cancel_futures=True)
