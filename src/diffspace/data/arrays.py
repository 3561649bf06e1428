"""Arrays in .npy and .npz files as a data set."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import torch

from diffspace._shapes import Int, Shaped, Tensor
from diffspace.checks import check_choice, nearest
from diffspace.data.condition_values import class_numbers, image_rows, vector_rows
from diffspace.data.dataset import DataSet
from diffspace.data.identity import content_keys
from diffspace.data.rows import ConditionRows
from diffspace.files import npz_member, reading
from diffspace.transform import Transform, channel_moments, standardising

if TYPE_CHECKING:
    import numpy as np

_Array: TypeAlias = "np.ndarray[Any, Any]"
Layout: TypeAlias = Literal["auto", "channels-first", "channels-last", "no-channels"]
_KEYS = ("x", "images", "arr_0")
_LABEL_KEYS = ("labels", "y")
_NAMES = "class_names"
_BESIDE = (_NAMES, "seeds")  # which `diffspace sample` writes beside labels
_COLOURS = (1, 3, 4)
_LEAST_SIDE = 8
_CHUNK = 2**22
_EXACT = 2**53  # integers beyond it are not exact in float64


class SidesOrChannels(ValueError):
    """An array whose layout cannot be told, and that has no usual number of channels."""


@dataclass(frozen=True)
class ArrayFile:
    """The samples in an array (n, *dims) of integers or real numbers, from a .npy or .npz file.

    A .npy file is read through a memory map, so that it may exceed the memory. Nothing is unpickled.

    Args:
        path: The file.
        key: The array in a .npz file. None: "x", "images" or "arr_0", the first that exists.
        layout: Where the channels are: "channels-first" (n, C, …), "channels-last" (n, …, C), or "no-channels" (n, …),
            which adds one. "auto": of three or more dimensions the last holds the channels if its length is 1, 3 or 4
            and that of the first is not; two dimensions of bytes are grayscale images; everything else is
            channels-first. It is an error where other layouts are as likely: both lengths are 1, 3 or 4, or the first
            is 8 or more and could be a height, since of two it is at least half the second, and of three or more as
            near to the second as that is to the third.
        normalize: How the model sees the values. "auto": bytes and booleans in [−1, 1], by the range of their type; all
            else standardised. "standardize": each channel with mean 0 and standard deviation 0.5 (the sigma_data of the
            paper), whatever its unit. "none": unchanged. Samples are clipped to the range of their type, if they are
            integers of at most 16 bits, and reals not at all.
        classes: "auto" takes class labels, integers or strings of shape (n,), from "labels" or "y" in a .npz file, with
            the names of the classes 0, 1, … from "class_names", if it is there; vectors (n, k) that are not one-hot,
            such as several labels at once, are the condition "labels", and real numbers are a condition too.
        conditions: Which arrays of a .npz file are conditions, names between commas: numbers (n,), vectors (n, k), or
            images in the layout of the data whose sides are those of the data or whole divisors. "auto": all others
            if there is no `key`, and it is an error if one does not fit; "none": those of no name.
    """

    path: str | Path
    key: str | None = None
    layout: Layout = "auto"
    normalize: Literal["auto", "standardize", "none"] = "auto"
    classes: Literal["auto", "none"] = "auto"
    conditions: str = "auto"

    def __post_init__(self) -> None:
        check_choice("layout", self.layout, Layout)
        check_choice("normalize", self.normalize, ("auto", "standardize", "none"))
        check_choice("classes", self.classes, ("auto", "none"))

    def load(self) -> DataSet:
        """Open the file, look through its values, and settle the transform."""
        path = Path(self.path).expanduser()
        notes: list[str] = []
        array, labels, names, beside = self._open(path, notes)
        if array.ndim == 0 or array.size == 0:
            raise ValueError(f"{path}: expected an array (n, *dims) with no length of 0, got shape {array.shape}")
        layout = self._layout(path, array)
        rows = ArrayRows(_channels_first(array, layout), _kept_as(path, array))
        transform, note = self._transform(path, rows, array)
        notes.insert(0, note)
        if self.layout == "auto" and array.ndim > 2:
            notes.append(f"array of shape {array.shape} read as {layout} (option layout)")
        if array.dtype.kind == "f" and rows.dtype.itemsize < array.dtype.itemsize:
            notes.append(f"{array.dtype} values are read as {rows.dtype}, the widest that torch has")
        numbers: Tensor | None = None
        class_names: tuple[str, ...] = ()
        conditions = {name: _condition(path, name, each, array, rows.sample_shape, layout) for name, each in beside}
        if labels is not None:
            found = _classes(path, labels, len(array), names)
            if isinstance(found, ConditionRows):
                conditions = {"labels": found} | conditions
            else:
                numbers, class_names = found
        notes += [f"condition {name!r}: {given.condition}" for name, given in conditions.items()]
        return DataSet(path.stem, rows, transform, numbers, class_names, tuple(notes), conditions=conditions)

    def _open(self, path: Path, notes: list[str]) -> _Members:
        """The samples, their labels, the names of classes, and further conditions by name."""
        import numpy as np

        with reading(path):
            with path.open("rb") as file:
                if file.read(2) == b"PK":  # a .npz is a zip file
                    with zipfile.ZipFile(file) as archive:
                        return self._members(archive, notes)
            if self.key is not None:
                raise ValueError(f"key={self.key!r} has no effect on a .npy file, which holds one array")
            if self.conditions not in ("auto", "none"):
                raise ValueError(f"conditions={self.conditions!r} has no effect on a .npy file, which holds one array")
            return _Members(np.lib.format.open_memmap(path, mode="r"), None, None, ())

    def _members(self, archive: zipfile.ZipFile, notes: list[str]) -> _Members:
        files = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        keys = _KEYS if self.key is None else (self.key,)
        key = next((key for key in keys if key in files), None)
        if key is None:
            there = ", ".join(map(repr, files))
            raise ValueError(f"there is no array {' or '.join(map(repr, keys))}, but {there}; pass key=")
        label_key = next((k for k in _LABEL_KEYS if k in files and k != key), None)
        chosen = [word.strip() for word in self.conditions.split(",")]
        others = [name for name in files if name not in (key, label_key, *_BESIDE) or name in chosen]
        if self.conditions in ("auto", "none"):
            chosen = others if self.conditions == "auto" and self.key is None else []
        for name in chosen:
            if name not in others:
                raise ValueError(f"conditions: there is no array {name!r}; {nearest(name, others)}")
        if unused := sorted(set(others) - set(chosen)):
            notes.append(f"arrays that nothing uses: {', '.join(map(repr, unused))}")
        named = () if label_key is None or self.classes == "none" else (label_key, _NAMES)
        labels, names = (npz_member(archive, files[k]) if k in files else None for k in (*named, "", "")[:2])
        beside = [(name, npz_member(archive, files[name])) for name in chosen]
        if label_key is not None and labels is not None and labels.dtype.kind == "f" and labels.size == len(labels):
            beside, labels = [(label_key, labels), *beside], None
        return _Members(npz_member(archive, files[key]), labels, names, tuple(beside))

    def _layout(self, path: Path, array: np.ndarray[Any, Any]) -> Layout:
        if self.layout != "auto":
            if self.layout == "channels-last" and array.ndim < 3:
                raise ValueError(f"layout: 'channels-last' has no effect on an array of shape {array.shape}")
            if self.layout == "channels-first" and array.ndim < 2:
                raise ValueError(f"layout: an array of shape {array.shape} has no channels")
            return self.layout
        if array.ndim == 1 or (array.ndim == 3 and array.dtype.itemsize == 1):
            return "no-channels"
        if array.ndim > 3 and array.shape[-1] in _COLOURS:
            if array.shape[1] in _COLOURS:
                raise ValueError(
                    f"{path}: dimension 1 or the last of shape {array.shape} may hold the channels; "
                    "pass layout='channels-first' or 'channels-last'"
                )
            return "channels-last"
        if array.ndim > 2 and _may_be_a_side(*array.shape[1:]):
            raise SidesOrChannels(
                f"{path}: dimension 1 of shape {array.shape} may hold channels or be a side of images; "
                "pass layout='channels-first', 'channels-last' or 'no-channels'"
            )
        return "channels-first"

    def _transform(self, path: Path, rows: ArrayRows, array: np.ndarray[Any, Any]) -> tuple[Transform, str]:
        """The transform, and a sentence that says what it does."""
        name, stored = str(rows.dtype), array.dtype
        kind: Literal["integer", "real"] = "real" if rows.dtype.kind == "f" else "integer"
        lowest, highest = _type_range(stored)
        if self.normalize == "auto" and lowest is not None and highest is not None and stored.itemsize == 1:
            half = (highest - lowest) / 2
            transform = Transform((lowest + half,), (half,), lowest, highest, kind, name)
            return transform, f"the range of {stored}, {lowest:g} … {highest:g}, becomes −1 … 1"

        moments = channel_moments(map(rows.read, _chunks(array)))
        if not bool(torch.isfinite(moments.mean).all()):
            raise _not_finite(path, array)
        least, most = float(moments.low.min()), float(moments.high.max())
        if kind == "integer" and max(-least, most) > _EXACT:
            raise ValueError(f"{path}: integers in [{least:g}, {most:g}] exceed ±2^53; store real numbers")
        if self.normalize == "none":
            return Transform((0.0,), (1.0,), lowest, highest, kind, name, (least, most)), "values are unchanged"
        clipped = "are not clipped" if lowest is None else f"are clipped to the range of {stored}"
        note = f"each channel is standardised to mean 0 and standard deviation 0.5, and samples {clipped}"
        return Transform(*standardising(moments), lowest, highest, kind, name, (least, most)), note


class _Members(NamedTuple):
    """The arrays of a file that are used."""

    samples: _Array
    labels: _Array | None
    class_names: _Array | None
    conditions: tuple[tuple[str, _Array], ...]


@dataclass(frozen=True, eq=False)
class ArrayRows:
    """Rows of an array (n, C, *dims), which may be a memory map, as values of `dtype`."""

    array: np.ndarray[Any, Any]
    dtype: np.dtype[Any]

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape[1:])

    def __len__(self) -> int:
        return len(self.array)

    def read(self, indices: Int[Tensor, "batch"]) -> Shaped[Tensor, "batch *dims"]:
        return torch.from_numpy(self.array[indices.numpy()].astype(self.dtype, copy=False))

    def keys(self, numbers: Int[Tensor, "n"]) -> Iterator[bytes] | None:
        return content_keys(self.read, numbers, self.array.nbytes)


def _channels_first(array: np.ndarray[Any, Any], layout: Layout) -> np.ndarray[Any, Any]:
    import numpy as np

    if layout == "channels-first":
        return array
    return array[:, None] if layout == "no-channels" else np.moveaxis(array, -1, 1)


def _may_be_a_side(first: int, second: int, *others: int) -> bool:
    """Whether the first length of a sample could be the height of an image rather than a number of channels."""
    if first < _LEAST_SIDE:
        return False
    if not others:
        return 2 * first >= second
    return _ratio(first, second) <= _ratio(second, others[0])


def _ratio(a: int, b: int) -> float:
    return max(a, b) / min(a, b)


def _kept_as(path: Path, array: _Array) -> np.dtype[Any]:
    """The type of this machine that torch has, and that holds what is stored; ValueError if there is none."""
    import numpy as np

    stored, size = array.dtype, array.dtype.itemsize
    if stored.kind == "u" and size == 8 and (most := int(array.max())) > _EXACT:  # as int64 it may be negative
        raise ValueError(f"{path}: integers up to {most} exceed ±2^53; store real numbers")
    unsigned = {1: "u1", 2: "i4"}.get(size, "i8")
    kept = {"b": "u1", "u": unsigned, "i": f"i{size}", "f": f"f{min(size, 8)}"}.get(stored.kind)
    if kept is None:
        raise ValueError(f"{path}: expected integers, booleans or real numbers, got {stored} values")
    return np.dtype(kept)


def _type_range(stored: np.dtype[Any]) -> tuple[float, float] | tuple[None, None]:
    """The least and the greatest value of a type that is narrow enough to mean something by them."""
    import numpy as np

    if stored.kind == "b":
        return 0.0, 1.0
    if stored.kind == "f" or stored.itemsize > 2:
        return None, None
    return float(np.iinfo(stored).min), float(np.iinfo(stored).max)


def _chunks(array: np.ndarray[Any, Any]) -> Iterator[Tensor]:
    """The numbers of the rows, some at a time."""
    return iter(
        torch.split(
            torch.arange(len(array), dtype=torch.int64, device="cpu"), max(1, _CHUNK * len(array) // array.size)
        )
    )


def _not_finite(path: Path, array: np.ndarray[Any, Any]) -> ValueError:
    """How many values are not finite, and where the first is."""
    import numpy as np

    count, first = 0, None
    for numbers in _chunks(array):
        bad = np.argwhere(~np.isfinite(array[numbers.numpy()]))
        if first is None and len(bad):
            first = (int(numbers[0]) + int(bad[0][0]), *map(int, bad[0][1:]))
        count += len(bad)
    return ValueError(f"{path}: {count} of {array.size} values are not finite; the first is at index {first}")


def _condition(
    path: Path, name: str, values: _Array, samples: _Array, sample_shape: tuple[int, ...], layout: Layout
) -> ConditionRows:
    """The condition of an array beside the samples; ValueError for one that cannot be one."""
    import numpy as np

    n, kind = len(samples), values.dtype.kind
    if kind not in "biuf" or values.ndim == 0 or len(values) != n or values.size == 0:
        raise ValueError(
            f"{path}: {name}: expected numbers in {n} rows like the samples, got {values.dtype} of shape "
            f"{values.shape}; conditions= names those to use, and 'none' leaves all out"
        )
    if values.ndim <= 2:
        return vector_rows(str(path), name, torch.from_numpy(values.astype(np.float64)))
    if values.ndim != samples.ndim:
        raise ValueError(
            f"{path}: {name}: expected numbers (n,), vectors (n, k), or images of as many dimensions as the samples of "
            f"{samples.shape}, got shape {values.shape}"
        )
    stored = np.dtype("u1") if kind == "b" or values.dtype == np.uint8 else np.dtype("f4")
    rows = ArrayRows(_channels_first(values, layout), stored)
    return image_rows(str(path), name, rows, sample_shape, whole=kind == "f")


def _classes(
    path: Path, labels: _Array, n: int, names: _Array | None
) -> tuple[Tensor, tuple[str, ...]] | ConditionRows:
    """Class numbers and names from integers, booleans or strings; `names` are those of the classes 0, 1, ….

    Of vectors that are not one-hot, the condition "labels".
    """
    import numpy as np

    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind == "S":
        with reading(path):
            labels = np.char.decode(labels, "utf-8")
    if labels.shape[:1] != (n,) or labels.dtype.kind not in ("biuU" if labels.ndim == 1 else "biuf") or labels.ndim > 2:
        raise ValueError(
            f"{path}: labels: expected integers or strings of shape ({n},), or vectors of shape ({n}, k), got "
            f"{labels.dtype} of shape {labels.shape}; classes='none' ignores them"
        )
    if labels.ndim == 2:
        strings = names is not None and names.ndim == 1 and names.dtype.kind == "U"
        called = tuple(names.tolist()) if names is not None and strings else ()
        return class_numbers(str(path), labels.astype(np.float64).tolist(), called)
    if names is not None and labels.dtype.kind in "iu":
        if names.ndim != 1 or names.dtype.kind != "U" or labels.min() < 0 or labels.max() >= len(names):
            least, most = labels.min(), labels.max()
            raise ValueError(f"{path}: {_NAMES}: expected strings for the labels {least} to {most}, got {names!r:.80}")
        return torch.from_numpy(labels.astype(np.int64)), tuple(names.tolist())
    values, numbers = np.unique(labels, return_inverse=True)
    return torch.from_numpy(numbers.astype(np.int64)), tuple(str(value) for value in values)
