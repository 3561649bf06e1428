"""The archives in which CIFAR-10 and CIFAR-100 are distributed for Python."""

from __future__ import annotations

import gzip
import io
import math
import pickle
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from diffspace._shapes import Shaped, Tensor
from diffspace.data.dataset import InMemory
from diffspace.data.files import Files
from diffspace.data.folder import ImageSource
from diffspace.data.numbered import PixelFiles

__all__ = ["CifarArchive"]

_SHAPE = (3, 32, 32)
_LARGEST = 2**28  # bytes of a member; the largest that there is, CIFAR-100's, has 155 million
_NUMPY = {"numpy", "numpy.core.multiarray", "numpy._core.multiarray"}


class _Contents(NamedTuple):
    """Where things are in an archive."""

    batches: tuple[str, ...]
    labels: str
    names_file: str
    names: str


_KNOWN = {
    "cifar-10-batches-py": _Contents(
        tuple(f"data_batch_{i}" for i in range(1, 6)), "labels", "batches.meta", "label_names"
    ),
    "cifar-100-python": _Contents(("train",), "fine_labels", "meta", "fine_label_names"),
}


@dataclass(frozen=True)
class CifarArchive(ImageSource):
    """The training images of CIFAR-10 or CIFAR-100, from cifar-10-python.tar.gz or cifar-100-python.tar.gz; see
    `ImageSource` for the options. Its pickles are read by a reader that runs nothing of what they name.
    """

    @property
    def name(self) -> str:
        return Path(self.path).name.removesuffix(".gz").removesuffix(".tgz").removesuffix(".tar")

    def files(self) -> Files:
        path = Path(self.path).expanduser()
        pickles = _unpack(path)
        folder = next((name for name in _KNOWN if any(key.startswith(f"{name}/") for key in pickles)), None)
        if folder is None:
            raise ValueError(f"{path}: holds no folder {' or '.join(_KNOWN)}; no other archive is known")
        where = _KNOWN[folder]
        images, labels = [], []
        for batch in where.batches:
            content = _dictionary(path, pickles, f"{folder}/{batch}")
            images.append(_pixels(path / folder / batch, content.get("data")))
            numbers = content.get(where.labels)
            if not isinstance(numbers, list) or len(numbers) != len(images[-1]):
                raise ValueError(f"{path / folder / batch}: {where.labels}: want a list of {len(images[-1])} numbers")
            labels += numbers
        names = _dictionary(path, pickles, f"{folder}/{where.names_file}").get(where.names)
        if not isinstance(names, list) or not all(isinstance(name, str | bytes) for name in names):
            raise ValueError(f"{path / folder / where.names_file}: {where.names}: want a list of strings")
        return PixelFiles(path, InMemory(torch.cat(images)), labels, [_text(name) for name in names])


def _unpack(path: Path) -> dict[str, bytes]:
    """The files in an archive that are wanted of it."""
    wanted = {f"{folder}/{name}" for folder, c in _KNOWN.items() for name in (*c.batches, c.names_file)}
    found = {}
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                if member.size > _LARGEST:
                    raise ValueError(f"member {member.name!r} claims {member.size} bytes; want at most {_LARGEST}")
                if member.name not in wanted:
                    continue
                file = archive.extractfile(member) if member.isfile() else None
                if file is None or member.name in found:
                    raise ValueError(f"member {member.name!r}: want one file of that name")
                found[member.name] = file.read()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, EOFError, tarfile.TarError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: cannot be read as an archive of CIFAR: {' '.join(str(error).split())}") from None
    return found


def _dictionary(path: Path, pickles: Mapping[str, bytes], name: str) -> dict[str, Any]:
    if name not in pickles:
        raise ValueError(f"{path}: has no {name}")
    try:
        content = _Unpickler(io.BytesIO(pickles[name]), encoding="bytes").load()
    except Exception as error:  # a pickle that is not what it should be leads its reader to anything
        raise ValueError(f"{path / name}: cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path / name}: holds no dictionary")
    return {_text(key): value for key, value in content.items() if isinstance(key, str | bytes)}


def _text(value: str | bytes) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else value


class _Inert:
    """Stands for a function of numpy and for what it makes, and only keeps what it is given."""

    __slots__ = ("arguments", "name", "state")

    def __init__(self, name: str, arguments: tuple[Any, ...] = ()) -> None:
        self.name, self.arguments, self.state = name, arguments, None

    def __call__(self, *arguments: Any) -> _Inert:
        return _Inert(self.name, arguments)

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Encode:
    """Makes the bytes that Python 3 writes as text in the old protocols."""

    __slots__ = ()

    def __call__(self, text: str, encoding: str | bytes) -> bytes:
        return text.encode("latin1")


class _Unpickler(pickle._Unpickler):
    """Reads numbers, strings, lists, dictionaries and arrays; nothing that a pickle names is imported or called.

    It is the reader written in Python, whose memo is a dictionary: the other one reserves whatever index it is told.
    """

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return _Encode()
        if module in _NUMPY and name in ("_reconstruct", "ndarray", "dtype"):
            return _Inert(name)
        raise pickle.UnpicklingError(f"it names {module}.{name}, which has no place in it")


def _pixels(path: Path, array: object) -> Shaped[Tensor, "n 3 32 32"]:
    """The images in what was read of an array of bytes of shape (n, 3072)."""
    try:
        _, (n, length), dtype, by_columns, content = array.state  # type: ignore[attr-defined]
        kind = _text(dtype.arguments[0])
        good = (dtype.name, kind, by_columns, length) == ("dtype", "u1", False, math.prod(_SHAPE))
        if not good or not isinstance(content, bytes) or len(content) != n * length or not content:
            raise ValueError
    except (AttributeError, IndexError, TypeError, ValueError):
        raise ValueError(f"{path}: data: want an array of bytes of shape (n, {math.prod(_SHAPE)})") from None
    return torch.frombuffer(bytearray(content), dtype=torch.uint8).reshape(n, *_SHAPE)
