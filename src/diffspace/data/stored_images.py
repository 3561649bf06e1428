"""What all sources of images share: their options, a look at the images, and the way to a data set."""

from __future__ import annotations

import dataclasses
import math
import re
import warnings
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

import torch

from diffspace._shapes import Int, Shaped, Tensor
from diffspace.checks import check_choice, check_integer
from diffspace.data.condition_values import class_numbers
from diffspace.data.dataset import DataSet, available_processors, ordered_map, permutation
from diffspace.data.rows import ConditionRows, InMemory, Rows
from diffspace.transform import PIXELS, Transform, channel_moments, standardising

if TYPE_CHECKING:
    from diffspace.data.images import Header, ImageReader

Crop: TypeAlias = Literal["center", "square", "wide", "pad", "none"]
Channels: TypeAlias = Literal["auto", "grayscale", "RGB", "RGBA"]
Label: TypeAlias = int | list[float]
"""A class number, or a vector, as the reference stores them."""

_MEASURED = 256  # images whose pixels settle a transform
_MANY, _SAMPLE = 10_000, 1000  # of more images than the first number, the headers of a sample are read
_LARGEST_SIDE = 2**13  # 200 megabytes an image
_SMALL = 96 * 96  # pixels: threads decode larger images; for smaller ones they only wait for the interpreter's lock
_STEP = 1024  # images given to the threads at a time, and between two reports of progress
_FORMATS = re.compile(r"(\.(zip|npy|npz|tar|gz|tgz))+$", re.IGNORECASE)
_Out = TypeVar("_Out")


class StoredImages(ABC):
    """The images of an opened source, by number from 0.

    `path` is where they are, `names` (parts joined by /) what they are called there, `others` the number of files
    beside them that are not images, and `unused` the names of columns that are neither images nor labels.
    """

    path: Path
    names: Sequence[str]
    others: int = 0
    unused: Sequence[str] = ()

    @abstractmethod
    def open(self, number: int) -> bytes | IO[bytes] | Any:
        """An encoded image, as bytes or as a file, or an array of pixels (H, W) or (H, W, C) in uint8."""

    @abstractmethod
    def fingerprint(self) -> str:
        """A text that changes when the images change, found without reading all of them."""

    def labels(self, numbers: Sequence[int]) -> tuple[list[Label] | None, tuple[str, ...]]:
        """The labels of these images, None if there are none, and the names of the classes if they have names."""
        return None, ()

    def keys(self, numbers: Sequence[int]) -> Iterable[bytes] | None:
        """What tells each of these images from others wherever it stands; None if that is too much to read."""
        return (self.names[i].encode(errors="surrogateescape") for i in numbers)

    def versions(self, numbers: Sequence[int]) -> Iterable[int]:
        """Integers that change with the content of these images, as far as their keys do not, found without reading."""
        return ()


class NumberedImages(StoredImages):
    """Images that have `numbers` and no names; `read(i)` gives the one at place i among them, as `open` does, and
    `keys` what tells them apart.
    """

    def __init__(
        self,
        path: Path,
        numbers: Sequence[int],
        read: Callable[[int], Any],
        version: str = "",
        labels: Sequence[int] | None = None,
        class_names: Sequence[str] = (),
        keys: Callable[[Sequence[int]], Iterable[bytes] | None] | None = None,
    ) -> None:
        self.path, self._read, self._version, self._keys = path, read, version, keys
        self.names = [f"{number:08d}.png" for number in numbers]
        self._labels, self._class_names = labels, tuple(class_names)

    def open(self, number: int) -> Any:
        return self._read(number)

    def fingerprint(self) -> str:
        return self._version

    def labels(self, numbers: Sequence[int]) -> tuple[list[Label] | None, tuple[str, ...]]:
        return None if self._labels is None else [self._labels[i] for i in numbers], self._class_names

    def keys(self, numbers: Sequence[int]) -> Iterable[bytes] | None:
        return None if self._keys is None else self._keys(numbers)


