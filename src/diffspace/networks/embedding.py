"""The base of the networks: embeds the noise level, a class and augmentation parameters."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from diffspace._shapes import Float, Int, Tensor
from diffspace.checks import check_integer, check_number
from diffspace.networks.layers import Init, xavier
from diffspace.protocols import Cond, check_cond
from diffspace.tensors import are_values_hidden


def check_sizes(name: str, values: Sequence[int]) -> None:
    """Check that `values` holds one or more positive integers."""
    if not values:
        raise ValueError(f"{name}: expected one or more positive integers, got none")
    for value in values:
        check_integer(name, value, 1)


def check_shape(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tensor.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {tuple(tensor.shape)}")


def check_classes(indices: Int[Tensor, "batch"], classes: int) -> None:
    """Check that class indices are below the number of classes, where that does not wait for a device.

    On other devices the embedding itself fails.
    """
    if indices.device.type == "cpu" and indices.numel() and not are_values_hidden():
        low, high = (int(index) for index in indices.aminmax())
        if low < 0 or high >= classes:
            wrong = low if low < 0 else high
            raise ValueError(f"labels: expected class indices from 0 to {classes - 1}, got {wrong}")


def config_of(network: type[nn.Module], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a network's constructor, taken from `arguments`, with sequences as lists."""
    values = ((name, arguments[name]) for name in inspect.signature(network).parameters)
    return {name: list(v) if isinstance(v, Sequence) and not isinstance(v, str) else v for name, v in values}


UNTRAINED_NULL = "it was trained with labels only (label_dropout 0): pass them, or train with network.label_dropout=0.1"


class ConditionedNetwork(nn.Module):
    """The base of the networks: maps c_noise, "labels" and "augment" to one embedding vector.

    emb = silu(W₁·silu(W₀·(map_noise(c_noise) + √label_dim·W_l·label + b_l + W_a·augment) + b₀) + b₁), or with
    `late_labels` silu(W₁·silu(W₀·(map_noise(c_noise) + W_a·augment) + b₀) + b₁ + W_l·label).
    Labels are class indices (B,) or vectors (B, label_dim); in training, each sample's label is dropped with
    probability `label_dropout`. Missing labels are zeros, the null condition, which only a network with `label_dropout`
    is trained on (`null_trained`); others require labels, except in training. A missing "augment" is zeros.

    `config` holds every argument of the constructor in JSON types: `type(network)(**network.config)` builds the same
    network. `conditions` are the names of the conditions that it accepts, and `required` those without which it is not
    evaluated, each with what to do instead.
    """

    config: dict[str, Any]

    def __init__(
        self,
        map_noise: nn.Module,
        *,
        noise_channels: int,
        emb_channels: int,
        label_dim: int,
        augment_dim: int,
        label_dropout: float,
        init: Init = xavier,
        late_labels: bool = False,
    ) -> None:
        super().__init__()
        check_integer("label_dim", label_dim, 0)
        check_integer("augment_dim", augment_dim, 0)
        check_number("label_dropout", label_dropout, "[0, 1)")
        if label_dropout and not label_dim:
            raise ValueError(f"label_dropout: {label_dropout} has no effect if label_dim is 0")
        self.label_dim, self.augment_dim, self.emb_channels = label_dim, augment_dim, emb_channels
        self.label_dropout, self.late_labels = label_dropout, late_labels
        dims = {"labels": label_dim, "augment": augment_dim}
        self.conditions = tuple(name for name, dim in dims.items() if dim)
        self.required = {} if self.null_trained else {"labels": UNTRAINED_NULL}
        self.map_noise = map_noise
        self.map_label: nn.Linear | None = None
        if label_dim and late_labels:
            self.map_label = nn.Linear(label_dim, emb_channels, bias=False)
            nn.init.normal_(self.map_label.weight)
        elif label_dim:
            self.map_label = init(nn.Linear(label_dim, noise_channels))
        self.map_augment = init(nn.Linear(augment_dim, noise_channels, bias=False)) if augment_dim else None
        self.map_layer0 = init(nn.Linear(noise_channels, emb_channels))
        self.map_layer1 = init(nn.Linear(emb_channels, emb_channels))

    @property
    def null_trained(self) -> bool:
        """Whether the network is trained without labels too; True if it has none."""
        return not self.label_dim or self.label_dropout > 0

    def check_cond(self, cond: Cond | None) -> Cond:
        """The conditions as a mapping; ValueError for one that is unknown, and for one that is required and missing."""
        required = {name: remedy for name, remedy in self.required.items() if name != "labels" or not self.training}
        return check_cond(cond, self.conditions, type(self).__name__, required)

    def embed(self, batch: int, c_noise: Float[Tensor, "batch"], cond: Cond) -> Float[Tensor, "batch emb"]:
        """The embedding vectors of a batch; ValueError for a wrong shape."""
        check_shape("c_noise", c_noise, (batch,))
        emb = self.map_noise(c_noise).to(self.map_layer0.weight.dtype)
        label = emb if self.map_label is None else self._label_vectors(cond, emb)
        if self.map_label is not None and not self.late_labels:
            emb = emb + self.map_label(label * math.sqrt(self.label_dim))
        if self.map_augment is not None and "augment" in cond:
            check_shape("augment", cond["augment"], (batch, self.augment_dim))
            emb = emb + self.map_augment(cond["augment"].to(emb.dtype))
        emb = self.map_layer1(F.silu(self.map_layer0(emb)))
        if self.map_label is not None and self.late_labels:
            emb = emb + self.map_label(label)
        return F.silu(emb)

    def _label_vectors(self, cond: Cond, emb: Tensor) -> Tensor:
        """The labels as vectors (B, label_dim) in the dtype of emb, zeros if they are missing or dropped."""
        batch = emb.shape[0]
        if "labels" not in cond:
            return emb.new_zeros(batch, self.label_dim)
        labels = cond["labels"]
        if labels.shape == (batch,) and not labels.dtype.is_floating_point:
            vectors = self.one_hot(labels.long())
        elif labels.shape == (batch, self.label_dim):
            vectors = labels
        else:
            expected = f"integers of shape ({batch},) or vectors of shape ({batch}, {self.label_dim})"
            raise ValueError(f"labels: expected {expected}, got {labels.dtype} of shape {tuple(labels.shape)}")
        vectors = vectors.to(emb.dtype)
        if self.training and self.label_dropout:
            vectors = vectors * (torch.rand(batch, 1, device=emb.device, dtype=torch.float32) >= self.label_dropout)
        return vectors

    def one_hot(self, indices: Int[Tensor, "batch"]) -> Int[Tensor, "batch label_dim"]:
        """Class indices as one-hot vectors; ValueError for an index that is out of range."""
        check_classes(indices, self.label_dim)
        # not F.one_hot, which reads the indices
        zeros = torch.zeros(indices.shape[0], self.label_dim, dtype=torch.int64, device=indices.device)
        return zeros.scatter(1, indices.unsqueeze(1), 1)
