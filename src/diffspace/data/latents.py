"""Latents that an encoder has written, as a data set."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from diffspace._shapes import Float, Int, Tensor
from diffspace.data._options import one_of
from diffspace.data.dataset import DataSet, Rows
from diffspace.data.files import MANIFEST
from diffspace.data.manifest import manifest_text
from diffspace.files import has_format
from diffspace.transform import Transform

if TYPE_CHECKING:
    import numpy as np

__all__ = ["LABELS", "LATENTS", "LATENTS_FORMAT", "Latents"]

LATENTS, LABELS = "latents.npy", "labels.npy"
LATENTS_FORMAT = "diffspace latents 1"
_HOLDS = {
    **dict.fromkeys(("format", "source", "encoder", "precision"), str),
    **dict.fromkeys(("shape", "class_names", "shift", "scale"), list),
    "count": int,
    "mirror": bool,
}


@dataclass(frozen=True)
class Latents:
    """The latents in a folder that `encode` wrote, read through a memory map.

    - `normalize`: "standardize" gives each channel mean 0 and standard deviation 0.5, the sigma_data of the paper, by
      what was measured on all of them; "none" leaves them as the encoder gave them.
    - `classes`: "none" leaves labels out.

    `Model.decode` leads back to what the encoder gave, and `Encoder.decode` from there to pixels. The mirror images of
    `DataSet.mirrored` are the latents of mirrored images, where they have been written.
    """

    path: str | Path
    normalize: Literal["standardize", "none"] = "standardize"
    classes: Literal["auto", "none"] = "auto"

    def __post_init__(self) -> None:
        one_of("normalize", self.normalize, ("standardize", "none"))
        one_of("classes", self.classes, ("auto", "none"))

    def load(self) -> DataSet:
        """Open the array; ValueError where it is not what its manifest says."""
        path = Path(self.path).expanduser()
        manifest = _manifest(path)
        rows = _LatentRows(path, _array(path / LATENTS), manifest["count"], manifest["mirror"])
        rows.check(manifest["shape"], manifest["precision"])
        labels, class_names = None, ()
        if self.classes == "auto" and manifest["class_names"]:
            labels, class_names = torch.from_numpy(_array(path / LABELS).copy()), tuple(manifest["class_names"])
        shift, scale = (0.0,), (1.0,)
        if self.normalize == "standardize":
            shift, scale = tuple(manifest["shift"]), tuple(manifest["scale"])
        notes = [f"latents of {manifest['source']} by {manifest['encoder']}, kept as {manifest['precision']}"]
        if self.normalize == "standardize":
            notes.append("each channel is standardised to mean 0 and standard deviation 0.5")
        name = path.resolve().name
        return DataSet(name, rows, Transform(shift, scale), labels, class_names, tuple(notes))


@dataclass(frozen=True, eq=False)
class _LatentRows:
    """The latents of images, and where they were written those of their mirror images after them."""

    path: Path
    array: np.ndarray[Any, Any]
    count: int
    mirror: bool
    both: bool = False

    def check(self, shape: list[int], precision: str) -> None:
        stored = (self.count * (2 if self.mirror else 1), *shape)
        if self.array.shape != stored or str(self.array.dtype) != precision:
            raise ValueError(
                f"{self.path / LATENTS}: {self.array.dtype} of shape {self.array.shape}; "
                f"{MANIFEST} says {precision} of shape {stored}"
            )

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape[1:])

    def __len__(self) -> int:
        return 2 * self.count if self.both else self.count

    def read(self, indices: Int[Tensor, "batch"]) -> Float[Tensor, "batch *dims"]:
        return torch.from_numpy(self.array[indices.numpy()]).to(torch.float32)

    def mirrored(self) -> Rows:
        if not self.mirror:
            raise ValueError(f"mirror: {self.path} holds no latents of mirror images; encode them with mirror")
        return _LatentRows(self.path, self.array, self.count, self.mirror, both=True)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "array": None}  # a memory map would be copied

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, array=_array(state["path"] / LATENTS))


def _array(path: Path) -> np.ndarray[Any, Any]:
    import numpy as np

    try:
        return np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or ("holds Python objects" if "object" in str(error) else error)
        raise ValueError(f"{path}: cannot be read: {reason}") from None


def _manifest(path: Path) -> dict[str, Any]:
    try:
        text = (path / MANIFEST).read_bytes()
        manifest: dict[str, Any] = json.loads(text)
        whole = text == manifest_text({name: value for name, value in manifest.items() if name != "sha256"})
    except OSError as error:
        raise ValueError(f"{path / MANIFEST}: cannot be read: {error.strerror}") from None
    except (ValueError, AttributeError, RecursionError):
        whole = False
    if not whole or any(not isinstance(manifest.get(key), kind) for key, kind in _HOLDS.items()):
        whole = False
    if not whole or not has_format(manifest["format"], LATENTS_FORMAT):
        raise ValueError(f"{path / MANIFEST}: is not what `diffspace data encode` wrote")
    return manifest
