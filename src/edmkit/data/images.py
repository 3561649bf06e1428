"""One image file to 8-bit pixels. Imported when images are read, for it needs Pillow."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps

from edmkit._shapes import Shaped, Tensor

__all__ = ["Header", "ImageReader", "image_suffixes", "read_header"]

# known to Pillow by name only (no decoder comes with it), or handed to a PostScript interpreter
_EXCLUDED = {"BUFR", "GRIB", "HDF5", "MPEG", "WMF", "EPS"}
_GRAY = {"1", "L", "LA", "La", "I"}
_CHANNELS = {"grayscale": 1, "RGB": 3, "RGBA": 4}
# the image is first reduced by whole factors to no less than this many times the size wanted, which is fast
_GAP = 3.0


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


def _unreadable(path: Path, error: Exception) -> ValueError:
    strerror = error.strerror if isinstance(error, OSError) else None
    reason = strerror or " ".join(str(error).replace(f" {str(path)!r}", "").split()) or type(error).__name__
    return ValueError(f"{path}: cannot be read as an image: {reason}")


def read_header(path: Path) -> Header:
    """The header of an image file; ValueError names a file that has none."""
    try:
        with Image.open(path, formats=_formats()) as image:
            _check(image)
            width, height = image.size
            if width != height and image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8):
                width, height = height, width
            return Header(height, width, _is_gray(image))
    except Exception as error:  # decoders raise whatever a broken file leads them to
        raise _unreadable(path, error) from error


def _is_gray(image: Image.Image) -> bool:
    if image.mode == "P":
        palette = np.asarray(image.getpalette("RGB") or [0, 0, 1]).reshape(-1, 3)
        return bool((palette == palette[:, :1]).all())
    return image.mode in _GRAY or image.mode.startswith("I;16")


@dataclass(frozen=True)
class ImageReader:
    """How image files become pixels of one shape (C, *size); see `ImageFolder`."""

    channels: Literal["grayscale", "RGB", "RGBA"]
    size: tuple[int, int]
    crop: Literal["center", "none"]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return (_CHANNELS[self.channels], *self.size)

    def __call__(self, path: Path) -> Shaped[Tensor, "channels height width"]:
        """The pixels in uint8; ValueError names a file that cannot be read."""
        try:
            with Image.open(path, formats=_formats()) as image:
                _check(image)
                side = int(_GAP * max(self.size))
                image.draft(None, (side, side))  # JPEG can be decoded at a half, a quarter, an eighth
                upright = ImageOps.exif_transpose(image)
            pixels = np.array(self._fit(self._colours(upright)))
        except Exception as error:  # decoders raise whatever a broken file leads them to
            raise _unreadable(path, error) from error
        return torch.from_numpy(pixels).reshape(*self.size, -1).permute(2, 0, 1)

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
        box = (0.0, 0.0, float(image.width), float(image.height))
        if self.crop == "center":
            zoom = min(image.width / width, image.height / height)
            left, top = (image.width - zoom * width) / 2, (image.height - zoom * height) / 2
            box = (left, top, image.width - left, image.height - top)
        return image.resize((width, height), Image.Resampling.LANCZOS, box, reducing_gap=_GAP)


def _eight_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise ValueError(f"32-bit pixels in [{low}, {high}] have no known range; keep such data in a .npy")
    return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
