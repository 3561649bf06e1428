"""The archives in which CIFAR-10 and CIFAR-100 are distributed for Python."""

from __future__ import annotations

import gzip
import math
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
from diffspace.pickles import PickleError, Record, read_pickle

__all__ = ["CifarArchive"]

_SHAPE = (3, 32, 32)
_LARGEST = 2**28  # bytes of a member; the largest that there is, CIFAR-100's, has 155 million


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
    `ImageSource` for the options.
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
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"{path / folder / where.names_file}: {where.names}: want a list of strings")
        return PixelFiles(path, InMemory(torch.cat(images)), labels, names)


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
        content = read_pickle(pickles[name])
    except PickleError as error:
        raise ValueError(f"{path / name}: cannot be read: it {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path / name}: holds no dictionary")
    return content


def _pixels(path: Path, array: object) -> Shaped[Tensor, "n 3 32 32"]:
    """The images in an array of bytes of shape (n, 3072)."""
    match array:
        case Record("ndarray", {"dtype": "u1", "by_columns": False, "shape": (n, 3072), "data": data}) if n:
            return torch.frombuffer(bytearray(data), dtype=torch.uint8).reshape(n, *_SHAPE)
    raise ValueError(f"{path}: data: want an array of bytes of shape (n, {math.prod(_SHAPE)})")
