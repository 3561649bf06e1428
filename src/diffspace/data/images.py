"""One stored image to pixels, and back to a file. Imported when images are read: it needs Pillow."""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from diffspace._shapes import Shaped, Tensor
from diffspace.checks import one_line


@runtime_checkable
class EncodedImages(Protocol):
    """Where images are, their names there, and each as bytes, a file or an array: what a `StoredImages` gives."""

    path: Path
    names: Sequence[str]

    def open(self, number: int) -> bytes | IO[bytes] | Any: ...


# Pillow knows these by name only (no decoder comes with it), or hands them to a PostScript interpreter
_EXCLUDED = {"BUFR", "GRIB", "HDF5", "MPEG", "WMF", "EPS"}
_GRAY = {"1", "L", "LA", "La", "I", "F"}
_MODES = {"grayscale": "L", "RGB": "RGB", "RGBA": "RGBA"}
_GAP = 3.0  # images are first reduced by whole factors, which is fast, to no less than this many times the size
_PNG_BIT_DEPTH = 24  # the place of the byte that says how many bits a channel has
_HEAD = 2**16  # bytes in which JPEG 2000 and AVIF say it
_MOST = 65535

Depth: TypeAlias = Literal["uint8", "int32", "float32"]
"""The torch dtype of pixels: of 8 bits, of 16 bits (torch can do little with uint16), or real numbers."""


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
    depth: Depth
    several: bool  # pages or frames
    transparent: bool


def read_header(images: EncodedImages, number: int, rounded: bool = False) -> Header:
    """The header of an image; ValueError names one that cannot be read.

    `rounded`: more than 8 bits are to be rounded to 8; else those that Pillow does not keep are an error.
    """
    with _opened(images, number) as (file, image):
        several = bool(getattr(image, "is_animated", False))
        depth = _depth(file, image, rounded)
        return Header(*_upright_size(image), _is_gray(image), depth, several, image.has_transparency_data)


