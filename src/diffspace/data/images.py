"""One image file to 8-bit pixels, and back. Imported when images are read, for it needs Pillow."""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from diffspace._shapes import Shaped, Tensor
from diffspace.data.files import ByteFile, Files

__all__ = ["Channels", "Crop", "Header", "ImageReader", "encode_png", "image_suffixes", "read_header"]

Channels = Literal["grayscale", "RGB", "RGBA"]
Crop = Literal["center", "square", "wide", "pad", "none"]

# known to Pillow by name only (no decoder comes with it), or handed to a PostScript interpreter
_EXCLUDED = {"BUFR", "GRIB", "HDF5", "MPEG", "WMF", "EPS"}
_GRAY = {"1", "L", "LA", "La", "I"}
_MODES = {"grayscale": "L", "RGB": "RGB", "RGBA": "RGBA"}
# the image is first reduced by whole factors to no less than this many times the size wanted, which is fast
_GAP = 3.0
_BIT_DEPTH = 24  # where a PNG says how many bits a channel has


@functools.cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(sorted(set(Image.OPEN) - _EXCLUDED, key=lambda name: (name not in ("PNG", "JPEG"), name)))


@functools.cache
def image_suffixes() -> frozenset[str]:
    """The endings of the names of files that can be read, in lower case, with the dot."""
    formats = set(_formats())
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in formats)


class Header(NamedTuple):
    """What is known of an image before its pixels are decoded; the size is that of the upright image."""

    height: int
    width: int
    gray: bool


def _check(image: Image.Image) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise ValueError(f"{image.width}×{image.height} pixels are more than PIL.Image.MAX_IMAGE_PIXELS = {limit}")
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range; keep such data in a .npy")


@contextlib.contextmanager
def _opened(files: Files, number: int) -> Iterator[tuple[ByteFile, Image.Image]]:
    """A file and the image in it; whatever goes wrong with the two is a ValueError that names the file."""
    try:
        with files.open(number) as file, Image.open(file, formats=_formats()) as image:
            _check(image)
            yield file, image
    except Exception as error:  # decoders raise whatever a broken file leads them to
        raise _unreadable(files.path / files.names[number], error) from error


def _unreadable(path: Path, error: Exception) -> ValueError:
    if isinstance(error, UnidentifiedImageError):
        reason = "cannot identify its format"
    else:
        strerror = error.strerror if isinstance(error, OSError) else None
        reason = strerror or " ".join(str(error).split()) or type(error).__name__
    return ValueError(f"{path}: cannot be read as an image: {reason}")


def _orientation(image: Image.Image) -> int:
    return int(image.getexif().get(ExifTags.Base.Orientation, 1))


def read_header(files: Files, number: int) -> Header:
    """The header of an image file; ValueError names a file that has none."""
    with _opened(files, number) as (_, image):
        return Header(*_upright_size(image), _is_gray(image))


def _upright_size(image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    return (width, height) if width != height and _orientation(image) in (5, 6, 7, 8) else (height, width)


def encode_png(image: Image.Image) -> bytes:
    """A PNG that is not compressed, as the reference stores them: quick to decode, and the same bytes always."""
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=0)
    return file.getvalue()


def _is_gray(image: Image.Image) -> bool:
    if image.mode == "P":
        palette = np.asarray(image.getpalette("RGB") or [0, 0, 1]).reshape(-1, 3)
        return bool((palette == palette[:, :1]).all())
    return image.mode in _GRAY or image.mode.startswith("I;16")


