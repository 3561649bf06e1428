"""Checkpoints: the state of a training run in one file, written atomically, read without running code."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from edmkit.files import atomic_path

__all__ = ["read_checkpoint", "write_checkpoint"]


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write nested dicts of tensors and numbers; the old file stays whole until the new one is on disk."""
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint on the CPU; ValueError where it is missing or damaged."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"checkpoint: there is no file {path}") from None
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"checkpoint: {path} is damaged: {str(error).splitlines()[0]}") from None
    return state
