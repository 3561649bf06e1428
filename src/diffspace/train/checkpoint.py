"""Checkpoints: the state of a training run on disk, whole or not at all, read without running code.

`RUN/checkpoints/<images seen, 12 digits>/` holds one `.pt` file for each part of the state and `manifest.json` with
their sizes, their SHA-256 and its own. It is written under a hidden name, flushed to disk and then renamed.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import errno
import hashlib
import math
import os
import pickle
import re
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import torch

from diffspace._version import __version__
from diffspace.checks import check_integer
from diffspace.files import manifest_text, read_manifest

CHECKPOINTS, MANIFEST, FORMAT = "checkpoints", "manifest.json", 1
_NEW = ".new"  # another checkpoint after the same images, about to replace the first
_NAME = re.compile(rf"(\d{{12,}})({re.escape(_NEW)})?")
_PLAIN = (bool, int, float, str, type(None))


class _Damage(ValueError):
    """A file is not what was written; other ValueErrors are of files that cannot be judged here and now."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in which every file is what was written; `verify` and `Checkpoints.newest` make it."""

    path: Path
    images: int
    parts: tuple[str, ...]
    score: float | None = None

    def read(self) -> dict[str, dict[str, Any]]:
        """The parts by name, tensors on the CPU; ValueError names a file that no state can be read from."""
        state = {}
        for part in self.parts:
            path = self.path / f"{part}.pt"
            with _reading(path):
                try:
                    state[part] = torch.load(path, map_location="cpu", weights_only=True)
                except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
                    raise _Damage(f"{path}: is damaged: {str(error).splitlines()[0]}") from None
        return state


