"""Images in tar archives as WebDataset writes them, which are not trusted; see `diffspace.data.archives`."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import tarfile
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from diffspace.data.archives import MOST_CLASSES, check_name, no_label, open_version, version
from diffspace.data.stored_images import ImageSource, Label, StoredImages
from diffspace.files import parse_json, reading

_HEADER = 2**20  # bytes of a header, which holds no more than names
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_MOST_SHARDS = 10**5
_LABEL_FILES = {"cls": 2**6, "json": 2**20}  # suffixes in order of preference, and the most bytes of such a file
_SAMPLE = re.compile(r"((?:.*/)?[^/.]+)\.([^/]+)", re.DOTALL)  # folder/stem, then what follows the first dot


@dataclass(frozen=True)
class TarShards(ImageSource):
    """Images in tar archives: x.tar, a folder of such, or names with a range, data/{000..099}.tar; see `ImageSource`.

    A sample is files that follow each other with one name up to its first dot: 000.jpg, 000.cls. Labels are an integer
    in .cls, or "label" in .json. Samples come in the order of the archives. Headers are read at the start; an archive
    must not be compressed.
    """

    @property
    def name(self) -> str:
        path = Path(self.path).expanduser()
        stem = _RANGE.sub("", path.name.removesuffix(".tar")).strip("-_.")
        return path.resolve().name if path.is_dir() else stem or path.resolve().parent.name

    def open(self) -> StoredImages:
        return _TarImages(_shard_paths(Path(self.path).expanduser()), labelled=self.classes == "auto")


class _TarImages(StoredImages):
    def __init__(self, shards: list[Path], labelled: bool) -> None:
        from diffspace.data.images import image_suffixes

        self.path = Path(os.path.commonpath([shard.parent for shard in shards]))
        self._shards, self._versions = shards, [version(shard) for shard in shards]
        self._table = array("q")  # three numbers an image: its shard, offset and size
        self.names: list[str] = []
        self._labels: list[int | None] = []
        suffixes = {suffix[1:] for suffix in image_suffixes()}
        for number, shard in enumerate(shards):
            folder = shard.relative_to(self.path).as_posix()
            with reading(shard), open(shard, "rb") as file:
                for sample in _tar_samples(shard, file):
                    images = [member for suffix, member in sample.items() if suffix in suffixes]
                    if len(images) > 1:
                        names = ", ".join(repr(member.name) for member in images)
                        raise ValueError(f"{shard}: expected one image a sample, got {len(images)}, {names}")
                    if not images:
                        self.others += len(sample)
                        continue
                    self.others += len(sample) - 1 - any(suffix in sample for suffix in _LABEL_FILES)
                    self._labels.append(_tar_label(shard, sample, file) if labelled else None)
                    self._table.extend((number, images[0].offset_data, images[0].size))
                    self.names.append(f"{folder}/{images[0].name}")
        missing = [name for name, label in zip(self.names, self._labels, strict=True) if label is None]
        if 0 < len(missing) < len(self.names):
            raise no_label(shards[0] if len(shards) == 1 else self.path, missing, len(self.names))

    def open(self, number: int) -> bytes:
        shard, offset, size = self._table[3 * number : 3 * number + 3]
        with open_version(self._shards[shard], self._versions[shard]) as file:
            file.seek(offset)
            return file.read(size)

    def versions(self, numbers: Sequence[int]) -> Iterator[int]:
        """The sizes of the images."""
        return (self._table[3 * i + 2] for i in numbers)

    def fingerprint(self) -> str:
        state = [(shard.name, *found) for shard, found in zip(self._shards, self._versions, strict=True)]
        return hashlib.sha256(repr(state).encode()).hexdigest()

    def labels(self, numbers: Sequence[int]) -> tuple[list[Label] | None, tuple[str, ...]]:
        labels: list[Label] = [label for i in numbers if (label := self._labels[i]) is not None]
        return labels or None, ()


def _tar_samples(path: Path, file: IO[bytes]) -> Iterator[dict[str, tarfile.TarInfo]]:
    """The files of each sample by what follows the first dot of their names, in lower case."""
    named = ((match, member) for member in tar_files(path, file) if (match := _SAMPLE.fullmatch(member.name)))
    for _, members in itertools.groupby(named, key=lambda item: item[0][1]):
        sample: dict[str, tarfile.TarInfo] = {}
        for match, member in members:
            if sample.setdefault(match[2].lower(), member) is not member:
                raise ValueError(f"{path}: holds member {member.name!r} twice")
        yield sample


class _Headers:
    """A file of which the headers of a tar archive are read: what they claim is not believed before it is read."""

    def __init__(self, file: Any, end: int) -> None:
        self._file, self._end = file, end

    def read(self, size: int) -> bytes:
        if size > _HEADER:
            raise ValueError(f"a header claims {size} bytes")
        content: bytes = self._file.read(size)
        return content

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_SET and place > self._end:
            raise ValueError(f"it claims more than {self._end} bytes")
        return int(self._file.seek(place, whence))

    def tell(self) -> int:
        return int(self._file.tell())


def tar_files(
    path: Path, file: Any, end: int | None = None, kind: str = "a tar archive that is not compressed"
) -> Iterator[tarfile.TarInfo]:
    """The files in a tar archive, all checked, no byte after `end`; the place in `file` may be moved meanwhile."""
    end = os.fstat(file.fileno()).st_size if end is None else end
    headers: Any = _Headers(file, end)
    with reading(path, kind), tarfile.open(fileobj=headers, mode="r:") as archive:
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # otherwise it keeps all of them
            member.name = member.name.removeprefix("./")
            if not (member.isdir() and member.name in ("", ".")):
                check_name(path, member.name)
            if not (member.isdir() or member.isfile()) or member.issparse():
                what = "a link" if member.issym() or member.islnk() else "not a plain file or folder"
                raise ValueError(f"{path}: member {member.name!r} is {what}")
            if not 0 <= member.size <= end - member.offset_data:
                raise ValueError(f"{path}: member {member.name!r} claims {member.size} bytes, which is impossible")
            if member.isfile():
                yield member
        # tarfile ends quietly at a header that is damaged: at the true end there is a block of zeros
        file.seek(archive.offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise ValueError(f"{path}: is damaged or cut short at byte {archive.offset}")


def _tar_label(path: Path, sample: Mapping[str, tarfile.TarInfo], file: IO[bytes]) -> int | None:
    """The class number of a sample; None if it has no file for it, or one of JSON without a label."""
    suffix = next((suffix for suffix in _LABEL_FILES if suffix in sample), None)
    if suffix is None:
        return None
    member = sample[suffix]
    file.seek(member.offset_data)
    content = file.read(member.size) if member.size <= _LABEL_FILES[suffix] else b""
    try:
        value: Any = int(content) if suffix == "cls" else parse_json(content)
        value = value.get("label") if isinstance(value, dict) else value
    except ValueError:
        value = content
    if value is None:
        return None
    if type(value) is not int or not 0 <= value < MOST_CLASSES:
        raise ValueError(
            f"{path}: member {member.name!r}: expected a class number, got {value!r:.80}; classes='none' ignores labels"
        )
    return value


def _shard_paths(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(found for found in path.iterdir() if found.name.endswith(".tar") and found.name[0] != ".")
    parts = _RANGE.split(str(path))  # text, first, last, text, first, last, …, text
    choices: list[list[str]] = [parts[:1]]
    total = 1
    for first, last, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        count = int(last) + 1 - int(first)
        total *= count
        if count < 1 or total > _MOST_SHARDS:
            raise ValueError(f"{path}: {{{first}..{last}}}: expected 1 to {_MOST_SHARDS} names in all, got {total}")
        numbers = range(int(first), int(last) + 1)
        choices += [[f"{number:0{len(first)}d}" for number in numbers], [text]]
    return [Path("".join(text)) for text in itertools.product(*choices)]


def is_shard_range(spec: str | Path) -> bool:
    """Whether a path is a range of names of tar archives."""
    return str(spec).endswith(".tar") and _RANGE.search(str(spec)) is not None
