"""The parts of a model that a reader finds in a checkpoint of another code base."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffspace._shapes import Tensor
from diffspace.preconditioning import Preconditioning


@dataclass(frozen=True)
class ModelParts:
    """A network's config and weights under the names of diffspace, and the preconditioning.

    `ignored` lists the parts of the file that the model does not have, `assumed` the facts that the file lacks.
    """

    format: str
    network: Mapping[str, Any]
    state: Mapping[str, Tensor]
    preconditioning: Preconditioning
    ignored: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
