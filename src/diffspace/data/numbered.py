"""Images that have numbers and no names, read like files; arrays of pixels among them."""

from __future__ import annotations

import hashlib
import io
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from diffspace.data.arrays import ArrayFile
from diffspace.data.dataset import PIXELS, DataSet, Rows
from diffspace.data.files import ByteFile, Files, version
from diffspace.data.folder import ImageSource
from diffspace.data.names import NumberedNames

__all__ = ["ArrayImages", "NumberedFiles", "PixelFiles"]


class NumberedFiles(ABC):
    """Encoded images 00000000.png, 00000001.png, … (whatever their format), with class numbers where they have some."""

    others = 0

    def __init__(
        self, path: Path, count: int, state: str, labels: Sequence[int] | None = None, class_names: Sequence[str] = ()
    ) -> None:
        self.path, self.names, self._state = path, NumberedNames(range(count)), state
        self._labels, self._class_names = labels, class_names

    def index(self) -> Mapping[str, Any] | None:
        labels = None if self._labels is None else [list(pair) for pair in zip(self.names, self._labels, strict=True)]
        return {"labels": labels, "class_names": list(self._class_names)}

    def open(self, number: int) -> ByteFile:
        return io.BytesIO(self.read(number))

    def fingerprint(self) -> str:
        return hashlib.sha256(self._state.encode()).hexdigest()

    @abstractmethod
    def read(self, number: int) -> bytes:
        """The encoded image."""


class PixelFiles(NumberedFiles):
    """Rows of bytes (C, H, W) as PNGs."""

    def __init__(
        self, path: Path, rows: Rows, labels: Sequence[int] | None = None, class_names: Sequence[str] = ()
    ) -> None:
        super().__init__(path, len(rows), str(version(path)), labels, class_names)
        self._rows = rows

    def read(self, number: int) -> bytes:
        from PIL import Image

        from diffspace.data.images import encode_png

        pixels = self._rows.read(torch.tensor([number]))[0].permute(1, 2, 0).numpy()
        return encode_png(Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))


@dataclass(frozen=True)
class ArrayImages(ImageSource):
    """Images in an array of bytes in a .npy or .npz file (`ArrayFile`); see `ImageSource` for the options."""

    def files(self) -> Files:
        path = Path(self.path).expanduser()
        data = ArrayFile(path).load()
        _check_pixels(path, data)
        labels = None if data.labels is None else data.labels.tolist()
        return PixelFiles(path, data.rows, labels, data.class_names)


def _check_pixels(path: Path, data: DataSet) -> None:
    shape = data.sample_shape
    if data.transform != PIXELS or len(shape) != 3 or shape[0] not in (1, 3, 4):
        raise ValueError(
            f"{path}: samples of shape {shape} and type {data.transform.dtype}; "
            "want images of uint8 with 1, 3 or 4 channels"
        )
