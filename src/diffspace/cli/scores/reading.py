"""Samples and real data from anywhere, as raw values of one transform: folders, archives, arrays and named sources."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, get_args

import torch

from diffspace._shapes import Int, Shaped, Tensor
from diffspace.cli.given import CHANNELS, as_raw, from_pixels, is_eight_bit
from diffspace.data import ArrayFile, DataSet, ImageSource, make_source
from diffspace.data.arrays import Layout
from diffspace.data.rows import InMemory, Rows
from diffspace.figures.samples import is_image
from diffspace.parts import import_typed
from diffspace.transform import PIXELS, Transform

_AT_ONCE = 1024  # rows that are checked


@dataclass(frozen=True, eq=False)
class _Converted:
    """Rows whose values become raw values of another transform as they are read."""

    rows: Rows
    convert: Callable[[Tensor], Tensor]

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return self.rows.sample_shape

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, indices: Int[Tensor, "batch"]) -> Shaped[Tensor, "batch *dims"]:
        return self.convert(self.rows.read(indices))

    def keys(self, numbers: Int[Tensor, "n"]) -> Iterator[bytes] | None:
        rows: Any = self.rows
        return rows.keys(numbers) if hasattr(rows, "keys") else None

    def versions(self, numbers: Int[Tensor, "n"]) -> Iterable[int]:
        rows: Any = self.rows
        return rows.versions(numbers) if hasattr(rows, "versions") else ()


def read_data(
    option: str, spec: str, shape: tuple[int, ...] | None = None, transform: Transform | None = None
) -> DataSet:
    """All that a source has, of any kind that `train` reads, as raw values of a transform.

    Images have the channels of `shape`, and their pixels stand for the values that pictures of samples show; arrays
    have the layout of `shape`, in the units of the data. ValueError for items of another shape or range.
    """
    import_typed({"source": spec})
    source = make_source(spec)
    data = _of_shape(source, shape)
    if shape is not None and data.sample_shape != shape:
        there, here = ("×".join(map(str, each)) for each in (data.sample_shape, shape))
        raise ValueError(f"{option}: {spec} has items of {there}; expected {here}")
    return data if transform is None else in_units(option, spec, data, transform, isinstance(source, ImageSource))


def in_units(option: str, spec: str, data: DataSet, transform: Transform, of_images: bool = False) -> DataSet:
    """The data as raw values of a transform; ValueError where they are none."""
    if _units(data.transform) == _units(transform):
        return dataclasses.replace(data, transform=transform)
    wanted = transform
    if of_images and not (data.transform == PIXELS and is_eight_bit(transform)):
        there, here = (each.values for each in (data.transform, transform))
        raise ValueError(f"{option}: {spec} has pixels of {there}, the data have {here}; expected an array of these")

    def convert(values: Tensor) -> Tensor:
        return as_raw(option, spec, from_pixels(values, wanted) if of_images else values, wanted)

    if isinstance(data.rows, InMemory):
        rows: Rows = dataclasses.replace(data.rows, values=convert(data.rows.values))
    else:
        rows = _Converted(data.rows, convert)
        for numbers in torch.split(
            torch.arange(0 if of_images else len(rows), dtype=torch.int64, device="cpu"), _AT_ONCE
        ):
            rows.read(numbers)  # complains before the work, which takes long
    return dataclasses.replace(data, rows=rows, transform=transform)


def _of_shape(source: Any, shape: tuple[int, ...] | None) -> DataSet:
    """The data of a source, images in the channels of a shape, arrays in the layout that gives it."""
    if shape is not None and isinstance(source, ImageSource) and is_image(shape):
        source = dataclasses.replace(source, channels=CHANNELS[shape[0]])
    if not isinstance(source, ArrayFile):
        loaded: DataSet = source.load()
        return loaded
    # values are compared flat; where the channels cannot be told, all have one scale
    layouts: tuple[Layout, ...] = ("auto", "no-channels") if shape is None else get_args(Layout)
    tried: dict[Layout, DataSet | ValueError] = {}
    for layout in layouts:
        try:
            tried[layout] = found = dataclasses.replace(source, layout=layout).load()
        except ValueError as error:
            tried[layout] = error
            continue
        if shape in (None, found.sample_shape):
            return found
    first = tried[layouts[1]] if isinstance(tried["auto"], ValueError) else tried["auto"]
    if isinstance(first, ValueError):
        raise first
    return first


def _units(transform: Transform) -> tuple[object, ...]:
    return transform.dtype, transform.kind, transform.lowest, transform.highest
