"""One stored image to 8-bit pixels, and back to a file. Imported when images are read: it needs Pillow."""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from diffspace._shapes import Shaped, Tensor


@runtime_checkable
class EncodedImages(Protocol):
    """Where images are, their names there, and each as bytes, a file or an array: what a `StoredImages` gives."""

    path: Path
    names: Sequence[str]

    def open(self, number: int) -> bytes | IO[bytes] | Any: ...


# Pillow knows these by name only (no decoder comes with it), or hands them to a PostScript interpreter
_EXCLUDED = {"BUFR", "GRIB", "HDF5", "MPEG", "WMF", "EPS"}
_GRAY = {"1", "L", "LA", "La", "I"}
_MODES = {"grayscale": "L", "RGB": "RGB", "RGBA": "RGBA"}
_GAP = 3.0  # images are first reduced by whole factors, which is fast, to no less than this many times the size
_PNG_BIT_DEPTH = 24  # the place of the byte that says how many bits a channel has


@functools.cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(sorted(set(Image.OPEN) - _EXCLUDED, key=lambda name: (name not in ("PNG", "JPEG"), name)))


@functools.cache
def image_suffixes() -> frozenset[str]:
    """The suffixes of files that can be read, in lower case, with the dot."""
    formats = set(_formats())
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in formats)


class Header(NamedTuple):
    """What is known of an image before its pixels are decoded; the size is that of the upright image."""

    height: int
    width: int
    gray: bool


def read_header(images: EncodedImages, number: int) -> Header:
    """The header of an image; ValueError names one that cannot be read."""
    with _opened(images, number) as (_, image):
        return Header(*_upright_size(image), _is_gray(image))


@dataclass(frozen=True)
class ImageReader:
    """How stored images become pixels of one shape (C, H, W); see `ImageSource`.

    With `one_size` an image of another size is an error, and with `all_gray` one that has colours: the headers that
    were read did not show any.
    """

    channels: Literal["grayscale", "RGB", "RGBA"]
    size: tuple[int, int]
    crop: str
    one_size: bool = False
    all_gray: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        height, width = self.size
        return (len(_MODES[self.channels]), width if self.crop == "wide" else height, width)

    def __call__(self, images: EncodedImages, number: int) -> Shaped[Tensor, "channels height width"]:
        """The pixels in uint8; ValueError names an image that cannot be read."""
        with _opened(images, number) as (_, image):
            self._check_like_the_sample(image)
            pixels = np.array(self._converted(image))
        channels, height, width = self.shape
        return torch.from_numpy(pixels).reshape(height, width, channels).permute(2, 0, 1)

    def png(self, images: EncodedImages, number: int) -> bytes:
        """The pixels as a PNG, not compressed as in the reference; a file that is such a PNG keeps its bytes."""
        with _opened(images, number) as (file, image):
            kept = image.format == "PNG" and self._fits(image)
            converted = np.array(self._converted(image))  # also of a file that is kept: it may be broken
            if kept and file is not None:
                file.seek(0)
                content = file.read()
                if content[_PNG_BIT_DEPTH] == 8:
                    return content
        encoded = io.BytesIO()  # pixels alone: no profiles, texts or times
        Image.fromarray(converted).save(encoded, "PNG", compress_level=0)
        return encoded.getvalue()

    def _check_like_the_sample(self, image: Image.Image) -> None:
        if self.one_size and (size := _upright_size(image)) != self.size:
            raise ValueError(
                "it is {}×{} (height×width) and the images examined are {}×{}; pass size".format(*size, *self.size)
            )
        if self.all_gray and not _is_gray(image):
            raise ValueError("it has colours and the images examined are gray; pass channels")

    def _fits(self, image: Image.Image) -> bool:
        """Whether the image needs no conversion."""
        if image.mode != _MODES[self.channels] or not (image.height, image.width) == self.size == self.shape[1:]:
            return False
        image.load()  # a PNG may have more information after its pixels
        if not image.info:
            return True
        opaque = self.channels == "RGBA" or not image.has_transparency_data
        return opaque and _orientation(image) == 1 and getattr(image, "n_frames", 1) == 1

    def _converted(self, image: Image.Image) -> Image.Image:
        if self._fits(image):
            return image
        if self.crop in ("center", "none", "pad"):
            side = int(_GAP * max(self.size))
            image.draft(None, (side, side))  # JPEG can be decoded at a half, a quarter, an eighth
        return self._resized(self._recoloured(ImageOps.exif_transpose(image)))

    def _recoloured(self, image: Image.Image) -> Image.Image:
        """The image in 8 bits and the requested channels; without alpha among them it is composited on white."""
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

    def _resized(self, image: Image.Image) -> Image.Image:
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


@contextlib.contextmanager
def _opened(images: EncodedImages, number: int) -> Iterator[tuple[IO[bytes] | None, Image.Image]]:
    """The file, if there is one, and the image in it; any error with the two is a ValueError that names the image."""
    try:
        stored: Any = images.open(number)
        if isinstance(stored, bytes):
            stored = io.BytesIO(stored)
        if isinstance(stored, np.ndarray):
            yield None, Image.fromarray(stored)
            return
        with stored as file, Image.open(file, formats=_formats()) as image:
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                raise ValueError(f"{image.width}×{image.height} pixels exceed PIL.Image.MAX_IMAGE_PIXELS = {limit}")
            if image.mode == "F":
                raise ValueError("floating-point pixels have no known range; store such data as .npy")
            yield file, image
    except Exception as error:  # decoders raise whatever a broken file leads them to
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            reason = "cannot identify its format"
        raise ValueError(f"{images.path / images.names[number]}: cannot be read as an image: {reason}") from error


def _orientation(image: Image.Image) -> int:
    return int(image.getexif().get(ExifTags.Base.Orientation, 1))


def _upright_size(image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    return (width, height) if width != height and _orientation(image) in (5, 6, 7, 8) else (height, width)


def _is_gray(image: Image.Image) -> bool:
    if image.mode == "P":
        palette = np.asarray(image.getpalette("RGB") or [0, 0, 1]).reshape(-1, 3)
        return bool((palette == palette[:, :1]).all())
    return image.mode in _GRAY or image.mode.startswith("I;16")


def _middle(image: Image.Image, width: int, height: int) -> Image.Image:
    """The pixels in the middle, or half a pixel up and left of it."""
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
        raise ValueError(f"32-bit pixels in [{low}, {high}] have no known range; store such data as .npy")
    return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
