"""Images for tests: PNGs and archives of them, written with Pillow and zipfile alone."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image


def pixels(count: int, *shape: int, seed: int = 0) -> np.ndarray:
    """Random bytes (count, *shape)."""
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def png(image: np.ndarray, **options) -> bytes:
    """A PNG of pixels (H, W) or (H, W, C)."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", **options)
    return file.getvalue()


def write_zip(path: Path, members: dict[str, bytes | str], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def as_the_reference(images: np.ndarray, labels: list | None) -> dict[str, bytes | str]:
    """The members of a data set as the reference's dataset_tool.py writes it."""
    members: dict[str, bytes | str] = {
        f"{i:08d}"[:5] + f"/img{i:08d}.png": png(image, compress_level=0) for i, image in enumerate(images)
    }
    pairs = None if labels is None else [list(pair) for pair in zip(members, labels, strict=True)]
    return {**members, "dataset.json": json.dumps({"labels": pairs})}
