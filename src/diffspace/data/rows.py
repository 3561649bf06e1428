"""Stored samples, or conditions, by number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from diffspace._shapes import Int, Shaped, Tensor
from diffspace.conditions import Condition
from diffspace.data.identity import content_keys


@runtime_checkable
class Rows(Protocol):
    """Stored samples of one shape, read by number.

    A method `mirrored()`, where there is one, returns these rows followed by their mirror images. A method
    `keys(numbers)` gives what tells each row from others wherever it stands, as bytes: its name, or its content; None
    if that is too much to read. `versions(numbers)` gives integers that change with the content of rows with names.
    """

    @property
    def sample_shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def read(self, indices: Int[Tensor, "batch"]) -> Shaped[Tensor, "batch *dims"]:
        """The samples with these numbers, each from 0 to len − 1."""
        ...


@dataclass(frozen=True, eq=False)
class InMemory:
    """Rows held in a tensor (n, *dims); `origin` are the rows that they were read from, where those have names."""

    values: Shaped[Tensor, "n *dims"]
    origin: Rows | None = None

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return tuple(self.values.shape[1:])

    def __len__(self) -> int:
        return len(self.values)

    def read(self, indices: Int[Tensor, "batch"]) -> Shaped[Tensor, "batch *dims"]:
        return self.values[indices.to(self.values.device, non_blocking=True)]

    def keys(self, numbers: Int[Tensor, "n"]) -> Iterator[bytes] | None:
        return content_keys(self.read, numbers, self.values.nbytes)


@dataclass(frozen=True, eq=False)
class Repeated:
    """Rows, followed by the same rows."""

    origin: Rows

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return self.origin.sample_shape

    def __len__(self) -> int:
        return 2 * len(self.origin)

    def read(self, indices: Int[Tensor, "batch"]) -> Shaped[Tensor, "batch *dims"]:
        return self.origin.read(indices % len(self.origin))


@dataclass(frozen=True, eq=False)
class Mirrored(Repeated):
    """Rows of images, followed by their mirror images."""

    def read(self, indices: Int[Tensor, "batch"]) -> Shaped[Tensor, "batch *dims"]:
        images = super().read(indices)
        flip = (indices >= len(self.origin)).reshape(-1, *[1] * (images.ndim - 1))
        return torch.where(flip.to(images.device), images.flip(-1), images)


@dataclass(frozen=True, eq=False)
class ConditionRows:
    """A condition, and its raw value for each row of a data set."""

    condition: Condition
    rows: Rows

    def __post_init__(self) -> None:
        if self.rows.sample_shape != self.condition.shape:
            raise ValueError(f"rows: expected shape {self.condition.shape}, got {self.rows.sample_shape}")

    def mirrored(self) -> ConditionRows:
        """The condition of samples followed by their mirror images: images are mirrored along."""
        return ConditionRows(self.condition, (Mirrored if self.condition.is_image else Repeated)(self.rows))
