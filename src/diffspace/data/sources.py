"""From a name or a path to a data set."""

from __future__ import annotations

import difflib
import itertools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from diffspace.config import MODULE_CLASS, build, find, kinds
from diffspace.data.arrays import ArrayFile
from diffspace.data.cifar import CifarArchive
from diffspace.data.dataset import DataSet
from diffspace.data.files import MANIFEST
from diffspace.data.folder import ImageFolder, ImageSource, ImageZip
from diffspace.data.hub import HubImages
from diffspace.data.idx import IdxImages
from diffspace.data.latents import LATENTS, Latents
from diffspace.data.lmdb_files import LmdbImages
from diffspace.data.numbered import ArrayImages
from diffspace.data.tar_shards import TarShards, names_shards

__all__ = ["Source", "image_source", "load_data", "make_source"]


@runtime_checkable
class Source(Protocol):
    """Where data come from, with its options: a frozen dataclass."""

    def load(self) -> DataSet: ...


_WHAT: Mapping[type, str] = {
    ImageFolder: "a folder of images",
    ImageZip: "a ZIP archive of images",
    ArrayFile: "an array file",
    ArrayImages: "an array of images",
    CifarArchive: "an archive of CIFAR",
    TarShards: "tar archives of images",
    IdxImages: "an IDX file of images",
    LmdbImages: "an LMDB folder",
    HubImages: "a data set of Hugging Face",
    Latents: "latents",
}


def make_source(spec: str | Path, **options: Any) -> Source:
    """The source that `spec` means: a name, a path, or hf:owner/name[:split].

    Names are `digits`, the point sets and those that were registered (`config.kinds("source")`). Paths are those of a
    folder, a ZIP archive or WebDataset archives (.tar) of images, a .npy or .npz file, an archive of CIFAR (.tar.gz),
    images in IDX form (MNIST), an LMDB folder, Parquet, and a folder of latents that `encode` wrote. A folder called
    like a name is meant by a path such as ./digits.

    `options` are the fields of its class (`SwissRoll`, `ImageFolder`, `ArrayFile`, …); None leaves the default.
    ValueError for an option that the source does not have, and for a name or path that does not exist.
    """
    given = {name: value for name, value in options.items() if value is not None}
    made: Source
    if isinstance(spec, str) and _is_named(spec):
        made = build(find("source", spec, where="data"), given, "data", spec)
    else:
        made = _of_path(_kind(spec), spec, given)
    return made


def _is_named(spec: str) -> bool:
    """Whether a source is a name, or module:Class, and not a path."""
    if spec in kinds("source"):
        return True
    return bool(MODULE_CLASS.fullmatch(spec)) and not spec.startswith("hf:") and not Path(spec).exists()


def _of_path(kind: Any, path: str | Path, options: Mapping[str, Any]) -> Any:
    if "path" in options:
        raise ValueError(f"data.path: follows from the source, {path}; leave it out")
    return build(kind, {"path": path, **options}, "data", f"{_WHAT[kind]} ({path})")


def image_source(spec: str | Path, **options: Any) -> ImageSource:
    """The images that `spec` means, as `make_source` reads it, with the options of `ImageSource`."""
    if isinstance(spec, str) and _is_named(spec):
        raise ValueError(f"data: {spec} is not stored as images")
    kind = _kind(spec)
    if kind is Latents:
        raise ValueError(f"data: {spec} holds latents, and no images")
    given = {name: value for name, value in options.items() if value is not None}
    made: ImageSource = _of_path(ArrayImages if kind is ArrayFile else kind, spec, given)
    return made


def load_data(spec: str | Path, **options: Any) -> DataSet:
    """The data set of `make_source(spec, **options)`."""
    return make_source(spec, **options).load()


def _kind(spec: str | Path) -> Any:
    """The class of the source that a path means."""
    if str(spec).startswith("hf:"):
        return HubImages
    if names_shards(spec):
        return TarShards
    path = Path(spec).expanduser()
    if path.is_dir():
        if (path / "data.mdb").is_file():
            return LmdbImages
        if (path / LATENTS).is_file() and (path / MANIFEST).is_file():
            return Latents
        saved = (path / "dataset_dict.json").is_file() or (path / "dataset_info.json").is_file()
        inside = _suffixes_without_images(path)
        if saved or ".parquet" in inside:
            return HubImages
        return TarShards if ".tar" in inside else ImageFolder
    if path.is_file():
        name = path.name.lower()
        if name.endswith((".npy", ".npz")):
            return ArrayFile
        if name.endswith(".parquet"):
            return HubImages
        if name.endswith(".zip"):
            return ImageZip
        if name.endswith(".tar") and not _begins(path, b"cifar-"):
            return TarShards
        if name.endswith((".tar.gz", ".tgz", ".tar")):
            return CifarArchive
        if "idx3" in name:
            return IdxImages
    if path.exists():
        raise ValueError(
            f"data: {spec} is neither a folder of images nor a file of a known kind: "
            ".zip, .npy, .npz, .tar, .parquet, CIFAR's .tar.gz, MNIST's …-images-idx3-ubyte.gz"
        )
    near = sorted(kinds("source"))
    if path.parent.is_dir():
        near += [str(path.with_name(other.name)) for other in itertools.islice(path.parent.iterdir(), 1000)]
    close = difflib.get_close_matches(str(spec), near, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise ValueError(f"data: there is no {str(spec)!r}; {hint}known names: {', '.join(sorted(kinds('source')))}")


def _suffixes_without_images(path: Path) -> set[str]:
    """How the names in a folder end; nothing where there are images or folders among them, of which one is enough."""
    from diffspace.data.images import image_suffixes

    found = set()
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                suffix = os.path.splitext(entry.name)[1].lower()
                if entry.name.startswith("."):
                    continue
                if suffix in image_suffixes() or entry.is_dir():
                    return set()
                found.add(suffix)
    except OSError:  # which is told when the folder is read
        return set()
    return found


def _begins(path: Path, content: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(content)) == content
