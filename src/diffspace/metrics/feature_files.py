"""Arrays of features on disk: a batch is appended as it comes, a killed computation goes on, reading maps the memory.

A folder holds `features.json`, which says of what the rows are; a file of float32 for each array, row after row; and a
line of `batches` for each finished batch, with the checksum of its rows.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from diffspace._shapes import Float, Tensor
from diffspace.checks import check_integer
from diffspace.files import read_json, reading, write_text, writing
from diffspace.locking import SHORT_LOCK, owned

FORMAT = "diffspace features 1"
INDEX = "features.json"
_BATCHES, _SUFFIX = "batches", ".f32"
_ITEM = 4  # bytes of float32


@dataclass(frozen=True)
class Batches:
    """How `total` items are cut into batches of `size`, of which the last may be smaller."""

    total: int
    size: int

    def __post_init__(self) -> None:
        check_integer("total", self.total, 1)
        check_integer("size", self.size, 1)

    def __len__(self) -> int:
        return -(-self.total // self.size)

    def rows(self, number: int) -> range:
        """The places of the items of a batch."""
        return range(number * self.size, min((number + 1) * self.size, self.total))


class FeaturesInMemory:
    """What `FeatureFiles` does, without files: for few features, and for those that nobody will go on with."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches
        self._parts: list[Mapping[str, Tensor]] = []

    def __enter__(self) -> FeaturesInMemory:
        return self

    def __exit__(self, *_: object) -> None: ...

    @property
    def missing(self) -> range:
        """The numbers of the batches that are not there yet."""
        return range(len(self._parts), len(self.batches))

    def add(self, number: int, arrays: Mapping[str, Float[Tensor, "batch dim"]]) -> None:
        """Append the rows of the batch that comes next."""
        if number in self.missing:
            self._parts.append({name: array.detach().to("cpu", torch.float32) for name, array in arrays.items()})

    def read(self) -> dict[str, Float[Tensor, "total dim"]]:
        """The arrays by name."""
        return {name: torch.cat([part[name] for part in self._parts]) for name in self._parts[0]}


