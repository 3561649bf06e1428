"""Checkpoints: the state of a training run on disk, whole or not at all, read without running code.

`RUN/checkpoints/<images seen, 12 digits>.pt` is what `torch.save` wrote, then a line of JSON (images, score, versions)
and a line with the SHA-256 of all before it. It is written under a hidden name, flushed to disk and then renamed.
Version 0.1 made a folder of each, with a file for each part of the state and a manifest.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import errno
import hashlib
import io
import json
import math
import os
import re
import shutil
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from diffspace._version import __version__
from diffspace.checks import check_integer
from diffspace.files import atomic_path, check_entries, parse_json, read_bytes, read_manifest, reading
from diffspace.pickles import read_pickle

CHECKPOINTS, FORMAT = "checkpoints", 2
_NAME = re.compile(r"\d{12}(\.pt|\.new)?")  # "" and ".new" of version 0.1
_FACTS_BYTES, _SHA_BYTES = 4096, 65  # at the end of a file: more than both lines have, and the second line
_PLAIN = (torch.Tensor, torch.nn.Parameter, bool, int, float, str, type(None))


class _Damage(ValueError):
    """A file is not what was written; other ValueErrors are of files that cannot be judged here and now."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that is what was written; `verify` and `Checkpoints.newest` make it."""

    path: Path
    images: int
    score: float | None = None

    def read(self) -> dict[str, dict[str, Any]]:
        """The parts by name, tensors on the CPU; ValueError names a file that no state can be read from."""
        files = sorted(self.path.glob("*.pt")) if self.path.is_dir() else [self.path]
        parts: dict[str, dict[str, Any]] = {}
        for file in files:
            with reading(file, "a checkpoint"):
                content = check_entries(read_pickle(file, integer_keys=True))
                parts |= {file.stem: content} if self.path.is_dir() else content
        with reading(self.path, "a checkpoint"):
            for part in parts.values():
                check_entries(part)
        return parts


def verify(path: Path) -> Checkpoint:
    """The checkpoint at a path, read in full and compared with its SHA-256; ValueError names what is wrong."""
    facts = _facts(path)
    if path.is_dir():
        expected = {path / name: entry["sha256"] for name, entry in facts["files"].items()}
    else:
        expected = {path: facts["sha256"]}
    for file, sha256 in expected.items():
        with reading(file):
            if _sha256(file, 0 if path.is_dir() else _SHA_BYTES) != sha256:
                raise _Damage(f"{file}: is not what was written, by its SHA-256")
    return Checkpoint(path, facts["images"], facts["score"])