@dataclass(frozen=True)
class ImageReader:
    """How stored images become pixels of one shape (C, H, W); see `ImageSource`.

    With `one_size` an image of another size is an error, and with `all_gray` one that has colours: the headers that
    were read did not show any. `depth` is theirs; images of 8 bits among those of 16 are scaled to these. `rounded`
    makes 8 bits of more.
    """

    channels: Literal["grayscale", "RGB", "RGBA"]
    size: tuple[int, int]
    crop: str
    one_size: bool = False
    all_gray: bool = False
    depth: Depth = "uint8"
    rounded: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        height, width = self.size
        return (len(_MODES[self.channels]), width if self.crop == "wide" else height, width)

    def __call__(self, images: EncodedImages, number: int) -> Shaped[Tensor, "channels height width"]:
        """The pixels as `depth`; ValueError names an image that cannot be read."""
        with _opened(images, number) as (file, image):
            self._check_like_the_sample(file, image)
            pixels = self._pixels(image)
        channels, height, width = self.shape
        return torch.from_numpy(pixels).reshape(height, width, channels).permute(2, 0, 1)

    def png(self, images: EncodedImages, number: int) -> bytes:
        """The pixels as a PNG, not compressed as in the reference; a file that is such a PNG keeps its bytes."""
        with _opened(images, number) as (file, image):
            self._check_like_the_sample(file, image)
            kept = image.format == "PNG" and self._fits(image)
            converted = self._pixels(image)  # also of a file that is kept: it may be broken
            if kept and file is not None:
                file.seek(0)
                content = file.read()
                if content[_PNG_BIT_DEPTH] == (8 if self.depth == "uint8" else 16):
                    return content
        encoded = io.BytesIO()  # pixels alone: no profiles, texts or times
        Image.fromarray(converted if self.depth == "uint8" else converted[..., 0].astype(np.uint16)).save(
            encoded, "PNG", compress_level=0
        )
        return encoded.getvalue()

    def check_png(self) -> None:
        """ValueError for pixels that Pillow cannot write as a PNG without loss."""
        if self.depth == "float32":
            raise ValueError("a PNG holds no real numbers; train on the images where they are")
        if self.depth == "int32" and self.channels != "grayscale":
            raise ValueError("16 bits: PNGs are written with one channel of them; pass channels='grayscale' or bits=8")

    def _pixels(self, image: Image.Image) -> np.ndarray:
        if self.depth == "uint8":
            return np.array(self._converted(image))
        pixels = np.stack([np.asarray(self._resized(plane)) for plane in self._planes(image)], -1)
        return pixels if self.depth == "float32" else pixels.clip(0, _MOST)  # Lanczos overshoots

    def _planes(self, image: Image.Image) -> list[Image.Image]:
        """Each channel of an upright image with 32 bits, those of whole numbers from 0 to 65535."""
        if self.depth == "float32":
            planes = [ImageOps.exif_transpose(image)]
        elif _is_wide(image):
            planes = [ImageOps.exif_transpose(_checked(image))]
        else:
            eight = self._recoloured(ImageOps.exif_transpose(image)).split()
            return [Image.fromarray(np.asarray(plane).astype(np.int32) * (_MOST // 255)) for plane in eight]
        colours = {"grayscale": 1, "RGB": 3, "RGBA": 3}[self.channels]
        opaque = [Image.new("I", planes[0].size, _MOST)] if self.channels == "RGBA" else []
        return planes * colours + opaque

    def _check_like_the_sample(self, file: Any, image: Image.Image) -> None:
        depth = _depth(file, image, self.rounded)
        if depth != self.depth and (depth, self.depth) != ("uint8", "int32"):
            names = {"uint8": "8 bits", "int32": "16 bits", "float32": "real numbers"}
            remedy = "; pass bits=8 to round it" if self.depth == "uint8" and depth == "int32" else ""
            raise ValueError(f"it has {names[depth]} and the images examined {names[self.depth]}{remedy}")
        if self.one_size and (size := _upright_size(image)) != self.size:
            raise ValueError(
                "it is {}×{} (height×width) and the images examined are {}×{}; pass size".format(*size, *self.size)
            )
        if self.all_gray and not _is_gray(image):
            raise ValueError("it has colours and the images examined are gray; pass channels")

    def _fits(self, image: Image.Image) -> bool:
        """Whether the image needs no conversion."""
        wide = self.depth == "int32" and self.channels == "grayscale" and _is_wide(image)
        if not wide and (image.mode != _MODES[self.channels] or self.depth != "uint8"):
            return False
        if not (image.height, image.width) == self.size == self.shape[1:]:
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
        if _is_wide(image):
            values = np.asarray(_checked(image)).astype(np.int64)
            image = Image.fromarray(((values * 255 + 32767) // _MOST).astype(np.uint8))
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
            yield file, image
    except Exception as error:  # decoders raise whatever a broken file leads them to
        reason = getattr(error, "strerror", None) or one_line(error)
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


def _is_wide(image: Image.Image) -> bool:
    return image.mode == "I" or image.mode.startswith("I;16")


def _checked(image: Image.Image) -> Image.Image:
    """An image of 16 bits, with 32; ValueError for values that need them."""
    image = image.convert("I")
    values = np.asarray(image)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > _MOST:
        raise ValueError(f"32-bit pixels in [{low}, {high}] have no known range; store such data as .npy")
    return image


def _depth(file: Any, image: Image.Image, rounded: bool) -> Depth:
    """How the pixels of an image are kept; ValueError for bits that Pillow would drop."""
    if image.mode == "F":
        if rounded:
            raise ValueError("floating-point pixels have no known range; bits=8 is for whole numbers")
        return "float32"
    if rounded:
        return "uint8"
    if _is_wide(image):
        return "int32"
    if (bits := _stored_bits(file, image)) > 8:
        raise ValueError(f"it has {bits} bits in a channel, of which Pillow keeps 8; pass bits=8 to take these")
    return "uint8"


def _stored_bits(file: Any, image: Image.Image) -> int:
    """The bits of a channel in a file that Pillow gives with 8; 8 where it does not say."""
    if image.format == "TIFF":
        return int(max(getattr(image, "tag_v2", {}).get(258, (1,))))
    if image.format in ("JPEG2000", "AVIF") and file is not None:
        place = file.tell()
        file.seek(0)
        head = file.read(_HEAD)
        file.seek(place)
        size, av1 = head.find(b"\xff\x4f\xff\x51"), head.find(b"av1C")
        if image.format == "JPEG2000":
            return 8 if size < 0 else (head[size + 42] & 127) + 1
        return 8 if av1 < 0 or not head[av1 + 6] & 64 else 12 if head[av1 + 6] & 32 else 10
    for tile in getattr(image, "tile", ()):
        arguments = tile[3]
        if ";16" in str(arguments) or (image.format == "PPM" and isinstance(arguments, tuple) and arguments[-1] > 255):
            return 16
    return 8