class FeatureFiles:
    """Arrays (total, dim) of float32, by name, that grow by a batch at a time within a `with` block.

    The same request goes on after the last batch that is whole, found by its checksum; another one starts anew. Only
    one process has the folder at a time. ValueError for a folder that holds anything else.

    Args:
        folder: where the files are; it is made if it is missing.
        request: what determines the rows, in JSON types.
        batches: how the rows are cut.
        most: the number of leading rows that are kept of an array, by its name; of others all.
    """

    def __init__(
        self, folder: Path, request: Mapping[str, Any], batches: Batches, most: Mapping[str, int] | None = None
    ) -> None:
        self.folder, self.batches, self.most = folder, batches, dict(most or {})
        facts = {"format": FORMAT, "total": batches.total, "size": batches.size, "most": self.most, **request}
        self.request: dict[str, Any] = json.loads(json.dumps(facts))
        self.done = 0
        self._dims: dict[str, int] = {}
        self._files: dict[str, BinaryIO] = {}
        self._open = contextlib.ExitStack()

    def __enter__(self) -> FeatureFiles:
        with contextlib.ExitStack() as failing:
            failing.enter_context(owned(self.folder))
            self._open = failing
            self._take_up()
            self._open = failing.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()
        self._files = {}

    @property
    def missing(self) -> range:
        """The numbers of the batches that are not there yet."""
        return range(self.done, len(self.batches))

    def add(self, number: int, arrays: Mapping[str, Float[Tensor, "batch dim"]]) -> None:
        """Append the rows of the batch that comes next; those of one that is there are left out."""
        if number < self.done:
            return
        if number > self.done:
            raise ValueError(f"number: expected the next batch, {self.done}, got {number}")
        if not self._files:
            self._begin({name: array.shape[1] for name, array in arrays.items()})
        checksum = 0
        for name, file in self._files.items():
            rows = len(self._rows(name, number))
            kept = arrays[name][:rows].detach().to("cpu", torch.float32).contiguous()
            if kept.shape != (rows, self._dims[name]):
                expected = f"{rows} rows of {self._dims[name]}"
                raise ValueError(f"arrays: expected {expected} in {name!r}, got shape {tuple(arrays[name].shape)}")
            content = kept.numpy().tobytes()
            checksum = zlib.crc32(content, checksum)
            self._write(file, name, content)
        self._write(self._journal, _BATCHES, f"{checksum:08x}\n".encode())
        self.done += 1

    def read(self) -> dict[str, Float[Tensor, "total dim"]]:
        """The arrays by name, each a private map of its file, once no batch is missing."""
        if self.missing:
            raise ValueError(f"{self.folder}: {len(self.missing)} of {len(self.batches)} batches are missing")
        found = {}
        for name, dim in self._dims.items():
            path, rows = self._path(name), self._end(name, self.done)
            with reading(path):
                flat = torch.from_file(str(path), shared=False, size=rows * dim, dtype=torch.float32, device="cpu")
            found[name] = flat.reshape(rows, dim)
        return found

    def _path(self, name: str) -> Path:
        return self.folder / f"{list(self._dims).index(name)}{_SUFFIX}"

    def _end(self, name: str, batches: int) -> int:
        """The number of rows of an array after so many batches."""
        rows = min(batches * self.batches.size, self.batches.total)
        return min(rows, self.most.get(name, rows))

    def _rows(self, name: str, number: int) -> range:
        return range(self._end(name, number), self._end(name, number + 1))

    def _write(self, file: BinaryIO, name: str, content: bytes) -> None:
        with writing(self.folder / name):
            file.write(content)
            file.flush()

    def _begin(self, dims: dict[str, int]) -> None:
        self._dims = dims
        index = {"request": self.request, "arrays": dims, "format": FORMAT}
        write_text(self.folder / INDEX, json.dumps(index, indent=1, ensure_ascii=False) + "\n")
        self._open_files()

    def _open_files(self) -> None:
        """Open the files to append to them after the batches that are done."""
        sizes = {self._path(name): self._end(name, self.done) * dim * _ITEM for name, dim in self._dims.items()}
        sizes[self.folder / _BATCHES] = self.done * 9
        opened = []
        for path, size in sizes.items():
            with writing(path):
                file = self._open.enter_context(path.open("ab"))
                file.truncate(size)
                opened.append(file)
        *files, self._journal = opened
        self._files = dict(zip(self._dims, files, strict=True))

    def _take_up(self) -> None:
        """See how far the same request came; remove what another one left."""
        there = {path.name for path in self.folder.iterdir()} - {SHORT_LOCK}
        if not there:
            return
        ours = INDEX in there and all(name in (INDEX, _BATCHES) or name.endswith(_SUFFIX) for name in there)
        index: Any = read_json(self.folder / INDEX, format=str, request=dict, arrays=dict) if ours else {}
        if index.get("format") != FORMAT or any((self.folder / name).is_symlink() for name in there):
            raise ValueError(f"{self.folder}: is in the way, and not of features; move it elsewhere")
        dims = index["arrays"]
        if index["request"] == self.request and all(type(dim) is int and dim > 0 for dim in dims.values()):
            self._dims = dims
            self.done = self._whole(dims)
        if self.done:
            self._open_files()
            return
        self._dims = {}
        for name in there:
            (self.folder / name).unlink()

    def _whole(self, dims: Mapping[str, int]) -> int:
        """The number of batches before the first one whose rows are missing or do not have their checksum."""
        if not all(path.is_file() for path in map(self._path, dims)) or not (self.folder / _BATCHES).is_file():
            return 0
        with contextlib.ExitStack() as stack, reading(self.folder):
            checksums = (self.folder / _BATCHES).read_bytes().splitlines(keepends=True)
            files = {name: stack.enter_context(self._path(name).open("rb")) for name in dims}
            for number, expected in enumerate(itertools.islice(checksums, len(self.batches))):
                checksum, whole = 0, True
                for name, file in files.items():
                    size = len(self._rows(name, number)) * dims[name] * _ITEM
                    content = file.read(size)
                    checksum, whole = zlib.crc32(content, checksum), whole and len(content) == size
                if not whole or expected != f"{checksum:08x}\n".encode():
                    return number
            return min(len(checksums), len(self.batches))
