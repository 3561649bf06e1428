"""Latents of an encoder: written once for all trainings on them, and read as a data set."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from diffspace._shapes import Tensor
from diffspace.checks import check_choice, check_integer
from diffspace.data.archives import MANIFEST
from diffspace.data.arrays import ArrayRows
from diffspace.data.dataset import DataSet, ordered_map
from diffspace.data.partial_work import PartialWork, check_destination
from diffspace.data.preparation import versions
from diffspace.data.rows import Rows
from diffspace.data.stored_images import ImageSource
from diffspace.files import (
    atomic_path,
    check_entries,
    file_sha256,
    has_format,
    manifest_text,
    read_bytes,
    read_manifest,
    reading,
    save_array,
    write_text,
    writing,
)
from diffspace.protocols import Encoder
from diffspace.transform import Moments, Transform, channel_moments, standardising

if TYPE_CHECKING:
    import numpy as np

LATENTS, LABELS = "latents.npy", "labels.npy"
_FORMAT = "diffspace latents 1"
_PART = 1000  # images
_ENTRIES = {"format": str, "source": str, "encoder": str, "precision": str, "count": int, "mirror": bool}
_ENTRIES |= {"shape": list, "class_names": list, "shift": list, "scale": list}


@dataclass(frozen=True)
class Encoded:
    """What has been written: latents of shape (C, *dims), the number of images, and the range, mean and variance of the
    channels. `sha256` is the manifest's hash of itself; it stands for everything that was written.
    """

    path: Path
    images: int
    shape: tuple[int, ...]
    moments: Moments
    notes: tuple[str, ...]
    sha256: str


def encode_dataset(
    source: ImageSource,
    encoder: Encoder,
    destination: str | Path,
    *,
    name: str,
    batch_size: int = 32,
    precision: Literal["float16", "float32"] = "float16",
    mirror: bool = False,
    overwrite: bool = False,
    track: Callable[[int, int], None] | None = None,
) -> Encoded:
    """Write `encoder.encode(x)` of the images of a source, x in [−1, 1], to a folder; see `Latents`.

    The folder holds latents.npy, (n, C, *dims), labels.npy if there are labels, and manifest.json with the mean and
    standard deviation of each channel, hashes, the `name` of the encoder and the hash of its parameters. An interrupted
    call is resumed as in `prepare`, by parts of 1000 images.

    ValueError for a destination that exists (unless `overwrite`, and only what was prepared), for work begun with other
    options, data or encoder, and for latents that are not finite or exceed float16.

    Args:
        source: The images.
        encoder: From images to latents; the mean of an encoder that gives a distribution.
        destination: The folder.
        name: What the manifest calls the encoder.
        batch_size: Images encoded at once.
        precision: The type in which latents are stored.
        mirror: Also write the latents of the mirror images: flipping latents does not give them.
        overwrite: Replace what was prepared there before.
        track: Called with the numbers of images done and of all images.
    """
    check_integer("batch_size", batch_size, 1)
    check_choice("precision", precision, ("float16", "float32"))
    target = Path(destination).expanduser()
    if target.suffix:
        raise ValueError(f"destination: expected a folder, got {target}")
    check_destination(target, Path(source.path).expanduser(), overwrite)
    contents = source.open().fingerprint()
    data = dataclasses.replace(source, cache_mb=0).load()
    if data.conditions:
        raise ValueError(
            f"conditions: latents keep class labels alone, not {', '.join(data.conditions)}; "
            "pass classes='none' and no conditions"
        )
    if data.transform.kind == "real":
        raise ValueError(f"{source.path}: images of real numbers have no range from which an encoder could be fed")
    middle = ((data.transform.highest or 0) / 2,)  # of 8 or 16 bits
    data = dataclasses.replace(data, transform=dataclasses.replace(data.transform, shift=middle, scale=middle))
    about = {
        "format": _FORMAT,
        "source": source.name,
        "encoder": name,
        "encoder_sha256": _fingerprint(encoder),
        "options": source.options,
        "batch_size": batch_size,
        "precision": precision,
        "mirror": mirror,
        "versions": versions("torch"),
    }
    place = PartialWork(target)

    def write() -> tuple[Path, Encoded]:
        complete, progress = place.folder / "whole", place.folder / "encoded"
        with reading(progress):
            done = int(read_bytes(progress)) if progress.exists() else 0
        for begin in range(done, len(data), _PART):
            end = min(begin + _PART, len(data))
            batches = torch.split(torch.arange(begin, end, dtype=torch.int64, device="cpu"), batch_size)
            images = ordered_map(data.batch, batches, threads=1, ahead=1)
            part = torch.cat([_encoded(encoder, x, mirror, precision) for x in images], dim=1)
            _store(complete / LATENTS, part, begin, len(data))
            write_text(progress, str(end))
            if track is not None:
                track(end, len(data))
        shape, moments, sha256 = _describe(complete, data, about)
        notes = tuple(note for note in data.notes if "cache_mb" not in note)  # an option that has no effect here
        return complete, Encoded(target, len(data), shape, moments, notes, sha256)

    return place.complete(
        {**about, "contents": contents},
        write,
        lambda: check_destination(target, Path(source.path).expanduser(), overwrite),
    )


def _fingerprint(encoder: Encoder) -> str | None:
    """A hash of the parameters of an encoder that has some, and of what it does with their output."""
    if not isinstance(encoder, torch.nn.Module):
        return None
    digest = hashlib.sha256(repr(getattr(encoder, "statistics", None)).encode())
    for name, value in sorted(encoder.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def _encoded(encoder: Encoder, x: Tensor, mirror: bool, precision: str) -> Tensor:
    """Latents (1 or 2, B, C, *dims), those of the mirror images second."""
    images = [x, x.flip(-1)] if mirror else [x]
    latents = torch.stack([encoder.encode(image).cpu() for image in images])
    kept: Tensor = latents.to(getattr(torch, precision))
    if not bool(torch.isfinite(kept).all()):
        low, high = torch.aminmax(latents)
        raise ValueError(f"precision: {precision} does not hold latents in [{float(low):g}, {float(high):g}]")
    return kept


def _store(path: Path, part: Tensor, begin: int, count: int) -> None:
    """Write latents (copies, B, C, *dims) of the images from number `begin` on into an array for `count` images.

    The latents of mirror images come after all the others.
    """
    import numpy as np

    values = part.numpy()
    if begin == 0:
        path.parent.mkdir(exist_ok=True)
        shape = (len(values) * count, *values.shape[2:])
        with writing(path):
            np.lib.format.open_memmap(path, mode="w+", dtype=values.dtype, shape=shape)
    start = _open_array(path).offset
    with writing(path), path.open("r+b") as file:  # which reports a full disk, where a memory map would end the process
        for copy, some in enumerate(values):
            file.seek(start + (copy * count + begin) * some[0].nbytes)
            file.write(some)
        file.flush()
        os.fsync(file.fileno())


def _describe(folder: Path, data: DataSet, about: Mapping[str, Any]) -> tuple[tuple[int, ...], Moments, str]:
    """Write the labels and the manifest beside the latents; their shape and moments, and the manifest's hash."""
    import numpy as np

    if data.labels is not None:
        with atomic_path(folder / LABELS) as temporary:
            save_array(temporary, data.labels.numpy())
    stored = _open_array(folder / LATENTS)
    moments = channel_moments(torch.from_numpy(np.array(stored[i : i + _PART])) for i in range(0, len(stored), _PART))
    shift, scale = standardising(moments)
    manifest = {
        **about,
        "count": len(data),
        "shape": stored.shape[1:],
        "class_names": data.class_names,
        "mean": moments.mean.tolist(),
        "std": moments.var.sqrt().tolist(),
        "shift": shift,
        "scale": scale,
        "files": {file.name: file_sha256(file) for file in sorted(folder.glob("*.npy"))},
    }
    text = manifest_text(manifest)
    with atomic_path(folder / MANIFEST) as temporary:
        temporary.write_bytes(text)
    return stored.shape[1:], moments, json.loads(text)["sha256"]


