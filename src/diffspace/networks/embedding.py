"""The base of the networks: embeds the noise level, conditions and augmentation parameters."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from diffspace._shapes import Bool, Float, Int, Shaped, Tensor
from diffspace.checks import as_tuple, check_integer, check_number
from diffspace.conditions import Condition, as_conditions
from diffspace.config import to_options
from diffspace.networks.layers import Init, xavier
from diffspace.protocols import Cond, check_cond
from diffspace.tensors import are_values_hidden


def check_sizes(name: str, values: Sequence[int]) -> None:
    """Check that `values` holds one or more positive integers."""
    if not (sizes := as_tuple(name, values)):
        raise ValueError(f"{name}: expected one or more positive integers, got none")
    for value in sizes:
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
    """The arguments of a network's constructor, taken from `arguments`, in JSON types."""
    return {name: _plain(arguments[name]) for name in inspect.signature(network).parameters}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: to_options(condition) for name, condition in as_conditions(value).items()}
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


UNTRAINED_NULL = "it was trained with labels only (label_dropout 0): pass them, or train with network.label_dropout=0.1"
_UNTRAINED = "it was never trained without (label_dropout 0): pass {}, {}, or train with network.label_dropout=0.1"


class ConditionedNetwork(nn.Module):
    """The base of the networks: maps c_noise, "labels", "augment" and the vectors of `conditioning` to one embedding.

    emb = silu(W₁·silu(W₀·(map_noise(c_noise) + √label_dim·W_l·label + b_l + W_a·augment + W_v·v) + b₀) + b₁), or with
    `late_labels` silu(W₁·silu(W₀·(map_noise(c_noise) + W_a·augment + W_v·v) + b₀) + b₁ + W_l·label). In v are the
    standardised vectors of `conditioning`, each followed by 1, or by 0 where it is null and has zeros. Its images are
    left to the subclass (`images`): each has a channel of the same meaning if it can be null.

    Labels are class indices (B,) or vectors (B, label_dim), and zeros are the null condition; of `conditioning` it is
    NaN. What is missing is null, which only a network with `label_dropout` is trained on (`null_trained`); others
    require it (of labels except in training). In training each condition of a sample is dropped with the probability
    `label_dropout`, half of it, where there are several, all of them together. A missing "augment" is zeros.

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
        conditioning: Mapping[str, Any] | None = None,
        init: Init = xavier,
        late_labels: bool = False,
    ) -> None:
        super().__init__()
        check_integer("label_dim", label_dim, 0)
        check_integer("augment_dim", augment_dim, 0)
        check_number("label_dropout", label_dropout, "[0, 1)")
        self.conditioning = as_conditions(conditioning)
        if label_dropout and not label_dim and not self.conditioning:
            raise ValueError(f"label_dropout: {label_dropout} has no effect if label_dim is 0")
        if label_dim and "labels" in self.conditioning:
            raise ValueError(f"conditioning: 'labels' are those of label_dim = {label_dim}; choose another name")
        self.label_dim, self.augment_dim, self.emb_channels = label_dim, augment_dim, emb_channels
        self.label_dropout, self.late_labels = label_dropout, late_labels
        dims = {"labels": label_dim, "augment": augment_dim}
        self.conditions = (*(name for name, dim in dims.items() if dim), *self.conditioning)
        self.required = {} if self.null_trained or not label_dim else {"labels": UNTRAINED_NULL}
        if not label_dropout:
            self.required |= {
                name: _UNTRAINED.format(f"{{{name!r}: …}} of shape {('B', *each.shape)}".replace("'B'", "B"), each)
                for name, each in self.conditioning.items()
            }
        self.map_noise = map_noise
        self.map_label: nn.Linear | None = None
        if label_dim and late_labels:
            self.map_label = nn.Linear(label_dim, emb_channels, bias=False)
            nn.init.normal_(self.map_label.weight)
        elif label_dim:
            self.map_label = init(nn.Linear(label_dim, noise_channels))
        self.map_augment = init(nn.Linear(augment_dim, noise_channels, bias=False)) if augment_dim else None
        vectors = sum(each.channels + 1 for each in self.conditioning.values() if not each.is_image)
        self.map_vector = nn.Linear(vectors, noise_channels, bias=False) if vectors else None
        if self.map_vector is not None:
            nn.init.normal_(self.map_vector.weight, std=vectors**-0.5)
        self.map_layer0 = init(nn.Linear(noise_channels, emb_channels))
        self.map_layer1 = init(nn.Linear(emb_channels, emb_channels))

    @property
    def null_trained(self) -> bool:
        """Whether the network is trained without its conditions too; True if it has none."""
        return not (self.label_dim or self.conditioning) or self.label_dropout > 0

    @property
    def image_inputs(self) -> int:
        """The channels that the images of `conditioning` add to the input."""
        images = [each for each in self.conditioning.values() if each.is_image]
        return sum(each.channels + (self.label_dropout > 0) for each in images)

    def value_shape(self, name: str, x: Tensor) -> tuple[int, ...]:
        """The shape of one value of a condition for samples x."""
        return self.conditioning[name].shape

    def receive(self, x: Shaped[Tensor, "batch *dims"], cond: Cond | None) -> dict[str, Tensor]:
        """The conditions of samples x, with null rows where training drops them.

        ValueError for one that is unknown, or of the wrong shape, and for one that is required and missing.
        """
        required = {name: remedy for name, remedy in self.required.items() if name != "labels" or not self.training}
        given, batch = dict(check_cond(cond, self.conditions, type(self).__name__, required)), x.shape[0]
        if self.label_dim and "labels" in given:
            given["labels"] = self._label_vectors(batch, given["labels"])
        for name, each in self.conditioning.items():
            if name in given:
                given[name] = _checked(name, each, given[name], (batch, *self.value_shape(name, x)))
        names = [name for name in given if name in self.conditioning or (name == "labels" and self.label_dim)]
        if self.training and self.label_dropout and names:
            kept = _kept(self.label_dropout, batch, len(names), given[names[0]].device)
            for name, keep in zip(names, kept.unbind(1), strict=True):
                null = torch.nan if name in self.conditioning else 0.0
                value = given[name]
                given[name] = torch.where(keep.reshape(-1, *[1] * (value.ndim - 1)), value, null)
        return given

    def null_rows(self, name: str, like: Shaped[Tensor, "rows *shape"], count: int) -> Tensor:
        """`count` rows of the null condition of this name, of which `like` is a value."""
        if name not in self.conditioning:
            return like.new_zeros(count, *like.shape[1:])
        dtype = torch.promote_types(like.dtype, torch.float32)
        return torch.full((count, *like.shape[1:]), torch.nan, dtype=dtype, device=like.device)

    def embed(self, batch: int, c_noise: Float[Tensor, "batch"], cond: Cond) -> Float[Tensor, "batch emb"]:
        """The embedding vectors of a batch, of conditions from `receive`; ValueError for a wrong shape."""
        check_shape("c_noise", c_noise, (batch,))
        emb = self.map_noise(c_noise).to(self.map_layer0.weight.dtype)
        label = emb
        if self.map_label is not None:
            label = cond["labels"].to(emb.dtype) if "labels" in cond else emb.new_zeros(batch, self.label_dim)
            if not self.late_labels:
                emb = emb + self.map_label(label * math.sqrt(self.label_dim))
        if self.map_augment is not None and "augment" in cond:
            check_shape("augment", cond["augment"], (batch, self.augment_dim))
            emb = emb + self.map_augment(cond["augment"].to(emb.dtype))
        if self.map_vector is not None:
            parts = [self._present(name, each, cond, emb) for name, each in self._of_kind(image=False)]
            emb = emb + self.map_vector(torch.cat([torch.cat(part, dim=1) for part in parts], dim=1))
        emb = self.map_layer1(F.silu(self.map_layer0(emb)))
        if self.map_label is not None and self.late_labels:
            emb = emb + self.map_label(label)
        return F.silu(emb)

    def images(self, like: Tensor, cond: Cond) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Of each image in `conditioning` the standardised values (B, C, *sides), and 1 or 0, (B, 1, 1, …), for null.

        The second is None where the null condition is not trained; the dtype is that of `like`, (B, …).
        """
        for name, each in self._of_kind(image=True):
            values, present = self._present(name, each, cond, like)
            yield values, present if self.label_dropout else None

    def _of_kind(self, image: bool) -> list[tuple[str, Condition]]:
        return [(name, each) for name, each in self.conditioning.items() if each.is_image is image]

    def _present(self, name: str, condition: Condition, cond: Cond, like: Tensor) -> tuple[Tensor, Tensor]:
        """The standardised values, zeros where they are null, and 1 or 0 where they are, (B, 1, …)."""
        batch, form = like.shape[0], (-1,) + (1,) * len(condition.shape)
        if name not in cond:
            return like.new_zeros(batch, *condition.shape), like.new_zeros(batch, 1).reshape(form)
        values = condition.standardise(cond[name])
        present = torch.ones_like(values.flatten(1)[:, 0]).reshape(form)
        if self.label_dropout:
            absent = values.isnan().flatten(1).any(1).reshape(form)
            values, present = torch.where(absent, 0.0, values), torch.where(absent, 0.0, present)
        return values.to(like.dtype), present.to(like.dtype)

    def _label_vectors(self, batch: int, labels: Tensor) -> Tensor:
        """The labels as vectors (B, label_dim)."""
        if labels.shape == (batch,) and not labels.dtype.is_floating_point:
            return self.one_hot(labels.long()).to(self.map_layer0.weight.dtype)
        if labels.shape == (batch, self.label_dim):
            return labels.to(self.map_layer0.weight.dtype)
        expected = f"integers of shape ({batch},) or vectors of shape ({batch}, {self.label_dim})"
        raise ValueError(f"labels: expected {expected}, got {labels.dtype} of shape {tuple(labels.shape)}")

    def one_hot(self, indices: Int[Tensor, "batch"]) -> Int[Tensor, "batch label_dim"]:
        """Class indices as one-hot vectors; ValueError for an index that is out of range."""
        check_classes(indices, self.label_dim)
        # not F.one_hot, which reads the indices
        zeros = torch.zeros(indices.shape[0], self.label_dim, dtype=torch.int64, device=indices.device)
        return zeros.scatter(1, indices.unsqueeze(1), 1)


def _checked(name: str, condition: Condition, values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The values, which have this shape; (B,) is (B, 1) for a number."""
    if condition.shape == (1,) and values.shape == shape[:1]:
        values = values[:, None]
    if values.shape != shape:
        expected = f"shape {shape}, for each sample {condition}"
        raise ValueError(f"{name}: expected {expected}; got {tuple(values.shape)}")
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _kept(dropout: float, batch: int, count: int, device: torch.device) -> Bool[Tensor, "batch count"]:
    """Which of `count` conditions stay: each with the probability 1 − dropout, half of the others all at once."""
    if count == 1:
        return torch.rand(batch, 1, device=device, dtype=torch.float32) >= dropout
    all_of_them = torch.rand(batch, 1, device=device, dtype=torch.float32) < dropout / 2
    each = torch.rand(batch, count, device=device, dtype=torch.float32) < (dropout / 2) / (1 - dropout / 2)
    return ~(all_of_them | each)
