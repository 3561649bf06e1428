"""Several processes on this machine from one command, as torchrun would start them, but with one line for an error.

Why not torch's launcher: docs/decisions/2026-11-28-launcher.md.
"""

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

_POLL_SECONDS = 0.1


def is_launched() -> bool:
    """Whether this process is one of several that were started together."""
    return "WORLD_SIZE" in os.environ


def launch(count: int, arguments: Sequence[str]) -> int:
    """Run `diffspace` with these arguments in `count` processes; the exit code of the first that fails, or 0.

    When one ends with an error, the others have 5 seconds to end too, are then terminated, and after 30 more killed.
    Signals are passed on.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    shared = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    shared = {"OMP_NUM_THREADS": max(1, cores // count), **os.environ, **shared}
    processes: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        for process in processes:
            process.send_signal(number)

    # a terminal sends Ctrl-C to all of them itself; they ignore the second one
    previous = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        for rank in range(count):
            environment = {name: str(value) for name, value in {**shared, "RANK": rank, "LOCAL_RANK": rank}.items()}
            processes.append(subprocess.Popen([sys.executable, "-m", "diffspace", *arguments], env=environment))
        while None in (codes := [process.poll() for process in processes]) and not any(codes):
            time.sleep(_POLL_SECONDS)
        failed = next((code for code in codes if code), 0)
        return 128 - failed if failed < 0 else failed
    finally:
        for seconds, end in ((5.0, subprocess.Popen.terminate), (30.0, subprocess.Popen.kill)):
            deadline = time.monotonic() + seconds
            for process in processes:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, deadline - time.monotonic()))
            for process in processes:
                if process.poll() is None:
                    end(process)
        for process in processes:
            process.wait()
        for number, handler in previous.items():
            signal.signal(number, handler)