@dataclass(frozen=True)
class Latents:
    """The latents in a folder that `encode_dataset` wrote, read through a memory map.

    `Model.decode` leads back to what the encoder gave, and `Encoder.decode` from there to pixels. The mirror images of
    `DataSet.mirrored` are the latents of mirrored images, if they have been written.

    Args:
        path: The folder.
        normalize: "standardize" gives each channel mean 0 and standard deviation 0.5, the sigma_data of the paper, as
            measured on all latents; "none" leaves them as the encoder gave them.
        classes: "none" ignores labels.
    """

    path: str | Path
    normalize: Literal["standardize", "none"] = "standardize"
    classes: Literal["auto", "none"] = "auto"

    def __post_init__(self) -> None:
        check_choice("normalize", self.normalize, ("standardize", "none"))
        check_choice("classes", self.classes, ("auto", "none"))

    def load(self) -> DataSet:
        """Open the array; ValueError if it is not what its manifest says."""
        path = Path(self.path).expanduser()
        content = read_bytes(path / MANIFEST)
        foreign = f"{path / MANIFEST}: is not what `diffspace data encode` wrote"
        try:
            manifest = check_entries(read_manifest(content), **_ENTRIES)
        except ValueError as error:
            raise ValueError(foreign) from error
        if not has_format(manifest["format"], _FORMAT):
            raise ValueError(foreign)
        with reading(path / MANIFEST):  # its lists may hold anything
            return self._open(path, manifest)

    def _open(self, path: Path, manifest: dict[str, Any]) -> DataSet:
        import numpy as np

        array = _open_array(path / LATENTS)
        stored = (manifest["count"] * (2 if manifest["mirror"] else 1), *manifest["shape"])
        if array.shape != stored or str(array.dtype) != manifest["precision"]:
            raise ValueError(
                f"{path / LATENTS}: expected {manifest['precision']} of shape {stored} as {MANIFEST} says, "
                f"got {array.dtype} of shape {array.shape}"
            )
        rows = _LatentRows(array, np.dtype("float32"), path, manifest["count"], manifest["mirror"])
        labels, class_names = None, ()
        if self.classes == "auto" and manifest["class_names"]:
            labels, class_names = torch.from_numpy(_open_array(path / LABELS).copy()), tuple(manifest["class_names"])
        transform = Transform()
        notes = [f"latents of {manifest['source']} by {manifest['encoder']}, stored as {manifest['precision']}"]
        if self.normalize == "standardize":
            transform = Transform(tuple(manifest["shift"]), tuple(manifest["scale"]))
            notes.append("each channel is standardised to mean 0 and standard deviation 0.5")
        return DataSet(path.resolve().name, rows, transform, labels, class_names, tuple(notes))


@dataclass(frozen=True, eq=False)
class _LatentRows(ArrayRows):
    """The latents of images, followed by those of their mirror images if `both`."""

    path: Path
    count: int
    mirror: bool
    both: bool = False

    def __len__(self) -> int:
        return 2 * self.count if self.both else self.count

    def mirrored(self) -> Rows:
        if not self.mirror:
            raise ValueError(f"mirror: {self.path} holds no latents of mirror images; encode them with mirror")
        return dataclasses.replace(self, both=True)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "array": None}  # a memory map would be copied

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, array=_open_array(state["path"] / LATENTS))


def _open_array(path: Path) -> np.memmap[Any, Any]:
    import numpy as np

    with reading(path):
        return np.lib.format.open_memmap(path, mode="r")
