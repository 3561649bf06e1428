"""A folder of images as a data set."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import torch

from edmkit._shapes import Int, Shaped, Tensor
from edmkit.data._options import one_of, whole_number
from edmkit.data.dataset import PIXELS, DataSet, InMemory, Rows

if TYPE_CHECKING:
    from edmkit.data.images import Header, ImageReader

__all__ = ["ImageFolder"]

_CHUNK = 1024  # files handed to the threads at a time
_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True)
class ImageFolder:
    """The images in a folder and its sub-folders, in the order of their names: whatever Pillow decodes.

    - `size`: (height, width), or one number for both. None: the images have one size already. Resampling is
      Lanczos with antialiasing.
    - `crop`, where a `size` is given: "center" scales the image until it just covers the size and keeps the
      middle (the default); "none" scales the whole image to the size and does not keep its proportions.
    - `channels`: "auto" is grayscale if every file is, and RGB otherwise. "RGBA" keeps transparency;
      elsewhere transparent pixels are laid on white.
    - `classes`: "auto" takes the first level of sub-folders for classes, where there are two or more; "none"
      does not (a big set that is cut up into numbered folders).
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
    crop: Literal["center", "none"] | None = None
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
        one_of("crop", self.crop, (None, "center", "none"))
        one_of("channels", self.channels, ("auto", "grayscale", "RGB", "RGBA"))
        one_of("classes", self.classes, ("auto", "none"))
        one_of("on_error", self.on_error, ("raise", "skip"))
        whole_number("cache_mb", self.cache_mb, least=0)
        if self.crop is not None and self.size is None:
            raise ValueError(f"crop: {self.crop!r} has no effect without size")

    def load(self) -> DataSet:
        """Look through the folder, and read the images where they fit in memory."""
        from edmkit.data.images import image_suffixes, read_header

        root = Path(self.path).expanduser()
        everything = list(_files(root))
        images = [path for path in everything if path.suffix.lower() in image_suffixes()]
        notes = []
        if others := len(everything) - len(images):
            notes.append(f"files that are no images, passed over: {others}")
        if not images:
            raise ValueError("; ".join([f"{root}: holds no images", *notes]))

        headers = self._try_each(read_header, images)
        reader = self._reader(headers)
        small = sum(h.height < reader.size[0] or h.width < reader.size[1] for h in headers.values())
        if small:
            notes.append("images smaller than {}×{}, enlarged: {}".format(*reader.size, small))
        rows, files = self._rows(list(headers), reader)
        if not isinstance(rows, InMemory):
            notes.append(f"more than cache_mb = {self.cache_mb} of pixels: images are decoded when they are asked for")
        if skipped := sorted(set(images) - set(files)):
            notes.append(f"images that cannot be read, left out: {len(skipped)}")
            warnings.warn(f"{root}: {notes[-1]}: {', '.join(str(p.relative_to(root)) for p in skipped)}", stacklevel=2)

        labels, class_names = self._classes(root, files)
        return DataSet(root.resolve().name, rows, PIXELS, labels, class_names, tuple(notes))

    def _try_each(self, function: Callable[[Path], _Out], paths: Sequence[Path]) -> dict[Path, _Out]:
        """function(path) for the paths that can be read; ValueError where one cannot, or none."""

        def attempt(path: Path) -> _Out | ValueError:
            try:
                return function(path)
            except ValueError as error:
                if self.on_error == "raise":
                    raise ValueError(f"{error}; on_error='skip' leaves such files out") from error
                return error

        results = zip(paths, _in_threads(attempt, paths), strict=True)
        done = {path: result for path, result in results if not isinstance(result, ValueError)}
        if not done:
            raise ValueError(f"{self.path}: none of its {len(paths)} images can be read, {paths[0]} among them")
        return done

    def _reader(self, headers: dict[Path, Header]) -> ImageReader:
        from edmkit.data.images import ImageReader

        size = _common_size(headers) if self.size is None else _pair(self.size)
        gray = all(header.gray for header in headers.values())
        channels = ("grayscale" if gray else "RGB") if self.channels == "auto" else self.channels
        return ImageReader(channels, size, self.crop or "center")

    def _rows(self, files: list[Path], reader: ImageReader) -> tuple[Rows, list[Path]]:
        """The rows, and the files that they come from."""
        in_memory = len(files) * math.prod(reader.shape) <= self.cache_mb * 2**20
        if not in_memory and self.on_error == "raise":
            return _ImageFiles(tuple(files), reader), files
        pixels = torch.empty((len(files) if in_memory else 0, *reader.shape), dtype=torch.uint8)
        row = {path: i for i, path in enumerate(files)}

        def read(path: Path) -> None:
            image = reader(path)
            if in_memory:
                pixels[row[path]] = image

        good = list(self._try_each(read, files))
        if not in_memory:
            return _ImageFiles(tuple(good), reader), good
        if len(good) < len(files):
            pixels = pixels[[row[path] for path in good]]
        return InMemory(pixels), good

    def _classes(self, root: Path, files: list[Path]) -> tuple[Tensor | None, tuple[str, ...]]:
        """Labels and class names from the first level of sub-folders."""
        if self.classes == "none":
            return None, ()
        parts = [path.relative_to(root).parts for path in files]
        names = sorted({part[0] for part in parts if len(part) > 1})
        loose = next((path for path, part in zip(files, parts, strict=True) if len(part) == 1), None)
        if names and loose is not None:
            raise ValueError(
                f"{root}: holds images beside sub-folders of images ({loose.name}, {names[0]}/); "
                "sort all of them into sub-folders, or give classes='none'"
            )
        if len(names) < 2:
            return None, ()
        if empty := sorted({entry.name for entry in _visible(root) if entry.is_dir()} - set(names)):
            warnings.warn(f"{root}: sub-folders without images are no classes: {', '.join(empty)}", stacklevel=3)
        number = {name: i for i, name in enumerate(names)}
        return torch.tensor([number[part[0]] for part in parts]), tuple(names)


