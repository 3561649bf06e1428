"""Where samples go: a grid, a folder of pictures, or an array."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffspace._shapes import Int, Shaped, Tensor
from diffspace.figures.samples import is_image, save_image, save_samples, to_pixels
from diffspace.files import atomic_path, write_text
from diffspace.model import CONFIG, WEIGHTS
from diffspace.transform import Transform

_SUBDIR, _LABELS = 1000, "labels.json"


def check_model_folder(option: str, folder: Path, overwrite: bool) -> None:
    """ValueError where a model that is written into a folder would replace something that it may not."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{option}: {folder} is a file; choose another name")
    if folder.is_dir() and any(folder.iterdir()):
        if not overwrite:
            raise ValueError(f"{option}: {folder} exists already; choose another name or add --overwrite")
        if not {path.name for path in folder.iterdir()} <= {CONFIG, WEIGHTS}:
            raise ValueError(f"{option}: {folder} holds more than a model; choose another name")


class Output:
    """The file or folder at `path`, in the format that its name asks for; it takes raw samples a batch at a time.

    Pictures in a folder are called by their seeds and written as they come, with `subdirs` into one folder for each
    thousand seeds; a grid or an array is written at the end of a `with` block. ValueError, before any work is done,
    where `path` cannot be written or would replace something.
    """

    def __init__(
        self,
        path: Path,
        transform: Transform,
        sample_shape: Sequence[int],
        *,
        overwrite: bool = False,
        columns: int | None = None,
        subdirs: bool = False,
    ) -> None:
        self.path, self.transform, self.columns, self.subdirs = path, transform, columns, subdirs
        self.is_folder = path.suffix == ""
        self._seeds: list[int] = []
        self._labels: list[Tensor] = []
        self._raw: list[Tensor] = []
        self._former: list[Path] = []
        if path.suffix not in ("", ".png", ".npz"):
            raise ValueError(f"--out: {path} ends in {path.suffix}; want .png, .npz, or a folder")
        if self.is_folder and not is_image(sample_shape):
            raise ValueError(f"--out: samples of shape {tuple(sample_shape)} are no pictures; write them to an .npz")
        if subdirs and not self.is_folder:
            raise ValueError(f"--subdirs: has no effect on {path}; it goes with a folder of pictures")
        if columns is not None and columns < 1:
            raise ValueError(f"--columns: {columns}; want at least 1")
        if columns is not None and path.suffix != ".png":
            raise ValueError(f"--columns: has no effect on {path}; it goes with a grid")
        if not path.parent.is_dir():
            raise ValueError(f"--out: there is no folder {path.parent}")
        if not path.exists():
            return
        if path.is_dir() != self.is_folder:
            raise ValueError(f"--out: {path} is a {'folder' if path.is_dir() else 'file'}; choose another name")
        if not overwrite and (path.is_file() or any(path.iterdir())):
            raise ValueError(f"--out: {path} exists already; choose another name or add --overwrite")
        if self.is_folder:
            numbered = (*path.glob("[0-9]*.png"), *path.glob("[0-9]*/[0-9]*.png"))
            self._former = [*numbered, path / _LABELS]

    def add(
        self, raw: Shaped[Tensor, "batch *dims"], seeds: Sequence[int], labels: Int[Tensor, "batch"] | None
    ) -> None:
        """Take raw samples, with their seeds and class numbers."""
        self._seeds += seeds
        if labels is not None:
            self._labels.append(labels.cpu())
        if not self.is_folder:
            self._raw.append(raw.cpu())
            return
        while self._former:  # two runs in one folder could not be told apart
            self._former.pop().unlink(missing_ok=True)
        for seed, image in zip(seeds, to_pixels(raw, self.transform), strict=True):
            place = self.path / self._name(seed)
            place.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(place) as temporary:
                save_image(temporary, image)

    def __enter__(self) -> Output:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # pictures that are there keep their labels, however a run ends
        if self._seeds and (kind is None or self.is_folder):
            self._finish()

    def _finish(self) -> None:
        """Write what is not written yet."""
        labels = torch.cat(self._labels) if self._labels else None
        if self.is_folder:
            if labels is not None:
                named = dict(zip(map(self._name, self._seeds), labels.tolist(), strict=True))
                write_text(self.path / _LABELS, json.dumps(named, indent=1) + "\n")
            return
        raw = torch.cat(self._raw)
        with atomic_path(self.path) as temporary:
            if self.path.suffix == ".png":
                save_samples(temporary, raw, self.transform, self.columns)
                return
            arrays: dict[str, Any] = {"x": raw.numpy(), "seeds": np.asarray(self._seeds)}
            if labels is not None:
                arrays["labels"] = labels.numpy()
            np.savez_compressed(temporary, **arrays)

    def _name(self, seed: int) -> str:
        folder = f"{seed - seed % _SUBDIR:06d}/" if self.subdirs else ""
        return f"{folder}{seed:06d}.png"


def check_target(option: str, path: Path, suffix: str, overwrite: bool) -> None:
    """ValueError, before any work is done, where a file cannot be written to `path` or would replace something."""
    if path.suffix != suffix:
        raise ValueError(f"{option}: {path}; want a name that ends in {suffix}")
    if not path.parent.is_dir():
        raise ValueError(f"{option}: there is no folder {path.parent}")
    if path.is_dir():
        raise ValueError(f"{option}: {path} is a folder; choose another name")
    if path.exists() and not overwrite:
        raise ValueError(f"{option}: {path} exists already; choose another name or add --overwrite")
