"""The folder of a run: the names in it, what must not be there, and what is written for a look."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from diffspace.averages.posthoc import SNAPSHOTS
from diffspace.checks import first_line
from diffspace.files import atomic_path
from diffspace.locking import LOCK
from diffspace.train import hooks
from diffspace.train.checkpoint import CHECKPOINTS

RECIPE, LOG, BEST = "recipe.yaml", "log.jsonl", "best"


@contextlib.contextmanager
def fitting(path: Path) -> Iterator[None]:
    """Around what reads the state in a checkpoint, which may be of another model or made by others."""
    try:
        yield
    except (RuntimeError, KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ValueError(f"resume: {path} does not fit {RECIPE}: {first_line(error)}") from None


def check_links(folder: Path) -> None:
    """ValueError where a part of a run's folder is a link: two runs may lead there, and would remove one another's."""
    for name in (LOG, CHECKPOINTS, SNAPSHOTS, hooks.PREVIEWS, BEST, "tensorboard", "wandb"):
        if (folder / name).is_symlink():
            raise ValueError(f"folder: {folder / name} is a symbolic link; link the whole folder of the run instead")


def make_folder(folder: Path) -> None:
    """A new empty folder for a run; ValueError where something is there already."""
    if folder.exists() and (not folder.is_dir() or any(path.name != LOCK for path in folder.iterdir())):
        raise ValueError(f"out: {folder} exists already; choose another folder with --out, or go on with --resume")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"out: {folder} cannot be made: {error.strerror}") from None


def keep_batch(path: Path, parts: Mapping[str, Any]) -> None:
    """Write what a step was made of, whole or not at all."""
    content = io.BytesIO()
    torch.save(dict(parts), content)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.getbuffer())
