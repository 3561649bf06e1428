"""Folders and archives of images as data sets."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import torch

from diffspace._shapes import Int, Shaped, Tensor
from diffspace.data._options import one_of, whole_number
from diffspace.data.dataset import PIXELS, DataSet, InMemory, Rows
from diffspace.data.files import Files, FolderFiles
from diffspace.data.labels import class_numbers, find_labels
from diffspace.data.order import permutation
from diffspace.data.workers import Workers
from diffspace.data.zip_files import ZipFiles

if TYPE_CHECKING:
    from diffspace.data.images import Header, ImageReader

__all__ = ["ImageFolder", "ImageSource", "ImageZip", "Survey"]

_FEW, _SAMPLE = 10_000, 1000  # images of which all headers are read, and how many are of more than those
_CROPS = ("center", "square", "wide", "pad", "none")
_Out = TypeVar("_Out")


@dataclass(frozen=True)
class ImageSource(ABC):
    """Images that are stored as files, in the order of their names: whatever Pillow decodes.

    - `size`: (height, width), or one number for both. None: the images have one size already. Resampling is
      Lanczos with antialiasing.
    - `crop`, where a `size` is given:
      - "center" (the default) scales the image until it just covers the size and keeps the middle;
      - "none" scales the whole image to the size and does not keep its proportions;
      - "pad" puts the whole image in the middle of black, and scales it only if it is larger than the size;
      - "square" keeps the largest square in the middle, at whole pixels, and scales that to the size: for
        upright RGB images what the reference's center-crop does, pixel for pixel;
      - "wide" cuts off top and bottom, scales to the size and puts it in the middle of a black square as wide:
        the reference's center-crop-wide. Images smaller than that count as such that cannot be read.
    - `channels`: "auto" is grayscale if every file is, and RGB otherwise. "RGBA" keeps transparency;
      elsewhere transparent pixels are laid on white.
    - `classes`: "auto" takes labels from a dataset.json, as the reference writes it, with class numbers or
      one-hot vectors; where there is none, the first level of sub-folders for classes, if they are two or
      more. "none" does not (a big set that is cut up into numbered folders).
    - `on_error`: "raise" names a file that cannot be read; "skip" leaves such files out and warns once.
    - `cache_mb`: images are decoded once and kept as bytes in memory if all of them take no more than this
      many megabytes (2²⁰ bytes), for decoding costs many times what copying does. Otherwise they are
      decoded when they are asked for; "skip" then decodes all of them once to find the broken ones.

    - `workers`: threads that decode; None are as many as there are processors, where that pays. The order in which
      images come does not depend on it.

    Images are turned upright by their EXIF orientation; of an animation the first frame is read; 16 bits
    become 8; colour profiles are not applied. Names that begin with a dot, and files that are no images, are
    passed over. Pixels are uint8; the model sees them in [−1, 1].

    Of more than 10,000 images the headers of a thousand, drawn by a fixed seed, stand for all: an image that is not as
    they say is an error that names it when it is read. With "skip", and in `prepare`, all headers are read.
    """

    path: str | Path
    size: int | tuple[int, int] | None = None
    crop: Literal["center", "square", "wide", "pad", "none"] | None = None
    channels: Literal["auto", "grayscale", "RGB", "RGBA"] = "auto"
    classes: Literal["auto", "none"] = "auto"
    on_error: Literal["raise", "skip"] = "raise"
    cache_mb: int = 2048
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.size is not None:
            sides = _pair(self.size)
            if len(sides) != 2:
                raise ValueError(f"size: {self.size}; want (height, width) or one number")
            for side in sides:
                whole_number("size", side, least=1)
        one_of("crop", self.crop, (None, *_CROPS))
        one_of("channels", self.channels, ("auto", "grayscale", "RGB", "RGBA"))
        one_of("classes", self.classes, ("auto", "none"))
        one_of("on_error", self.on_error, ("raise", "skip"))
        whole_number("cache_mb", self.cache_mb, least=0)
        if self.workers is not None:
            whole_number("workers", self.workers, least=1)
        if self.crop is not None and self.size is None:
            raise ValueError(f"crop: {self.crop!r} has no effect without size")
        if self.crop == "wide" and self.size is not None and _pair(self.size)[0] > _pair(self.size)[1]:
            raise ValueError(f"size: {self.size} with crop='wide'; want a width no less than the height")

    @property
    def name(self) -> str:
        """What the data set is called."""
        return Path(self.path).expanduser().resolve().stem

    @abstractmethod
    def files(self) -> Files:
        """The files, opened."""

    def load(self) -> DataSet:
        """Look through the files, and read the images where they fit in memory."""
        files = self.files()
        sampled = self.on_error == "raise" and len(files.names) > _FEW
        survey = self.survey(files, sample=_SAMPLE if sampled else None)
        rows, numbers = self._rows(files, survey)
        notes = list(survey.notes)
        if not isinstance(rows, InMemory):
            notes.append(f"more than cache_mb = {self.cache_mb} of pixels: images are decoded when they are asked for")
        names = files.names
        if len(numbers) < len(names):
            skipped = sorted(set(range(len(names))) - set(numbers))
            notes.append(f"images that cannot be read, left out: {len(skipped)}")
            warnings.warn(f"{files.path}: {notes[-1]}: {', '.join(names[i] for i in skipped)}", stacklevel=2)
            names = [names[i] for i in numbers]
        found, class_names = find_labels(files, names) if self.classes == "auto" else (None, ())
        labels, class_names = (None, ()) if found is None else class_numbers(files, found, class_names)
        return DataSet(self.name, rows, PIXELS, labels, class_names, tuple(notes))

    def survey(
        self,
        files: Files,
        most: int | None = None,
        track: Callable[[int, int], None] | None = None,
        sample: int | None = None,
    ) -> Survey:
        """What the headers of the first `most` images say, or of as many as `sample` drawn among them.

        `track(done, all)` is told how far it is.
        """
        from diffspace.data.images import ImageReader, read_header

        notes = []
        if files.others:
            notes.append(f"files that are no images, passed over: {files.others}")
        total = len(files.names) if most is None else min(most, len(files.names))
        numbers: Sequence[int] = range(total)
        if not numbers:
            raise ValueError("; ".join([f"{files.path}: holds no images", *notes]))
        sampled = sample is not None and sample < total
        looked_at = sorted(permutation(total, 0)[:sample].tolist()) if sampled else numbers
        headers = self.try_each(lambda number: read_header(files, number), looked_at, track)
        if not headers:
            raise _none_of(files, total)
        if sampled:
            notes.append(f"headers of {len(looked_at)} images stand for all {total}")
        else:
            numbers = array("q", headers)
        size = _common_size(files, headers) if self.size is None else _pair(self.size)
        gray = all(header.gray for header in headers.values())
        channels = ("grayscale" if gray else "RGB") if self.channels == "auto" else self.channels
        crop, one_size = self.crop or "center", sampled and self.size is None
        reader = ImageReader(channels, size, crop, one_size, all_gray=sampled and gray and self.channels == "auto")
        small = sum(h.height < size[0] or h.width < size[1] for h in headers.values())
        if small and reader.crop in ("center", "square", "none"):
            among = f" of {len(looked_at)}" if sampled else ""
            notes.append("images smaller than {}×{}, enlarged: {}{}".format(*size, small, among))
        return Survey(total, numbers, reader, tuple(notes))

    def try_each(
        self, function: Callable[[int], _Out], numbers: Sequence[int], track: Callable[[int, int], None] | None = None
    ) -> dict[int, _Out]:
        """function(number) for the files that can be read; ValueError where one cannot, unless they are skipped."""

        def attempt(number: int) -> _Out | ValueError:
            try:
                return function(number)
            except ValueError as error:
                if self.on_error == "raise":
                    raise ValueError(f"{error}; on_error='skip' leaves such files out") from error
                return error

        results = zip(numbers, Workers(self.workers).map(attempt, numbers, track), strict=True)
        return {number: result for number, result in results if not isinstance(result, ValueError)}

    def _rows(self, files: Files, survey: Survey) -> tuple[Rows, Sequence[int]]:
        """The rows, and the numbers of the files that they come from."""
        numbers, reader = survey.numbers, survey.reader
        in_memory = len(numbers) * math.prod(reader.shape) <= self.cache_mb * 2**20
        if not in_memory and self.on_error == "raise":
            return _ImageRows(files, numbers, reader, Workers(self.workers)), numbers
        pixels = torch.empty((len(numbers) if in_memory else 0, *reader.shape), dtype=torch.uint8)

        def read(row: int) -> None:
            image = reader(files, numbers[row])
            if in_memory:
                pixels[row] = image

        rows = list(self.try_each(read, range(len(numbers))))
        if not rows:
            raise _none_of(files, survey.total)
        good = array("q", (numbers[row] for row in rows))
        if not in_memory:
            return _ImageRows(files, good, reader, Workers(self.workers)), good
        return InMemory(pixels if len(rows) == len(pixels) else pixels[rows]), good


@dataclass(frozen=True)
class Survey:
    """What there is to read: how many files, the numbers of those that are not known to be broken, how they become
    pixels, and remarks.
    """

    total: int
    numbers: Sequence[int]
    reader: ImageReader
    notes: tuple[str, ...]


@dataclass(frozen=True)
class ImageFolder(ImageSource):
    """The images in a folder and its sub-folders; see `ImageSource` for the options."""

    @property
    def name(self) -> str:
        return Path(self.path).expanduser().resolve().name

    def files(self) -> Files:
        return FolderFiles(Path(self.path).expanduser())


@dataclass(frozen=True)
class ImageZip(ImageSource):
    """The images in a ZIP archive; see `ImageSource` for the options, and `ZipFiles` for what is refused."""

    def files(self) -> Files:
        return ZipFiles(Path(self.path).expanduser())


@dataclass(frozen=True, eq=False)
class _ImageRows:
    """Rows that are decoded when they are read."""

    files: Files
    numbers: Sequence[int]
    reader: ImageReader
    workers: Workers

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return self.reader.shape

    def __len__(self) -> int:
        return len(self.numbers)

    def read(self, indices: Int[Tensor, "batch"]) -> Shaped[Tensor, "batch channels height width"]:
        images = self.workers.map(lambda i: self.reader(self.files, self.numbers[i]), indices.tolist())
        return torch.stack(images) if images else torch.empty((0, *self.sample_shape), dtype=torch.uint8)


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return size if isinstance(size, tuple) else (size, size)


def _none_of(files: Files, total: int) -> ValueError:
    return ValueError(f"{files.path}: none of its {total} images can be read, {files.names[0]} among them")


def _common_size(files: Files, headers: dict[int, Header]) -> tuple[int, int]:
    first = next(iter(headers))
    height, width, _ = headers[first]
    for number, header in headers.items():
        if (header.height, header.width) != (height, width):
            one, other = (files.path / files.names[i] for i in (first, number))
            raise ValueError(
                f"size: {one} is {height}×{width}, {other} {header.height}×{header.width} "
                "(height×width); give the size that all shall have"
            )
    return height, width
