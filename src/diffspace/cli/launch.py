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
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

import typer

_POLL_SECONDS = 0.1
_SAVING_SECONDS = 60.0  # what processes without a launcher have to save, before they end without
_COMPLAINTS = "DIFFSPACE_COMPLAINTS"  # the variable that names the file of them to the processes
_COMMAND = (sys.executable, "-m", "diffspace")
_LOST = "lost the connection to the others"


def is_launched() -> bool:
    """Whether this process is one of several that were started together."""
    return "WORLD_SIZE" in os.environ


def start_processes(count: int | None, arguments: Sequence[str]) -> None:
    """For `--processes`: run the command in `count` processes and exit, unless this is already one of several.

    ValueError where others than `count` were started together.
    """
    if is_launched():
        if str(count or os.environ["WORLD_SIZE"]) != os.environ["WORLD_SIZE"]:
            raise ValueError(f"--processes: {count}, but {os.environ['WORLD_SIZE']} were started together")
    elif count is not None and count > 1:
        raise typer.Exit(launch(count, arguments))


def launch(count: int, arguments: Sequence[str]) -> int:
    """Run `diffspace` with these arguments in `count` processes; the exit code of the one that fails, or 0.

    When one ends with an error, the others have 5 seconds to end too, are then terminated, and after 30 more killed.
    Signals are passed on, and what several complain of is printed once. The processes end when this one is killed:
    each has a pipe from it as its standard input, whose end `follow_launcher` waits for.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    shared = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    shared = {"OMP_NUM_THREADS": max(1, cores // count), **os.environ, **shared}
    processes: list[subprocess.Popen[bytes]] = []
    received: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for process in processes:
            process.send_signal(number)

    # a terminal sends Ctrl-C to all of them itself; they ignore the second one
    with handling(pass_on), tempfile.TemporaryDirectory(prefix="diffspace-") as folder:
        complaints = Path(folder) / "complaints"
        complaints.touch()
        try:
            for rank in range(count):
                own = {**shared, "RANK": rank, "LOCAL_RANK": rank, _COMPLAINTS: complaints}
                environment = {name: str(value) for name, value in own.items()}
                command = [*_COMMAND, *arguments]
                processes.append(subprocess.Popen(command, env=environment, stdin=subprocess.PIPE))
            while None in (codes := [process.poll() for process in processes]) and not any(codes):
                time.sleep(_POLL_SECONDS)
        finally:
            late = _end(processes)
        lines = dict.fromkeys(complaints.read_text(encoding="utf-8").splitlines())
    ended = [process.returncode for process in processes if process not in late]
    if not received:
        lines |= {
            f"diffspace: process {rank} of {count} was killed by {signal.Signals(-process.returncode).name}": None
            for rank, process in enumerate(processes)
            if process.returncode < 0 and process not in late
        }
    # a connection is lost because of what another one complains of
    for line in [line for line in lines if _LOST not in line] or lines:
        print(line, file=sys.stderr)
    least = min(ended, default=0)
    return 128 - least if least < 0 else max(ended, default=0)


@contextlib.contextmanager
def handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[Callable[[], None]]:
    """Handle SIGINT and SIGTERM within the block, or until what it yields is called."""
    former = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, each in former.items():
            signal.signal(number, each)

    try:
        yield restore
    finally:
        restore()


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> list[subprocess.Popen[bytes]]:
    """Wait for processes to end, and make them; those that did not end by themselves."""
    late: list[subprocess.Popen[bytes]] = []
    for seconds, end in ((5.0, subprocess.Popen.terminate), (30.0, subprocess.Popen.kill)):
        deadline = time.monotonic() + seconds
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
        living = [process for process in processes if process.poll() is None]
        late += living
        for process in living:
            end(process)
    for process in processes:
        process.communicate()  # which closes the pipe as well
    return late


def follow_launcher() -> None:
    """In a process that `launch` started: end with it, however it ends, as after SIGTERM, which saves."""
    if _COMPLAINTS not in os.environ:
        return

    def follow() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 1):
                pass
        if os.name == "posix":
            os.kill(os.getpid(), signal.SIGTERM)  # which interrupts the main thread, unlike raise_signal here
        else:
            signal.raise_signal(signal.SIGTERM)
        time.sleep(_SAVING_SECONDS)
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


@contextlib.contextmanager
def signals_interrupt() -> Iterator[None]:
    """End the block at the first SIGINT or SIGTERM, by SystemExit, so that it cleans up; ignore those that follow.

    A process of several gets Ctrl-C twice: from the terminal, and from the one that started it.
    """

    def on_signal(number: int, frame: FrameType | None) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(128 + number)  # of KeyboardInterrupt, typer says nothing

    with handling(on_signal):
        try:
            yield
        except SystemExit as stop:
            if stop.code == 128 + signal.SIGINT:
                complain("diffspace: interrupted")
            raise


def complain(line: str) -> None:
    """Print an error, or let the launcher print those of all processes."""
    if _COMPLAINTS in os.environ:
        with contextlib.suppress(OSError), Path(os.environ[_COMPLAINTS]).open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            return
    print(line, file=sys.stderr)
