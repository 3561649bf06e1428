"""What a prepared data set says of itself, how it is written, and whether it is still what was written."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from pathlib import Path
from typing import IO, Any

from diffspace.data.files import MANIFEST, every_name
from diffspace.data.zip_files import ZipFiles

__all__ = ["file_sha256", "manifest_text", "sha256", "verify", "write_folder", "write_zip"]

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first time that a ZIP archive can name


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def manifest_text(content: Mapping[str, Any]) -> bytes:
    """The manifest as it is stored, with the hash of all else that it says."""
    return _canonical({**content, "sha256": sha256(_canonical(content))})


def write_zip(target: Path | _Comparison, members: Iterable[tuple[str, bytes]]) -> None:
    """A ZIP archive of stored members without times or rights: the same members give the same bytes."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name, _EPOCH)
            info.create_system = 3  # else it tells the system that it was written on
            info.external_attr = 0o100644 << 16
            archive.writestr(info, content)


def write_folder(target: Path, members: Iterable[tuple[str, bytes]]) -> None:
    """The members as files; a folder that is there already is replaced."""
    if target.exists():
        shutil.rmtree(target)
    target.mkdir()
    for name, content in members:
        path = target / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    if hasattr(os, "sync"):
        os.sync()


def verify(path: str | Path, track: Callable[[int, int], None] | None = None) -> list[str]:
    """What is wrong with a prepared data set, file by file; an empty list is a whole one.

    Every file is read and its SHA-256 compared with the manifest, and the manifest with its own; of a ZIP
    archive the bytes between the members, too, must be those that `prepare` writes. `track(done, all)` is told
    how far it is. ValueError names a path that is no prepared data set.
    """
    root = Path(path).expanduser()
    archive = None if root.is_dir() else ZipFiles(root)
    number = {} if archive is None else {name: i for i, name in enumerate(archive.members)}
    names = set(every_name(root) if archive is None else number)
    if MANIFEST not in names:
        raise ValueError(f"{root / MANIFEST}: is not there; want a data set that `diffspace data prepare` wrote")
    manifest: Callable[[], bytes]
    digest: Callable[[str], str]
    if archive is None:
        manifest, digest = (root / MANIFEST).read_bytes, (lambda name: file_sha256(root / name))
    else:
        read = archive.read
        manifest, digest = (lambda: read(number[MANIFEST])), (lambda name: sha256(read(number[name])))
    problems = [f"{root / name}: {problem}" for name, problem in _wrong_files(names, manifest, digest, track)]
    if archive is None or problems:
        return problems
    with root.open("rb") as file:
        comparison = _Comparison(file)
        write_zip(comparison, _settling(comparison, archive))
        comparison.end()
    at = comparison.differs_at
    return [] if at is None else [f"{root}: byte {at}, outside the files in it, is not what was written"]


def _settling(comparison: _Comparison, archive: ZipFiles) -> Iterator[tuple[str, bytes]]:
    for number, name in enumerate(archive.members):
        comparison.settle()  # the member before is complete when the next one is asked for
        yield name, archive.read(number)


def _canonical(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()


def _wrong_files(
    there: Set[str],
    read_manifest: Callable[[], bytes],
    digest: Callable[[str], str],
    track: Callable[[int, int], None] | None,
) -> Iterator[tuple[str, str]]:
    try:
        text = read_manifest()
        manifest = json.loads(text)
        hashes = manifest["files"]
        own = {name: value for name, value in manifest.items() if name != "sha256"}
        whole = text == manifest_text(own) and all(isinstance(value, str) for value in hashes.values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        whole = False
    if not whole:
        yield MANIFEST, "is not what was written, and nothing else can be told"
        return
    for done, (name, expected) in enumerate(hashes.items(), start=1):
        if name not in there:
            yield name, "is missing"
            continue
        try:
            if digest(name) != expected:
                yield name, "is not what was written"
        except (ValueError, OSError) as error:
            yield name, getattr(error, "strerror", None) or "is damaged or cut short"
        if track is not None:
            track(done, len(hashes))
    for name in sorted(there - {MANIFEST} - set(hashes)):
        yield name, "is not in the manifest"


class _Comparison(io.RawIOBase):
    """A file to write to that keeps what is not settled yet, and compares it with another file once it is."""

    def __init__(self, other: IO[bytes]) -> None:
        self._other, self._base, self._recent = other, 0, io.BytesIO()
        self.differs_at: int | None = None

    def settle(self) -> None:
        """Nothing that has been written so far will be written anew."""
        content = self._recent.getvalue()
        other = self._other.read(len(content))
        if self.differs_at is None and content != other:
            same = (i for i, (a, b) in enumerate(zip(content, other, strict=False)) if a != b)
            self.differs_at = self._base + next(same, len(other))
        self._base += len(content)
        self._recent = io.BytesIO()

    def end(self) -> None:
        self.settle()
        if self.differs_at is None and self._other.read(1):
            self.differs_at = self._base

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._base + self._recent.tell()

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        return self._base + self._recent.seek(position - self._base, whence)

    def write(self, content: Any) -> int:
        return self._recent.write(content)
