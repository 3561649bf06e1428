"""A network of diffusers as F(x, c_noise, cond)."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from diffspace._shapes import Float, Tensor
from diffspace.preconditioning.ddpm import index_or_time, without_variance
from diffspace.protocols import Cond, check_cond

_ARGUMENTS = ("encoder_hidden_states", "pooled_projections")
_OPTIONAL = ("encoder_attention_mask", "attention_mask", "timestep_cond")
_ADDED: Mapping[str, tuple[str, ...]] = {
    "text_time": ("text_embeds", "time_ids"),
    "text_image": ("text_embeds", "image_embeds"),
    "image": ("image_embeds",),
    "image_hint": ("image_embeds", "hint"),
}
_PROJECTED = ("text_image_proj", "image_proj", "ip_image_proj")


class DiffusersNetwork(torch.nn.Module):
    """A model of diffusers whose `forward` takes a sample, `timestep` and conditions.

    `required` and `optional` name its conditions. With `rounded` it gets its time as an integer, which a learned
    embedding of times needs.
    """

    def __init__(self, model: torch.nn.Module, rounded: bool) -> None:
        super().__init__()
        config: Mapping[str, Any] | None = getattr(model, "config", None)
        arguments = inspect.signature(model.forward).parameters
        if config is None or "in_channels" not in config or "timestep" not in arguments:
            raise ValueError(
                f"network: expected a model of diffusers that takes a timestep, got {type(model).__name__}"
            )
        if config.get("time_embedding_type") == "learned" and not rounded:
            raise ValueError("rounded: must be True for a network with an embedding of each trained time")
        self.model = model
        self.rounded = rounded
        self._sample = next(iter(arguments))

        inputs = config["in_channels"]
        outputs = config.get("out_channels") or inputs
        # more channels of input than the sample has; twice as many of output are its variance
        self.channels = outputs if outputs < inputs else inputs
        self.image_channels = inputs - self.channels
        size = config.get("sample_size")
        sides = (size, size) if isinstance(size, int) else size
        self.config = {"shape": None if sides is None else (self.channels, *sides)}

        # a UNet has an embedding of classes or none; DiT always has one, of which the last entry is the null class
        embedding = getattr(model, "class_embedding", None)
        self.null_label: int | None = config.get("num_embeds_ada_norm")
        self.classes: int | None = getattr(embedding, "num_embeddings", None)
        if self.null_label is not None:
            self.classes = self.null_label + 1
        labels = "class_labels" in arguments and (embedding is not None or self.null_label is not None)
        added = _ADDED.get(config.get("addition_embed_type") or "", ())
        if config.get("encoder_hid_dim_type") in _PROJECTED:
            added = tuple(dict.fromkeys((*added, "image_embeds")))
        if config.get("use_additional_conditions"):
            added = ("resolution", "aspect_ratio")
        self.added = added if "added_cond_kwargs" in arguments else ()
        self.arguments = tuple(name for name in _ARGUMENTS if name in arguments)
        self.required = (
            *(("image",) if self.image_channels else ()),
            *(("labels",) if labels and self.null_label is None else ()),
            *self.arguments,
            *self.added,
        )
        self.optional = tuple(name for name in _OPTIONAL if name in arguments)
        if labels and self.null_label is not None:
            self.optional += ("labels",)

    def forward(
        self, x: Float[Tensor, "batch *dims"], c_noise: Float[Tensor, "batch"], cond: Cond | None = None
    ) -> Float[Tensor, "batch *dims"]:
        """The model's output for x, without a learned variance."""
        given = check_cond(cond, (*self.required, *self.optional), type(self.model).__name__)
        missing = [name for name in self.required if name not in given]
        if missing:
            raise ValueError(f"cond: {type(self.model).__name__} requires {', '.join(map(repr, missing))}")
        tensors = {
            name: value.to(x) if value.is_floating_point() else value.to(x.device) for name, value in given.items()
        }
        sample = x
        if self.image_channels:
            sample = torch.cat([x, tensors.pop("image")], 1)
        passed = (*self.arguments, *(name for name in self.optional if name != "labels"))
        call: dict[str, Any] = {name: tensors[name] for name in passed if name in tensors}
        if "labels" in tensors:
            call["class_labels"] = self._labels(tensors["labels"], len(x))
        elif "labels" in self.optional:
            call["class_labels"] = torch.full((len(x),), self.null_label or 0, device=x.device)
        if self.added:
            call["added_cond_kwargs"] = {name: tensors[name] for name in self.added}
        call[self._sample] = sample
        output: Tensor = self.model(timestep=index_or_time(c_noise, self.rounded), return_dict=False, **call)[0]
        return without_variance(output, self.channels)

    def _labels(self, labels: Tensor, batch: int) -> Tensor:
        if self.classes is None:  # the embedding is a network and takes other inputs than indices
            return labels
        if labels.shape != (batch,) or labels.is_floating_point():
            raise ValueError(
                f"labels: expected integers of shape ({batch},), got {labels.dtype} of shape {tuple(labels.shape)}"
            )
        # on other devices the check would wait for the values; there the embedding itself fails
        if labels.device.type == "cpu" and not bool(((labels >= 0) & (labels < self.classes)).all()):
            raise ValueError(f"labels: expected class indices from 0 to {self.classes - 1}, got {labels.tolist()}")
        return labels.long()
