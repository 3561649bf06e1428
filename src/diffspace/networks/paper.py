"""The networks of the paper's experiments (Table 7), by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffspace.checks import check_choice
from diffspace.networks.unet import ADM, DDPMpp, NCSNpp, UNet

_CIFAR10: dict[str, Any] = {"shape": (3, 32, 32), "augment_dim": 9, "dropout": 0.13}
_WIDE_64: dict[str, Any] = {"shape": (3, 64, 64), "augment_dim": 9, "channel_mult": (1, 2, 2, 2)}
_FFHQ: dict[str, Any] = {**_WIDE_64, "dropout": 0.05}
_AFHQ: dict[str, Any] = {**_WIDE_64, "dropout": 0.25}

PAPER_NETWORKS: Mapping[str, tuple[type[UNet], Mapping[str, Any]]] = {
    "cifar10-ddpmpp": (DDPMpp, _CIFAR10),
    "cifar10-ddpmpp-cond": (DDPMpp, {**_CIFAR10, "label_dim": 10}),
    "cifar10-ncsnpp": (NCSNpp, _CIFAR10),
    "cifar10-ncsnpp-cond": (NCSNpp, {**_CIFAR10, "label_dim": 10}),
    "ffhq64-ddpmpp": (DDPMpp, _FFHQ),
    "ffhq64-ncsnpp": (NCSNpp, _FFHQ),
    "afhqv2-64-ddpmpp": (DDPMpp, _AFHQ),
    "afhqv2-64-ncsnpp": (NCSNpp, _AFHQ),
    "imagenet64-adm": (ADM, {"shape": (3, 64, 64), "label_dim": 1000, "dropout": 0.1}),
}
"""The class of each network and the options that differ from its defaults."""


def paper_network(name: str, **options: Any) -> UNet:
    """A key of `PAPER_NETWORKS` as a network with new weights; `options` replace those of the paper."""
    check_choice("name", name, PAPER_NETWORKS)
    network, paper_options = PAPER_NETWORKS[name]
    return network(**{**paper_options, **options})
