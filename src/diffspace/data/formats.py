"""Images in arrays, and in the formats of well-known data sets: MNIST's IDX files, CIFAR's archives, LMDB."""

from __future__ import annotations

import functools
import gzip
import math
import os
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from diffspace._shapes import Shaped, Tensor
from diffspace.checks import require_package
from diffspace.data.archives import version
from diffspace.data.arrays import ArrayFile, SidesOrChannels
from diffspace.data.rows import InMemory, Rows
from diffspace.data.stored_images import ImageSource, NumberedImages, StoredImages
from diffspace.data.tar_shards import tar_files
from diffspace.files import check_entries, reading
from diffspace.pickles import PickleError, Record, read_pickle
from diffspace.transform import PIXELS


def _pixel_images(
    path: Path, rows: Rows, labels: Sequence[int] | None = None, class_names: Sequence[str] = ()
) -> StoredImages:
    """Rows of bytes (C, H, W) that were found at `path`."""
    read, keys = functools.partial(_pixels, rows), functools.partial(_pixel_keys, rows)
    return NumberedImages(path, range(len(rows)), read, str(version(path)), labels, class_names, keys)


def _pixel_keys(rows: Any, numbers: Sequence[int]) -> Iterator[bytes] | None:
    keys: Iterator[bytes] | None = rows.keys(torch.tensor(numbers, dtype=torch.int64, device="cpu"))
    return keys


def _pixels(rows: Rows, number: int) -> Any:
    """(H, W, C), or (H, W) of one channel."""
    pixels = rows.read(torch.tensor([number], dtype=torch.int64, device="cpu"))[0]
    return (pixels[0] if len(pixels) == 1 else pixels.permute(1, 2, 0)).numpy()


@dataclass(frozen=True)
class ArrayImages(ImageSource):
    """Images in an array of bytes in a .npy or .npz file (`ArrayFile`, with its `key`); see `ImageSource` for the
    other options.
    """

    key: str | None = None

    @property
    def options(self) -> dict[str, Any]:
        return super().options | {"key": self.key}

    def open(self) -> StoredImages:
        path = Path(self.path).expanduser()
        try:
            data = ArrayFile(path, self.key).load()
        except SidesOrChannels:  # either way no images, as is said below
            data = ArrayFile(path, self.key, "channels-first").load()
        shape = data.sample_shape
        if data.transform != PIXELS or len(shape) != 3 or shape[0] not in (1, 3, 4):
            raise ValueError(
                f"{path}: expected images of uint8 with 1, 3 or 4 channels, "
                f"got samples of shape {shape} and type {data.transform.dtype}"
            )
        labels = None if data.labels is None else data.labels.tolist()
        return _pixel_images(path, data.rows, labels, data.class_names)


# ---- MNIST

_IDX_BYTES = 0x08  # the type of the values
_IDX_LARGEST = 2**31
_GZIP = b"\x1f\x8b"
_BOMB_BYTES, _BOMB_RATIO = 2**24, 100  # gzip packs MNIST 5 : 1


@dataclass(frozen=True)
class IdxImages(ImageSource):
    """Images of bytes in an IDX file such as train-images-idx3-ubyte, with or without .gz; see `ImageSource` for the
    options. Class numbers come from the file beside it whose name says labels-idx1, if there is one.

    The reference makes MNIST's 28×28 pixels 32×32: size=32, crop="pad".
    """

    def open(self) -> StoredImages:
        path = Path(self.path).expanduser()
        images = _read_idx(path, dimensions=3)
        plain = path.name.replace("images", "labels").replace("idx3", "idx1").removesuffix(".gz")
        beside = next((file for file in map(path.with_name, (plain, f"{plain}.gz")) if file.is_file()), None)
        labels = None if beside is None or beside == path else _read_idx(beside, dimensions=1).tolist()
        if labels is not None and len(labels) != len(images):
            raise ValueError(f"{beside}: {len(labels)} labels for {len(images)} images")
        return _pixel_images(path, InMemory(images[:, None]), labels)


def _read_idx(path: Path, dimensions: int) -> Shaped[Tensor, "*dims"]:
    """The array in an IDX file: 0, 0, type, number of dimensions, the dimensions, the values, all big-endian."""
    with reading(path, "an IDX file"), gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        header = struct.Struct(f">HBB{dimensions}I")
        zero, kind, count, *shape = header.unpack(file.read(header.size))
        size = math.prod(shape)
        if (zero, kind, count) != (0, _IDX_BYTES, dimensions) or not 0 < size <= _IDX_LARGEST:
            raise ValueError(f"expected {dimensions} dimensions of bytes, 1 to {_IDX_LARGEST} of them")
        if size > max(_BOMB_BYTES, _BOMB_RATIO * path.stat().st_size):
            raise ValueError(f"claims {size} bytes out of {path.stat().st_size}: a decompression bomb")
        content = file.read(size + 1)
    if len(content) != size:
        got = "more" if len(content) > size else len(content)
        raise ValueError(f"{path}: expected {size} bytes of values as its header says, got {got}")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8).reshape(shape)


# ---- CIFAR

_CIFAR_SHAPE = (3, 32, 32)
_CIFAR_LARGEST = 2**28  # bytes of all members; those of CIFAR-100 have 187 million


