"""From a name or a path to a data set."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from edmkit.data.arrays import ArrayFile
from edmkit.data.dataset import DataSet
from edmkit.data.digits import Digits
from edmkit.data.folder import ImageFolder
from edmkit.data.points import Checkerboard, EightGaussians, SwissRoll, TwoMoons

__all__ = ["SOURCES", "Source", "load_data", "make_source"]


@runtime_checkable
class Source(Protocol):
    """Where data come from, with its options: a frozen dataclass."""

    def load(self) -> DataSet: ...


SOURCES: Mapping[str, type[Digits | SwissRoll | TwoMoons | Checkerboard | EightGaussians]] = {
    "digits": Digits,
    "swissroll": SwissRoll,
    "two-moons": TwoMoons,
    "checkerboard": Checkerboard,
    "eight-gaussians": EightGaussians,
}
"""The data sets that have a name; all else is a path."""


def make_source(spec: str | Path, **options: Any) -> Source:
    """The source that `spec` means: a name of `SOURCES`, a folder of images, or a .npy or .npz file.

    `options` are the fields of its class (`SwissRoll`, `ImageFolder`, `ArrayFile`, …); an option that is None
    is left at its default. ValueError for an option that the source does not have, and for a name or path
    that does not exist, with the nearest one that does. A folder or file called like a name of `SOURCES` is
    meant by a path such as ./digits.
    """
    given = {
        name: tuple(value) if isinstance(value, list) else value  # files and command lines have lists only
        for name, value in options.items()
        if value is not None
    }
    kind: Any
    if isinstance(spec, str) and spec in SOURCES:
        kind, path, what = SOURCES[spec], {}, spec
    else:
        kind, path = _of_path(Path(spec).expanduser(), str(spec)), {"path": spec}
        what = "a folder of images" if kind is ImageFolder else "an array file"
    known = [field.name for field in fields(kind) if field.name != "path"]
    for name in given:
        if name not in known:
            from edmkit.registry import nearest

            hint = nearest(name, known) if known else "it has no options"
            raise ValueError(f"{name}: not an option of {what} ({spec}); {hint}")
    source: Source = kind(**path, **given)
    return source


def load_data(spec: str | Path, **options: Any) -> DataSet:
    """The data set of `make_source(spec, **options)`."""
    return make_source(spec, **options).load()


def _of_path(path: Path, spec: str) -> type[ImageFolder | ArrayFile]:
    if path.is_dir():
        return ImageFolder
    if path.suffix.lower() in (".npy", ".npz") and path.is_file():
        return ArrayFile
    if path.exists():
        raise ValueError(f"data: {spec} is neither a folder of images nor a .npy or .npz file")
    near = sorted(SOURCES)
    if path.parent.is_dir():
        near += [str(path.with_name(other.name)) for other in itertools.islice(path.parent.iterdir(), 1000)]
    close = difflib.get_close_matches(spec, near, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise ValueError(f"data: there is no {spec!r}; {hint}known names: {', '.join(sorted(SOURCES))}")
