"""Conditions of a data set from what is stored: vectors of an array or a CSV, and images of an array or a folder."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from diffspace._shapes import Tensor
from diffspace.conditions import Condition, check_condition_name, divisors
from diffspace.data.rows import ConditionRows, InMemory, Rows
from diffspace.files import read_bytes, reading
from diffspace.transform import PIXELS, channel_moments, standardising

_ROUNDING = 1e-3  # of the standard deviation: what a value may lose in float32
_CHUNK = 2**22
_LARGEST = 2**30  # bytes of a CSV
_MEASURED = 4096  # images whose pixels settle the statistics


def vector_rows(where: str, name: str, values: Tensor, names: tuple[str, ...] = ()) -> ConditionRows:
    """The condition `name` of numbers (n,) or vectors (n, k); ValueError begins with `where`, the file."""
    try:
        check_condition_name(name)
        kept = values[:, None] if values.ndim == 1 else values
        condition = Condition.of(kept, names)
        narrow = kept.to(torch.float32)
        lost = (kept.to(torch.float64) - narrow.to(torch.float64)).abs().amax(0)
        scale = torch.tensor(condition.scale, dtype=torch.float64, device="cpu")
        if bool((lost > _ROUNDING * scale).any()):
            raise ValueError("differences are lost in float32; subtract what all have in common")
    except ValueError as error:
        raise ValueError(f"{where}: {name}: {str(error).removeprefix('values: ')}") from None
    return ConditionRows(condition, InMemory(narrow))


def image_rows(where: str, name: str, rows: Rows, sample_shape: Sequence[int], *, whole: bool = False) -> ConditionRows:
    """The condition `name` of images (n, C, *sides) beside samples of this shape.

    The model sees bytes in [−1, 1], and so 0 and 1 where there is nothing else. With `whole` all rows are looked
    through for values that are not finite, else those that settle the statistics.
    """
    check_condition_name(name)
    try:
        divisors(name, rows.sample_shape, sample_shape)
        numbers = torch.arange(min(len(rows), _MEASURED), dtype=torch.int64, device="cpu") * len(rows)
        step = max(1, _CHUNK // max(1, math.prod(rows.sample_shape)))
        moments = channel_moments(map(rows.read, torch.split(numbers // min(len(rows), _MEASURED), step)))
        every = torch.arange(len(rows) if whole else 0, dtype=torch.int64, device="cpu")
        finite = all(bool(rows.read(some).isfinite().all()) for some in torch.split(every, step) if len(some))
        if not finite or not bool(moments.mean.isfinite().all()):
            raise ValueError(f"{name}: holds values that are not finite")
        if moments.low.min() == moments.high.max():
            raise ValueError(f"{name}: is {float(moments.low.min()):g} everywhere, which conditions nothing")
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    shift, scale = standardising(moments, 1.0)
    if rows.read(numbers[:1]).dtype == torch.uint8:  # 0 and 1 are a mask, and no nearly black image
        of_mask = moments.high.max() <= 1
        shift, scale = ((0.5,), (0.5,)) if of_mask else (PIXELS.shift, PIXELS.scale)
    low, high = (tuple(part.tolist()) for part in (moments.low, moments.high))
    return ConditionRows(Condition(tuple(rows.sample_shape), shift, scale, low, high), rows)


def read_table(path: Path) -> tuple[list[str], dict[str, list[float]]]:
    """The names of the columns of a CSV but the first, and its rows of numbers by the file names in the first.

    The first line has the names. ValueError names line, column and text of what is no finite number.
    """
    with reading(path, "a CSV"):
        text = read_bytes(path, _LARGEST).decode("utf-8-sig")
        lines = list(csv.reader(io.StringIO(text, newline="")))
    header, rows = [word.strip() for word in lines[0]] if lines else [], [line for line in lines[1:] if line]
    if len(header) < 2 or not rows:
        raise ValueError(f"{path}: expected a line of names, file,a,b, and a line for each file, a.png,0.5,1")
    if len(set(header)) < len(header):
        raise ValueError(f"{path}: names a column twice: {', '.join(header)}")
    table: dict[str, list[float]] = {}
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise ValueError(f"{path}: row {number} has {len(row)} columns, expected {len(header)}")
        if row[0] in table:
            raise ValueError(f"{path}: row {number}: {row[0]!r} has a row already")
        table[row[0]] = [_number(path, number, *pair) for pair in zip(header[1:], row[1:], strict=True)]
    return header[1:], table


def _number(path: Path, row: int, column: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{path}: row {row}, column {column!r}: expected a number, got {text!r}")
    return value


def table_rows(path: Path, names: Sequence[str], notes: list[str]) -> dict[str, ConditionRows]:
    """A condition for each column of a CSV of numbers, for images of these names; rows without an image are noted."""
    columns, table = read_table(path)
    missing = [name for name in names if name not in table]
    if missing:
        raise ValueError(f"{path}: has no row for {len(missing)} of {len(names)} images, {missing[0]!r} among them")
    _note_unused(path, "rows", sorted(table.keys() - set(names)), notes)
    values = torch.tensor([table[name] for name in names], dtype=torch.float64, device="cpu")
    return {name: vector_rows(str(path), name, values[:, k]) for k, name in enumerate(columns)}


def pairs(path: Path, names: Sequence[str], others: Sequence[str], notes: list[str]) -> list[int]:
    """For each of `names` the number of its counterpart in `others`: the same name, whatever the suffix."""
    places: dict[str, int] = {}
    for number, other in enumerate(others):
        stem = os.path.splitext(other)[0]
        if stem in places:
            raise ValueError(f"{path}: {other} and {others[places[stem]]} have one name, but one image is expected")
        places[stem] = number
    stems = [os.path.splitext(name)[0] for name in names]
    if missing := [name for name, stem in zip(names, stems, strict=True) if stem not in places]:
        raise ValueError(f"{path}: has no image for {len(missing)} of {len(names)}, {missing[0]!r} among them")
    _note_unused(path, "images", sorted(places.keys() - set(stems)), notes)
    return [places[stem] for stem in stems]


def _note_unused(path: Path, what: str, unused: Sequence[str], notes: list[str]) -> None:
    if unused:
        notes.append(f"{path}: {what} without an image of the data, ignored: {len(unused)}, {unused[0]!r} among them")


def class_numbers(
    where: str, labels: Sequence[Any], class_names: tuple[str, ...]
) -> tuple[Tensor, tuple[str, ...]] | ConditionRows:
    """Class numbers with a name for each class, of numbers, texts or one-hot vectors.

    Of other vectors, of whose components `class_names` are the names, the condition "labels".
    """
    if all(isinstance(label, str) for label in labels):
        class_names = tuple(sorted(set(labels)))
        number = {name: i for i, name in enumerate(class_names)}
        labels = [number[label] for label in labels]
    odd = (i for i, label in enumerate(labels) if isinstance(label, bool) or not isinstance(label, int | list))
    if (first := next(odd, None)) is not None:
        expected = "class numbers, texts or vectors, one for each sample"
        raise ValueError(
            f"{where}: labels: expected {expected}, got {labels[first]!r} in row {first}; classes='none' ignores them"
        )
    vectors = [label for label in labels if isinstance(label, list)]
    numbers = [label for label in labels if isinstance(label, int)]
    if vectors and (numbers or len({len(vector) for vector in vectors}) > 1 or not vectors[0]):
        expected = "class numbers, or vectors of one length"
        raise ValueError(f"{where}: labels: expected {expected}; classes='none' ignores them")
    count = len(vectors[0]) if vectors else max(numbers) + 1
    names = class_names or tuple(map(str, range(count)))
    if all(sorted(vector) == [0] * (count - 1) + [1] for vector in vectors):
        if count > len(names):
            raise ValueError(f"{where}: labels up to {count - 1} with {len(names)} class_names")
        numbers = numbers or [vector.index(1) for vector in vectors]
        return torch.tensor(numbers, dtype=torch.int64, device="cpu"), names
    values = torch.tensor(vectors, dtype=torch.float64, device="cpu")
    try:
        return vector_rows(where, "labels", values, class_names if len(class_names) == count else ())
    except ValueError as error:
        raise ValueError(f"{error}; classes='none' ignores them") from None