# folder: (files of images, key of their labels, file of class names, key of the names)
_CIFAR = {
    "cifar-10-batches-py": (tuple(f"data_batch_{i}" for i in range(1, 6)), "labels", "batches.meta", "label_names"),
    "cifar-100-python": (("train",), "fine_labels", "meta", "fine_label_names"),
}


@dataclass(frozen=True)
class CifarArchive(ImageSource):
    """The training images of CIFAR-10 or CIFAR-100, from cifar-10-python.tar.gz or cifar-100-python.tar.gz; see
    `ImageSource` for the options. Nothing that its pickles name is imported or run.
    """

    def open(self) -> StoredImages:
        path = Path(self.path).expanduser()
        members = _read_cifar_members(path)
        folder = next((name for name in _CIFAR if any(key.startswith(f"{name}/") for key in members)), None)
        if folder is None:
            raise ValueError(f"{path}: holds no folder {' or '.join(_CIFAR)}; other archives are not supported")
        batches, labels_key, names_file, names_key = _CIFAR[folder]
        images: list[Tensor] = []
        labels: list[int] = []
        for batch in batches:
            content = _cifar_dictionary(path, members, f"{folder}/{batch}")
            images.append(_cifar_pixels(path / folder / batch, content.get("data")))
            numbers = content.get(labels_key)
            if (
                not isinstance(numbers, list)
                or len(numbers) != len(images[-1])
                or not all(type(n) is int and 0 <= n < 100 for n in numbers)
            ):
                raise ValueError(f"{path / folder / batch}: {labels_key}: expected {len(images[-1])} numbers")
            labels += numbers
        names = _cifar_dictionary(path, members, f"{folder}/{names_file}").get(names_key)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"{path / folder / names_file}: {names_key}: expected a list of strings")
        return _pixel_images(path, InMemory(torch.cat(images)), labels, names)


def _read_cifar_members(path: Path) -> dict[str, bytes]:
    """The files of an archive that are needed."""
    needed = {f"{folder}/{name}" for folder, (batches, _, names, _) in _CIFAR.items() for name in (*batches, names)}
    found: dict[str, bytes] = {}
    with reading(path, "an archive of CIFAR"), path.open("rb") as plain:
        packed = plain.read(2) == _GZIP
        plain.seek(0)
        file: Any = gzip.GzipFile(fileobj=plain) if packed else plain
        # of a packed archive no more than this is unpacked, whatever members claim
        for member in tar_files(path, file, _CIFAR_LARGEST if packed else None, "an archive of CIFAR"):
            if member.name in found:
                raise ValueError(f"holds member {member.name!r} twice")
            if member.name in needed:
                file.seek(member.offset_data)
                found[member.name] = file.read(member.size)
    return found


def _cifar_dictionary(path: Path, members: Mapping[str, bytes], name: str) -> dict[str, Any]:
    if name not in members:
        raise ValueError(f"{path}: has no {name}")
    try:
        content = read_pickle(members[name])
    except PickleError as error:
        raise ValueError(f"{path / name}: cannot be read: it {error}") from None
    with reading(path / name):
        return check_entries(content)


def _cifar_pixels(path: Path, stored: object) -> Shaped[Tensor, "n 3 32 32"]:
    """The images in an array of bytes of shape (n, 3072)."""
    match stored:
        case Record("ndarray", {"dtype": "u1", "by_columns": False, "shape": (n, 3072), "data": data}) if n:
            return torch.frombuffer(bytearray(data), dtype=torch.uint8).reshape(n, *_CIFAR_SHAPE)
    raise ValueError(f"{path}: data: expected an array of bytes of shape (n, 3072)")


# ---- LMDB


@dataclass(frozen=True)
class LmdbImages(ImageSource):
    """Encoded images in an LMDB folder, as LSUN is distributed, in the order of their keys; requires `lmdb`."""

    def open(self) -> StoredImages:
        path = Path(self.path).expanduser()
        with _lmdb_environment(path).begin() as transaction:
            keys = [bytes(key) for key in transaction.cursor().iternext(keys=True, values=False)]
        read = functools.partial(_read_lmdb, path, keys)
        chosen = functools.partial(_chosen, keys)
        return NumberedImages(path, range(len(keys)), read, str(version(path / "data.mdb")), keys=chosen)


def _chosen(keys: Sequence[bytes], numbers: Sequence[int]) -> Iterator[bytes]:
    return map(keys.__getitem__, numbers)


def _read_lmdb(path: Path, keys: Sequence[bytes], number: int) -> bytes:
    with _lmdb_environment(path).begin() as transaction:
        return bytes(transaction.get(keys[number]))


_lmdb_environments: dict[tuple[Path, int], Any] = {}
_lmdb_lock = threading.Lock()


def _lmdb_environment(path: Path) -> Any:
    """An LMDB folder, opened once in each process: LMDB does not survive a fork."""
    key = path.resolve(), os.getpid()
    with _lmdb_lock:
        if key not in _lmdb_environments:
            lmdb = require_package("lmdb", "an LMDB folder")
            try:
                _lmdb_environments[key] = lmdb.open(str(path), readonly=True, lock=False, create=False)
            except lmdb.Error as error:
                raise ValueError(f"{path}: cannot be read: {error}") from None
        return _lmdb_environments[key]
