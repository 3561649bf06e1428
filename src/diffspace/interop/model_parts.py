"""The parts of a model that a reader finds in a checkpoint of another code base."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from diffspace._shapes import Tensor
from diffspace.config import from_config
from diffspace.networks import skeleton
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


def make_skeleton(config: Mapping[str, Any], state: Collection[Any]) -> torch.nn.Module:
    """The network of a config without its weights; ValueError where it has far more tensors than `state`."""
    return skeleton(lambda: from_config("network", config), len(state))