def kept(scores: Mapping[int, float | None], keep_last: int, keep_every_images: int) -> set[int]:
    """Which checkpoints stay, of those with the images and the scores given.

    The last `keep_last`; the first at or after each multiple of `keep_every_images` (0: none); the one with the lowest
    score, the first of equals.
    """
    images = sorted(scores)
    keep = set(images[-keep_last:])
    if keep_every_images:
        first: dict[int, int] = {}
        for n in images:
            first.setdefault(n // keep_every_images, n)
        keep |= {n for multiple, n in first.items() if multiple > 0}
    scored = [(score, n) for n, score in scores.items() if score is not None]
    return keep | ({min(scored)[1]} if scored else set())


class Checkpoints:
    """The checkpoints of the run in `folder`, for one process at a time to write.

    `save` copies the state to the memory of the CPU and returns, and a thread writes it; call `wait` at the end, which
    raises what went wrong. After each save, those of `kept` stay; what is damaged goes, and so does what a killed
    process left half-written.
    """

    def __init__(self, folder: Path, keep_last: int = 2, keep_every_images: int = 0) -> None:
        check_integer("keep_last", keep_last, 1)
        check_integer("keep_every_images", keep_every_images, 0)
        self.path, self.keep_last, self.keep_every_images = folder / CHECKPOINTS, keep_last, keep_every_images
        self._writer = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")  # finishes its work before an exit
        self._pending: concurrent.futures.Future[None] | None = None
        self._damaged: set[Path] = set()

    def save(self, images: int, parts: Mapping[str, Any], *, score: float | None = None) -> None:
        """Write the state after `images` images: parts by name, each nested dicts and lists of tensors and numbers.

        A checkpoint after as many images is replaced. The lowest `score` is the best; one that is not finite is none.
        OSError, on one line, says what could not be written and which checkpoint is whole; it comes from the next call
        of `save`, `wait` or `newest`. ValueError names a value that no checkpoint can hold.
        """
        check_integer("images", images, 0)
        self.wait()
        for name, part in parts.items():
            _check_plain(part, name)
        content = io.BytesIO()
        torch.save(dict(parts), content)
        score = float(score) if score is not None and math.isfinite(score) else None
        self._pending = self._writer.submit(self._write, images, content.getbuffer(), score)

    def wait(self) -> None:
        """Return when what was handed to `save` is on disk; OSError if it could not be written."""
        if self._pending is None:
            return
        concurrent.futures.wait([self._pending])
        pending, self._pending = self._pending, None
        try:
            pending.result()
        except OSError as error:
            other = "there is no other"
            with contextlib.suppress(ValueError):
                other = f"{self.newest(lambda text: None).path} is whole"
            raise OSError(f"checkpoint: {error}; {other}") from error

    @property
    def empty(self) -> bool:
        """Whether nothing was ever completed here."""
        return not self._paths()

    def newest(self, warn: Callable[[str], None] = warnings.warn) -> Checkpoint:
        """The newest whole checkpoint; `warn` is called with what is wrong with those that are passed over.

        ValueError if none is whole, with the reasons, or if there is none.
        """
        self.wait()
        problems = []
        for path in reversed(self._paths()):
            try:
                return verify(path)
            except ValueError as error:
                if isinstance(error, _Damage):
                    self._damaged.add(path)
                problems.append(str(error))
                warn(f"{error}; this checkpoint is passed over")
        none = f"none in {self.path} is whole: {'; '.join(problems)}" if problems else f"there is none in {self.path}"
        raise ValueError(f"checkpoint: {none}")

    def _paths(self) -> list[Path]:
        """The checkpoints that were completed, by images."""
        try:
            return sorted(path for path in self.path.iterdir() if _NAME.fullmatch(path.name))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ValueError(f"checkpoint: {self.path} cannot be read: {error.strerror}") from None

    def _write(self, images: int, state: memoryview, score: float | None) -> None:
        path = self.path / f"{images:012d}.pt"
        versions = {"diffspace": __version__, "torch": str(torch.__version__)}
        facts = f"\n{json.dumps({'format': FORMAT, 'images': images, 'score': score, **versions})}\n".encode()
        digest = hashlib.sha256(state)
        digest.update(facts)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            _sync_folder(self.path.parent)
            for half in self.path.glob(".[0-9]*"):  # which a killed process left
                _remove(half)
            with atomic_path(path) as temporary, temporary.open("wb") as file:
                file.writelines((state, facts, f"{digest.hexdigest()}\n".encode()))
            _sync_folder(self.path)
        except OSError as error:
            reason = error.strerror or error
            raise OSError(f"{path}, of {len(state) / 1e6:.1f} MB, could not be written: {reason}") from error
        self._damaged.discard(path)
        self._retain(path)

    def _retain(self, newest: Path) -> None:
        """Remove what is damaged, and of the others what is not to be kept."""
        scores, paths = {}, {}
        for path in self._paths():
            with contextlib.suppress(ValueError):
                facts = _facts(path)
                if path not in self._damaged:
                    scores[facts["images"]], paths[path] = facts.get("score"), facts["images"]
        keep = kept(scores, self.keep_last, self.keep_every_images)
        dropped = {path for path, images in paths.items() if images not in keep}
        for path in (dropped | self._damaged) - {newest}:
            with contextlib.suppress(OSError):  # what cannot be removed now is tried again after the next save
                _remove(path)
                self._damaged.discard(path)


def _facts(path: Path) -> dict[str, Any]:
    """What a checkpoint says of itself; ValueError where it is damaged, or of another format."""
    known = 1 if path.is_dir() else FORMAT
    with reading(path):
        try:
            if path.is_dir():
                facts = check_entries(read_manifest(read_bytes(path / "manifest.json")), files=dict)
                for entry in facts["files"].values():
                    check_entries(entry, sha256=str)
            else:
                with path.open("rb") as file:
                    file.seek(max(0, os.fstat(file.fileno()).st_size - _FACTS_BYTES))
                    *_, text, sha256, _ = file.read().split(b"\n")
                facts = parse_json(text) | {"sha256": sha256.decode()}
            check_entries(facts, images=int, format=int)
        except (ValueError, TypeError):
            raise _Damage(f"{path}: is not what was written, by its SHA-256") from None
    if facts["format"] != known:
        raise ValueError(f"{path}: has format {facts['format']}; this diffspace knows {known}")
    if facts["images"] != int(path.name.partition(".")[0]):
        raise _Damage(f"{path}: is of {facts['images']} images, which its name contradicts")
    return {"score": None} | facts


def _sha256(path: Path, without: int = 0) -> str:
    """The SHA-256 of a file without its last bytes."""
    digest, left = hashlib.sha256(), path.stat().st_size - without
    with path.open("rb") as file:
        while left > 0 and (block := file.read(min(left, 2**20))):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _check_plain(value: Any, where: str) -> None:
    """ValueError names a value that `read_pickle` does not read back."""
    if type(value) in (dict, OrderedDict):  # others are pickled by the names of their classes
        if odd := [k for k in value if type(k) is not str and not (type(k) is int and 0 <= k < 2**31)]:
            raise ValueError(
                f"parts: {where} has the key {odd[0]!r}; expected strings, and integers from 0 to 2^31 - 1"
            )
        for key, item in value.items():
            _check_plain(item, f"{where}.{key}")
    elif type(value) in (list, tuple):
        for i, item in enumerate(value):
            _check_plain(item, f"{where}.{i}")
    elif type(value) not in _PLAIN:
        kind = type(value).__name__
        raise ValueError(f"parts: {where} is a {kind}; expected tensors, numbers, strings, lists and dicts")


def _sync_folder(path: Path) -> None:
    """Flush the names in a folder to disk, where the system and the file system can."""
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
