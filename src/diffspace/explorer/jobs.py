"""What the page asks for is computed here: in few threads, within limits of time, and no longer than it is wanted."""

from __future__ import annotations

import asyncio
import functools
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch

_THREADS = {"quick": 2, "slow": 2}
_WAITING = {"quick": 64, "slow": 6}  # jobs that may wait for a thread
SECONDS = {"quick": 10.0, "slow": 120.0}
"""How long a job may take once it runs."""

Tell = Callable[[Any], None]


class SupersededError(Exception):
    """The page has asked for something newer in the same place, or has gone."""


class BusyError(Exception):
    """More is waiting than will be done soon."""


@dataclass
class Job:
    """A computation that is asked from time to time whether it is still wanted.

    `tell` hands results on the way to the page; both it and `check` end the computation when it is superseded or takes
    too long.
    """

    seconds: float
    send: Tell = field(default=lambda event: None)
    _dropped: threading.Event = field(default_factory=threading.Event)
    _started: float = math.inf  # until it runs

    def start(self) -> None:
        self._started = time.monotonic()
        self.check()

    def check(self) -> None:
        """SupersededError or TimeoutError where the computation has to end."""
        if self._dropped.is_set():
            raise SupersededError
        if time.monotonic() - self._started > self.seconds:
            raise TimeoutError(f"this takes more than {self.seconds:g} s here; choose less of it")

    def tell(self, **event: Any) -> None:
        self.check()
        self.send(event)

    def drop(self) -> None:
        self._dropped.set()


class Jobs:
    """The threads, and the newest job of each place of each page."""

    def __init__(self) -> None:
        self._pools = {
            pool: ThreadPoolExecutor(count, f"explorer-{pool}", initializer=_prepare, initargs=(pool,))
            for pool, count in _THREADS.items()
        }
        self._waiting = dict.fromkeys(_THREADS, 0)
        self._newest: dict[str, Job] = {}

    async def run(self, place: str, pool: str, compute: Callable[[Job], Any], send: Tell | None = None) -> Any:
        """The result of `compute(job)`; an earlier job of the same place ends with SupersededError.

        `send` is called in the event loop with what the job tells on the way. BusyError where too much is waiting.
        """
        loop = asyncio.get_running_loop()
        if self._waiting[pool] >= _WAITING[pool]:
            raise BusyError("too much is asked for at once; try again in a moment")
        job = Job(SECONDS[pool])
        if send is not None:
            job.send = functools.partial(_hand_over, loop, send)
        if before := self._newest.get(place):
            before.drop()
        self._newest[place] = job
        self._waiting[pool] += 1

        def work() -> Any:
            job.start()
            return compute(job)

        try:
            return await loop.run_in_executor(self._pools[pool], work)
        except asyncio.CancelledError:  # the page has gone
            job.drop()
            raise
        finally:
            self._waiting[pool] -= 1
            if self._newest.get(place) is job:
                del self._newest[place]

    def close(self) -> None:
        for job in self._newest.values():
            job.drop()
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)


def _hand_over(loop: asyncio.AbstractEventLoop, send: Tell, event: Any) -> None:
    loop.call_soon_threadsafe(send, event)


def _prepare(pool: str) -> None:
    if pool == "quick":  # its tensors are small, and a second thread would only wait
        torch.set_num_threads(1)
