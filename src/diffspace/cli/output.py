"""What commands write: samples as a grid, a folder of pictures or an array; figures; JSON."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from diffspace._shapes import Shaped, Tensor
from diffspace.figures.samples import fits_png, is_image, save_image, save_samples, to_stored
from diffspace.files import atomic_path, check_writable, write_text, writing
from diffspace.model import CONFIG, WEIGHTS
from diffspace.protocols import Cond
from diffspace.transform import Transform

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SUBDIR, _LABELS, _CONDITIONS = 1000, "labels.json", "conditions.csv"


def check_target(option: str, path: Path, suffix: str, overwrite: bool) -> None:
    """ValueError, before any work is done, where `path` cannot be written or would replace something.

    It is a file that ends in `suffix`, or a folder if that is empty.
    """
    if suffix and path.suffix != suffix:
        raise ValueError(f"{option}: expected a name that ends in {suffix}, got {path}")
    if suffix and not path.parent.is_dir():
        raise ValueError(f"{option}: there is no folder {path.parent}")
    check_place(option, path)
    if path.exists():
        if path.is_dir() == bool(suffix):
            raise ValueError(f"{option}: {path} is a {'folder' if suffix else 'file'}; choose another name")
        if not overwrite and (suffix or any(path.iterdir())):
            raise ValueError(f"{option}: {path} exists already; add --overwrite to replace it")


def check_place(option: str, path: Path) -> None:
    """ValueError, before any work is done, where the file or folder `path` cannot be written."""
    try:
        check_writable(path)
    except OSError as error:
        raise ValueError(f"{option}: {path} cannot be written: {error.strerror}") from None


def check_model_folder(option: str, folder: Path, overwrite: bool) -> None:
    """ValueError where a model cannot be written into a folder, or would replace more than a model."""
    check_target(option, folder, "", overwrite)
    if folder.is_dir() and not {path.name for path in folder.iterdir()} <= {CONFIG, WEIGHTS}:
        raise ValueError(f"{option}: {folder} contains more than a model; choose another name")


def write_json(path: Path, record: Any) -> None:
    """Write a record that people read too."""
    write_text(path, json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_figure(path: Path, figure: Figure) -> None:
    """Write a figure as a PNG."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=160)


class SampleWriter:
    """Writes raw samples, a batch at a time, to the file or folder at `path`, in the format that its name asks for.

    Pictures in a folder are named after their seeds and written as they come, with `subdirs` into one folder for each
    thousand seeds; a grid or an array is written at the end of a `with` block. Pictures of an earlier run stay whole
    until that end, and are replaced if it is reached without an error. ValueError, before any work is done, where
    `path` cannot be written or would replace something.
    """

    def __init__(
        self,
        path: Path,
        transform: Transform,
        sample_shape: Sequence[int],
        *,
        class_names: Sequence[str] = (),
        overwrite: bool = False,
        columns: int | None = None,
        subdirs: bool = False,
    ) -> None:
        self.path, self.transform, self.columns, self.subdirs = path, transform, columns, subdirs
        self._class_names = tuple(class_names)
        self.is_folder = path.suffix == ""
        self._seeds: list[int] = []
        self._cond: dict[str, list[Tensor]] = {}
        self._raw: list[Tensor] = []
        if path.suffix not in ("", ".png", ".npz"):
            raise ValueError(f"--out: expected a name that ends in .png or .npz, or a folder, got {path}")
        if self.is_folder and not is_image(sample_shape):
            raise ValueError(f"--out: samples of shape {tuple(sample_shape)} are not pictures; write them to an .npz")
        if self.is_folder and not fits_png(transform, sample_shape[0]):
            raise ValueError(f"--out: PNGs would lose bits of samples of {transform.dtype}; write them to an .npz")
        if subdirs and not self.is_folder:
            raise ValueError(f"--subdirs: has no effect on {path}; use it with a folder of pictures")
        if columns is not None and path.suffix != ".png":
            raise ValueError(f"--columns: has no effect on {path}; use it with a grid")
        check_target("--out", path, path.suffix, overwrite)
        pictures = (*path.glob("[0-9]*.png"), *path.glob("[0-9]*/[0-9]*.png"))
        former = (*pictures, path / _LABELS, path / _CONDITIONS)
        self._former = [file for file in former if os.path.lexists(file)] if self.is_folder else []
        # nobody could distinguish the pictures of two runs in one folder
        self._place = path / f".{secrets.token_hex(4)}" if self._former else path

    def add(self, raw: Shaped[Tensor, "batch *dims"], seeds: Sequence[int], cond: Cond | None = None) -> None:
        """Take raw samples, with their seeds and conditions, of which "labels" are class numbers."""
        self._seeds += seeds
        for name, value in (cond or {}).items():
            self._cond.setdefault(name, []).append(value.cpu())
        if not self.is_folder:
            self._raw.append(raw.cpu())
            return
        for seed, image in zip(seeds, to_stored(raw, self.transform), strict=True):
            place = self._place / self._name(seed)
            with writing(place):
                place.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(place) as temporary:
                save_image(temporary, image)

    def __enter__(self) -> SampleWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        cond = {name: torch.cat(values) for name, values in self._cond.items()}
        if self.is_folder:
            try:
                with contextlib.suppress(OSError) if kind else contextlib.nullcontext():
                    self._write_conditions(cond)  # also after an error: the pictures that exist need their labels
                if kind is None and self._former:
                    self._replace_former()
            finally:
                if self._former:
                    shutil.rmtree(self._place, ignore_errors=True)
            return
        if kind is not None or not self._raw:
            return
        raw = torch.cat(self._raw)
        with atomic_path(self.path) as temporary:
            if self.path.suffix == ".png":
                save_samples(temporary, raw, self.transform, self.columns)
                return
            arrays: dict[str, Any] = {"x": raw.numpy(), "seeds": np.asarray(self._seeds)}
            arrays |= {name: value.numpy() for name, value in cond.items()}
            if "labels" in cond and self._class_names:
                arrays["class_names"] = np.asarray(self._class_names)
            np.savez_compressed(temporary, **arrays)

    def _write_conditions(self, cond: Cond) -> None:
        """Write the classes of the pictures by name, and numbers and vectors as a CSV, as training reads it."""
        names = [self._name(seed) for seed in self._seeds]
        labels, vectors = cond.get("labels"), {name: value for name, value in cond.items() if value.ndim == 2}
        if labels is not None and labels.ndim == 1:
            named = [self._class_names[k] if self._class_names else k for k in labels.tolist()]
            write_json(self._place / _LABELS, dict(zip(names, named, strict=True)))
        if vectors:
            columns = [
                f"{name}{k}" if value.shape[1] > 1 else name
                for name, value in vectors.items()
                for k in range(value.shape[1])
            ]
            text = io.StringIO()
            rows = torch.cat([value.float() for value in vectors.values()], dim=1).tolist()
            table = csv.writer(text, lineterminator="\n")
            table.writerows([["file", *columns], *([name, *row] for name, row in zip(names, rows, strict=True))])
            write_text(self._place / _CONDITIONS, text.getvalue())

    def _replace_former(self) -> None:
        """Put the new pictures in the place of the old ones."""
        new = {self.path / file.relative_to(self._place): file for file in self._place.rglob("*") if file.is_file()}
        for place, file in new.items():
            place.parent.mkdir(exist_ok=True)
            file.replace(place)
        for old in self._former:
            if old not in new:
                old.unlink(missing_ok=True)

    def _name(self, seed: int) -> str:
        folder = f"{seed - seed % _SUBDIR:06d}/" if self.subdirs else ""
        return f"{folder}{seed:06d}.png"
