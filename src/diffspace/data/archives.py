"""Image files in folders and in ZIP archives.

Archives are not trusted: nothing is unpacked to disk, and a member that leads out of the archive, is a link, or claims
an impossible size is an error. A member is read at its offset from a file that is opened for it, so that any
number of threads and processes can read an archive at once.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import os
import stat
import struct
import warnings
import zipfile
import zlib
from abc import abstractmethod
from array import array
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from diffspace.data.stored_images import ImageSource, Label, NumberedImages, StoredImages
from diffspace.files import LARGEST_TEXT, check_file, parse_json, read_bytes, reading

INDEX, MANIFEST = "dataset.json", "manifest.json"
"""INDEX holds labels, {"labels": [[name, label], …] or null}, and names of classes if diffspace wrote it."""

_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_ENCRYPTED = 1
# deflate packs 1032 : 1 at best; what is both large and packed tighter than photographs or drawings ever are is a bomb
_BOMB_BYTES, _BOMB_RATIO = 2**24, 100
_LARGEST = 2**30  # bytes of a member
_MOST_SIZES = 100_000  # files whose sizes a fingerprint looks up
_MOST_REPEATS = 1000  # folders that links lead to more than once
MOST_CLASSES = 2**20


def most_text(names: Collection[str]) -> int:
    """The most bytes of JSON on these files: as values, it takes some twenty times as much."""
    return min(LARGEST_TEXT + 2**12 * len(names), _LARGEST)


def version(path: Path) -> tuple[int, int]:
    """The size in bytes and the time in nanoseconds of a file; ValueError names one that cannot be read."""
    with reading(path):
        found = path.stat()
    return found.st_size, found.st_mtime_ns


def open_version(path: Path, expected: tuple[int, int]) -> IO[bytes]:
    """A file to read; ValueError if it cannot be read, or is no longer of the expected version."""
    if version(path) != expected:
        raise ValueError(f"{path}: has changed since it was opened")
    with reading(path):
        return open(path, "rb")


class _IndexedImages(StoredImages):
    """Images whose labels are in `INDEX`, or else the first level of sub-folders."""

    def _find_images(self, names: Sequence[str]) -> list[int]:
        """The numbers of the images among all names, in order, folder by folder; the others are counted.

        Names that begin with a dot, in any part, are ignored; `INDEX` and `MANIFEST` are not counted.
        """
        from diffspace.data.images import image_suffixes

        suffixes = image_suffixes()
        visible = [i for i, n in enumerate(names) if n not in (INDEX, MANIFEST) and n[:1] != "." and "/." not in n]
        images = [i for i in visible if os.path.splitext(names[i])[1].lower() in suffixes]
        self.others = len(visible) - len(images)
        return sorted(images, key=lambda i: names[i].replace("/", "\0"))

    @abstractmethod
    def extra(self, name: str) -> bytes | None:
        """The content of `INDEX` or `MANIFEST`, if there is one."""

    def keys(self, numbers: Sequence[int]) -> Iterator[bytes]:
        """The names of images; of those that `prepare` has numbered, the hashes of their content."""
        hashes: Any = {}
        with contextlib.suppress(ValueError, KeyError, TypeError):  # of a manifest of something else
            hashes = dict(parse_json(self.extra(MANIFEST) or b"{}")["files"])
        names = (self.names[i] for i in numbers)
        return (str(hashes.get(name, name)).encode(errors="surrogateescape") for name in names)

    def labels(self, numbers: Sequence[int]) -> tuple[list[Label] | None, tuple[str, ...]]:
        names = [self.names[i] for i in numbers]
        content = self.extra(INDEX)
        if content is None:
            return self._labels_from_folders(names)
        given, class_names = _parse_index(self.path / INDEX, content)
        if given is None:
            return None, ()
        if missing := [name for name in names if name not in given]:
            raise no_label(self.path / INDEX, missing, len(names))
        return [given[name] for name in names], class_names

    def _labels_from_folders(self, names: Sequence[str]) -> tuple[list[Label] | None, tuple[str, ...]]:
        folders = [name.partition("/")[0] if "/" in name else None for name in names]
        classes = sorted({folder for folder in folders if folder is not None})
        if classes and None in folders:
            raise ValueError(
                f"{self.path}: images beside sub-folders of images ({names[folders.index(None)]}, {classes[0]}/); "
                "sort all of them into sub-folders, or pass classes='none'"
            )
        if len(classes) < 2:
            within = sorted({name.split("/")[1] for name in names if name.count("/") > 1})
            if len(within) > 1:
                text = f"{self.path}: {classes[0]}/ encloses {', '.join(within[:3])}{', …' if len(within) > 3 else ''}"
                warnings.warn(f"{text}, which are not counted as classes; move them up one level", stacklevel=4)
            return None, ()
        if self.path.is_dir():
            beside = {entry.name for entry in self.path.iterdir() if entry.is_dir() and entry.name[0] != "."}
            if empty := sorted(beside - set(classes)):
                message = f"{self.path}: sub-folders without images are not counted as classes: {', '.join(empty)}"
                warnings.warn(message, stacklevel=4)
        number = {name: i for i, name in enumerate(classes)}
        return [number[folder] for folder in folders if folder is not None], tuple(classes)


def _parse_index(path: Path, content: bytes) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """The labels by name, if any, and the names of the classes in an `INDEX`."""
    try:
        index: Any = parse_json(content)
    except ValueError as error:
        raise ValueError(f"{path}: is not JSON: {error}; classes='none' ignores it") from None
    labels = index.get("labels", ()) if isinstance(index, dict) else ()
    pairs = [] if labels is None else labels
    if not isinstance(pairs, list) or not all(
        isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs
    ):
        raise ValueError(f"{path}: expected {{\"labels\": [[name, label], …] or null}}; classes='none' ignores it")
    for name, label in pairs:
        number = type(label) is int and 0 <= label < MOST_CLASSES
        if not number and not (isinstance(label, list) and all(isinstance(v, int | float) for v in label)):
            raise ValueError(f"{path}: label of {name!r}: expected a class number or a vector, got {label!r:.80}")
    names = index.get("class_names") or []
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise ValueError(f"{path}: class_names: expected a list of strings")
    return None if labels is None else dict(pairs), tuple(names)


def no_label(path: Path, missing: Sequence[str], count: int) -> ValueError:
    return ValueError(
        f"{path}: has no label for {len(missing)} of {count} images, {missing[0]!r} among them; "
        "classes='none' ignores labels"
    )


@dataclass(frozen=True)
class ImageFolder(ImageSource):
    """The images in a folder and its sub-folders; see `ImageSource` for the options."""

    def open(self) -> StoredImages:
        return FolderImages(Path(self.path).expanduser())


@dataclass(frozen=True)
class ImageFile(ImageSource):
    """One image in a file of its own; see `ImageSource` for the options."""

    def open(self) -> StoredImages:
        path = Path(self.path).expanduser()
        return NumberedImages(path, range(1), lambda _: read_bytes(path, _LARGEST), str(version(path)))


class FolderImages(_IndexedImages):
    def __init__(self, path: Path) -> None:
        self.path = path
        names = list(list_files(path))
        self.names = [names[i] for i in self._find_images(names)]

    def open(self, number: int) -> IO[bytes]:
        path = self.path / self.names[number]
        check_file(path)
        return open(path, "rb")

    def extra(self, name: str) -> bytes | None:
        path = self.path / name
        return read_bytes(path, most_text(self.names)) if path.is_file() else None

    def versions(self, numbers: Sequence[int]) -> Iterator[int]:
        """The sizes of the files, of many a part."""
        some = numbers[:: 1 + len(numbers) // _MOST_SIZES]
        return (os.stat(os.path.join(self.path, self.names[i])).st_size for i in some)

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for name in (*self.names, INDEX):
            try:
                found = (self.path / name).stat()
            except OSError:
                continue
            digest.update(f"{name}\0{found.st_size}\0{found.st_mtime_ns}\0".encode(errors="surrogateescape"))
        return digest.hexdigest()


def list_files(folder: Path | str) -> Iterator[str]:
    """The names of the files in a folder and below; links are followed, but not to a folder above.

    ValueError where links lead to the same folders again and again: a few of them make millions of ways.
    """
    waiting: list[tuple[str, str, tuple[tuple[int, int], ...]]] = [(os.fspath(folder), "", ())]
    seen: set[tuple[int, int]] = set()
    repeats = 0
    while waiting:
        place, prefix, above = waiting.pop()
        try:
            found_there = os.stat(place)
            here = (found_there.st_dev, found_there.st_ino)
            if here in above:
                continue
            repeats += here in seen
            seen.add(here)
            if repeats > _MOST_REPEATS:
                raise ValueError(f"{folder}: links lead to the same folders again and again, to {place} among them")
            with os.scandir(place) as found:
                entries = [entry for entry in found if not entry.name.startswith(".")]
        except OSError as error:
            raise ValueError(f"{place}: cannot be listed as a folder: {error.strerror}") from None
        for entry in entries:
            if entry.is_dir():
                waiting.append((entry.path, f"{prefix}{entry.name}/", (*above, here)))
            else:
                yield prefix + entry.name


@dataclass(frozen=True)
class ImageZip(ImageSource):
    """The images in a ZIP archive, stored or deflated; see `ImageSource` for the options.

    ValueError names a member that is encrypted, named twice, a link, overlaps another, leads out of the archive, or is
    a decompression bomb.
    """

    def open(self) -> StoredImages:
        return ZipImages(Path(self.path).expanduser())


class ZipImages(_IndexedImages):
    """The images in a ZIP archive; `members` are the names of all its files, in their order."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._version = version(path)
        infos = _checked_members(path)
        self.members = [info.filename for info in infos]
        self._images = self._find_images(self.members)
        self.names = [self.members[i] for i in self._images]
        self._table = array("q")  # five numbers a member: a million ZipInfo take 0.6 GB
        for i in infos:
            self._table.extend((i.header_offset, i.compress_size, i.file_size, i.CRC, i.compress_type))

    def open(self, number: int) -> bytes:
        return self.read(self._images[number])

    def extra(self, name: str) -> bytes | None:
        if name not in self.members:
            return None
        member = self.members.index(name)
        if (size := self._table[5 * member + 2]) > most_text(self.names):
            raise ValueError(f"{self.path / name}: {size} bytes are too many for {len(self.names)} images")
        return self.read(member)

    def versions(self, numbers: Sequence[int]) -> Iterator[int]:
        """The CRC-32 of the images."""
        return (self._table[5 * self._images[i] + 3] for i in numbers)

    def fingerprint(self) -> str:
        return hashlib.sha256(repr(self._version).encode()).hexdigest()

    def read(self, member: int) -> bytes:
        """The content of a member, numbered as in `members`, checked against its length and CRC-32."""
        offset, packed, size, crc, method = self._table[5 * member : 5 * member + 5]
        damaged = ValueError(f"{self.path}: member {self.members[member]!r} is damaged or cut short")
        with open_version(self.path, self._version) as file:
            file.seek(offset)
            try:
                signature, *_, name_length, extra_length = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
                file.seek(name_length + extra_length, os.SEEK_CUR)
                content = file.read(packed)
                if method == zipfile.ZIP_DEFLATED:
                    content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, size + 1)
            except (struct.error, zlib.error):
                raise damaged from None
        if signature != b"PK\x03\x04" or len(content) != size or zlib.crc32(content) != crc:
            raise damaged
        return content


