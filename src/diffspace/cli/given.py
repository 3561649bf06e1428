"""`--init`, `--inpaint` and `--mask`: an image or array that is given, as raw values of a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import torch

from diffspace._shapes import Bool, Shaped, Tensor
from diffspace.data import ArrayFile
from diffspace.data.images import Depth, ImageReader, read_header
from diffspace.figures.samples import is_image
from diffspace.files import missing_path, reading
from diffspace.model import Model
from diffspace.transform import Transform

_WHITE = 128  # gray values from here on are white in a mask
_TOUCHED = 26  # of 255: a pixel of which a tenth is white is drawn anew where a mask is reduced with its image
CHANNELS: dict[int, Literal["grayscale", "RGB", "RGBA"]] = {1: "grayscale", 3: "RGB", 4: "RGBA"}


class _OneImage:
    """A file, or pixels that stand for it, as `EncodedImages`."""

    def __init__(self, file: Path, pixels: np.ndarray | None = None) -> None:
        self.path: Path = file.parent
        self.names: Sequence[str] = (file.name,)
        self._pixels = pixels

    def open(self, number: int) -> IO[bytes] | Any:
        return (self.path / self.names[number]).open("rb") if self._pixels is None else self._pixels


@dataclass(frozen=True)
class Given:
    """Raw values (n, *dims), n of them in turn, and the size (height, width) of the file where it is an image."""

    raw: Shaped[Tensor, "n *dims"]
    size: tuple[int, int] | None = None


def read_given(option: str, path: Path, model: Model, note: Callable[[str], None]) -> Given:
    """The image or the array at a path; an image of another size is cropped in the middle and resized, with a note.

    An array is a sample or several, in the units of the data. ValueError names the option.
    """
    values, size = _read(option, path, model, note)
    return Given(as_raw(option, path, values, model.transform), size)


def as_raw(option: str, path: str | Path, values: Tensor, transform: Transform) -> Tensor:
    """Values as raw values of a transform; ValueError for fractions of whole numbers, and for values out of bounds."""
    wide = values.to(torch.float64)
    if transform.kind == "integer" and not bool((wide == wide.round()).all()):
        raise ValueError(f"{option}: {path} has fractions; expected whole numbers, as in the data of the model")
    try:
        transform.forward(wide)
    except ValueError as error:
        raise ValueError(f"{option}: {path}: {error}") from None
    return wide.to(getattr(torch, transform.dtype))


def from_pixels(pixels: Tensor, transform: Transform) -> Tensor:
    """Pixels of 8 bits as raw values of a transform of at most as many, as pictures of samples are stored."""
    low, high = transform.lowest or 0.0, transform.highest or 0.0
    return (low + pixels.to(torch.float64) * ((high - low) / 255)).round()


def _read(option: str, path: Path, model: Model, note: Callable[[str], None]) -> tuple[Tensor, tuple[int, int] | None]:
    shape = model.sample_shape
    _check_there(option, path)
    if path.suffix in (".npy", ".npz"):
        return _fitted(option, path, _array(path), shape), None
    if not is_image(shape):
        wanted = "×".join(map(str, shape))
        raise ValueError(f"{option}: the model's samples, {wanted}, are not pictures; expected an array (.npy) of one")
    image, eight = _OneImage(path), is_eight_bit(model.transform)
    header = read_header(image, 0, rounded=eight)
    depth: Depth = "uint8" if eight else "int32" if _is_sixteen_bit(model.transform) else "float32"
    if depth == "float32" and header.depth != "float32":
        raise ValueError(f"{option}: the data of the model are not pixels; expected an array (.npy) in their units")
    reader = ImageReader(CHANNELS[shape[0]], (shape[1], shape[2]), "center", depth=depth, rounded=eight)
    if (header.height, header.width) != reader.size:
        here, there = ("{}×{}".format(*size) for size in ((header.height, header.width), reader.size))
        note(f"{option}: {path} has {here} pixels (height×width); its middle is resized to {there}")
    pixels = reader(image, 0).to(torch.float64)[None]
    return from_pixels(pixels, model.transform) if eight else pixels, (header.height, header.width)


def read_mask(path: Path, model: Model, image: Given) -> Bool[Tensor, "*dims"]:
    """Where samples are drawn anew: where an image is white, or an array is not 0; broadcasts to a sample.

    A mask is of the size of its image, and resized with it.
    """
    shape = model.sample_shape
    _check_there("--mask", path)
    if path.suffix in (".npy", ".npz"):
        values = _array(path)
        mask = values[None] if values.shape == shape[1:] else _fitted("--mask", path, values, shape)[0]
        anew = mask != 0
    else:
        if not is_image(shape):
            raise ValueError("--mask: the model's samples are not pictures; expected an array (.npy), not 0 where anew")
        header = read_header(_OneImage(path), 0, rounded=True)
        size, expected = (header.height, header.width), image.size or shape[1:]
        if size != expected:
            there, here = ("{}×{}".format(*pair) for pair in (size, expected))
            raise ValueError(f"--mask: {path} has {there} pixels (height×width); expected {here}, as --inpaint has")
        gray = ImageReader("grayscale", size, "center", rounded=True)(_OneImage(path), 0)
        anew = gray >= _WHITE
        if size != shape[1:]:
            white = _OneImage(path, (anew[0] * 255).to(torch.uint8).numpy())
            anew = ImageReader("grayscale", (shape[1], shape[2]), "center")(white, 0) >= _TOUCHED
    for value, colour, what in ((False, "black", "nothing"), (True, "white", "everything")):
        if bool((anew == value).all()):
            raise ValueError(
                f"--mask: {path} is {colour} everywhere, so that {what} is drawn anew; white is drawn anew"
            )
    return anew


def _check_there(option: str, path: Path) -> None:
    if not path.is_file():
        what = "a folder" if path.is_dir() else f"missing: there is no file {missing_path(path)}"
        raise ValueError(f"{option}: {path} is {what}" + ("; expected an image or an array (.npy)" * path.is_dir()))


def _array(path: Path) -> Tensor:
    """The values of a .npy file, or of the samples in a .npz file, in float64."""
    if path.suffix == ".npz":
        data = ArrayFile(path, layout="channels-first").load()
        return data.rows.read(torch.arange(len(data), dtype=torch.int64, device="cpu")).to(torch.float64)
    with reading(path):
        array = np.lib.format.open_memmap(path, mode="r")
        if array.dtype.kind not in "biuf":
            raise ValueError(f"expected numbers, got {array.dtype}")
        return torch.from_numpy(np.array(array, dtype=np.float64))


def _fitted(option: str, path: Path, values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """One sample or several as (n, *shape); one channel may be left out."""
    shapes = [shape, shape[1:]] if shape[0] == 1 else [shape]
    for fitting in shapes:
        if values.shape == fitting or (values.ndim > len(fitting) and values.shape[1:] == fitting):
            return values.reshape(-1, *shape)
    there = "×".join(map(str, values.shape))
    raise ValueError(f"{option}: {path} has the shape {there}; expected {'×'.join(map(str, shape))}, or several")


def is_eight_bit(transform: Transform) -> bool:
    """Whether pixels of 8 bits hold the raw values of a transform."""
    low, high = transform.lowest, transform.highest
    return transform.kind == "integer" and low is not None and high is not None and high - low <= 255


def _is_sixteen_bit(transform: Transform) -> bool:
    return transform.kind == "integer" and (transform.lowest, transform.highest) == (0, 65535)