@dataclass(frozen=True)
class ImageSource(ABC):
    """Images stored as files in any format that Pillow decodes, or as arrays.

    Images are turned upright by their EXIF orientation; of an animation the first frame is read; colour profiles are
    not applied. Pixels of 8 bits are uint8; the model sees them in [−1, 1]. Gray images of 16 bits keep them, and so do
    real numbers (TIFF): the model sees each channel with mean 0 and standard deviation 0.5. Colours of more than 8 bits
    are an error, since Pillow drops bits. Of more than 10,000 images the headers of 1000, drawn with a fixed seed,
    stand for all: an image that differs from them is an error when it is read. With "skip", and in `prepare`, all
    headers are read.

    Args:
        path: Where the images are.
        size: (height, width), or one number for both. None: the images have one size already. Resampling is Lanczos
            with antialiasing.
        crop: How an image comes to `size`. "center" (the default) scales it until it just covers the size and keeps the
            middle; "none" scales the whole image without keeping its proportions; "pad" puts the whole image in the
            middle of black, scaled only if it is larger than the size; "square" keeps the largest square in the middle,
            at whole pixels, and scales that (for upright RGB images the reference's center-crop, pixel for pixel);
            "wide" cuts off top and bottom, scales to the size and puts it in the middle of a black square as wide (the
            reference's center-crop-wide; smaller images count as unreadable).
        channels: "auto" is grayscale if every image is, otherwise RGB. "RGBA" keeps transparency; otherwise transparent
            pixels are composited on white.
        classes: "auto" takes labels from the source; for folders and archives from a dataset.json as the reference
            writes it (class numbers or one-hot vectors), or else the first level of sub-folders are the classes, if
            there are two or more. Vectors that are not one-hot are the condition "labels". "none" reads no labels.
        conditions: What else the model is given, paths between commas: a .csv whose first column has the names of the
            images and the others numbers, each column a condition; a folder or a .zip with an image of the same name
            for each, whatever its suffix, a condition named after the folder. Those images have the sides of the data
            or whole divisors of them; with `size` they come to that size like the data.
        on_error: "raise" names an image that cannot be read; "skip" leaves it out and warns once.
        cache_mb: Pixels are kept in memory if all of them take at most this many megabytes (2²⁰ bytes). Otherwise
            images are decoded whenever they are read, and "skip" decodes all of them once to find the broken ones.
        workers: Threads that decode; None is one per processor, or one for small images.
        bits: 8 rounds images of more bits to 8; "auto" keeps what there is.
    """

    path: str | Path
    size: int | tuple[int, int] | None = None
    crop: Crop | None = None
    channels: Channels = "auto"
    classes: Literal["auto", "none"] = "auto"
    conditions: str | None = None
    on_error: Literal["raise", "skip"] = "raise"
    cache_mb: int = 2048
    workers: int | None = None
    bits: Literal["auto", 8] = "auto"

    def __post_init__(self) -> None:
        check_choice("bits", self.bits, ("auto", 8))
        check_choice("crop", self.crop or "center", Crop)
        check_choice("channels", self.channels, Channels)
        check_choice("classes", self.classes, ("auto", "none"))
        check_choice("on_error", self.on_error, ("raise", "skip"))
        check_integer("cache_mb", self.cache_mb, 0)
        if self.workers is not None:
            check_integer("workers", self.workers, 1)
        if self.size is None:
            if self.crop is not None:
                raise ValueError(f"crop: {self.crop!r} has no effect without size")
            return
        sides = _pair(self.size)
        if len(sides) != 2:
            raise ValueError(f"size: expected (height, width) or one number, got {self.size}")
        for side in sides:
            check_integer("size", side, 1, _LARGEST_SIDE)
        if self.crop == "wide" and sides[0] > sides[1]:
            raise ValueError(f"size: crop='wide' expects a width no less than the height, got {self.size}")

    @property
    def name(self) -> str:
        """The name of the data set: of the folder, or of the file without what says its format."""
        return _FORMATS.sub("", Path(self.path).expanduser().resolve().name)

    @property
    def options(self) -> dict[str, Any]:
        """The options that determine the pixels and labels, in JSON's types."""
        values = {name: getattr(self, name) for name in ("size", "crop", "channels", "classes", "on_error", "bits")}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @abstractmethod
    def open(self) -> StoredImages:
        """Find the images, without reading them."""

    def load(self) -> DataSet:
        """Look at the images, and read them if they fit in memory."""
        images = self.open()
        undecoded, notes = self.survey(images, sample=_SAMPLE if self.on_error == "raise" else None)
        rows, numbers = self._decode(undecoded)
        if not isinstance(rows, InMemory):
            notes.append(f"more than cache_mb = {self.cache_mb} of pixels: images are decoded whenever they are read")
        if len(numbers) < len(images.names):
            skipped = sorted(set(range(len(images.names))) - set(numbers))
            notes.append(f"unreadable images left out: {len(skipped)}")
            warnings.warn(f"{images.path}: {notes[-1]}: {', '.join(images.names[i] for i in skipped)}", stacklevel=2)
        transform = self.transform(images.path, rows, undecoded.reader, notes)
        labels, class_names, conditions = self._conditions(images, numbers, rows.sample_shape, notes)
        return DataSet(self.name, rows, transform, labels, class_names, tuple(notes), conditions={**conditions})

    def _conditions(
        self, images: StoredImages, numbers: Sequence[int], shape: tuple[int, ...], notes: list[str]
    ) -> tuple[Int[Tensor, "n"] | None, tuple[str, ...], dict[str, ConditionRows]]:
        """The classes of these images with their names, and the other conditions by name."""
        from diffspace.data.paired import conditions_beside

        found, class_names = images.labels(numbers) if self.classes == "auto" else (None, ())
        classes = None if found is None else class_numbers(str(images.path), found, class_names)
        conditions = {"labels": classes} if isinstance(classes, ConditionRows) else {}
        labels, names = (None, ()) if classes is None or isinstance(classes, ConditionRows) else classes
        for name, given in conditions_beside(self, [images.names[i] for i in numbers], shape, notes).items():
            if name in conditions or (name == "labels" and labels is not None):
                raise ValueError(f"conditions: {name!r} is given twice; rename one, or pass classes='none'")
            conditions[name] = given
        notes += [f"condition {name!r}: {given.condition}" for name, given in conditions.items()]
        return labels, names, conditions

    def transform(self, path: Path, rows: Rows, reader: ImageReader, notes: list[str]) -> Transform:
        """The transform of pixels; one that is measured, on some images, is noted."""
        if reader.depth == "uint8":
            return PIXELS
        some = permutation(len(rows), 0)[:_MEASURED].sort().values
        moments = channel_moments(map(rows.read, torch.split(some, 1)))
        if not bool(torch.isfinite(moments.mean).all()):
            raise ValueError(f"{path}: holds values that are not finite")
        what = "real numbers" if reader.depth == "float32" else "16 bits"
        measured = "" if len(some) == len(rows) else f", as measured on {len(some)} of {len(rows)} images"
        notes.append(f"{what}: each channel is standardised to mean 0 and standard deviation 0.5{measured}")
        shown = float(moments.low.min()), float(moments.high.max())
        if reader.depth == "float32":
            return Transform(*standardising(moments), shown=shown)
        return Transform(*standardising(moments), 0.0, 65535.0, "integer", reader.depth, shown)

    def survey(
        self,
        images: StoredImages,
        limit: int | None = None,
        track: Callable[[int, int], None] | None = None,
        sample: int | None = None,
    ) -> tuple[ImageRows, list[str]]:
        """The images as rows, less those known to be broken, and notes on them.

        Headers are read of all images, of the first `limit`, or, if there are many, of a `sample` of that size.
        """
        from diffspace.data.images import ImageReader, read_header

        notes = [f"files that are not images, ignored: {images.others}"] if images.others else []
        if images.unused:
            notes.append(f"columns that nothing uses: {', '.join(images.unused)}")
        total = len(images.names) if limit is None else min(limit, len(images.names))
        if not total:
            raise ValueError("; ".join([f"{images.path}: holds no images", *notes]))
        sampled = sample is not None and total > _MANY
        examined: Sequence[int] = sorted(permutation(total, 0)[:sample].tolist()) if sampled else range(total)
        rounded = self.bits == 8
        headers = self.try_each(lambda i: read_header(images, i, rounded), examined, self.workers or 1, track)
        if not headers:
            raise _none_readable(images, total)
        if sampled:
            notes.append(f"headers of {len(examined)} images stand for all {total}")
        size = _common_size(images, headers) if self.size is None else _pair(self.size)
        gray = all(header.gray for header in headers.values())
        if several := sum(header.several for header in headers.values()):
            notes.append(f"images of several pages or frames, of which the first is read: {several}")
        depths = {header.depth for header in headers.values()}
        if "float32" in depths and len(depths) > 1:
            one, other = (
                next(i for i, h in headers.items() if (h.depth == "float32") is real) for real in (True, False)
            )
            raise ValueError(f"{images.path}: {images.names[one]} has real numbers, {images.names[other]} has not")
        reader = ImageReader(
            ("grayscale" if gray else "RGB") if self.channels == "auto" else self.channels,
            size,
            self.crop or "center",
            one_size=self.size is None,
            all_gray=gray and self.channels == "auto",
            depth=min(depths),  # by name, so that 16 bits come before 8
            rounded=rounded,
        )
        among = f" of {len(examined)}" if sampled else ""
        clear = sum(header.transparent for header in headers.values())
        if clear and reader.channels != "RGBA":
            notes.append(f"images with transparency, laid on white: {clear}{among}; channels=RGBA keeps it")
        small = sum(h.height < size[0] or h.width < size[1] for h in headers.values())
        if small and reader.crop in ("center", "square", "none"):
            notes.append("images smaller than {}×{}, enlarged: {}{}".format(*size, small, among))
        large = max(header.height * header.width for header in headers.values()) > _SMALL
        threads = self.workers or (available_processors() if large else 1)
        return ImageRows(images, range(total) if sampled else array("q", headers), reader, threads), notes

    def try_each(
        self,
        function: Callable[[int], _Out],
        numbers: Sequence[int],
        threads: int = 1,
        track: Callable[[int, int], None] | None = None,
    ) -> dict[int, _Out]:
        """function(number) for the images that can be read; ValueError if one cannot, unless they are skipped."""

        def attempt(number: int) -> _Out | ValueError:
            try:
                return function(number)
            except ValueError as error:
                if self.on_error == "raise":
                    raise ValueError(f"{error}; on_error='skip' leaves such images out") from error
                return error

        results = {}
        for number, result in zip(numbers, _map(attempt, numbers, threads), strict=True):
            results[number] = result
            if track is not None and (len(results) % _STEP == 0 or len(results) == len(numbers)):
                track(len(results), len(numbers))
        return {number: result for number, result in results.items() if not isinstance(result, ValueError)}

    def _decode(self, rows: ImageRows) -> tuple[Rows, Sequence[int]]:
        """The rows, in memory if they fit, and the numbers of the images that they come from."""
        dtype: torch.dtype = getattr(torch, rows.reader.depth)
        in_memory = len(rows) * math.prod(rows.sample_shape) * dtype.itemsize <= self.cache_mb * 2**20
        if not in_memory and self.on_error == "raise":
            return rows, rows.numbers
        pixels = torch.empty((len(rows) if in_memory else 0, *rows.sample_shape), dtype=dtype, device="cpu")

        def read(row: int) -> None:
            image = rows.reader(rows.images, rows.numbers[row])
            if in_memory:
                pixels[row] = image

        good = list(self.try_each(read, range(len(rows)), rows.threads))
        if not good:
            raise _none_readable(rows.images, len(rows.images.names))
        numbers = array("q", (rows.numbers[row] for row in good))
        if not in_memory:
            return dataclasses.replace(rows, numbers=numbers), numbers
        kept = dataclasses.replace(rows, numbers=numbers)
        return InMemory(pixels if len(good) == len(pixels) else pixels[good], kept), numbers


