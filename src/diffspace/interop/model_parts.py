"""The parts of a model, as a reader finds them in a checkpoint of another code base."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffspace._shapes import Tensor
from diffspace.preconditioning import Preconditioning


@dataclass(frozen=True)
class ModelParts:
    """A network's config and weights under the names of diffspace, and the preconditioning.

    `ignored` lists what of the file is not in the model, `assumed` what the file does not say.
    """

    format: str
    network: Mapping[str, Any]
    state: Mapping[str, Tensor]
    preconditioning: Preconditioning
    ignored: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
