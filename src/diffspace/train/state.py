"""A state in a file: nested dicts and lists of tensors and numbers, hashed as written, read without running code."""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

import torch

__all__ = ["State", "plain", "read_state", "size_of", "sync_folder", "write_bytes", "write_state"]

State = dict[str, Any]

_PLAIN = (bool, int, float, str, type(None))


def plain(value: Any, where: str, copied: bool) -> Any:
    """The value in types that `torch.load(weights_only=True)` reads back; ValueError names one that it would not.

    `copied` to the memory of the CPU, or the same tensors.
    """
    if type(value) in (torch.Tensor, torch.nn.Parameter):
        return value.detach().to("cpu", copy=True) if copied else value.detach()
    if isinstance(value, Mapping):
        if odd := [key for key in value if type(key) not in (int, str)]:
            raise ValueError(f"parts: {where} has the key {odd[0]!r}; want strings and whole numbers")
        return {key: plain(item, f"{where}.{key}", copied) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [plain(item, f"{where}.{i}", copied) for i, item in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    if type(value) not in _PLAIN:
        raise ValueError(f"parts: {where} is a {type(value).__name__}; want tensors, numbers, strings, lists and dicts")
    return value


def size_of(value: Any) -> int:
    """Bytes of the tensors in it."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return sum(map(size_of, items))


class _HashedFile:
    """What `torch.save` writes to: hashed, then written.

    torch calls it from C++, which no exception should pass: the first one is kept, and what follows falls away.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.sha256, self.bytes = file, hashlib.sha256(), 0
        self.error: BaseException | None = None

    def write(self, content: Any) -> int:
        if self.error is None:
            try:
                self.sha256.update(content)
                self.file.write(content)
                self.bytes += len(content)
            except BaseException as error:
                self.error = error
        return len(content)

    def flush(self) -> None:
        if self.error is not None:
            raise self.error
        self.file.flush()


def write_state(path: Path, part: State) -> State:
    """Write a new file to disk; its entry in a manifest, the bytes and their SHA-256."""
    with path.open("xb") as file:
        hashed = _HashedFile(file)
        torch.save(part, cast(IO[bytes], hashed))
        hashed.flush()
        os.fsync(file.fileno())
    return {"bytes": hashed.bytes, "sha256": hashed.sha256.hexdigest()}


def write_bytes(path: Path, content: bytes) -> None:
    """Write a new file to disk."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Bring the names in a folder to disk, where the system and the file system can."""
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def read_state(path: Path) -> State:
    """Read a state, tensors on the CPU; ValueError where the file is missing or damaged."""
    try:
        state: State = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"checkpoint: there is no file {path}") from None
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"checkpoint: {path} is damaged: {str(error).splitlines()[0]}") from None
    return state
