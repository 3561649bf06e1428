"""DDPM++ and NCSN++ of Song et al. 2021 in the checkpoints of score_sde (PyTorch)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

from diffspace._shapes import Tensor
from diffspace.checks import check_integer
from diffspace.interop.model_parts import ModelParts
from diffspace.pickles import short_repr
from diffspace.preconditioning import Preconditioning, VEPreconditioning, VPPreconditioning

_MODULE = re.compile(r"(?:module\.)?all_modules\.(\d+)\.(.+)")
_BLOCK = {"GroupNorm_0": "norm0", "Conv_0": "conv0", "Dense_0": "affine"}
_BLOCK |= {"GroupNorm_1": "norm1", "Conv_1": "conv1", "Conv_2": "skip"}


def recognise(content: Mapping[str, Any]) -> bool:
    """Whether this is a checkpoint with a network and its average."""
    ema = content.get("ema")
    return isinstance(ema, Mapping) and "shadow_params" in ema and isinstance(content.get("model"), Mapping)


def read(content: Mapping[str, Any], *, size: int | None = None) -> ModelParts:
    """The averaged network of a checkpoint, for images of `size` × `size` (default 32, as in CIFAR-10)."""
    side = 32 if size is None else size
    check_integer("size", side, 1)
    assumed = [] if size is not None else ["size 32, which does not follow from the weights"]
    network, state = _network(_averaged(content), side)
    preconditioning, reason = _preconditioning(network["kind"], content["model"])
    ignored = [f"{short_repr(name)} of the checkpoint" for name in content if name not in ("model", "ema")]
    ignored.append("the weights of 'model': those of its average 'ema' are used")
    return ModelParts(
        format=f"score_sde checkpoint, {network['kind']}",
        network=network,
        state=state,
        preconditioning=preconditioning,
        ignored=tuple(ignored),
        assumed=(*assumed, reason),
    )


def _averaged(content: Mapping[str, Any]) -> list[dict[str, Tensor]]:
    """The parameters of every module in order, averaged if they were trained.

    The average is a list in the order of the state dict, without the frequencies W of the Fourier features, a parameter
    that was not trained.
    """
    averages = list(content["ema"]["shadow_params"])[::-1]
    found: dict[int, dict[str, Tensor]] = {}
    for name, value in content["model"].items():
        if name.endswith("sigmas"):
            continue
        match = _MODULE.fullmatch(name)
        if match is None or not isinstance(value, Tensor):
            raise ValueError(f"{short_repr(name)}: is not a name of these networks")
        module = found.setdefault(int(match[1]), {})
        if match[2] == "W":
            module["W"] = value
            continue
        if not averages or not isinstance(averages[-1], Tensor) or averages[-1].shape != value.shape:
            raise ValueError(f"shadow_params: no average for {short_repr(name)} of shape {tuple(value.shape)}")
        module[match[2]] = averages.pop()
    if averages:
        raise ValueError(f"shadow_params: {len(averages)} more tensors than the network has")
    return [found[i] for i in sorted(found)]


def _network(modules: list[dict[str, Tensor]], side: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The config and the weights of our network. The order of the modules determines their roles."""
    blocks = [module for module in modules if "Conv_1.weight" in module]
    levels = sum(map(_resamples, modules)) // 2 + 1
    # one level has n blocks, 2 in the middle, and n + 1
    num_blocks = next((i for i, module in enumerate(blocks) if _resamples(module)), (len(blocks) - 3) // 2)
    if num_blocks < 1 or side % 2 ** (levels - 1):
        raise ValueError(f"size, all_modules: {side}, with {levels} levels of {num_blocks} blocks, is not a network")
    fourier = "W" in modules[0]
    if fourier != any("Conv2d_0.weight" in module for module in modules):
        raise ValueError("all_modules: expected Fourier features with a residual encoder (NCSN++), or neither (DDPM++)")

    weights = _Weights(modules)
    sides = [f"{side >> level}x{side >> level}" for level in range(levels)]
    attended = []
    if fourier:
        weights.state["map_noise.freqs"] = weights.next("map_noise", "W")["W"]
    weights.layer("map_layer0", 2)
    weights.layer("map_layer1", 2)
    weights.layer(f"enc.{sides[0]}_conv", 4)
    for level, at in enumerate(sides):
        if level:
            weights.block(f"enc.{at}_down")
            if fourier:
                weights.layer(f"enc.{at}_aux_residual", 4, prefix="Conv2d_0.")
        with_attention = [weights.block(f"enc.{at}_block{k}", attention=True) for k in range(num_blocks)]
        attended += [level] if any(with_attention) else []
    weights.block(f"dec.{sides[-1]}_in0", attention=True)
    weights.block(f"dec.{sides[-1]}_in1")
    for level, at in reversed(list(enumerate(sides))):
        for k in range(num_blocks + 1):
            weights.block(f"dec.{at}_block{k}", attention=k == num_blocks)
        if level:
            weights.block(f"dec.{sides[level - 1]}_up")
    weights.layer(f"dec.{sides[0]}_aux_norm", 1)
    weights.layer(f"dec.{sides[0]}_aux_conv", 4)
    weights.end()

    model_channels, channels = weights.state[f"enc.{sides[0]}_conv.weight"].shape[:2]
    widths = [len(weights.state[f"enc.{at}_block0.conv1.weight"]) for at in sides]
    network = {
        "kind": "ncsnpp" if fourier else "ddpmpp",
        "shape": (channels, side, side),
        "model_channels": model_channels,
        "channel_mult": tuple(width // model_channels for width in widths),
        "num_blocks": num_blocks,
        "attn_resolutions": tuple(side >> level for level in attended),
    }
    return network, weights.state


class _Weights:
    """The weights under our names, taken from the modules one by one."""

    def __init__(self, modules: list[dict[str, Tensor]]) -> None:
        self.state: dict[str, Tensor] = {}
        self.waiting = list(enumerate(modules))[::-1]

    def next(self, name: str, parameter: str, ndim: int | None = None) -> dict[str, Tensor]:
        """The next module; ValueError unless it has `parameter`, with `ndim` dimensions, as `name` does."""
        if not self.waiting:
            raise ValueError(f"all_modules: end before {name}")
        index, module = self.waiting.pop()
        if parameter not in module or (ndim is not None and module[parameter].ndim != ndim):
            raise ValueError(f"all_modules.{index}: is not {name}, the next module of DDPM++ and NCSN++")
        return module

    def end(self) -> None:
        if self.waiting:
            raise ValueError(f"all_modules.{self.waiting[-1][0]}: is one module too many")

    def layer(self, name: str, ndim: int, prefix: str = "") -> None:
        module = self.next(name, f"{prefix}weight", ndim)
        self.state.update({f"{name}.{leaf.removeprefix(prefix)}": value for leaf, value in module.items()})

    def block(self, name: str, *, attention: bool = False) -> bool:
        """A residual block and the attention that may follow; returns whether it does."""
        for leaf, value in self.next(name, "Conv_1.weight").items():
            part, _, kind = leaf.partition(".")
            if part not in _BLOCK:
                raise ValueError(f"{short_repr(leaf)} of {name}: is not a layer of a BigGAN block")
            self.state[f"{name}.{_BLOCK[part]}.{kind}"] = value
        attended = attention and bool(self.waiting) and "NIN_3.W" in self.waiting[-1][1]
        if attended:
            self.attention(name, self.waiting.pop()[1])
        return attended

    def attention(self, name: str, module: Mapping[str, Tensor]) -> None:
        for leaf in ("weight", "bias"):
            self.state[f"{name}.norm2.{leaf}"] = module[f"GroupNorm_0.{leaf}"]
        # a NIN multiplies from the right; channel 3c + j of qkv is channel c of q, k or v
        *qkv, (weight, bias) = [(module[f"NIN_{j}.W"].mT, module[f"NIN_{j}.b"]) for j in range(4)]
        self.state[f"{name}.qkv.weight"] = torch.stack([W for W, _ in qkv], dim=1).flatten(0, 1)[:, :, None, None]
        self.state[f"{name}.qkv.bias"] = torch.stack([b for _, b in qkv], dim=1).flatten()
        self.state[f"{name}.proj.weight"] = weight[:, :, None, None]
        self.state[f"{name}.proj.bias"] = bias


def _resamples(module: Mapping[str, Tensor]) -> bool:
    """Whether a block resamples: only then its skip connection is a convolution between equal widths."""
    skip = module.get("Conv_2.weight")
    return skip is not None and skip.shape[0] == skip.shape[1]


def _preconditioning(kind: str, model: Mapping[str, Tensor]) -> tuple[Preconditioning, str]:
    """The preconditioning, and what is assumed about it."""
    if kind == "ddpmpp":
        return VPPreconditioning(), "the VP equation in continuous time, whose weights look like those of sub-VP"
    sigmas = next((value for name, value in model.items() if name.endswith("sigmas")), None)
    if sigmas is None or not sigmas.numel():
        return VEPreconditioning(), "σ from 0.02 to 100, as in CIFAR-10"
    # their images are in [0, 1], ours in [−1, 1]; six digits undo the rounding to float32
    low, high = (float(f"{2 * float(value):.6g}") for value in sigmas.aminmax())
    return VEPreconditioning(low, high), "the VE equation in continuous time"