def verify(path: Path) -> Checkpoint:
    """The checkpoint in a folder, read in full and compared with its manifest; ValueError names what is wrong."""
    manifest = _manifest(path)
    for name, entry in manifest["files"].items():
        file = path / name
        with _reading(file), file.open("rb") as content:
            size = os.fstat(content.fileno()).st_size
            if size != entry["bytes"]:
                raise _Damage(f"{file}: has {size} bytes where {entry['bytes']} were written")
            if hashlib.file_digest(content, "sha256").hexdigest() != entry["sha256"]:
                raise _Damage(f"{file}: is not what was written, by its SHA-256")
    parts = tuple(name.removesuffix(".pt") for name in manifest["files"])
    return Checkpoint(path, manifest["images"], parts, manifest["score"])


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

    After each save stay the last `keep_last`, the first at or after each multiple of `keep_every_images` (0: none) and
    the best by score; what is damaged goes, and so does what a killed process left half-written. With `asynchronous`,
    `save` copies the state to the memory of the CPU and returns, and a thread writes it; call `close` at the end, which
    raises what went wrong.
    """

    def __init__(self, folder: Path, keep_last: int = 2, keep_every_images: int = 0, asynchronous: bool = True) -> None:
        check_integer("keep_last", keep_last, 1)
        check_integer("keep_every_images", keep_every_images, 0)
        self.path = folder / CHECKPOINTS
        self.keep_last, self.keep_every_images, self.asynchronous = keep_last, keep_every_images, asynchronous
        self._writer = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")  # finishes its work before an exit
        self._pending: concurrent.futures.Future[None] | None = None
        self._damaged: set[Path] = set()

    def save(self, images: int, parts: Mapping[str, Any], *, score: float | None = None) -> None:
        """Write the state after `images` images: parts by name, each nested dicts and lists of tensors and numbers.

        A checkpoint after as many images is replaced. The lowest `score` is the best; one that is not finite is none.
        OSError, on one line, says what could not be written and which checkpoint is whole; with `asynchronous` it comes
        from the next call of `save`, `wait`, `close` or `newest`. ValueError names a value that no checkpoint can hold.
        """
        check_integer("images", images, 0)
        self.wait()
        state = {}
        for name, part in parts.items():
            if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
                raise ValueError(f"parts: expected names of letters, digits, - and _, got {name!r}")
            if not isinstance(part, Mapping):
                raise ValueError(f"parts: {name} is a {type(part).__name__}; expected a dict")
            state[name] = _plain(part, name, copied=self.asynchronous)
        score = float(score) if score is not None and math.isfinite(score) else None
        if self.asynchronous:
            self._pending = self._writer.submit(self._write, images, state, score)
        else:
            self._write(images, state, score)

    def wait(self) -> None:
        """Return when what was handed to `save` is on disk; OSError if it could not be written."""
        if self._pending is not None:
            concurrent.futures.wait([self._pending])
            pending, self._pending = self._pending, None
            pending.result()

    def close(self) -> None:
        """`wait`, and end the thread."""
        try:
            self.wait()
        finally:
            self._writer.shutdown()

    @property
    def empty(self) -> bool:
        """Whether nothing was ever completed here."""
        return not self._paths()

    def newest(self, warn: Callable[[str], None] = warnings.warn) -> Checkpoint:
        """The newest whole checkpoint; `warn` is called with what is wrong with those that are passed over.

        ValueError if none is whole, with the reasons, or if there is none.
        """
        self.wait()
        return self._newest(warn)

    def _newest(self, warn: Callable[[str], None]) -> Checkpoint:
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
        """The folders of checkpoints that were completed, by images."""
        try:
            folders = [path for path in self.path.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ValueError(f"checkpoint: {self.path} cannot be read: {error.strerror}") from None
        return sorted(folders, key=lambda path: (_images(path), path.name))

    def _write(self, images: int, state: Mapping[str, Any], score: float | None) -> None:
        target = self.path / f"{images:012d}"
        partial = _hidden(target)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            _sync_folder(self.path.parent)
            self._tidy()
            partial.mkdir()
            files = {f"{name}.pt": _write_part(partial / f"{name}.pt", part) for name, part in state.items()}
            versions = {"diffspace": __version__, "torch": str(torch.__version__)}
            manifest = {"format": FORMAT, "images": images, "score": score, "files": files, **versions}
            with _new_file(partial / MANIFEST) as file:
                file.write(manifest_text(manifest))
            _sync_folder(partial)
            # a folder cannot be replaced at once: readers know both names
            name = target.with_suffix(_NEW) if target.exists() else target
            os.rename(partial, name)
            _sync_folder(self.path)
            if name != target:
                _replace(name, target)
                _sync_folder(self.path)
        except BaseException as error:
            shutil.rmtree(partial, ignore_errors=True)
            if isinstance(error, OSError):
                raise OSError(self._complaint(target, state, error)) from error
            raise
        self._damaged.discard(target)
        self._retain(target)

    def _tidy(self) -> None:
        """Remove what a killed process left half-written, and finish the replacement that it began."""
        for path in self.path.glob(_hidden(Path("*")).name):
            shutil.rmtree(path)
        for new in self.path.glob(f"*{_NEW}"):
            if new in self._damaged:
                _remove(new)
            else:
                _replace(new, new.with_suffix(""))

    def _retain(self, newest: Path) -> None:
        scores, paths = {}, {}
        for path in self._paths():
            with contextlib.suppress(ValueError):
                try:
                    manifest = _manifest(path)
                except _Damage:
                    self._damaged.add(path)
                    raise
                if path not in self._damaged:
                    scores[manifest["images"]], paths[manifest["images"]] = manifest["score"], path
        keep = {paths[images] for images in kept(scores, self.keep_last, self.keep_every_images)}
        for path in {*paths.values(), *self._damaged} - keep - {newest}:
            with contextlib.suppress(OSError):  # what cannot be removed now is tried again after the next save
                _remove(path)
                self._damaged.discard(path)

    def _complaint(self, target: Path, state: Mapping[str, Any], error: OSError) -> str:
        other = "there is no other"
        with contextlib.suppress(ValueError):
            other = f"{self._newest(lambda text: None).path} is whole"
        reason = error.strerror or error
        return f"checkpoint: {target}, of {_size(state) / 1e6:.1f} MB, could not be written: {reason}; {other}"


def _images(path: Path) -> int:
    return int(path.name.removesuffix(_NEW))


def _hidden(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


def _remove(path: Path) -> None:
    """Remove a checkpoint so that no reader takes what is left for one."""
    if path.exists():
        os.rename(path, _hidden(path))
        shutil.rmtree(_hidden(path))


def _replace(new: Path, path: Path) -> None:
    _remove(path)
    os.rename(new, path)


@contextlib.contextmanager
def _reading(file: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise _Damage(f"{file}: is missing") from None
    except OSError as error:
        raise ValueError(f"{file}: cannot be read: {error.strerror}") from None


def _manifest(path: Path) -> dict[str, Any]:
    """The manifest of a checkpoint; ValueError where it is missing, not what was written, or of another format."""
    file = path / MANIFEST
    with _reading(file):
        text = file.read_bytes()
    try:
        manifest = read_manifest(text)
    except ValueError as error:
        raise _Damage(f"{file}: {error}, by its SHA-256") from None
    if manifest.get("format") != FORMAT:
        raise ValueError(f"{file}: has format {manifest.get('format')!r}; this diffspace knows {FORMAT}")
    if manifest["images"] != _images(path):
        raise _Damage(f"{file}: is of {manifest['images']} images, which the folder's name contradicts")
    return manifest


def _plain(value: Any, where: str, copied: bool) -> Any:
    """The value in types that `torch.load(weights_only=True)` reads back; ValueError names one that it would not.

    `copied` to the memory of the CPU, or the same tensors.
    """
    if type(value) in (torch.Tensor, torch.nn.Parameter):
        return value.detach().to("cpu", copy=True) if copied else value.detach()
    if isinstance(value, Mapping):
        if odd := [key for key in value if type(key) not in (int, str)]:
            raise ValueError(f"parts: {where} has the key {odd[0]!r}; expected strings and integers")
        return {key: _plain(item, f"{where}.{key}", copied) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [_plain(item, f"{where}.{i}", copied) for i, item in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    if type(value) not in _PLAIN:
        kind = type(value).__name__
        raise ValueError(f"parts: {where} is a {kind}; expected tensors, numbers, strings, lists and dicts")
    return value


def _size(value: Any) -> int:
    """Bytes of the tensors in it."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return sum(map(_size, items))


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[IO[bytes]]:
    """A new file, which is on disk when the block ends."""
    with path.open("xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


class _HashedFile:
    """What `torch.save` writes to: hashed, then written.

    torch calls it from C++, which no exception should pass: the first one is kept, and what follows is ignored.
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


def _write_part(path: Path, part: Mapping[str, Any]) -> dict[str, Any]:
    """Write a part of a state; its entry in a manifest, the bytes and their SHA-256."""
    with _new_file(path) as file:
        hashed = _HashedFile(file)
        torch.save(part, cast(IO[bytes], hashed))
        hashed.flush()
    return {"bytes": hashed.bytes, "sha256": hashed.sha256.hexdigest()}


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
