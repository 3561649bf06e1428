"""From a name or a path to a data set, or to the exact denoiser of one."""

from __future__ import annotations

import contextlib
import difflib
import functools
import itertools
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from diffspace.config import build
from diffspace.data.archives import MANIFEST, ImageFolder, ImageZip
from diffspace.data.arrays import ArrayFile
from diffspace.data.dataset import DataSet
from diffspace.data.formats import ArrayImages, CifarArchive, IdxImages, LmdbImages
from diffspace.data.huggingface import HuggingFaceImages
from diffspace.data.latents import LATENTS, Latents
from diffspace.data.stored_images import ImageSource
from diffspace.data.tar_shards import TarShards, is_shard_range
from diffspace.oracles import FiniteData, GaussianMixture, Oracle
from diffspace.parts import MODULE_CLASS, find, kinds


@runtime_checkable
class Source(Protocol):
    """Where data come from, with its options: a frozen dataclass."""

    def load(self) -> DataSet: ...


def make_source(spec: str | Path, **options: Any) -> Source:
    """The source that `spec` names: a name, a path, or hf:owner/name[:split].

    Names are `digits`, the point sets and those that were registered (`config.kinds("source")`); they take precedence
    over files: ./digits is a folder. Paths lead to a folder, a ZIP archive or WebDataset archives (.tar) of images, a
    .npy or .npz file, an archive of CIFAR (.tar.gz), images in IDX form (MNIST), an LMDB folder, Parquet, or a folder
    of latents that `encode_dataset` wrote.

    `options` are the fields of its class (`SwissRoll`, `ImageFolder`, `ArrayFile`, …); None leaves the default.
    ValueError for an option that the source does not have, and for a name or path that does not exist.
    """
    _check_spec(spec)
    if isinstance(spec, str) and _is_name(spec):
        given = {name: value for name, value in options.items() if value is not None}
        source: Source = build(find("source", spec, where="data"), given, "data", spec)
    else:
        source = _at_path(_kind(spec), spec, options)
    return source


def image_source(spec: str | Path, **options: Any) -> ImageSource:
    """The images that `spec` names, as `make_source` reads it, with the options of `ImageSource`."""
    kind = None if isinstance(spec, str) and _is_name(spec) else _kind(spec)
    if kind is ArrayFile:
        kind = ArrayImages
    if kind is None or not issubclass(kind, ImageSource):
        raise ValueError(f"data: {spec} is not a source of images{f', but of {kind.__name__}' if kind else ''}")
    source: ImageSource = _at_path(kind, spec, options)
    return source


def _check_spec(spec: object) -> None:
    if not isinstance(spec, str | os.PathLike):
        got = type(spec).__name__
        raise ValueError(f"data: expected a name or a path, got {got}; numpy.save makes a file of an array")


def _is_name(spec: str) -> bool:
    """Whether a source is a name, or module:Class, and not a path."""
    if spec in kinds("source"):
        return True
    return bool(MODULE_CLASS.fullmatch(spec)) and not spec.startswith("hf:") and not Path(spec).exists()


def _at_path(kind: type, path: str | Path, options: Mapping[str, Any]) -> Any:
    if "path" in options:
        raise ValueError(f"data.path: follows from the source, {path}; leave it out")
    given = {name: value for name, value in options.items() if value is not None}
    return build(kind, {"path": path, **given}, "data", f"{kind.__name__} ({path})")


def load_data(spec: str | Path, **options: Any) -> DataSet:
    """The data set of `make_source(spec, **options)`."""
    return make_source(spec, **options).load()


