"""The content of a foreign file, whatever its format, with nothing in it executed."""

from __future__ import annotations

import hashlib
import mmap
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch

from diffspace.interop.pickles import Budget, Refusal, unpickle
from diffspace.interop.stand_ins import stand_ins

__all__ = ["read_content", "sha256"]

_ZIP = b"PK\x03\x04"
_LEGACY = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""The first pickle of torch.save before it wrote zip files, after its protocol."""


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_content(path: Path) -> Any:
    """What a .pkl, .pt, .pth or .safetensors file holds, told by its first bytes. ValueError where that fails."""
    with path.open("rb") as file:
        head = file.read(16)
        if head.startswith(_ZIP) or head[2:].startswith(_LEGACY):
            file.seek(0)
            return _read_torch(file)
        if head.startswith(b"\x80"):
            return _read_pickle(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
    return _read_safetensors(path)


def _read_pickle(view: memoryview) -> Any:
    budget = Budget(len(view))
    content, _ = unpickle(view, stand_ins(budget), budget)
    return content


def _read_torch(file: BinaryIO) -> Any:
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # of damaged files torch raises nearly every kind
        told = re.search(r"(?:WeightsUnpickler error: )?(.*?)(?:\. Please|$)", str(error).split("\n\t")[-1])
        reason = told[1] if told and told[1] else type(error).__name__
        raise Refusal(f"is not read by torch.load(weights_only=True): {reason}") from None
    _check_storages(content)
    return content


def _check_storages(content: Any) -> None:
    """Refusal where tensors hold much more than the storages that they lie in, as strides of 0 let a small file do."""
    tensors, waiting, seen = list[torch.Tensor](), [content], set[int]()
    while waiting:
        value = waiting.pop()
        if isinstance(value, torch.Tensor):
            tensors.append(value)
        elif isinstance(value, Mapping | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            waiting.extend(value.values() if isinstance(value, Mapping) else value)
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors if t.numel()}
    if sum(t.numel() * t.itemsize for t in tensors) > 2 * sum(storages.values()):
        raise Refusal("has tensors that hold more than the file does")


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise Refusal(f"is neither a pickle, nor a file of torch.save, nor safetensors: {error}") from None
