"""The conditions of images that lie beside them: numbers in a CSV, and images of the same names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from diffspace._shapes import Int, Shaped, Tensor
from diffspace.data.archives import ImageFolder, ImageZip
from diffspace.data.condition_values import image_rows, pairs, table_rows
from diffspace.data.rows import ConditionRows, InMemory, Rows
from diffspace.data.stored_images import ImageSource


def conditions_beside(
    source: ImageSource, names: Sequence[str], sample_shape: Sequence[int], notes: list[str]
) -> dict[str, ConditionRows]:
    """The conditions that `source.conditions` names, for images of these names, with a value for each."""
    found: dict[str, ConditionRows] = {}
    for word in (source.conditions or "").split(","):
        if not word.strip():
            continue
        path = Path(word.strip()).expanduser()
        if path.suffix.lower() == ".csv":
            given = table_rows(path, names, notes)
        elif path.is_dir() or path.suffix.lower() == ".zip":
            given = {path.stem: _images(source, path, names, sample_shape, notes)}
        else:
            raise ValueError(f"conditions: expected a .csv, or a folder or .zip of images, got {word.strip()!r}")
        if twice := sorted(found.keys() & given.keys()):
            raise ValueError(f"conditions: {twice[0]!r} is given twice; rename one")
        found |= given
    return found


def _images(
    source: ImageSource, path: Path, names: Sequence[str], sample_shape: Sequence[int], notes: list[str]
) -> ConditionRows:
    """The images of the same names at `path`."""
    kind = ImageFolder if path.is_dir() else ImageZip
    alike: dict[str, Any] = {name: getattr(source, name) for name in ("size", "crop", "cache_mb", "workers", "bits")}
    data = kind(path, classes="none", **alike).load()
    others = kind(path).open().names
    numbers = torch.tensor(pairs(path, names, others, notes), dtype=torch.int64, device="cpu")
    notes += [f"{path}: {note}" for note in data.notes]
    rows: Rows = _Chosen(data.rows, numbers)
    if isinstance(data.rows, InMemory) and data.rows.origin is not None:
        rows = InMemory(data.rows.values[numbers], _Chosen(data.rows.origin, numbers))
    return image_rows(str(path), path.stem, rows, sample_shape)


@dataclass(frozen=True, eq=False)
class _Chosen:
    """The rows with these numbers, in this order."""

    origin: Any
    numbers: Int[Tensor, "n"]

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return tuple(self.origin.sample_shape)

    def __len__(self) -> int:
        return len(self.numbers)

    def read(self, indices: Int[Tensor, "batch"]) -> Shaped[Tensor, "batch *dims"]:
        values: Tensor = self.origin.read(self.numbers[indices])
        return values

    def keys(self, numbers: Int[Tensor, "n"]) -> Iterable[bytes] | None:
        found: Iterable[bytes] | None = self.origin.keys(self.numbers[numbers])
        return found

    def versions(self, numbers: Int[Tensor, "n"]) -> Iterable[int]:
        found: Iterable[int] = self.origin.versions(self.numbers[numbers])
        return found