@dataclass(frozen=True, eq=False)
class ImageRows:
    """Rows of the images with these `numbers`, decoded by `reader` on `threads` threads when they are read."""

    images: StoredImages
    numbers: Sequence[int]
    reader: ImageReader
    threads: int

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return self.reader.shape

    def __len__(self) -> int:
        return len(self.numbers)

    def read(self, indices: Int[Tensor, "batch"]) -> Shaped[Tensor, "batch channels height width"]:
        numbers = [self.numbers[i] for i in indices.tolist()]
        pixels = list(_map(lambda number: self.reader(self.images, number), numbers, self.threads))
        dtype = getattr(torch, self.reader.depth)
        return torch.stack(pixels) if pixels else torch.empty((0, *self.sample_shape), dtype=dtype, device="cpu")

    def keys(self, numbers: Int[Tensor, "n"]) -> Iterable[bytes] | None:
        return self.images.keys([self.numbers[i] for i in numbers.tolist()])

    def versions(self, numbers: Int[Tensor, "n"]) -> Iterable[int]:
        return self.images.versions([self.numbers[i] for i in numbers.tolist()])


def _map(function: Callable[[int], _Out], numbers: Sequence[int], threads: int) -> Iterator[_Out]:
    """function(number) for each, in order."""
    return map(function, numbers) if threads == 1 else ordered_map(function, numbers, threads, ahead=_STEP)


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return size if isinstance(size, tuple) else (size, size)


def _none_readable(images: StoredImages, total: int) -> ValueError:
    return ValueError(f"{images.path}: none of its {total} images can be read, {images.names[0]} among them")


def _common_size(images: StoredImages, headers: dict[int, Header]) -> tuple[int, int]:
    first = next(iter(headers))
    height, width, *_ = headers[first]
    for number, header in headers.items():
        if (header.height, header.width) != (height, width):
            one, other = (images.path / images.names[i] for i in (first, number))
            raise ValueError(
                f"size: {one} is {height}×{width}, {other} {header.height}×{header.width} "
                "(height×width); pass the size that all should have"
            )
    return height, width