def _kind(spec: str | Path) -> type:
    """The class of the source at a path."""
    if str(spec).startswith("hf:"):
        return HuggingFaceImages
    if is_shard_range(spec):
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
            return HuggingFaceImages
        return TarShards if ".tar" in inside else ImageFolder
    if path.is_file():
        name = path.name.lower()
        if name.endswith((".npy", ".npz")):
            return ArrayFile
        if name.endswith(".parquet"):
            return HuggingFaceImages
        if name.endswith(".zip"):
            return ImageZip
        if name.endswith(".tar"):
            with path.open("rb") as file:
                return CifarArchive if file.read(6) == b"cifar-" else TarShards
        if name.endswith((".tar.gz", ".tgz")):
            return CifarArchive
        if "idx3" in name:
            return IdxImages
    if path.is_file() and path.suffix in (".yaml", ".yml"):
        raise ValueError(f"data: {spec} is a recipe, not data; give it to `diffspace train` as --recipe {spec}")
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
    raise ValueError(f"data: {str(spec)!r} does not exist; {hint}known names: {', '.join(sorted(kinds('source')))}")


def _suffixes_without_images(path: Path) -> set[str]:
    """The suffixes of the names in a folder; none if there is an image or a folder among them."""
    from diffspace.data.images import image_suffixes

    found = set()
    with contextlib.suppress(OSError), os.scandir(path) as entries:  # an error is reported when the folder is read
        for entry in entries:
            suffix = os.path.splitext(entry.name)[1].lower()
            if entry.name.startswith("."):
                continue
            if suffix in image_suffixes() or entry.is_dir():
                return set()
            found.add(suffix)
    return found


# ---- exact denoisers

_PREFIX = "oracle:"


def _ring() -> Oracle:
    angles = torch.arange(8, dtype=torch.float64, device="cpu") * (math.pi / 4)
    means = torch.stack([angles.cos(), angles.sin()], 1).reshape(8, 1, 1, 2)
    return GaussianMixture(means, stds=torch.full((8,), 0.1, dtype=torch.float64, device="cpu"))


@functools.cache
def _digits_mixture() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    from sklearn.datasets import load_digits
    from sklearn.mixture import GaussianMixture as Fit
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # for products this small, threads take several times as long where others compute too
        fit = Fit(10, covariance_type="full", reg_covar=0.09, random_state=0, max_iter=200)
        fit.fit(load_digits().data / 8 - 1)
    means, covariances, weights = (torch.from_numpy(a) for a in (fit.means_, fit.covariances_, fit.weights_))
    return means, covariances, weights


def _mixture() -> Oracle:
    means, covariances, weights = _digits_mixture()
    return GaussianMixture(means.reshape(-1, 1, 8, 8), weights=weights, covariances=covariances)


def _finite_data(data: str) -> Oracle:
    return FiniteData(load_data(data).batch())


ORACLES: Mapping[str, Callable[[], Oracle]] = {
    "mixture": _mixture,
    "ring": _ring,
    "digits": functools.partial(_finite_data, "digits"),
}
"""The exact denoisers that have a name of their own."""


def is_oracle(name: str) -> bool:
    """Whether `named_oracle` knows this name; ./ring is a folder."""
    return name in ORACLES or name.startswith(_PREFIX)


def named_oracle(name: str) -> Oracle:
    """The exact denoiser of this name, in float64, in the space in which a model would see the data.

    - "mixture": ten Gaussians with full covariances that scikit-learn fits to the digits, samples of shape (1, 8, 8);
      smooth, and of the size of a small picture;
    - "ring": eight equal Gaussians of standard deviation 0.1 on the unit circle, samples of shape (1, 1, 2);
    - "digits": the 1797 digits with equal probability, (1, 8, 8), every end point one of them;
    - "oracle:DATA": the finite data set of any source of `load_data`, a name or a path.
    """
    if name in ORACLES:
        return ORACLES[name]()
    if is_oracle(name):
        return _finite_data(name.removeprefix(_PREFIX))
    raise ValueError(
        f"oracle: expected {', '.join(ORACLES)}, or {_PREFIX}DATA with a path or one of {', '.join(kinds('source'))}, "
        f"got {name!r}"
    )
