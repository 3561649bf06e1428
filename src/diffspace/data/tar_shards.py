"""Images in tar archives as WebDataset writes them, read at random."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import re
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from diffspace.data.files import ByteFile, Files, version
from diffspace.data.folder import ImageSource
from diffspace.data.names import Names
from diffspace.data.tar_headers import TarMember, opened, tar_members

__all__ = ["TarShards", "names_shards"]

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_MOST_SHARDS = 10**6
_LARGEST = 2**30  # bytes of an image
_LABELS = {"cls": 2**6, "json": 2**20}  # where labels are, in order of preference, and how long that may be


@dataclass(frozen=True)
class TarShards(ImageSource):
    """Images in tar archives: x.tar, a folder of such, or names with a range, data/{000..099}.tar; see `ImageSource`.

    A sample is files that follow each other with one name up to its first dot: 000.jpg, 000.cls. Labels are a whole
    number in .cls, or "label" in .json. Samples come in the order of the archives. Their headers are read at the
    start, and nothing of them is unpacked; an archive must not be compressed.
    """

    @property
    def name(self) -> str:
        path = Path(self.path).expanduser()
        stem = _RANGE.sub("", path.name.removesuffix(".tar")).strip("-_.")
        return path.resolve().name if path.is_dir() else stem or path.resolve().parent.name

    def files(self) -> Files:
        path = Path(self.path).expanduser()
        return _TarFiles(path, _shards(path), labelled=self.classes == "auto")


class _TarFiles:
    """The images in some archives. An archive is opened for each, so that there may be any number of both."""

    def __init__(self, path: Path, shards: list[Path], labelled: bool) -> None:
        self.path = Path(os.path.commonpath([shard.parent for shard in shards]))
        self._source, self._shards = path, shards
        self._versions = [version(shard) for shard in shards]
        self.others = 0
        self._shard, self._offsets, self._sizes = array("I"), array("q"), array("q")
        self._labels: array[int] | None = None
        self.names = Names(self._look_through(labelled))

    def _look_through(self, labelled: bool) -> Iterator[str]:
        """The names of the images; what else is to be known of them is kept by the way."""
        from diffspace.data.images import image_suffixes

        suffixes = {suffix[1:] for suffix in image_suffixes()}
        for number, shard in enumerate(self._shards):
            folder = shard.relative_to(self.path).as_posix()
            for sample, file in _samples(shard):
                images = [suffix for suffix in sample if suffix in suffixes]
                if len(images) != 1:
                    if images:
                        names = ", ".join(repr(sample[suffix].name) for suffix in images)
                        raise ValueError(f"{shard}: a sample of {len(images)} images, {names}; want one")
                    self.others += len(sample)
                    continue
                image = sample[images[0]]
                if image.size > _LARGEST:
                    raise ValueError(
                        f"{shard}: member {image.name!r} claims {image.size} bytes; want {_LARGEST} at most"
                    )
                if labelled:
                    self._add_label(shard, sample, file)
                self._shard.append(number)
                self._offsets.append(image.offset)
                self._sizes.append(image.size)
                yield f"{folder}/{image.name}"

    def _add_label(self, shard: Path, sample: Mapping[str, TarMember], file: IO[bytes]) -> None:
        member = next((sample[suffix] for suffix in _LABELS if suffix in sample), None)
        label = None if member is None else _label(shard, member, file)
        if not self._offsets and label is not None:
            self._labels = array("q")
        if (label is None) != (self._labels is None):
            some = next(iter(sample.values())).name
            has = "has no label, others have one" if label is None else "has a label, others have none"
            raise ValueError(f"{shard}: the sample of {some!r} {has}; classes='none' reads none")
        if self._labels is not None and label is not None:
            self._labels.append(label)

    def index(self) -> Mapping[str, Any] | None:
        labels = None if self._labels is None else [list(pair) for pair in zip(self.names, self._labels, strict=True)]
        return {"labels": labels}

    def open(self, number: int) -> ByteFile:
        shard = self._shard[number]
        path = self._shards[shard]
        with open(path, "rb", buffering=0) as file:
            found = os.fstat(file.fileno())
            if (found.st_size, found.st_mtime_ns) != self._versions[shard]:
                raise ValueError(f"{path} has changed since it was opened")
            file.seek(self._offsets[number])
            return io.BytesIO(file.read(self._sizes[number]))

    def fingerprint(self) -> str:
        state = [(shard.name, *found) for shard, found in zip(self._shards, self._versions, strict=True)]
        return hashlib.sha256(repr(state).encode()).hexdigest()


def _samples(shard: Path) -> Iterator[tuple[dict[str, TarMember], IO[bytes]]]:
    """The files of each sample by what follows the first dot of their names, in lower case; and the open archive."""
    key, sample = None, dict[str, TarMember]()
    with opened(shard) as file:
        for member in tar_members(shard):
            folder, slash, name = member.name.rpartition("/")
            stem, _, suffix = name.partition(".")
            if not stem or not suffix:  # hidden, or no part of a sample
                continue
            if (here := folder + slash + stem) != key:
                if sample:
                    yield sample, file
                key, sample = here, {}
            suffix = suffix.lower()
            if suffix in sample:
                raise ValueError(f"{shard}: holds member {member.name!r} twice")
            sample[suffix] = member
        if sample:
            yield sample, file


def _label(shard: Path, member: TarMember, file: IO[bytes]) -> int | None:
    """The class number in a member; None where it is JSON that has none."""
    of_json = member.name.lower().endswith("json")
    most = _LABELS["json" if of_json else "cls"]
    content = b""
    if member.size <= most:
        file.seek(member.offset)
        content = file.read(member.size)
    try:
        value = json.loads(content) if of_json else int(content)
        value = value.get("label") if isinstance(value, dict) else value
    except (ValueError, RecursionError):
        value = content
    if value is None and of_json:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise ValueError(f"{shard}: member {member.name!r}: {value!r:.80}; want a class number, or classes='none'")
    return value


def _shards(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(found for found in path.iterdir() if found.name.endswith(".tar") and found.name[0] != ".")
    parts = _RANGE.split(str(path))
    choices: list[list[str]] = [[text] for text in parts[::3]]
    ranges = []
    for first, last in zip(parts[1::3], parts[2::3], strict=True):
        numbers = range(int(first), int(last) + 1)
        if not 0 < len(numbers) <= _MOST_SHARDS:
            raise ValueError(f"{path}: {{{first}..{last}}} is a range of {len(numbers)}; want 1 to {_MOST_SHARDS}")
        ranges.append([f"{number:0{len(first)}d}" for number in numbers])
    woven = [choices[0], *itertools.chain.from_iterable(zip(ranges, choices[1:], strict=True))]
    return [Path("".join(text)) for text in itertools.product(*woven)]


def names_shards(spec: str | Path) -> bool:
    """Whether a path is a range of names of tar archives."""
    return str(spec).endswith(".tar") and _RANGE.search(str(spec)) is not None
