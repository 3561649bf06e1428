"""DDPM++ and NCSN++ of Song et al. 2021 as their score_sde code saves them (PyTorch)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

from diffspace._shapes import Tensor
from diffspace.interop.checkpoint import Checkpoint
from diffspace.pickles import short_repr
from diffspace.preconditioning import Preconditioning, VEPreconditioning, VPPreconditioning

__all__ = ["read", "recognise"]

_MODULE = re.compile(r"(?:module\.)?all_modules\.(\d+)\.(.+)")
_BLOCK = {
    "GroupNorm_0": "norm0",
    "Conv_0": "conv0",
    "Dense_0": "affine",
    "GroupNorm_1": "norm1",
    "Conv_1": "conv1",
    "Conv_2": "skip",
}


def recognise(content: Mapping[str, Any]) -> bool:
    """Whether this is a checkpoint with a network and its average."""
    ema = content.get("ema")
    return isinstance(ema, Mapping) and "shadow_params" in ema and isinstance(content.get("model"), Mapping)


def read(content: Mapping[str, Any], *, size: int | None = None) -> Checkpoint:
    """The averaged network of a checkpoint, for images of `size` × `size`: 32 if not said, as in CIFAR-10."""
    assumed = [] if size is not None else ["size 32, which weights do not tell"]
    side = 32 if size is None else size
    modules = _averaged(content)
    walk = _Walk(modules, side)
    channels = walk.state[f"{walk.enc(0)}_conv.weight"].shape[1]
    network = {
        "kind": walk.kind,
        "shape": (channels, side, side),
        "model_channels": walk.model_channels,
        "channel_mult": walk.channel_mult,
        "num_blocks": walk.num_blocks,
        "attn_resolutions": tuple(side >> level for level in sorted(walk.attended)),
    }
    preconditioning, told = _preconditioning(walk.kind, content["model"])
    ignored = [f"{name!r} of the checkpoint" for name in content if name not in ("model", "ema")]
    ignored.append("the weights of 'model': those of its average 'ema' are taken")
    return Checkpoint(
        f"score_sde checkpoint, {walk.kind}", network, walk.state, preconditioning, tuple(ignored), (*assumed, told)
    )


def _averaged(content: Mapping[str, Any]) -> list[dict[str, Tensor]]:
    """The parameters of every module in order, averaged ones for those that were trained.

    The average is a list in the order of the parameters, which is that of the state dict. The frequencies of the
    Fourier features are a parameter that was not trained.
    """
    shadows = list(content["ema"]["shadow_params"])
    found: dict[int, dict[str, Tensor]] = {}
    for name, value in content["model"].items():
        if name.endswith("sigmas"):
            continue
        match = _MODULE.fullmatch(str(name))
        if match is None or not isinstance(value, Tensor):
            raise ValueError(f"{short_repr(name)}: is no name of such a network")
        module = found.setdefault(int(match[1]), {})
        if match[2] == "W":
            module["W"] = value
            continue
        if not shadows or not isinstance(shadows[0], Tensor) or shadows[0].shape != value.shape:
            raise ValueError(f"shadow_params: have no average for {short_repr(name)} of shape {tuple(value.shape)}")
        module[match[2]] = shadows.pop(0)
    if shadows:
        raise ValueError(f"shadow_params: have {len(shadows)} more tensors than the network")
    return [found[i] for i in sorted(found)]


class _Walk:
    """The modules in the order in which the network was made, which tells what each of them is."""

    def __init__(self, modules: list[dict[str, Tensor]], side: int) -> None:
        self.side, self.state = side, dict[str, Tensor]()
        self.attended: set[int] = set()
        self.waiting = list(enumerate(modules))[::-1]
        resamplers = sum(map(_resamples, modules))
        self.levels = resamplers // 2 + 1
        blocks = [module for module in modules if "Conv_1.weight" in module]
        first = next((i for i, module in enumerate(blocks) if _resamples(module)), (len(blocks) - 3) // 2)
        self.num_blocks = first
        if first < 1 or side % 2 ** (self.levels - 1):
            raise ValueError(f"size, all_modules: {side}, with {self.levels} levels of {first} blocks, is no network")
        fourier = "W" in modules[0]
        residual = any("Conv2d_0.weight" in module for module in modules)
        if fourier != residual:
            raise ValueError("all_modules: want Fourier features with a residual encoder (NCSN++), or neither (DDPM++)")
        self.kind = "ncsnpp" if fourier else "ddpmpp"
        if fourier:
            self.state["map_noise.freqs"] = self.waiting.pop()[1]["W"]
        self.take("map_layer0", 2)
        self.take("map_layer1", 2)
        self.take(f"{self.enc(0)}_conv", 4)
        self.model_channels = len(self.state[f"{self.enc(0)}_conv.weight"])
        for i in range(self.levels):
            for k in range(self.num_blocks):
                self.block(f"{self.enc(i)}_block{k}", level=i)
            if i < self.levels - 1:
                self.block(f"{self.enc(i + 1)}_down")
                if self.waiting and "Conv2d_0.weight" in self.waiting[-1][1]:
                    self.put(f"{self.enc(i + 1)}_aux_residual", "Conv2d_0", self.waiting.pop()[1])
        self.block(f"{self.dec(self.levels - 1)}_in0", level=None, attention=True)
        self.block(f"{self.dec(self.levels - 1)}_in1")
        for i in reversed(range(self.levels)):
            for k in range(self.num_blocks + 1):
                self.block(f"{self.dec(i)}_block{k}", attention=k == self.num_blocks)
            if i:
                self.block(f"{self.dec(i - 1)}_up")
        self.take(f"{self.dec(0)}_aux_norm", 1)
        self.take(f"{self.dec(0)}_aux_conv", 4)
        if self.waiting:
            raise ValueError(f"all_modules.{self.waiting[-1][0]}: is more than such a network has")
        widths = [len(self.state[f"{self.enc(i)}_block0.conv1.weight"]) for i in range(self.levels)]
        self.channel_mult = tuple(width // self.model_channels for width in widths)

    def enc(self, level: int) -> str:
        return f"enc.{self.side >> level}x{self.side >> level}"

    def dec(self, level: int) -> str:
        return f"dec.{self.side >> level}x{self.side >> level}"

    def next(self, name: str, wanted: str, ndim: int | None = None) -> dict[str, Tensor]:
        """The next module, which must be what `name` wants it to be."""
        if not self.waiting:
            raise ValueError(f"all_modules: end where {name} should be")
        index, module = self.waiting.pop()
        if wanted not in module or (ndim is not None and module[wanted].ndim != ndim):
            raise ValueError(f"all_modules.{index}: is not {name}, which DDPM++ and NCSN++ have there")
        return module

    def put(self, name: str, theirs: str, module: Mapping[str, Tensor]) -> None:
        for leaf in ("weight", "bias"):
            if f"{theirs}.{leaf}" in module:
                self.state[f"{name}.{leaf}"] = module[f"{theirs}.{leaf}"]

    def take(self, name: str, ndim: int) -> None:
        module = self.next(name, "weight", ndim)
        self.state.update({f"{name}.{leaf}": value for leaf, value in module.items()})

    def block(self, name: str, *, level: int | None = None, attention: bool = False) -> None:
        """A residual block, with the attention that may follow it."""
        module = self.next(name, "Conv_1.weight")
        for leaf in module:
            part, _, kind = leaf.partition(".")
            if part not in _BLOCK:
                raise ValueError(f"{short_repr(leaf)} of {name}: is no layer of a block of BigGAN's kind")
            self.state[f"{name}.{_BLOCK[part]}.{kind}"] = module[leaf]
        if (attention or level is not None) and self.waiting and "NIN_3.W" in self.waiting[-1][1]:
            self.attend(name, self.waiting.pop()[1])
            if level is not None:
                self.attended.add(level)

    def attend(self, name: str, module: Mapping[str, Tensor]) -> None:
        self.put(f"{name}.norm2", "GroupNorm_0", module)
        # a NIN multiplies from the right; channel 3c + j of qkv is channel c of q, k or v
        parts = [(module[f"NIN_{j}.W"].mT, module[f"NIN_{j}.b"]) for j in range(4)]
        self.state[f"{name}.qkv.weight"] = torch.stack([W for W, _ in parts[:3]], dim=1).flatten(0, 1)[:, :, None, None]
        self.state[f"{name}.qkv.bias"] = torch.stack([b for _, b in parts[:3]], dim=1).flatten()
        self.state[f"{name}.proj.weight"] = parts[3][0][:, :, None, None]
        self.state[f"{name}.proj.bias"] = parts[3][1]


def _resamples(module: Mapping[str, Tensor]) -> bool:
    """Whether a block halves or doubles: only then its skip connection has a convolution between equal widths."""
    skip = module.get("Conv_2.weight")
    return skip is not None and skip.shape[0] == skip.shape[1]


def _preconditioning(kind: str, model: Mapping[str, Tensor]) -> tuple[Preconditioning, str]:
    """The preconditioning, and what is assumed of it."""
    if kind == "ddpmpp":
        return VPPreconditioning(), "the VP equation in continuous time, which weights do not tell from sub-VP"
    sigmas = next((value for name, value in model.items() if name.endswith("sigmas")), None)
    if sigmas is None or not sigmas.numel():
        return VEPreconditioning(), "σ from 0.02 to 100, as in CIFAR-10"
    # their images are in [0, 1], ours in [−1, 1]; decimals are what float32 holds of them
    low, high = (float(f"{2 * float(value):.6g}") for value in sigmas.aminmax())
    return VEPreconditioning(low, high), "the VE equation in continuous time"
