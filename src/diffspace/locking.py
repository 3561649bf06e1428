"""The lock of a folder: two processes never write one folder, and a dead one never blocks it.

Why not filelock: docs/decisions/2026-11-28-run-lock.md.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diffspace.files import open_in_place, parse_json, writing

LOCK, SHORT_LOCK = "run.lock", ".lock"
_NO_LOCKS_HERE = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
_SETTLING_SECONDS = 0.1
_held: set[int] = set()  # descriptors


def _forget() -> None:
    while _held:
        os.close(_held.pop())


# a forked child (a worker that loads data) that outlives its killed parent would go on holding the lock
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


class FolderLock:
    """The right to write a folder, as a context manager.

    It is the kernel's lock (flock) of a file in it, `run.lock` in that of a run, which ends with the process however
    that dies. Where the system or the file system has none, the process id in the file decides, on the host that it
    names. One process of a run takes it. ValueError names the folder and who writes it: process, host and since when;
    or why it cannot be written.
    """

    def __init__(self, folder: str | Path, name: str = LOCK) -> None:
        self.folder, self.path = Path(folder), Path(folder) / name
        self._descriptor = -1

    def __enter__(self) -> FolderLock:
        with contextlib.ExitStack() as failing:
            try:
                descriptor = open_in_place(self.path)
                failing.callback(os.close, descriptor)
                self._take(descriptor)
                if not os.path.samestat(os.fstat(descriptor), os.stat(self.path)):  # its owner removed it at the end
                    raise ValueError(self._in_use({}, False))
            except OSError as error:
                raise ValueError(f"folder: {self.folder} cannot be written: {error.strerror}") from None
            failing.pop_all()
        self._descriptor = descriptor
        _held.add(descriptor)
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor in _held:
            _held.remove(self._descriptor)
            with contextlib.suppress(OSError):  # a name that stays is one of a dead process
                os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
        self._descriptor = -1

    def _take(self, descriptor: int) -> None:
        locked = _flock(descriptor)
        owner = _owner(descriptor)
        if locked is False or (locked is None and owner and _may_live(owner)):
            raise ValueError(self._in_use(owner, locked is None))
        own = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S %z")}
        with contextlib.suppress(OSError) if locked else contextlib.nullcontext():  # it holds on a full disk too
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(descriptor, (json.dumps(own) + "\n").encode())
        if locked is None:
            time.sleep(_SETTLING_SECONDS)  # of two that found nobody at the same moment, the later writer stays
            if (owner := _owner(descriptor)) != own:
                raise ValueError(self._in_use(owner, True))

    def _in_use(self, owner: dict[str, Any], by_name: bool) -> str:
        who = "process {pid} on {host} since {since}".format(**owner) if owner else "another process"
        text = f"folder: {self.folder} is being written by {who}; wait for its end or choose another folder"
        if by_name:
            text += f"; if that process no longer exists, delete {self.path} (this file system has no locks)"
        return text


@contextlib.contextmanager
def owned(folder: Path, parents: bool = True) -> Iterator[None]:
    """The right to write a folder, which is made where it is missing, by a lock that is removed at the end."""
    with writing(folder):
        folder.mkdir(parents=parents, exist_ok=True)
    with FolderLock(folder, SHORT_LOCK):
        try:
            yield
        finally:
            (folder / SHORT_LOCK).unlink(missing_ok=True)


def _flock(descriptor: int) -> bool | None:
    """Whether the lock is ours now; None where there are no locks."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        return None
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS_HERE:
            return None
        raise
    return True


def _owner(descriptor: int) -> dict[str, Any]:
    """What the file says of its owner; empty where it says nothing that can be understood."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    try:
        owner = parse_json(os.read(descriptor, 4096))
        return owner if type(owner["pid"]) is int and owner["pid"] > 0 and {"host", "since"} <= owner.keys() else {}
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}


def _may_live(owner: dict[str, Any]) -> bool:
    if owner["host"] != socket.gethostname() or os.name != "posix":  # elsewhere os.kill would end the process
        return True
    try:
        os.kill(owner["pid"], 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True
