"""Folders and archives of images as data sets."""

from __future__ import annotations

import math
import os
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import torch

from edmkit._shapes import Int, Shaped, Tensor
from edmkit.data._options import one_of, whole_number
from edmkit.data.dataset import PIXELS, DataSet, InMemory, Rows
from edmkit.data.files import Files, FolderFiles
from edmkit.data.labels import class_numbers, find_labels
from edmkit.data.zip_files import ZipFiles

if TYPE_CHECKING:
    from edmkit.data.images import Header, ImageReader

__all__ = ["ImageFolder", "ImageSource", "ImageZip", "Survey"]

_CROPS = ("center", "square", "wide", "pad", "none")
_CHUNK = 1024  # files handed to the threads at a time
_TRIALS = 2
_QUICK = 250e-6  # seconds; measured: where threads begin to pay
_In = TypeVar("_In")
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

    Images are turned upright by their EXIF orientation; of an animation the first frame is read; 16 bits
    become 8; colour profiles are not applied. Names that begin with a dot, and files that are no images, are
    passed over. Pixels are uint8; the model sees them in [−1, 1].
    """

    path: str | Path
    size: int | tuple[int, int] | None = None
    crop: Literal["center", "square", "wide", "pad", "none"] | None = None
    channels: Literal["auto", "grayscale", "RGB", "RGBA"] = "auto"
    classes: Literal["auto", "none"] = "auto"
    on_error: Literal["raise", "skip"] = "raise"
    cache_mb: int = 2048

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
        survey = self.survey(files)
        rows, names = self._rows(files, survey)
        notes = list(survey.notes)
        if not isinstance(rows, InMemory):
            notes.append(f"more than cache_mb = {self.cache_mb} of pixels: images are decoded when they are asked for")
        if skipped := sorted(set(survey.looked_at) - set(names)):
            notes.append(f"images that cannot be read, left out: {len(skipped)}")
            warnings.warn(f"{files.path}: {notes[-1]}: {', '.join(skipped)}", stacklevel=2)
        found, class_names = find_labels(files, names) if self.classes == "auto" else (None, ())
        labels, class_names = (None, ()) if found is None else class_numbers(files, found, class_names)
        return DataSet(self.name, rows, PIXELS, labels, class_names, tuple(notes))

    def survey(self, files: Files, most: int | None = None, track: Callable[[int, int], None] | None = None) -> Survey:
        """What the headers of the first `most` images say; `track(done, all)` is told how far it is."""
        from edmkit.data.images import ImageReader, read_header

        notes = []
        if files.others:
            notes.append(f"files that are no images, passed over: {files.others}")
        names = files.names[:most]
        if not names:
            raise ValueError("; ".join([f"{files.path}: holds no images", *notes]))
        headers = self.try_each(lambda name: read_header(files, name), names, track)
        if not headers:
            raise _none_of(files, names)
        size = _common_size(files.path, headers) if self.size is None else _pair(self.size)
        gray = all(header.gray for header in headers.values())
        channels = ("grayscale" if gray else "RGB") if self.channels == "auto" else self.channels
        reader = ImageReader(channels, size, self.crop or "center")
        small = sum(h.height < size[0] or h.width < size[1] for h in headers.values())
        if small and reader.crop in ("center", "square", "none"):
            notes.append("images smaller than {}×{}, enlarged: {}".format(*size, small))
        return Survey(names, tuple(headers), reader, tuple(notes))

    def try_each(
        self, function: Callable[[str], _Out], names: Sequence[str], track: Callable[[int, int], None] | None = None
    ) -> dict[str, _Out]:
        """function(name) for the files that can be read; ValueError where one cannot, unless they are skipped."""

        def attempt(name: str) -> _Out | ValueError:
            try:
                return function(name)
            except ValueError as error:
                if self.on_error == "raise":
                    raise ValueError(f"{error}; on_error='skip' leaves such files out") from error
                return error

        results = zip(names, _in_threads(attempt, names, track), strict=True)
        return {name: result for name, result in results if not isinstance(result, ValueError)}

    def _rows(self, files: Files, survey: Survey) -> tuple[Rows, tuple[str, ...]]:
        """The rows, and the files that they come from."""
        names, reader = survey.names, survey.reader
        in_memory = len(names) * math.prod(reader.shape) <= self.cache_mb * 2**20
        if not in_memory and self.on_error == "raise":
            return _ImageRows(files, names, reader), names
        pixels = torch.empty((len(names) if in_memory else 0, *reader.shape), dtype=torch.uint8)
        row = {name: i for i, name in enumerate(names)}

        def read(name: str) -> None:
            image = reader(files, name)
            if in_memory:
                pixels[row[name]] = image

        good = tuple(self.try_each(read, names))
        if not good:
            raise _none_of(files, names)
        if not in_memory:
            return _ImageRows(files, good, reader), good
        if len(good) < len(names):
            pixels = pixels[[row[name] for name in good]]
        return InMemory(pixels), good


@dataclass(frozen=True)
class Survey:
    """What there is to read: all names, those whose header can be read, how they become pixels, and remarks."""

    looked_at: tuple[str, ...]
    names: tuple[str, ...]
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
    names: tuple[str, ...]
    reader: ImageReader

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return self.reader.shape

    def __len__(self) -> int:
        return len(self.names)

    def read(self, indices: Int[Tensor, "batch"]) -> Shaped[Tensor, "batch channels height width"]:
        images = _in_threads(lambda i: self.reader(self.files, self.names[i]), indices.tolist())
        return torch.stack(images) if images else torch.empty((0, *self.sample_shape), dtype=torch.uint8)


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return size if isinstance(size, tuple) else (size, size)


def _none_of(files: Files, names: Sequence[str]) -> ValueError:
    return ValueError(f"{files.path}: none of its {len(names)} images can be read, {names[0]} among them")


def _common_size(path: Path, headers: dict[str, Header]) -> tuple[int, int]:
    first = next(iter(headers))
    height, width, _ = headers[first]
    for name, header in headers.items():
        if (header.height, header.width) != (height, width):
            raise ValueError(
                f"size: {path / first} is {height}×{width}, {path / name} {header.height}×{header.width} "
                "(height×width); give the size that all shall have"
            )
    return height, width


def _in_threads(
    function: Callable[[_In], _Out], items: Sequence[_In], track: Callable[[int, int], None] | None = None
) -> list[_Out]:
    """function(item) for each, in threads where that pays.

    Pillow decodes without holding the interpreter's lock, but what is quick is slower in threads, which then pass
    that lock to and fro: the first items tell.
    """
    results: list[_Out] = []
    fastest = math.inf
    for item in items[:_TRIALS]:
        start = time.perf_counter()
        results.append(function(item))
        fastest = min(fastest, time.perf_counter() - start)
    run: Callable[..., Iterable[_Out]] = map
    pool = ThreadPoolExecutor(os.cpu_count())  # which starts no thread before it is asked to
    if fastest > _QUICK:
        run = pool.map
    try:
        for begin in range(len(results), len(items), _CHUNK):
            results += run(function, items[begin : begin + _CHUNK])
            if track is not None:
                track(len(results), len(items))
    finally:
        pool.shutdown(cancel_futures=True)
    return results