@dataclass(frozen=True, eq=False)
class _ImageFiles:
    """Rows that are decoded when they are read."""

    files: tuple[Path, ...]
    reader: ImageReader

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return self.reader.shape

    def __len__(self) -> int:
        return len(self.files)

    def read(self, indices: Int[Tensor, "batch"]) -> Shaped[Tensor, "batch channels height width"]:
        images = _in_threads(self.reader, [self.files[i] for i in indices.tolist()])
        return torch.stack(images) if images else torch.empty((0, *self.sample_shape), dtype=torch.uint8)


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return size if isinstance(size, tuple) else (size, size)


def _common_size(headers: dict[Path, Header]) -> tuple[int, int]:
    first = next(iter(headers))
    height, width, _ = headers[first]
    for path, header in headers.items():
        if (header.height, header.width) != (height, width):
            raise ValueError(
                f"size: {first} is {height}×{width}, {path} {header.height}×{header.width} (height×width); "
                "give the size that all shall have"
            )
    return height, width


def _in_threads(function: Callable[[_In], _Out], items: Sequence[_In]) -> list[_Out]:
    """function(item) for each; Pillow decodes without holding the interpreter's lock."""
    pool = ThreadPoolExecutor(os.cpu_count())
    results: list[_Out] = []
    try:
        for i in range(0, len(items), _CHUNK):
            results += pool.map(function, items[i : i + _CHUNK])
    finally:
        pool.shutdown(cancel_futures=True)
    return results


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not e.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise ValueError(f"{folder}: cannot be listed as a folder: {error.strerror}") from None


def _files(folder: Path, above: tuple[str, ...] = ()) -> Iterator[Path]:
    """The files in a folder and below, by name; a link back to a folder above is not followed."""
    here = os.path.realpath(folder)
    if here in above:
        return
    for entry in _visible(folder):
        if entry.is_dir():
            yield from _files(Path(entry.path), (*above, here))
        else:
            yield Path(entry.path)
