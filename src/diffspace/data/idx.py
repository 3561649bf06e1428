"""The IDX files in which MNIST and its kin are distributed."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import torch

from diffspace._shapes import Shaped, Tensor
from diffspace.data.dataset import InMemory
from diffspace.data.files import Files
from diffspace.data.folder import ImageSource
from diffspace.data.numbered import PixelFiles

__all__ = ["IdxImages"]

_BYTES = 0x08  # the type of the values
_LARGEST = 2**31
# MNIST packs 5 : 1
_BOMB_BYTES, _BOMB_RATIO = 2**24, 100


@dataclass(frozen=True)
class IdxImages(ImageSource):
    """Images of bytes in an IDX file such as train-images-idx3-ubyte, with or without .gz; see `ImageSource` for
    the options. Class numbers are in the file beside it whose name says labels-idx1, where there is one.

    The reference makes MNIST's 28×28 pixels 32×32: size=32, crop="pad".
    """

    @property
    def name(self) -> str:
        return Path(self.path).name.removesuffix(".gz")

    def files(self) -> Files:
        path = Path(self.path).expanduser()
        images = _read(path, dimensions=3)
        labels = None
        beside = _labels_beside(path)
        if beside is not None:
            labels = _read(beside, dimensions=1).tolist()
            if len(labels) != len(images):
                raise ValueError(f"{beside}: {len(labels)} labels for {len(images)} images")
        return PixelFiles(path, InMemory(images[:, None]), labels)


def _labels_beside(path: Path) -> Path | None:
    name = path.name.replace("images", "labels").replace("idx3", "idx1")
    plain = name.removesuffix(".gz")
    candidates = map(path.with_name, (name, plain, f"{plain}.gz"))
    return next((file for file in candidates if file != path and file.is_file()), None)


def _read(path: Path, dimensions: int) -> Shaped[Tensor, "*dims"]:
    """The array in an IDX file; the magic number is 0, 0, type, number of dimensions, and all is big-endian."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            header = struct.Struct(f">HBB{dimensions}I")
            zero, kind, count, *shape = header.unpack(file.read(header.size))
            size = math.prod(shape)
            if (zero, kind, count) != (0, _BYTES, dimensions) or not 0 < size <= _LARGEST:
                raise ValueError(f"want {dimensions} dimensions of bytes, with 1 to {_LARGEST} of them")
            if size > max(_BOMB_BYTES, _BOMB_RATIO * path.stat().st_size):
                raise ValueError(f"claims {size} bytes out of {path.stat().st_size}: a decompression bomb")
            content = file.read(size + 1)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, EOFError, struct.error, zlib.error) as error:
        raise ValueError(f"{path}: cannot be read as an IDX file: {error}") from None
    if len(content) != size:
        there = "more" if len(content) > size else len(content)
        raise ValueError(f"{path}: its header says {size} bytes of values, and there are {there}")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8).reshape(shape)
