"""Which class an image belongs to: from `dataset.json`, or from the folder it lies in."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch

from diffspace._shapes import Int, Tensor
from diffspace.data.files import INDEX, Files

__all__ = ["Label", "class_numbers", "find_labels"]

Label: TypeAlias = int | list[float]
"""A class number, or a vector, as the reference stores them."""

_MOST_CLASSES = 2**20


def find_labels(files: Files, names: Sequence[str]) -> tuple[list[Label] | None, tuple[str, ...]]:
    """The label of each of these images, and the names of the classes where they have some.

    `INDEX` says it where there is one, and null in it means no labels. Otherwise the first level of sub-folders
    are classes, where there are two or more.
    """
    index = files.index()
    if index is None:
        return _from_folders(files.path, names)
    if index.get("labels") is None:
        return None, ()
    given = dict(index["labels"])
    if missing := [name for name in names if name not in given]:
        raise ValueError(
            f"{files.path / INDEX}: has no label for {len(missing)} of {len(names)} images, {missing[0]!r} among them; "
            "classes='none' reads none"
        )
    labels = [given[name] for name in names]
    for name, label in zip(names, labels, strict=True):
        if not _is_number(label) and not (isinstance(label, list) and all(isinstance(v, int | float) for v in label)):
            raise ValueError(f"{files.path / INDEX}: label of {name!r}: {label!r:.80}; want a class number or a vector")
    return labels, tuple(index.get("class_names") or ())


def class_numbers(
    files: Files, labels: Sequence[Label], class_names: tuple[str, ...]
) -> tuple[Int[Tensor, "n"], tuple[str, ...]]:
    """Labels as class numbers, with a name for each class; vectors must be one-hot."""
    path = files.path / INDEX
    vectors = [label for label in labels if isinstance(label, list)]
    if vectors:
        length = len(vectors[0])
        one_hot = all(sorted(vector) == [0] * (length - 1) + [1] for vector in vectors)
        if len(vectors) < len(labels) or not one_hot:
            raise ValueError(f"{path}: labels are vectors; want class numbers or one-hot vectors, or classes='none'")
        numbers, count = [vector.index(1) for vector in vectors], length
    else:
        numbers = [label for label in labels if isinstance(label, int)]
        count = max(numbers) + 1
    names = class_names or tuple(map(str, range(count)))
    if count > len(names):
        raise ValueError(f"{path}: labels up to {count - 1} with {len(names)} class_names")
    return torch.tensor(numbers), names


def _is_number(label: Any) -> bool:
    return isinstance(label, int) and not isinstance(label, bool) and 0 <= label < _MOST_CLASSES


def _from_folders(path: Path, names: Sequence[str]) -> tuple[list[Label] | None, tuple[str, ...]]:
    folders = [name.partition("/")[0] if "/" in name else None for name in names]
    classes = sorted({folder for folder in folders if folder is not None})
    if classes and None in folders:
        raise ValueError(
            f"{path}: holds images beside sub-folders of images ({names[folders.index(None)]}, {classes[0]}/); "
            "sort all of them into sub-folders, or give classes='none'"
        )
    if len(classes) < 2:
        return None, ()
    if path.is_dir():
        beside = {entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")}
        if empty := sorted(beside - set(classes)):
            warnings.warn(f"{path}: sub-folders without images are no classes: {', '.join(empty)}", stacklevel=4)
    number = {name: i for i, name in enumerate(classes)}
    return [number[folder] for folder in folders if folder is not None], tuple(classes)
