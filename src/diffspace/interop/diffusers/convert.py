"""A network of diffusers with its scheduler becomes a denoiser; a solver with its steps becomes a scheduler."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from diffspace._shapes import Float, Tensor
from diffspace.interop.diffusers.parametrization import read_scheduler
from diffspace.networks.embedding import check_classes
from diffspace.preconditioning import Preconditioned
from diffspace.preconditioning.ddpm import ZeroSNR, index_or_time, without_variance
from diffspace.protocols import Cond, TimeSteps, check_cond
from diffspace.sampling.solvers.base import Solver

_ARGUMENTS = ("encoder_hidden_states", "pooled_projections")
_OPTIONAL = ("encoder_attention_mask", "attention_mask", "timestep_cond")
_ADDED: Mapping[str, tuple[str, ...]] = {
    "text_time": ("text_embeds", "time_ids"),
    "text_image": ("text_embeds", "image_embeds"),
    "image": ("image_embeds",),
    "image_hint": ("image_embeds", "hint"),
}
_PROJECTED = ("text_image_proj", "image_proj", "ip_image_proj")


def from_diffusers(
    network: torch.nn.Module, scheduler: object, *, rounded: bool = False, zero_snr: ZeroSNR | None = None
) -> Preconditioned:
    """A network of diffusers (`UNet2DModel`, `UNet2DConditionModel`, DiT, …) and its scheduler as a denoiser.

    The network keeps its dtype and its weights, which are not copied. Its conditions have the names of its arguments
    and of the members of `added_cond_kwargs`, but class labels are "labels". Input channels beyond those of the sample
    are a condition "image", which is not scaled with the noise. A learned variance in the output is ignored.

    Args:
        network: takes a sample, a timestep and conditions.
        scheduler: an object, or its config with "_class_name". It gives the noise levels of the training and what the
            network predicts (`read_scheduler`); its solver, spacing, clipping and thresholding have no effect.
        rounded: whether the network takes integer indices of trained levels only.
        zero_snr: what replaces a last level without signal (`ddpm_preconditioning`).
    """
    choice = read_scheduler(scheduler, rounded=rounded, zero_snr=zero_snr)
    return Preconditioned(DiffusersNetwork(network, rounded), choice)


def to_diffusers(
    solver: Solver, steps: TimeSteps, scheduler: object, *, rounded: bool = False, zero_snr: ZeroSNR | None = None
) -> Any:
    """A solver with its steps as a scheduler of diffusers, for any of its pipelines.

    `pipeline.scheduler = to_diffusers(Heun(), EDMSteps(), pipeline.scheduler)`.

    Args:
        solver: one with a fixed number of evaluations a step.
        steps: the noise levels; a pipeline may set their number.
        scheduler: the one that came with the network, or its config.
        rounded: as for `from_diffusers`.
        zero_snr: as for `from_diffusers`.
    """
    from diffspace.interop.diffusers.scheduler import DiffspaceScheduler

    return DiffspaceScheduler(solver, steps, scheduler, rounded=rounded, zero_snr=zero_snr)


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
        required = (
            *(("image",) if self.image_channels else ()),
            *(("labels",) if labels and self.null_label is None else ()),
            *self.arguments,
            *self.added,
        )
        self.required = dict.fromkeys(required, f"it takes {', '.join(required)}")
        self.optional = tuple(name for name in _OPTIONAL if name in arguments)
        if labels and self.null_label is not None:
            self.optional += ("labels",)

    def forward(
        self, x: Float[Tensor, "batch *dims"], c_noise: Float[Tensor, "batch"], cond: Cond | None = None
    ) -> Float[Tensor, "batch *dims"]:
        """The model's output for x, without a learned variance."""
        given = check_cond(cond, (*self.required, *self.optional), type(self.model).__name__, self.required)
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
            call["class_labels"] = torch.full((len(x),), self.null_label or 0, device=x.device, dtype=torch.int64)
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
        check_classes(labels, self.classes)
        return labels.long()
