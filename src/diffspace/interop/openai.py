"""U-Nets of OpenAI's improved-diffusion (Nichol and Dhariwal 2021) and guided-diffusion (Dhariwal and Nichol 2021)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

from diffspace._shapes import Tensor
from diffspace.interop.checkpoint import Checkpoint
from diffspace.pickles import short_repr
from diffspace.preconditioning import EpsilonPrediction, IDDPMPreconditioning, LevelIndex, Preconditioning
from diffspace.process import DiscreteLevels, IDDPMLevels

__all__ = ["read", "recognise"]

_TIMES = 1000
"""The networks are told times from 0 to 999, whatever the number of steps."""
_LAYERS = {
    "in_layers.0": "norm0",
    "in_layers.2": "conv0",
    "emb_layers.1": "affine",
    "out_layers.0": "norm1",
    "out_layers.3": "conv1",
    "skip_connection": "skip",
    "norm": "norm2",
    "qkv": "qkv",
    "proj_out": "proj",
}
_ENDS = {
    "time_embed.0": "map_layer0",
    "time_embed.2": "map_layer1",
    "label_emb": "map_label",
    "out.0": "out_norm",
    "out.2": "out_conv",
}


def recognise(content: Mapping[str, Any]) -> bool:
    """Whether this is a state dict of such a network."""
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
) -> Checkpoint:
    """The network of a state dict. Names and shapes tell the architecture; what they leave open are the options.

    `size` is the side of the images, `channels` their channels. `betas` ("cosine" or "linear") and `num_steps` are
    those of the training. Attention has `num_heads` heads, or as many as have `channels_per_head`. The channels of
    queries, keys and values are grouped by "heads" first, or by "qkv" first (`use_new_attention_order`).
    """
    plan = _Plan(state)
    assumed = []

    def choose(name: str, given: Any, default: Any, why: str) -> Any:
        if given is None:
            assumed.append(f"{name} {default}, {why}")
        return default if given is None else given

    family = "improved-diffusion" if plan.conv_resample else "guided-diffusion"
    # the published networks with these multipliers are those of CIFAR-10
    size = choose("size", size, 32 if plan.channel_mult == (1, 2, 2, 2) else 64, "which weights do not tell")
    if size % 2 ** (plan.levels - 1) or size < 2 ** (plan.levels - 1):
        raise ValueError(f"size: {size}; want a multiple of {2 ** (plan.levels - 1)}")
    small = plan.conv_resample or size <= 64
    why = f"as in {family}" if plan.conv_resample else f"as in {family} at {size}×{size}"
    betas = choose("betas", betas, "cosine" if small else "linear", why)
    num_steps = choose("num_steps", num_steps, 4000 if plan.conv_resample else 1000, why)
    if num_heads is not None and channels_per_head is not None:
        raise ValueError("num_heads, channels_per_head: say the same thing; give one of the two")
    if num_heads is not None or (channels_per_head is None and (plan.conv_resample or size == 128)):
        heads = {"num_heads": choose("num_heads", num_heads, 4, why)}
    else:
        heads = {"channels_per_head": choose("channels_per_head", channels_per_head, 64, why)}
    if any(not isinstance(n, int) or n < 1 for n in heads.values()):
        raise ValueError(f"num_heads, channels_per_head: {heads}; want positive integers")
    qkv_order = choose("qkv_order", qkv_order, "qkv" if size <= 64 and not plan.conv_resample else "heads", why)
    if qkv_order not in ("heads", "qkv"):
        raise ValueError(f"qkv_order: {qkv_order!r}; want 'heads' or 'qkv'")

    outputs = len(state["out.2.weight"])
    if plan.inputs not in (channels, 2 * channels) or outputs not in (channels, 2 * channels):
        raise ValueError(f"channels: {channels}; the network has {plan.inputs} channels of input, {outputs} of output")
    ignored = [f"the second half of out.2: {channels} channels of a learned variance"] if outputs > channels else []
    ours: dict[str, Tensor] = {}
    for theirs, value in state.items():
        name = plan.rename(theirs, size)
        if ".qkv." in name:
            per_head = heads.get("channels_per_head", 0)
            count = heads.get("num_heads") or max(1, len(value) // 3 // per_head)
            value = _interleaved(theirs, value, count, qkv_order)
        if name.endswith(("qkv.weight", "proj.weight")):
            value = value.reshape(*value.shape[:2], 1, 1)
        elif name == "map_label.weight":
            value = value.mT
        elif name.startswith("out_conv."):
            value = value[:channels]
        ours[name] = value
    network = {
        "kind": "adm",
        "shape": (channels, size, size),
        "label_dim": plan.classes,
        "image_channels": plan.inputs - channels,
        "model_channels": plan.model_channels,
        "channel_mult": plan.channel_mult,
        "channel_mult_emb": plan.channel_mult_emb,
        "num_blocks": plan.num_blocks,
        "attn_resolutions": tuple(size >> level for level in plan.attended),
        "conv_resample": plan.conv_resample,
        **heads,
    }
    preconditioning = _preconditioning(betas, num_steps)
    return Checkpoint(f"OpenAI {family}", network, ours, preconditioning, tuple(ignored), tuple(assumed))


class _Plan:
    """The architecture that names and shapes tell, and how its layers are called with us."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        def shape(name: str, dims: int) -> torch.Size:
            value = state.get(name)
            if not isinstance(value, Tensor) or value.ndim != dims:
                raise ValueError(f"{name}: is missing, or has not {dims} dimensions")
            return value.shape

        emb, self.model_channels = shape("time_embed.0.weight", 2)
        self.channel_mult_emb = emb // self.model_channels
        self.inputs = shape("input_blocks.0.0.weight", 4)[1]
        self.classes = shape("label_emb.weight", 2)[0] if "label_emb.weight" in state else 0
        self.conv_resample = any(name.endswith(".op.weight") for name in state)
        found = [re.fullmatch(r"output_blocks\.(\d+)\.(?:[12]\.in_layers\.0|[12]\.conv)\.weight", n) for n in state]
        ups = sorted(int(match[1]) for match in found if match)
        blocks = len({name.split(".")[1] for name in state if name.startswith("input_blocks.")})
        self.num_blocks = ups[0] if ups else blocks - 1
        self.levels = blocks // (self.num_blocks + 1)
        firsts = [1 + i * (self.num_blocks + 1) for i in range(self.levels)]
        widths = [shape(f"input_blocks.{n}.0.out_layers.3.weight", 4)[0] for n in firsts]
        self.channel_mult = tuple(width // self.model_channels for width in widths)
        self.attended = [i for i, n in enumerate(firsts) if f"input_blocks.{n}.1.qkv.weight" in state]
        for width in (self.model_channels, *widths):
            if width % self.model_channels or width % 32 or width < 128:
                raise ValueError(f"model_channels: a level has {width}; want multiples of 32 of at least 128")

    def rename(self, name: str, size: int) -> str:
        """Our name for theirs; ValueError where there is none."""
        path, _, leaf = name.rpartition(".")
        if path in _ENDS:
            return f"{_ENDS[path]}.{leaf}"
        match = re.fullmatch(r"(input|output|middle)_blocks?\.(?:(\d+)\.)?(\d+)(?:\.(.+))?", path)
        if match is None:
            raise ValueError(f"{short_repr(name)}: is no name of such a network")
        where, block, layer, inner = match[1], int(match[2] or 0), int(match[3]), match[4] or ""
        place = self._place(where, block, layer, inner, [f"{size >> i}x{size >> i}" for i in range(self.levels)])
        if inner in ("", "op", "conv"):
            return f"{place}.{leaf}"
        if inner not in _LAYERS:
            raise ValueError(f"{short_repr(name)}: is no name of such a network")
        return f"{place}.{_LAYERS[inner]}.{leaf}"

    def _place(self, where: str, block: int, layer: int, inner: str, sides: list[str]) -> str:
        """Our name of a block."""
        if where == "middle":
            return f"dec.{sides[-1]}_in{layer // 2}"  # the attention between the two belongs to the first
        if where == "input" and block == 0:
            return f"enc.{sides[0]}_conv"
        step = self.num_blocks + 1
        level, k = divmod(block - 1 if where == "input" else block, step)
        if level >= self.levels:
            raise ValueError(f"{where}_blocks.{block}: is one too many")
        if where == "input":
            return f"enc.{sides[level]}_block{k}" if k < self.num_blocks else f"enc.{sides[level + 1]}_down"
        level = self.levels - 1 - level
        if layer > 0 and (inner == "conv" or inner.partition(".")[0] not in ("norm", "qkv", "proj_out")):
            return f"dec.{sides[level - 1]}_up"
        return f"dec.{sides[level]}_block{k}"


def _interleaved(name: str, value: Tensor, heads: int, order: str) -> Tensor:
    """Channels (head, q/k/v, channel) or (q/k/v, head, channel) as (head, channel, q/k/v)."""
    if len(value) % (3 * heads):
        raise ValueError(f"num_heads: {heads}; want a divisor of the {len(value) // 3} channels of {name}")
    if order == "heads":
        parts = value.reshape(heads, 3, -1, *value.shape[1:]).transpose(1, 2)
    else:
        parts = value.reshape(3, heads, -1, *value.shape[1:]).movedim(0, 2)
    return parts.reshape(value.shape)


def _preconditioning(betas: str, num_steps: int) -> Preconditioning:
    """The noise levels of a training of so many steps.

    Of more than 1000 steps those are taken whose time the network was told as a whole number.
    """
    stride, rest = divmod(num_steps, _TIMES)
    if rest or not stride:
        raise ValueError(f"num_steps: {num_steps}; want a multiple of {_TIMES}")
    if betas == "cosine" and stride == 1:
        return IDDPMPreconditioning()
    if betas == "cosine":
        levels = DiscreteLevels(tuple(IDDPMLevels(num_steps).table()[::stride].tolist()))
    elif betas == "linear":
        steps = torch.linspace(1e-4 / stride, 0.02 / stride, num_steps, dtype=torch.float64)
        levels = DiscreteLevels.from_alphas_cumprod((1 - steps).cumprod(0)[::stride])
    else:
        raise ValueError(f"betas: {betas!r}; want 'cosine' or 'linear'")
    return EpsilonPrediction(LevelIndex(levels))
