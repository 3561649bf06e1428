"""What every network is told beside x: the noise level, a class, augmentation parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from edmkit._shapes import Float, Tensor
from edmkit.networks.layers import PositionalEmbedding, linear
from edmkit.protocols import Cond

__all__ = ["ConditionedNetwork", "require_int", "require_ints", "require_probability"]


def require_int(name: str, value: int, least: int) -> None:
    """ValueError unless `value` is an integer of at least `least`."""
    if not isinstance(value, int) or value < least:
        raise ValueError(f"{name}: {value!r}; want an integer of at least {least}")


def require_ints(name: str, values: Sequence[int]) -> None:
    """ValueError unless `values` holds one or more integers, all positive."""
    if not values or not all(isinstance(value, int) and value > 0 for value in values):
        raise ValueError(f"{name}: {tuple(values)}; want one or more positive integers")


def require_probability(name: str, value: float) -> None:
    """ValueError unless `value` is in [0, 1)."""
    if not 0 <= value < 1:
        raise ValueError(f"{name}: {value!r}; want a number in [0, 1)")


class ConditionedNetwork(nn.Module):
    """The base of the networks: it turns c_noise, "labels" and "augment" into one embedding vector.

    emb = silu(W₁·silu(W₀·(positional(c_noise) + √label_dim·W_l·label + b_l + W_a·augment) + b₀) + b₁).
    Labels are class indices (B,) or vectors (B, label_dim); in training, each sample's label is dropped with
    probability `label_dropout`. A missing condition is zeros.

    `config` holds every argument of the constructor, JSON-able: `type(network)(**network.config)` builds the
    network again. `conditions` are the names of the conditions that it takes.
    """

    config: dict[str, Any]

    def __init__(
        self,
        *,
        noise_channels: int,
        emb_channels: int,
        label_dim: int,
        augment_dim: int,
        label_dropout: float,
    ) -> None:
        super().__init__()
        require_int("label_dim", label_dim, 0)
        require_int("augment_dim", augment_dim, 0)
        require_probability("label_dropout", label_dropout)
        if label_dropout and not label_dim:
            raise ValueError(f"label_dropout: {label_dropout} has no effect where label_dim is 0")
        self.label_dim = label_dim
        self.augment_dim = augment_dim
        self.label_dropout = label_dropout
        dims = {"labels": label_dim, "augment": augment_dim}
        self.conditions = tuple(name for name, dim in dims.items() if dim)
        self.map_noise = PositionalEmbedding(noise_channels)
        self.map_label = linear(label_dim, noise_channels) if label_dim else None
        self.map_augment = linear(augment_dim, noise_channels, bias=False) if augment_dim else None
        self.map_layer0 = linear(noise_channels, emb_channels)
        self.map_layer1 = linear(emb_channels, emb_channels)

    def embed(self, batch: int, c_noise: Float[Tensor, "batch"], cond: Cond) -> Float[Tensor, "batch emb"]:
        """The embedding vectors of a batch; ValueError for a wrong shape."""
        if c_noise.shape != (batch,):
            raise ValueError(f"c_noise: shape {tuple(c_noise.shape)}; want ({batch},), one for each sample of x")
        emb = self.map_noise(c_noise).to(self.map_layer0.weight.dtype)
        if self.map_label is not None:
            emb = emb + self.map_label(self._label_vectors(cond, emb) * math.sqrt(self.label_dim))
        if self.map_augment is not None and "augment" in cond:
            augment, shape = cond["augment"], (batch, self.augment_dim)
            if augment.shape != shape:
                raise ValueError(f"augment: shape {tuple(augment.shape)}; want {shape}")
            emb = emb + self.map_augment(augment.to(emb.dtype))
        emb = F.silu(self.map_layer0(emb))
        return F.silu(self.map_layer1(emb))

    def _label_vectors(self, cond: Cond, emb: Tensor) -> Tensor:
        """The labels as vectors (B, label_dim) like emb: zeros where they are missing or dropped."""
        batch = len(emb)
        if "labels" not in cond:
            return emb.new_zeros(batch, self.label_dim)
        labels = cond["labels"]
        if labels.shape == (batch,) and not labels.dtype.is_floating_point:
            vectors = self._one_hot(labels.long())
        elif labels.shape == (batch, self.label_dim):
            vectors = labels
        else:
            raise ValueError(
                f"labels: shape {tuple(labels.shape)}, {labels.dtype}; want integers of shape ({batch},) or "
                f"vectors of shape ({batch}, {self.label_dim})"
            )
        vectors = vectors.to(emb.dtype)
        if self.training and self.label_dropout:
            vectors = vectors * (torch.rand(batch, 1, device=emb.device) >= self.label_dropout)
        return vectors

    def _one_hot(self, indices: Tensor) -> Tensor:
        # on other devices a look at the values would wait for them; there one_hot itself fails
        if indices.device.type == "cpu" and indices.numel() and not torch.compiler.is_compiling():
            low, high = (int(index) for index in indices.aminmax())
            if low < 0 or high >= self.label_dim:
                wrong = low if low < 0 else high
                raise ValueError(f"labels: {wrong}; want class indices from 0 to {self.label_dim - 1}")
        return F.one_hot(indices, self.label_dim)
