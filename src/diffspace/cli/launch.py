"""Several processes on this machine from one command, as torchrun would start them, but with one line for an error."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

__all__ = ["is_launched", "launch"]

_POLL_SECONDS = 0.1
_MOMENT_SECONDS, _GRACE_SECONDS = 5.0, 30.0


def is_launched() -> bool:
    """Whether this process is one of several that were started together."""
    return "WORLD_SIZE" in os.environ


def launch(count: int, arguments: Sequence[str]) -> int:
    """Run `diffspace` with these arguments in `count` processes; the exit code of the first that fails, or 0.

    When one ends with an error, the others are left a moment to end too, as they do after a signal, are then asked to,
    and at last made to. Signals are passed on.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1"}
    shared["MASTER_PORT"] = str(port)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    shared["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(max(1, cores // count)))
    processes: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        for process in processes:
            process.send_signal(number)

    # a terminal sends Ctrl-C to all of them itself; they take no notice of the second one
    previous = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        for rank in range(count):
            environment = {**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            processes.append(subprocess.Popen([sys.executable, "-m", "diffspace", *arguments], env=environment))
        while True:
            codes = [process.poll() for process in processes]
            failed = [code for code in codes if code]
            if failed:
                return 128 - failed[0] if failed[0] < 0 else failed[0]
            if all(code == 0 for code in codes):
                return 0
            time.sleep(_POLL_SECONDS)
    finally:
        _end(processes)
        for number, handler in previous.items():
            signal.signal(number, handler)


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for seconds, force in (
        (_MOMENT_SECONDS, subprocess.Popen.terminate),
        (_GRACE_SECONDS, subprocess.Popen.kill),
    ):
        deadline = time.monotonic() + seconds
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
        for process in processes:
            if process.poll() is None:
                force(process)
    for process in processes:
        process.wait()
