"""What a reader finds in the checkpoint of another code base."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffspace._shapes import Tensor
from diffspace.preconditioning import Preconditioning

__all__ = ["Checkpoint"]


@dataclass(frozen=True)
class Checkpoint:
    """A network's config and weights under the names of diffspace, and the preconditioning.

    `ignored` lists what of the file is not in the model, `assumed` what the file does not say.
    """

    format: str
    network: Mapping[str, Any]
    state: Mapping[str, Tensor]
    preconditioning: Preconditioning
    ignored: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
