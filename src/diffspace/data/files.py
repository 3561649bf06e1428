"""Where encoded images lie: in a folder, or in whatever else is read like one."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

from diffspace.data.names import Names

__all__ = [
    "INDEX",
    "MANIFEST",
    "ByteFile",
    "Files",
    "FolderFiles",
    "every_name",
    "images_among",
    "parse_index",
    "version",
]

INDEX = "dataset.json"
"""Holds labels: {"labels": [[name, label], …] or null}, and names of classes where diffspace wrote it."""
MANIFEST = "manifest.json"
ByteFile: TypeAlias = io.BytesIO | io.BufferedReader


@runtime_checkable
class Files(Protocol):
    """Image files by number, from 0; the parts of their names are joined by /."""

    @property
    def path(self) -> Path: ...

    @property
    def names(self) -> Sequence[str]:
        """The images, in order."""
        ...

    @property
    def others(self) -> int:
        """How many files are no images."""
        ...

    def index(self) -> Mapping[str, Any] | None:
        """What `INDEX` says, where there is one."""
        ...

    def open(self, number: int) -> ByteFile: ...

    def fingerprint(self) -> str:
        """A hash that changes with the files, found without reading all of them."""
        ...


def version(path: Path) -> tuple[int, int]:
    """Size in bytes and time in nanoseconds of a file; ValueError names one that is not there."""
    try:
        found = path.stat()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
    return found.st_size, found.st_mtime_ns


def images_among(names: Sequence[str]) -> tuple[list[int], int]:
    """Which names are those of images, in order, folder by folder, and the number of the others.

    Names that begin with a dot, in any part, are passed over; `INDEX` and `MANIFEST` are no others.
    """
    from diffspace.data.images import image_suffixes

    suffixes = image_suffixes()
    images, others = [], 0
    for number, name in enumerate(names):
        if name in (INDEX, MANIFEST) or name.startswith(".") or "/." in name:
            continue
        if os.path.splitext(name)[1].lower() in suffixes:
            images.append(number)
        else:
            others += 1
    return sorted(images, key=lambda number: names[number].replace("/", "\0")), others


def parse_index(path: Path, text: bytes) -> Mapping[str, Any]:
    """The content of an `INDEX`; ValueError for one that is not in the reference's form."""
    try:
        index = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: is not JSON: {error}; classes='none' does without it") from None
    labels = index.get("labels") if isinstance(index, dict) and "labels" in index else ()
    if labels is not None and not (
        isinstance(labels, list)
        and all(isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) for pair in labels)
    ):
        raise ValueError(f'{path}: want {{"labels": [[name, label], …]}} or {{"labels": null}}; or classes=\'none\'')
    names = index.get("class_names")
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise ValueError(f"{path}: class_names: want a list of strings")
    return index  # type: ignore[no-any-return]


@dataclass(frozen=True)
class FolderFiles:
    """The files in a folder and its sub-folders; links are followed, but not in circles."""

    path: Path
    names: Names = field(init=False, repr=False)
    others: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        found = list(every_name(self.path))
        images, others = images_among(found)
        object.__setattr__(self, "names", Names(found[number] for number in images))
        object.__setattr__(self, "others", others)

    def index(self) -> Mapping[str, Any] | None:
        path = self.path / INDEX
        return parse_index(path, path.read_bytes()) if path.is_file() else None

    def open(self, number: int) -> ByteFile:
        return open(os.path.join(self.path, self.names[number]), "rb")

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for name in (*self.names, INDEX):
            try:
                stat = (self.path / name).stat()
            except OSError:
                continue
            digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode(errors="surrogateescape"))
        return digest.hexdigest()


def _visible(folder: Path | str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise ValueError(f"{folder}: cannot be listed as a folder: {error.strerror}") from None


def every_name(folder: Path | str, prefix: str = "", above: tuple[str, ...] = ()) -> Iterator[str]:
    """The files in a folder and below; a link back to a folder above is not followed."""
    here = os.path.realpath(folder)
    if here in above:
        return
    for entry in _visible(folder):
        if entry.is_dir():
            yield from every_name(entry.path, f"{prefix}{entry.name}/", (*above, here))
        else:
            yield prefix + entry.name
