"""The files of `diffspace sample`: a grid, a folder of pictures or an array, and how a killed command goes on.

Finished batches are on the disk at once, beside a `samples.json` that says what was asked for. The same request goes on
with the batches that are missing; another one never adds to them.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffspace._shapes import Shaped, Tensor
from diffspace.cli.output import check_place, check_target, write_json
from diffspace.cli.runs import classes_of
from diffspace.config import flatten
from diffspace.figures.samples import fits_png, is_image, save_image, save_samples, to_stored
from diffspace.files import atomic_path, read_json, reading, save_array, write_text, writing
from diffspace.locking import SHORT_LOCK, owned
from diffspace.metrics.evaluation import as_ranges
from diffspace.metrics.feature_files import Batches
from diffspace.model import Model
from diffspace.protocols import Cond

REQUEST, LABELS, CONDITIONS = _BESIDE = ("samples.json", "labels.json", "conditions.csv")
FORMAT = "diffspace samples 1"
_SUBDIR, _NEW = 1000, ".new"
_LONG = 1000  # characters of seeds that are written down; more are hashed


def _request_in(folder: Path) -> Any:
    """The request whose files a folder holds; None for a folder of anything else."""
    with contextlib.suppress(ValueError, OSError):
        there = read_json(folder / REQUEST, format=str)
        if there["format"] == FORMAT:
            return there
    return None


def _left_over(folder: Path) -> Any:
    """The request of a killed command that a hidden folder is of; None where there is nothing in it.

    ValueError for a folder of anything else, in which nothing may be deleted.
    """
    if not os.path.lexists(folder):
        return None
    with contextlib.suppress(OSError):
        if not folder.is_symlink() and {path.name for path in folder.iterdir()} <= {SHORT_LOCK}:
            return None
    if not folder.is_symlink() and (there := _request_in(folder)) is not None:
        return there
    raise ValueError(f"--out: {folder} is in the way, and not of a killed command; move it elsewhere")


def _is_picture(path: Path, folder: Path) -> bool:
    """Whether a file has a name that a picture of a seed has."""
    return re.fullmatch(r"(\d{3,}000/)?\d{6,}\.png", path.relative_to(folder).as_posix()) is not None


class SampleWriter(ABC):
    """Writes the raw samples of a request, a batch at a time, within a `with` block.

    Args:
        path: the file or folder.
        model: that gives the transform, the shape and the names of the classes.
        seeds: of all samples.
        cond: their conditions, of which "labels" are class numbers.
        batch: samples in a batch.
        request: what else determines the samples, in JSON types.
    """

    def __init__(
        self,
        path: Path,
        model: Model,
        seeds: Sequence[int],
        cond: Cond | None = None,
        batch: int = 64,
        request: Mapping[str, Any] | None = None,
    ) -> None:
        self.path, self.transform, self.class_names = path, model.transform, model.class_names
        self.sample_shape = model.sample_shape
        self.seeds, self.cond = list(seeds), {k: v.cpu() for k, v in (cond or {}).items()}
        self.batches = Batches(len(self.seeds), batch)
        text = as_ranges(self.seeds)
        if len(text) > _LONG:
            text = f"{len(self.seeds)} of hash {hashlib.sha256(text.encode()).hexdigest()[:16]}"
        facts = {"format": FORMAT, "seeds": text, "batch": batch, **(request or {})}
        self.request: dict[str, Any] = json.loads(json.dumps(facts))
        self.goes_on = False
        self._open = contextlib.ExitStack()

    @property
    def missing(self) -> list[int]:
        """The numbers of the batches that are not there yet, within the block."""
        return [k for k in range(len(self.batches)) if not self._is_there(k)]

    @abstractmethod
    def _is_there(self, number: int) -> bool: ...

    @abstractmethod
    def add(self, number: int, raw: Shaped[Tensor, "batch *dims"]) -> None:
        """Take the samples of a batch."""

    @abstractmethod
    def _begin(self) -> None: ...

    @abstractmethod
    def _end(self, failed: bool) -> None: ...

    def __enter__(self) -> SampleWriter:
        with contextlib.ExitStack() as failing:
            self._open = failing
            self._begin()
            self._open = failing.pop_all()
        return self

    def _take(self, folder: Path) -> None:
        """Make a folder, and be the only one who writes it until the end."""
        self._open.enter_context(owned(folder))

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._open:
            self._end(failed=kind is not None)


class FolderWriter(SampleWriter):
    """Pictures named after their seeds, with `subdirs` in one folder for each thousand seeds.

    Beside them `labels.json` has the classes by name, `conditions.csv` numbers and vectors, as training reads them.

    With `overwrite`, pictures of before stay whole until the end, and are replaced if it is reached without an error:
    those that a command of before has written, as its `samples.json` beside them says. ValueError, before any work is
    done, where the folder cannot be written, or holds something else.
    """

    def __init__(self, *args: Any, overwrite: bool = False, subdirs: bool = False, **options: Any) -> None:
        super().__init__(*args, **options)
        self.subdirs = subdirs
        if subdirs:
            self.request["subdirs"] = True
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("--seeds: names a seed twice, but a folder has one picture for each")
        self._former: list[Path] = []
        self.goes_on = not overwrite and self._is_same()
        if not self.goes_on:
            check_target("--out", self.path, "", overwrite)
            self._former = self._find_former()
        # nobody could distinguish the pictures of two runs in one folder
        self._place = self.path / _NEW if self._former else self.path

    def _find_former(self) -> list[Path]:
        """What a command of before has written; ValueError for a folder that holds anything and is not of one."""
        if not self.path.is_dir() or {path.name for path in self.path.iterdir()} <= {SHORT_LOCK, _NEW}:
            return []
        if _request_in(self.path) is None:
            raise ValueError(
                f"--overwrite: {self.path} is not a folder of samples, with {REQUEST} of `diffspace sample`; delete it "
                "yourself, or choose another folder"
            )
        pictures = (
            path for name in ("*.png", "*/*.png") for path in self.path.glob(name) if _is_picture(path, self.path)
        )
        return [*pictures, *(self.path / name for name in _BESIDE if (self.path / name).is_file())]

    def _is_same(self) -> bool:
        """Whether the folder is of this request; ValueError where it is of another one."""
        marker = self.path / REQUEST
        if not marker.is_file():
            return False
        there, here = (flatten(each) for each in (read_json(marker, format=str), self.request))
        names = [name for name in {**there, **here} if there.get(name) != here.get(name)]
        if names:
            found = (f"{name} was {there.get(name)!s:.80}, now {here.get(name)!s:.80}" for name in names)
            raise ValueError(
                f"--out: {self.path} holds the samples of another request: {'; '.join(found)}; choose another folder, "
                "or add --overwrite to replace them"
            )
        check_place("--out", self.path)
        return True

    def _begin(self) -> None:
        self._take(self.path)
        if _left_over(self.path / _NEW) is not None:
            shutil.rmtree(self.path / _NEW, ignore_errors=True)
        if not self.goes_on:
            with writing(self._place):
                self._place.mkdir(exist_ok=True)
            write_json(self._place / REQUEST, self.request)

    def _name(self, place: int) -> str:
        seed = self.seeds[place]
        folder = f"{seed - seed % _SUBDIR:06d}/" if self.subdirs else ""
        return f"{folder}{seed:06d}.png"

    def _is_there(self, number: int) -> bool:
        return all((self._place / self._name(k)).is_file() for k in self.batches.rows(number))

    def add(self, number: int, raw: Shaped[Tensor, "batch *dims"]) -> None:
        for k, image in zip(self.batches.rows(number), to_stored(raw, self.transform), strict=True):
            place = self._place / self._name(k)
            with writing(place):
                place.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(place) as temporary:
                save_image(temporary, image)

    def _end(self, failed: bool) -> None:
        try:
            there = [k for k in range(len(self.seeds)) if (self._place / self._name(k)).is_file()]
            if there:  # also after an error: the pictures that exist need their labels
                with contextlib.suppress(OSError) if failed else contextlib.nullcontext():
                    self._write_conditions(there)
            else:
                (self._place / REQUEST).unlink(missing_ok=True)
            if not failed and self._former:
                self._replace_former()
        finally:
            if self._former:
                shutil.rmtree(self._place, ignore_errors=True)

    def _write_conditions(self, places: Sequence[int]) -> None:
        names, cond = [self._name(k) for k in places], {name: value[places] for name, value in self.cond.items()}
        labels, vectors = cond.get("labels"), {name: value for name, value in cond.items() if value.ndim == 2}
        if labels is not None and labels.ndim == 1:
            named = [self.class_names[k] if self.class_names else k for k in labels.tolist()]
            write_json(self._place / LABELS, dict(zip(names, named, strict=True)))
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
            write_text(self._place / CONDITIONS, text.getvalue())

    def _replace_former(self) -> None:
        """Put the new pictures in the place of the old ones."""
        new = {self.path / file.relative_to(self._place): file for file in self._place.rglob("*") if file.is_file()}
        for place, file in new.items():
            place.parent.mkdir(exist_ok=True)
            file.replace(place)
        for old in self._former:
            if old not in new:
                old.unlink(missing_ok=True)


class FileWriter(SampleWriter):
    """A grid (.png) or an array (.npz), written at the end.

    If there is more than one batch, they are kept until then in a folder beside the file, `.NAME.parts`, with which the
    same request goes on. `behind` are data to draw behind lines and points. ValueError, before any work is done, where
    the file cannot be written, or exists.
    """

    def __init__(
        self,
        *args: Any,
        overwrite: bool = False,
        columns: int | None = None,
        behind: Tensor | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self.columns, self._behind = columns, behind
        if self.path.suffix not in (".png", ".npz"):
            raise ValueError(f"--out: expected a name that ends in .png or .npz, or a folder, got {self.path}")
        if columns is not None and self.path.suffix != ".png":
            raise ValueError(f"--columns: has no effect on {self.path}; use it with a grid")
        check_target("--out", self.path, self.path.suffix, overwrite)
        several = len(self.batches) > 1
        self._parts = self.path.with_name(f".{self.path.name}.parts") if several else None
        self._raw: dict[int, Tensor] = {}

    def _begin(self) -> None:
        if self._parts is None:
            return
        left_over = _left_over(self._parts)
        self._take(self._parts)
        self.goes_on = left_over == self.request
        if not self.goes_on:
            for part in self._parts.glob("*.npy"):
                part.unlink()
            write_json(self._parts / REQUEST, self.request)

    def _part(self, number: int) -> Path | None:
        return self._parts and self._parts / f"{number:06d}.npy"

    def _is_there(self, number: int) -> bool:
        part = self._part(number)
        return part is not None and part.is_file()

    def add(self, number: int, raw: Shaped[Tensor, "batch *dims"]) -> None:
        self._raw[number] = raw
        part = self._part(number)
        if part is not None:
            with atomic_path(part) as temporary:
                save_array(temporary, raw.numpy())

    def _end(self, failed: bool) -> None:
        if failed:
            return
        for number in range(len(self.batches)):
            part = self._part(number)
            if number not in self._raw and part is not None:
                with reading(part):
                    self._raw[number] = torch.from_numpy(np.load(part, allow_pickle=False))
                    if self._raw[number].shape != (len(self.batches.rows(number)), *self.sample_shape):
                        raise ValueError("is not of this request; delete it")
        self._write(torch.cat([self._raw[number] for number in sorted(self._raw)]))
        if self._parts is not None:
            shutil.rmtree(self._parts, ignore_errors=True)

    def _write(self, raw: Tensor) -> None:
        with atomic_path(self.path) as temporary:
            if self.path.suffix == ".png":
                names, behind = self.class_names, self._behind
                save_samples(temporary, raw, self.transform, self.columns, classes_of(self.cond), names, behind)
                return
            arrays: dict[str, Any] = {"x": raw.numpy(), "seeds": np.asarray(self.seeds)}
            arrays |= {name: value.numpy() for name, value in self.cond.items()}
            if "labels" in self.cond and self.class_names:
                arrays["class_names"] = np.asarray(self.class_names)
            np.savez_compressed(temporary, **arrays)


def sample_writer(
    path: Path,
    model: Model,
    *args: Any,
    columns: int | None = None,
    behind: Tensor | None = None,
    subdirs: bool = False,
    **options: Any,
) -> SampleWriter:
    """The writer of the file or folder that a name asks for; the options are those of the two."""
    if path.suffix:
        if subdirs:
            raise ValueError(f"--subdirs: has no effect on {path}; use it with a folder of pictures")
        return FileWriter(path, model, *args, columns=columns, behind=behind, **options)
    shape = model.sample_shape
    if not is_image(shape):
        raise ValueError(f"--out: samples of shape {tuple(shape)} are not pictures; write them to an .npz")
    if not fits_png(model.transform, shape[0]):
        raise ValueError(f"--out: PNGs would lose bits of samples of {model.transform.dtype}; write them to an .npz")
    if columns is not None:
        raise ValueError(f"--columns: has no effect on {path}; use it with a grid")
    return FolderWriter(path, model, *args, subdirs=subdirs, **options)
