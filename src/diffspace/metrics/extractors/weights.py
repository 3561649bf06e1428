"""Weights that others publish: found on this machine, compared with their checksum, and read without executing them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from diffspace._shapes import Tensor
from diffspace.checks import first_line
from diffspace.files import file_sha256, missing_path, reading
from diffspace.pickles import read_pickle
from diffspace.tensors import plain_defaults

DOWNLOAD = "download"
"""The word, in place of a path, that allows a download."""

_Network = TypeVar("_Network", bound=nn.Module)


@dataclass(frozen=True)
class PublishedWeights:
    """A file on the web: its name in torch.hub's cache, `also` other names of it there, SHA-256, address and size."""

    file: str
    sha256: str
    url: str
    megabytes: int
    also: tuple[str, ...] = ()

    def find(self, weights: str | Path | None = None) -> Path:
        """The file at the path `weights`; for None in torch.hub's cache; for "download" there, downloaded if missing.

        ValueError, which says how to get it on a machine without network, where it is missing.
        """
        if weights not in (None, DOWNLOAD):
            path = Path(weights).expanduser() if weights else Path()
            if not path.is_file():
                raise ValueError(f"weights: there is no file {missing_path(path)}")
            return path
        cache = Path(torch.hub.get_dir()) / "checkpoints"
        for name in (self.file, *self.also):
            if (cache / name).is_file():
                return cache / name
        path = cache / self.file
        if weights is None:
            raise ValueError(
                f'weights: {path} is missing; pass weights="download" (--weights download; {self.megabytes} MB) or, '
                f"without network, the path of a copy of {self.url}"
            )
        print(f"downloading {self.url} ({self.megabytes} MB) to {cache}", file=sys.stderr)
        try:
            cache.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(self.url, str(path), hash_prefix=self.sha256, progress=False)
        except (OSError, RuntimeError) as error:
            raise ValueError(
                f"weights: cannot be downloaded: {first_line(error)}; pass the path of a copy of {self.url}"
            ) from None
        return path

    def read(self, weights: str | Path | None = None) -> Mapping[str, Tensor]:
        """The state dict, read by diffspace's own reader of pickles; ValueError if the checksum differs."""
        path = self.find(weights)
        with reading(path, "weights"):
            found = file_sha256(path)
            if found != self.sha256:
                raise ValueError(f"{path}: expected {self.file} with SHA-256 {self.sha256[:16]}…, got {found[:16]}…")
            state: Mapping[str, Tensor] = read_pickle(path)
        return state


def load_state(make: Callable[[], _Network], state: Mapping[str, Tensor]) -> _Network:
    """The network, with these tensors, in evaluation mode and frozen; ValueError if they are not all of its own."""
    with plain_defaults("meta"):
        network = make()
    try:
        network.load_state_dict(dict(state), assign=True)
    except RuntimeError as error:
        raise ValueError(
            f"weights: are not those of {type(network).__name__}: {' '.join(str(error).split())}"
        ) from None
    return network.eval().requires_grad_(False)