@dataclass(frozen=True)
class ImageReader:
    """How image files become pixels of one shape (C, H, W); see `ImageSource`.

    With `one_size` an image of another size is an error, and with `all_gray` one that has colours: where the headers
    of a sample of the images stand for all.
    """

    channels: Channels
    size: tuple[int, int]
    crop: Crop
    one_size: bool = False
    all_gray: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        height, width = self.size
        return (len(_MODES[self.channels]), width if self.crop == "wide" else height, width)

    def __call__(self, files: Files, number: int) -> Shaped[Tensor, "channels height width"]:
        """The pixels in uint8; ValueError names a file that cannot be read."""
        with _opened(files, number) as (_, image):
            self._check_like_the_sample(image)
            pixels = np.array(self._converted(image))
        channels, height, width = self.shape
        return torch.from_numpy(pixels).reshape(height, width, channels).permute(2, 0, 1)

    def png(self, files: Files, number: int) -> bytes:
        """The pixels as a PNG; a file that is that already keeps its bytes."""
        with _opened(files, number) as (file, image):
            kept = image.format == "PNG" and self._holds(image)
            converted = np.array(self._converted(image))  # of a file that is kept too, for it may be broken
            if kept:
                file.seek(0)
                content = file.read()
                if content[_BIT_DEPTH] == 8:
                    return content
        # what is more than pixels (profiles, texts, the time) stays behind
        return encode_png(Image.fromarray(converted))

    def _check_like_the_sample(self, image: Image.Image) -> None:
        if self.one_size and (size := _upright_size(image)) != self.size:
            raise ValueError(
                "it is {}×{} (height×width) and the images that were looked at are {}×{}; "
                "give the size that all shall have".format(*size, *self.size)
            )
        if self.all_gray and not _is_gray(image):
            raise ValueError("it has colours and the images that were looked at are gray; give the channels")

    def _holds(self, image: Image.Image) -> bool:
        """Whether the image as it is stored is what is wanted of it."""
        if image.mode != _MODES[self.channels] or not (image.height, image.width) == self.size == self.shape[1:]:
            return False
        image.load()  # a PNG may say more of itself after its pixels
        if not image.info:
            return True
        opaque = self.channels == "RGBA" or not image.has_transparency_data
        return opaque and _orientation(image) == 1 and getattr(image, "n_frames", 1) == 1

    def _converted(self, image: Image.Image) -> Image.Image:
        if self._holds(image):
            return image
        if self.crop in ("center", "none", "pad"):
            side = int(_GAP * max(self.size))
            image.draft(None, (side, side))  # JPEG can be decoded at a half, a quarter, an eighth
        return self._fit(self._colours(ImageOps.exif_transpose(image)))

    def _colours(self, image: Image.Image) -> Image.Image:
        """The image in 8 bits and the channels wanted; without alpha among them it is laid on white."""
        if image.mode == "I" or image.mode.startswith("I;16"):
            image = _eight_bits(image)
        if self.channels == "RGBA":
            return image.convert("RGBA")
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        if image.mode not in ("1", "L", "RGB"):
            image = image.convert("RGB")
        return image.convert("L" if self.channels == "grayscale" else "RGB")

    def _fit(self, image: Image.Image) -> Image.Image:
        """The image at the size wanted; where it has that size already, as it is."""
        height, width = self.size
        if self.crop == "square":
            side = min(image.size)
            return _middle(image, side, side).resize((width, height), Image.Resampling.LANCZOS)
        if self.crop == "wide":
            rows = round(width * image.height / image.width)
            if image.width < width or rows < height:
                raise ValueError(f"{image.height}×{image.width} pixels are too few for {height}×{width} cut 'wide'")
            strip = _middle(image, image.width, rows).resize((width, height), Image.Resampling.LANCZOS)
            return _on_black(strip, width, width)
        if self.crop == "pad":
            zoom = min(1, width / image.width, height / image.height)
            inner = (max(1, round(zoom * image.width)), max(1, round(zoom * image.height)))
            return _on_black(image.resize(inner, Image.Resampling.LANCZOS, reducing_gap=_GAP), width, height)
        box = (0.0, 0.0, float(image.width), float(image.height))
        if self.crop == "center":
            zoom = min(image.width / width, image.height / height)
            left, top = (image.width - zoom * width) / 2, (image.height - zoom * height) / 2
            box = (left, top, image.width - left, image.height - top)
        return image.resize((width, height), Image.Resampling.LANCZOS, box, reducing_gap=_GAP)


def _middle(image: Image.Image, width: int, height: int) -> Image.Image:
    """The pixels in the middle; where they cannot be quite there, they are half a pixel up and left."""
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _on_black(image: Image.Image, width: int, height: int) -> Image.Image:
    canvas = Image.new(image.mode, (width, height))
    canvas.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
    return canvas


def _eight_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise ValueError(f"32-bit pixels in [{low}, {high}] have no known range; keep such data in a .npy")
    return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
