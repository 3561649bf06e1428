"""U-Nets of OpenAI's improved-diffusion (Nichol and Dhariwal 2021) and guided-diffusion (Dhariwal and Nichol 2021)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

from diffspace._shapes import Tensor
from diffspace.checks import MOST_LEVELS, check_choice, check_integer
from diffspace.interop.model_parts import ModelParts, make_skeleton
from diffspace.pickles import short_repr
from diffspace.preconditioning import EpsilonPrediction, IDDPMPreconditioning, LevelIndex, Preconditioning
from diffspace.process import DiscreteLevels, IDDPMLevels

_TIMES = 1000
"""The networks take times from 0 to 999 for any number of steps."""
_ENDS = {"time_embed.0": "map_layer0", "time_embed.2": "map_layer1", "label_emb": "map_label"}
_ENDS |= {"out.0": "out_norm", "out.2": "out_conv"}
_RESIDUAL = {"in_layers.0": ".norm0", "in_layers.2": ".conv0", "emb_layers.1": ".affine", "out_layers.0": ".norm1"}
_RESIDUAL |= {"out_layers.3": ".conv1", "skip_connection": ".skip"}
_ATTENTION = {"norm": ".norm2", "qkv": ".qkv", "proj_out": ".proj"}
_LAYERS = {"": "", "op": "", "conv": ""} | _RESIDUAL | _ATTENTION
"""Our names of the layers of a block."""
_PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "improved-diffusion": {"betas": "cosine", "num_steps": 4000, "num_heads": 4, "qkv_order": "heads"},
    "guided-diffusion up to 64×64": {"betas": "cosine", "num_steps": 1000, "channels_per_head": 64, "qkv_order": "qkv"},
    "guided-diffusion at 128×128": {"betas": "linear", "num_steps": 1000, "num_heads": 4, "qkv_order": "heads"},
    "guided-diffusion": {"betas": "linear", "num_steps": 1000, "channels_per_head": 64, "qkv_order": "heads"},
}
"""Options of the published networks that do not follow from their weights."""


def recognise(content: Mapping[str, Any]) -> bool:
    """Whether this is a state dict of one of these networks."""
    names = ("time_embed.0.weight", "input_blocks.0.0.weight", "out.2.weight")
    return all(isinstance(content.get(name), Tensor) for name in names)


def read(
    state: Mapping[str, Tensor],
    *,
    size: int | None = None,
    channels: int = 3,
    betas: str | None = None,
    num_steps: int | None = None,
    num_heads: int | None = None,
    channels_per_head: int | None = None,
    qkv_order: str | None = None,
) -> ModelParts:
    """The network of a state dict, whose names and shapes determine the architecture up to these options.

    Args:
        state: the state dict.
        size: side of the images.
        channels: channels of the images.
        betas: noise schedule of the training, "cosine" or "linear".
        num_steps: diffusion steps of the training.
        num_heads: heads of the attention.
        channels_per_head: channels of a head, instead of `num_heads`.
        qkv_order: whether the channels of queries, keys and values are grouped by "heads" first or by "qkv" first
            (`use_new_attention_order`).
    """
    architecture = _Architecture(state)
    given = {"size": size, "betas": betas, "num_steps": num_steps, "num_heads": num_heads}
    options, assumed = _completed(architecture, channels_per_head=channels_per_head, qkv_order=qkv_order, **given)
    size = options["size"]
    inputs, outputs = architecture.inputs, len(state["out.2.weight"])
    if inputs not in (channels, 2 * channels) or outputs not in (channels, 2 * channels):
        raise ValueError(f"channels: {channels}; the network has {inputs} channels of input, {outputs} of output")
    network: dict[str, Any] = {
        "kind": "adm",
        "shape": (channels, size, size),
        "label_dim": architecture.classes,
        "image_channels": inputs - channels,
        "model_channels": architecture.model_channels,
        "channel_mult": architecture.channel_mult,
        "channel_mult_emb": architecture.channel_mult_emb,
        "num_blocks": architecture.num_blocks,
        "attn_resolutions": tuple(size >> level for level in architecture.attended),
        "conv_resample": architecture.conv_resample,
        **{name: options[name] for name in ("num_heads", "channels_per_head") if name in options},
    }
    return ModelParts(
        format=f"OpenAI {architecture.code_base}",
        network=network,
        state=_weights(state, _our_blocks(make_skeleton(network, state), state), channels, options),
        preconditioning=_preconditioning(options["betas"], options["num_steps"]),
        ignored=(f"the second half of out.2: {channels} channels of a learned variance",) * (outputs > channels),
        assumed=assumed,
    )


class _Architecture:
    """The architecture, from the names and shapes of the weights."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        def shape(name: str, dims: int) -> torch.Size:
            value = state.get(name)
            if not isinstance(value, Tensor) or value.ndim != dims:
                raise ValueError(f"{name}: is missing or does not have {dims} dimensions")
            return value.shape

        embedding, self.model_channels = shape("time_embed.0.weight", 2)
        self.channel_mult_emb = embedding // self.model_channels
        self.inputs = shape("input_blocks.0.0.weight", 4)[1]
        self.classes = shape("label_emb.weight", 2)[0] if "label_emb.weight" in state else 0
        self.conv_resample = any(name.endswith(".op.weight") for name in state)
        self.code_base = "improved-diffusion" if self.conv_resample else "guided-diffusion"
        up = re.compile(r"output_blocks\.(\d+)\.[12]\.(?:in_layers\.0|conv)\.weight")
        ups = [int(match[1]) for match in map(up.fullmatch, state) if match]
        count = len({name.split(".")[1] for name in state if name.startswith("input_blocks.")})
        self.num_blocks = min(ups, default=count - 1)
        self.levels = count // (self.num_blocks + 1)
        firsts = [1 + level * (self.num_blocks + 1) for level in range(self.levels)]
        widths = [shape(f"input_blocks.{n}.0.out_layers.3.weight", 4)[0] for n in firsts]
        self.channel_mult = tuple(width // self.model_channels for width in widths)
        self.attended = [level for level, n in enumerate(firsts) if f"input_blocks.{n}.1.qkv.weight" in state]
        for width in (self.model_channels, *widths):
            if width % self.model_channels or width % 32 or width < 128:
                raise ValueError(f"model_channels: expected multiples of 32 of at least 128, got a level of {width}")


def _our_blocks(unet: torch.nn.Module, state: Mapping[str, Tensor]) -> dict[str, str]:
    """Our name of each block by theirs, which numbers the attention of a block separately."""
    bottom, second, *way_up = [f"dec.{name}" for name, _ in unet.get_submodule("dec").named_children()]
    ours = {"middle_block.0": bottom, "middle_block.1": bottom, "middle_block.2": second}
    for n, (name, _) in enumerate(unet.get_submodule("enc").named_children()):
        ours[f"input_blocks.{n}.0"] = ours[f"input_blocks.{n}.1"] = f"enc.{name}"
    n = -1
    for name in way_up:
        if name.endswith("_up"):
            last = 2 if f"output_blocks.{n}.1.qkv.weight" in state else 1
            ours[f"output_blocks.{n}.{last}"] = name
        else:
            n += 1
            ours[f"output_blocks.{n}.0"] = ours[f"output_blocks.{n}.1"] = name
    return ours


def _completed(architecture: _Architecture, **given: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """All options, missing ones from the published networks, and a line for each of these."""
    options = {name: value for name, value in given.items() if value is not None}
    assumed = []
    if "size" not in options:  # the published networks with these multipliers are those of CIFAR-10
        options["size"] = 32 if architecture.channel_mult == (1, 2, 2, 2) else 64
        assumed.append(f"size {options['size']}, which does not follow from the weights")
    size, multiple = options["size"], 2 ** (architecture.levels - 1)
    if size < 1 or size % multiple:
        raise ValueError(f"size: expected a multiple of {multiple}, got {size}")
    source = architecture.code_base
    if source == "guided-diffusion" and size <= 128:
        source += " up to 64×64" if size <= 64 else " at 128×128" if size == 128 else ""
    heads = {"num_heads", "channels_per_head"} & options.keys()
    if len(heads) == 2:
        raise ValueError("num_heads, channels_per_head: are alternatives; pass one of them")
    for name in heads:
        check_integer(name, options[name], 1)
    for name, value in _PUBLISHED[source].items():
        if name not in options and not (heads and name in ("num_heads", "channels_per_head")):
            options[name] = value
            assumed.append(f"{name} {value}, as in {source}")
    check_choice("qkv_order", options["qkv_order"], ("heads", "qkv"))
    return options, tuple(assumed)


def _weights(
    state: Mapping[str, Tensor], blocks: Mapping[str, str], channels: int, options: Mapping[str, Any]
) -> dict[str, Tensor]:
    """The weights with our names and shapes."""
    ours: dict[str, Tensor] = {}
    for theirs, value in state.items():
        name = _renamed(theirs, blocks)
        if ".qkv." in name:
            heads = options.get("num_heads") or max(1, len(value) // 3 // options["channels_per_head"])
            value = _interleaved(theirs, value, heads, options["qkv_order"])
        if name.endswith(("qkv.weight", "proj.weight")):
            value = value.reshape(*value.shape[:2], 1, 1)
        elif name == "map_label.weight":
            value = value.mT
        elif name.startswith("out_conv."):
            value = value[:channels]
        ours[name] = value
    return ours


def _renamed(name: str, blocks: Mapping[str, str]) -> str:
    """Our name for theirs; ValueError if there is none."""
    path, _, leaf = name.rpartition(".")
    if path in _ENDS:
        return f"{_ENDS[path]}.{leaf}"
    parts = path.split(".")
    depth = 2 if parts[0] == "middle_block" else 3
    block, layer = ".".join(parts[:depth]), ".".join(parts[depth:])
    if block not in blocks or layer not in _LAYERS:
        raise ValueError(f"{short_repr(name)}: is not a name of these networks")
    return f"{blocks[block]}{_LAYERS[layer]}.{leaf}"


def _interleaved(name: str, value: Tensor, heads: int, order: str) -> Tensor:
    """Channels (head, q/k/v, channel) or (q/k/v, head, channel) as (head, channel, q/k/v)."""
    if len(value) % (3 * heads):
        raise ValueError(f"num_heads: expected a divisor of the {len(value) // 3} channels of {name}, got {heads}")
    if order == "heads":
        parts = value.reshape(heads, 3, -1, *value.shape[1:]).transpose(1, 2)
    else:
        parts = value.reshape(3, heads, -1, *value.shape[1:]).movedim(0, 2)
    return parts.reshape(value.shape)


def _preconditioning(betas: str, num_steps: int) -> Preconditioning:
    """The noise levels of a training; of more than 1000 steps, those whose time is a whole number."""
    check_choice("betas", betas, ("cosine", "linear"))
    check_integer("num_steps", num_steps, _TIMES, MOST_LEVELS)
    stride, rest = divmod(num_steps, _TIMES)
    if rest or stride < 1:
        raise ValueError(f"num_steps: expected a multiple of {_TIMES}, got {num_steps}")
    if betas == "linear":
        steps = torch.linspace(1e-4 / stride, 0.02 / stride, num_steps, dtype=torch.float64, device="cpu")
        levels = DiscreteLevels.from_alphas_cumprod((1 - steps).cumprod(0)[::stride])
    elif stride == 1:
        return IDDPMPreconditioning()
    else:
        levels = DiscreteLevels(tuple(IDDPMLevels(num_steps).table()[::stride].tolist()))
    return EpsilonPrediction(LevelIndex(levels))
