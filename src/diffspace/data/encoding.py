"""From images to the latents of an encoder, written once for all trainings on them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from diffspace._shapes import Tensor
from diffspace.data._options import one_of, whole_number
from diffspace.data.ahead import ahead
from diffspace.data.dataset import DataSet
from diffspace.data.files import MANIFEST
from diffspace.data.folder import ImageSource
from diffspace.data.latents import LABELS, LATENTS, LATENTS_FORMAT
from diffspace.data.manifest import file_sha256, manifest_text
from diffspace.data.moments import Moments, channel_moments, standardising
from diffspace.data.partial_work import PartialWork, check_destination, versions
from diffspace.files import atomic_path
from diffspace.protocols import Encoder

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Encoded", "encode"]

_PART = 1000  # images


@dataclass(frozen=True)
class Encoded:
    """What has been written: latents of shape (C, *dims) of so many images, and the range, mean and variance of their
    channels. `sha256` is the hash that the manifest has of itself; it stands for all that was written.
    """

    path: Path
    images: int
    shape: tuple[int, ...]
    moments: Moments
    notes: tuple[str, ...]
    sha256: str


def encode(
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
    """Write `encoder.encode(x)` of the images of a source, x in [−1, 1], to the folder `destination`; see `Latents`.

    The folder holds latents.npy, (n, C, *dims) in `precision`, labels.npy where there are labels, and manifest.json
    with the mean and standard deviation of each channel, hashes, the `name` of the encoder and the hash of its
    parameters. Of an encoder that is uncertain the mean is taken. `mirror` adds the latents of the mirror images, for
    flipping latents does not give them.

    The destination appears when it is whole; the same call takes up an interrupted one, as in `prepare`. `track(done,
    all)` is told how far it is.

    Errors: ValueError for a destination that exists (unless `overwrite`, and only what was prepared), for work begun
    with other options, data or encoder, and for latents that are not finite or that float16 does not hold.
    """
    whole_number("batch_size", batch_size, least=1)
    one_of("precision", precision, ("float16", "float32"))
    target = Path(destination).expanduser()
    if target.suffix:
        raise ValueError(f"destination: {target} ends in {target.suffix}; want a folder")
    check_destination(target, Path(source.path).expanduser(), overwrite)
    contents = source.files().fingerprint()
    data = dataclasses.replace(source, cache_mb=0).load()
    says = {
        "format": LATENTS_FORMAT,
        "source": source.name,
        "encoder": name,
        "encoder_sha256": _fingerprint(encoder),
        "options": _options(source),
        "batch_size": batch_size,
        "precision": precision,
        "mirror": mirror,
        "versions": versions("torch"),
    }
    place = PartialWork(target)
    place.begin({**says, "contents": contents})
    try:
        parts = list(_parts(place.folder, data, encoder, batch_size, precision, mirror, track))
    except ValueError:
        place.abandon()
        raise
    whole = place.folder / "whole"
    if whole.exists():  # of a run that was killed
        shutil.rmtree(whole)
    whole.mkdir()
    shape, moments = _join(parts, len(data), whole / LATENTS)
    if data.labels is not None:
        _save(whole / LABELS, data.labels.numpy())
    shift, scale = standardising(moments)
    text = manifest_text(
        {
            **says,
            "count": len(data),
            "shape": list(shape),
            "class_names": list(data.class_names),
            "mean": moments.mean.tolist(),
            "std": moments.var.sqrt().tolist(),
            "shift": shift,
            "scale": scale,
            "files": {file.name: file_sha256(file) for file in sorted(whole.glob("*.npy"))},
        }
    )
    (whole / MANIFEST).write_bytes(text)
    place.finish(whole)
    notes = tuple(note for note in data.notes if "cache_mb" not in note)  # which is of no concern here
    return Encoded(target, len(data), shape, moments, notes, json.loads(text)["sha256"])


def _options(source: ImageSource) -> dict[str, Any]:
    names = ("size", "crop", "channels", "classes", "on_error")
    options = {name: getattr(source, name) for name in names}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}


def _fingerprint(encoder: Encoder) -> str | None:
    """A hash of the parameters of an encoder that has some, and of what it does with their output."""
    if not isinstance(encoder, torch.nn.Module):
        return None
    digest = hashlib.sha256(repr(getattr(encoder, "statistics", None)).encode())
    for name, value in sorted(encoder.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _parts(
    folder: Path,
    data: DataSet,
    encoder: Encoder,
    batch_size: int,
    precision: str,
    mirror: bool,
    track: Callable[[int, int], None] | None,
) -> Iterator[Path]:
    """Files of (1 or 2, some, C, *dims), those of a thousand images in each, written unless an earlier run did so."""
    for begin in range(0, len(data), _PART):
        path, end = folder / f"{begin // _PART:05d}.npy", min(begin + _PART, len(data))
        if not path.exists():
            batches = torch.split(torch.arange(begin, end), batch_size)
            some = [_encoded(encoder, x, mirror, precision) for x in ahead(data.batch, batches, 1)]
            _save(path, torch.cat(some, dim=1).numpy())
        if track is not None:
            track(end, len(data))
        yield path


@torch.no_grad()
def _encoded(encoder: Encoder, x: Tensor, mirror: bool, precision: str) -> Tensor:
    images = [x, x.flip(-1)] if mirror else [x]
    latents = torch.stack([encoder.encode(image).cpu() for image in images])
    kept: Tensor = latents.to(getattr(torch, precision))
    if not bool(torch.isfinite(kept).all()):
        low, high = torch.aminmax(latents)
        raise ValueError(f"precision: {precision} does not hold latents in [{float(low):g}, {float(high):g}]")
    return kept


def _save(path: Path, array: np.ndarray[Any, Any]) -> None:
    import numpy as np

    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, array)


def _join(parts: list[Path], count: int, target: Path) -> tuple[tuple[int, ...], Moments]:
    """One array of all latents, those of the mirror images after the others; their shape, and their moments."""
    import numpy as np

    first = np.load(parts[0], mmap_mode="r")
    copies, _, *shape = first.shape
    with atomic_path(target) as temporary:
        whole = np.lib.format.open_memmap(temporary, mode="w+", dtype=first.dtype, shape=(copies * count, *shape))

        def chunks() -> Iterator[Tensor]:
            for number, part in enumerate(parts):
                for copy, some in enumerate(np.load(part)):
                    begin = copy * count + number * _PART
                    whole[begin : begin + len(some)] = some
                    yield torch.from_numpy(some)

        moments = channel_moments(chunks())
        whole.flush()
    return tuple(shape), moments