def _checked_members(path: Path) -> list[zipfile.ZipInfo]:
    """What the directory of a ZIP archive says of its files, all of it checked."""
    with reading(path, "a ZIP archive"), zipfile.ZipFile(path) as archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
        end = archive.start_dir
    for info in infos:
        check_name(path, info.filename)
        if problem := _zip_problem(info):
            raise ValueError(f"{path}: member {info.filename!r} {problem}")
    counts = collections.Counter(info.filename for info in infos)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise ValueError(f"{path}: holds {len(twice)} names more than once, {twice[0]!r} among them")
    by_place = sorted(infos, key=lambda info: info.header_offset)
    ends = [*(info.header_offset for info in by_place[1:]), end]
    for info, after in zip(by_place, ends, strict=False):
        if info.header_offset + _LOCAL_HEADER.size + info.compress_size > after:
            raise ValueError(f"{path}: member {info.filename!r} runs into what follows it")
    return infos


def check_name(archive: Path, name: str) -> None:
    """ValueError for a name in an archive that leads out of the folder into which it would be unpacked."""
    if not name or name[0] == "/" or "\\" in name or name[1:2] == ":" or ".." in name.split("/"):
        raise ValueError(f"{archive}: member {name!r}: expected a name inside the archive, with parts joined by /")


def _zip_problem(info: zipfile.ZipInfo) -> str | None:
    if info.header_offset < 0:
        return "lies outside the archive"
    if info.flag_bits & _ENCRYPTED:
        return "is encrypted"
    if stat.S_ISLNK(info.external_attr >> 16):
        return "is a link"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"is compressed by method {info.compress_type}; expected stored or deflated"
    if info.file_size > min(_LARGEST, max(_BOMB_BYTES, _BOMB_RATIO * info.compress_size)):
        return f"claims {info.file_size} bytes out of {info.compress_size}: a decompression bomb, or no image"
    return None
