"""DDPM++ and NCSN++ of Song et al. 2021 in the checkpoints of score_sde (PyTorch)."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import Any

import torch

from diffspace._shapes import Tensor
from diffspace.checks import check_integer
from diffspace.interop.model_parts import ModelParts, make_skeleton
from diffspace.pickles import short_repr
from diffspace.preconditioning import Preconditioning, VEPreconditioning, VPPreconditioning

_MODULE = re.compile(r"(?:module\.)?all_modules\.(\d+)\.(.+)")
_LAYERS = ("GroupNorm_0", "Conv_0", "Dense_0", "GroupNorm_1", "Conv_1", "Conv_2", "Conv2d_0")
_LEAVES = ("W", "weight", "bias", *(f"{layer}.{leaf}" for layer in _LAYERS for leaf in ("weight", "bias")))
"""The parameters of the modules other than attention, in the order of ours."""


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
    """The config and the weights of our network, whose parameters have the same order."""
    blocks = [module for module in modules if "Conv_1.weight" in module]
    levels = sum(map(_resamples, modules)) // 2 + 1
    # one level has n blocks, 2 in the middle, and n + 1
    num_blocks = next((i for i, module in enumerate(blocks) if _resamples(module)), (len(blocks) - 3) // 2)
    if num_blocks < 1 or side % 2 ** (levels - 1) or len(blocks) != levels * (2 * num_blocks + 3):
        raise ValueError(f"size, all_modules: {side}, with {levels} levels of {num_blocks} blocks, is not a network")
    fourier = "W" in modules[0]
    if fourier != any("Conv2d_0.weight" in module for module in modules):
        raise ValueError("all_modules: expected Fourier features with a residual encoder (NCSN++), or neither (DDPM++)")

    model_channels, channels = modules[3 if fourier else 2]["weight"].shape[:2]
    widths = [len(block["Conv_1.weight"]) for block in blocks[: levels * (num_blocks + 1) : num_blocks + 1]]
    passed = itertools.accumulate("Conv_1.weight" in module for module in modules)
    attended = {n // (num_blocks + 1) for n, module in zip(passed, modules, strict=True) if "NIN_3.W" in module}
    network = {
        "kind": "ncsnpp" if fourier else "ddpmpp",
        "shape": (channels, side, side),
        "model_channels": model_channels,
        "channel_mult": tuple(width // model_channels for width in widths),
        "num_blocks": num_blocks,
        "attn_resolutions": tuple(side >> level for level in range(levels) if level in attended),
    }
    tensors = [tensor for module in modules for tensor in _in_order(module)]
    names = [name for name in make_skeleton(network, tensors).state_dict() if not name.endswith("resample_filter")]
    if len(names) != len(tensors):
        raise ValueError(f"all_modules: expected {len(names)} tensors, as in {network['kind']}, got {len(tensors)}")
    return network, dict(zip(names, tensors, strict=True))


def _in_order(module: Mapping[str, Tensor]) -> list[Tensor]:
    """The parameters of a module in the order and the shape of ours."""
    if "NIN_3.W" not in module:
        for leaf in module:
            if leaf not in _LEAVES:
                raise ValueError(f"{short_repr(leaf)}: is not a parameter of a module of DDPM++ or NCSN++")
        return [module[leaf] for leaf in _LEAVES if leaf in module]
    # a NIN multiplies from the right; channel 3c + j of qkv is channel c of q, k or v
    *qkv, (weight, bias) = [(module[f"NIN_{j}.W"].mT, module[f"NIN_{j}.b"]) for j in range(4)]
    return [
        module["GroupNorm_0.weight"],
        module["GroupNorm_0.bias"],
        torch.stack([W for W, _ in qkv], dim=1).flatten(0, 1)[:, :, None, None],
        torch.stack([b for _, b in qkv], dim=1).flatten(),
        weight[:, :, None, None],
        bias,
    ]


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
