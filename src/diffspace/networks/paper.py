"""The networks of the paper's experiments (Table 7), by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffspace.networks.unet import ADM, DDPMpp, NCSNpp, UNet

__all__ = ["PAPER_NETWORKS", "paper_network"]

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
"""The class of each network and the options in which it departs from the defaults."""


def paper_network(name: str, **options: Any) -> UNet:
    """The network of one of the paper's experiments, with fresh weights; `options` replace its own.

    "cifar10-ddpmpp", "cifar10-ncsnpp" (both also with "-cond"), "ffhq64-ddpmpp", "ffhq64-ncsnpp", "afhqv2-64-ddpmpp",
    "afhqv2-64-ncsnpp" and "imagenet64-adm".
    """
    if name not in PAPER_NETWORKS:
        raise ValueError(f"name: {name!r}; want one of {', '.join(PAPER_NETWORKS)}")
    make, own = PAPER_NETWORKS[name]
    return make(**{**own, **options})
