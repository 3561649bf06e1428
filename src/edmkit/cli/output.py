"""Where samples go: a grid, a folder of pictures, or an array."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edmkit._shapes import Int, Shaped, Tensor
from edmkit.figures.samples import is_image, save_image, save_samples, to_pixels
from edmkit.files import atomic_path, write_text
from edmkit.transform import Transform

__all__ = ["check_output", "write_output"]


def check_output(path: Path, overwrite: bool, sample_shape: Sequence[int]) -> None:
    """ValueError, before any work is done, where `path` cannot be written or would replace something."""
    if path.suffix not in ("", ".png", ".npz"):
        raise ValueError(f"--out: {path} ends in {path.suffix}; want .png, .npz, or a folder")
    if path.suffix == "" and not is_image(sample_shape):
        raise ValueError(f"--out: samples of shape {tuple(sample_shape)} are no pictures; write them to an .npz")
    if not path.parent.is_dir():
        raise ValueError(f"--out: there is no folder {path.parent}")
    if not path.exists():
        return
    if path.is_dir() != (path.suffix == ""):
        raise ValueError(f"--out: {path} is a {'folder' if path.is_dir() else 'file'}; choose another name")
    if not overwrite and (path.is_file() or any(path.iterdir())):
        raise ValueError(f"--out: {path} exists already; choose another name or add --overwrite")


def write_output(
    path: Path,
    raw: Shaped[Tensor, "batch *dims"],
    transform: Transform,
    seeds: Sequence[int],
    labels: Int[Tensor, "batch"] | None,
    *,
    columns: int | None = None,
) -> None:
    """Write raw samples to `path` in the format that its name asks for."""
    if path.suffix == ".npz":
        arrays: dict[str, Any] = {"x": raw.cpu().numpy(), "seeds": np.asarray(seeds)}
        if labels is not None:
            arrays["labels"] = labels.cpu().numpy()
        with atomic_path(path) as temporary:
            np.savez_compressed(temporary, **arrays)
    elif path.suffix == ".png":
        with atomic_path(path) as temporary:
            save_samples(temporary, raw, transform, columns)
    else:
        path.mkdir(exist_ok=True)
        for seed, image in zip(seeds, to_pixels(raw, transform), strict=True):
            with atomic_path(path / f"{seed:06d}.png") as temporary:
                save_image(temporary, image)
        if labels is not None:
            named = {f"{seed:06d}.png": label for seed, label in zip(seeds, labels.tolist(), strict=True)}
            write_text(path / "labels.json", json.dumps(named, indent=1) + "\n")
