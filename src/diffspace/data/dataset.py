"""What every source of data gives: samples by number, as they are stored and in the space of a model."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch

from diffspace._shapes import Float, Int, Shaped, Tensor
from diffspace.data.order import first_part, held_out, permutation, stream, windowed
from diffspace.transform import PIXELS, Transform

__all__ = ["PIXELS", "DataSet", "InMemory", "MirrorableRows", "Rows", "StreamedRows"]


@runtime_checkable
class Rows(Protocol):
    """Samples of one shape, read by number, as they are stored."""

    @property
    def sample_shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def read(self, indices: Int[Tensor, "batch"]) -> Shaped[Tensor, "batch *dims"]:
        """The samples with these numbers, which lie in 0 … len − 1."""
        ...


@dataclass(frozen=True, eq=False)
class InMemory:
    """Rows that lie in a tensor (n, *dims)."""

    values: Shaped[Tensor, "n *dims"]

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return tuple(self.values.shape[1:])

    def __len__(self) -> int:
        return len(self.values)

    def read(self, indices: Int[Tensor, "batch"]) -> Shaped[Tensor, "batch *dims"]:
        return self.values[indices.to(self.values.device, non_blocking=True)]


@runtime_checkable
class MirrorableRows(Rows, Protocol):
    """Rows whose mirror images are not found by flipping them, and are known all the same."""

    def mirrored(self) -> Rows:
        """These rows, and after them their mirror images; ValueError where there are none."""
        ...


@runtime_checkable
class StreamedRows(Rows, Protocol):
    """Rows that come one after the other, of which a window can be kept; they know their own classes."""

    window: int

    def classes(self, indices: Int[Tensor, "batch"]) -> Int[Tensor, "batch"] | None: ...

    def rest(self, begin: int) -> Rows:
        """The rows from number `begin` on."""
        ...


@dataclass(frozen=True, eq=False)
class _Mirrored:
    """Rows of images, and after them their mirror images."""

    rows: Rows

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return self.rows.sample_shape

    def __len__(self) -> int:
        return 2 * len(self.rows)

    def read(self, indices: Int[Tensor, "batch"]) -> Shaped[Tensor, "batch *dims"]:
        n = len(self.rows)
        images = self.rows.read(indices % n)
        flip = (indices >= n).reshape(-1, *[1] * (images.ndim - 1))
        return torch.where(flip.to(images.device), images.flip(-1), images)


@dataclass(frozen=True, eq=False)
class DataSet:
    """Samples with their classes, where they have some, and the transform to the space of a model.

    `labels` are class numbers, one for each sample, and `class_names` names them; without classes the two are
    None and empty. Of a stream (`StreamedRows`) the labels are known where its samples are, and `labels` is None.
    `notes` are sentences on how the data were read, for `inspect` to print. `selection` holds
    the numbers of the rows that belong to the set, in order; None is all of them.
    """

    name: str
    rows: Rows = field(repr=False)
    transform: Transform
    labels: Int[Tensor, "n"] | None = field(default=None, repr=False)
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    selection: Int[Tensor, "n"] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if len(self) == 0:
            raise ValueError(f"{self.name}: holds no samples")
        if self.labels is None:
            if self.class_names and not isinstance(self.rows, StreamedRows):
                raise ValueError(f"class_names: {self.class_names} without labels")
            return
        if len(self.labels) != len(self):
            raise ValueError(f"labels: {len(self.labels)} for {len(self)} samples; want one for each")
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= len(self.class_names):
            raise ValueError(f"labels: in [{low}, {high}] with {len(self.class_names)} class_names")

    def __len__(self) -> int:
        return len(self.rows) if self.selection is None else len(self.selection)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return self.rows.sample_shape

    def raw(self, indices: Int[Tensor, "batch"] | None = None) -> Shaped[Tensor, "batch *dims"]:
        """The samples with these numbers as they are stored; None reads all."""
        if indices is None:
            self._check_random("all samples")
        return self.rows.read(self._row_numbers(indices))

    def batch(self, indices: Int[Tensor, "batch"] | None = None) -> Float[Tensor, "batch *dims"]:
        """The samples with these numbers in the model's space, in float32; None reads all."""
        return self.transform.forward(self.raw(indices))

    def classes(self, indices: Int[Tensor, "batch"]) -> Int[Tensor, "batch"] | None:
        """The class numbers of the samples with these numbers; None where there are no classes."""
        if self.labels is not None:
            return self.labels[indices]
        return self.rows.classes(indices) if self.class_names and isinstance(self.rows, StreamedRows) else None

    def places(self, seed: int, begin: int, end: int) -> Int[Tensor, "batch"]:
        """Which samples are at the places begin … end − 1 of the endless order in which a training sees them."""
        if isinstance(self.rows, StreamedRows):
            return windowed(len(self), seed, self.rows.window, begin, end)
        return stream(len(self), seed, begin, end)

    def some(self, count: int) -> Int[Tensor, "count"]:
        """Numbers of so many samples, or of all: drawn by a fixed seed, of a stream the first."""
        count = min(count, len(self))
        return torch.arange(count) if isinstance(self.rows, StreamedRows) else permutation(len(self), 0)[:count]

    def subset(self, indices: Int[Tensor, "batch"]) -> DataSet:
        """The data set of the samples with these numbers, in this order."""
        self._check_random("subset")
        labels = None if self.labels is None else self.labels[self._checked(indices)]
        return dataclasses.replace(self, selection=self._row_numbers(indices), labels=labels)

    def split(self, holdout: float | int | None = None, seed: int = 0) -> tuple[DataSet, DataSet]:
        """(training part, held-out part), each class divided in the same proportion.

        `holdout` is a fraction of the samples or a number of them; None is a fifth, at most 10,000 samples,
        which with `seed=0` is the standard split of every data set. The same numbers give the same split on
        every machine and with every version of the libraries. At least one sample of each class stays in
        training. Of a stream the first samples are held out, a fifth or 1000 of them for None, and read into memory.
        """
        if isinstance(self.rows, StreamedRows):
            first = torch.arange(first_part(len(self), holdout))
            kept = dataclasses.replace(self, rows=InMemory(self.raw(first)), labels=self.classes(first))
            return dataclasses.replace(self, rows=self.rows.rest(len(first))), kept
        out = held_out(len(self), self.labels, holdout, seed)
        return self.subset((~out).nonzero().flatten()), self.subset(out.nonzero().flatten())

    def mirrored(self) -> DataSet:
        """Twice the samples: after these images their mirror images, left and right exchanged, with the same labels."""
        if len(self.sample_shape) != 3:
            raise ValueError(f"mirror: samples of shape {self.sample_shape}; want images, (channels, height, width)")
        self._check_random("mirror")
        own = self._row_numbers(None)
        labels = None if self.labels is None else self.labels.repeat(2)
        rows = self.rows.mirrored() if isinstance(self.rows, MirrorableRows) else _Mirrored(self.rows)
        return dataclasses.replace(self, rows=rows, selection=torch.cat([own, own + len(self.rows)]), labels=labels)

    def _check_random(self, what: str) -> None:
        if isinstance(self.rows, StreamedRows):
            raise ValueError(f"{what}: {self.name} is a stream, which cannot be read at random")

    def _checked(self, indices: Tensor) -> Tensor:
        if indices.numel():
            low, high = int(indices.min()), int(indices.max())
            if low < 0 or high >= len(self):
                raise ValueError(f"indices: in [{low}, {high}]; want 0 to {len(self) - 1}")
        return indices

    def _row_numbers(self, indices: Tensor | None) -> Tensor:
        if indices is None:
            return torch.arange(len(self)) if self.selection is None else self.selection
        self._checked(indices)
        return indices if self.selection is None else self.selection[indices]
