"""Inception-v3 of 2015-12-05 (Szegedy et al. 2016), the network in whose features FID is defined.

Its layers, and their names, are those of torch-fidelity's translation of TensorFlow's graph: average pooling that
leaves the padding out, and a maximum instead of an average in the last block.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import nn
from torch.nn import functional

from diffspace._shapes import Shaped, Tensor
from diffspace.metrics.extractors.images import resize_like_tf1
from diffspace.metrics.extractors.weights import PublishedWeights, load_state

WEIGHTS = PublishedWeights(
    file="weights-inception-2015-12-05-6726825d.pth",
    also=("pt_inception-2015-12-05-6726825d.pth",),  # the same bytes, as pytorch-fid names them
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    url="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    megabytes=96,
)
NAME = "inception-v3-2015-12-05 tf1-bilinear-299"
FEATURES, CLASSES = 2048, 1008
_SIZE = 299

_POOLS = {
    "average": partial(functional.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False),
    "maximum": partial(functional.max_pool2d, kernel_size=3, stride=1, padding=1),
    "halve": partial(functional.max_pool2d, kernel_size=3, stride=2),
}

# a block is parallel branches of steps: NAME channels kernel, where "/2" strides without padding, "v" has no padding,
# and "+" puts the outputs of two layers side by side
_Branches = tuple[str, ...]


def _a(pool: int) -> _Branches:
    return (
        "branch1x1 64 1x1",
        "branch5x5_1 48 1x1, branch5x5_2 64 5x5",
        "branch3x3dbl_1 64 1x1, branch3x3dbl_2 96 3x3, branch3x3dbl_3 96 3x3",
        f"average, branch_pool {pool} 1x1",
    )


def _c(n: int) -> _Branches:
    return (
        "branch1x1 192 1x1",
        f"branch7x7_1 {n} 1x1, branch7x7_2 {n} 1x7, branch7x7_3 192 7x1",
        f"branch7x7dbl_1 {n} 1x1, branch7x7dbl_2 {n} 7x1, branch7x7dbl_3 {n} 1x7, branch7x7dbl_4 {n} 7x1, "
        "branch7x7dbl_5 192 1x7",
        "average, branch_pool 192 1x1",
    )


def _e(pool: str) -> _Branches:
    return (
        "branch1x1 320 1x1",
        "branch3x3_1 384 1x1, branch3x3_2a 384 1x3 + branch3x3_2b 384 3x1",
        "branch3x3dbl_1 448 1x1, branch3x3dbl_2 384 3x3, branch3x3dbl_3a 384 1x3 + branch3x3dbl_3b 384 3x1",
        f"{pool}, branch_pool 192 1x1",
    )


_B = ("branch3x3 384 3x3/2", "branch3x3dbl_1 64 1x1, branch3x3dbl_2 96 3x3, branch3x3dbl_3 96 3x3/2", "halve")
_D = (
    "branch3x3_1 192 1x1, branch3x3_2 320 3x3/2",
    "branch7x7x3_1 192 1x1, branch7x7x3_2 192 1x7, branch7x7x3_3 192 7x1, branch7x7x3_4 192 3x3/2",
    "halve",
)
_STEM = (
    "Conv2d_1a_3x3 32 3x3/2, Conv2d_2a_3x3 32 3x3v, Conv2d_2b_3x3 64 3x3, halve, "
    "Conv2d_3b_1x1 80 1x1, Conv2d_4a_3x3 192 3x3v, halve",
)
_BLOCKS = {"Mixed_5b": _a(32), "Mixed_5c": _a(64), "Mixed_5d": _a(64), "Mixed_6a": _B}
_BLOCKS |= {"Mixed_6b": _c(128), "Mixed_6c": _c(160), "Mixed_6d": _c(160), "Mixed_6e": _c(192)}
_BLOCKS |= {"Mixed_7a": _D, "Mixed_7b": _e("average"), "Mixed_7c": _e("maximum")}


class _ConvNorm(nn.Module):
    """Convolution without bias, batch normalisation with ε = 0.001, ReLU."""

    def __init__(self, channels: int, out: int, kernel: str) -> None:
        super().__init__()
        sides, half, valid = kernel.rstrip("v/2"), kernel.endswith("/2"), kernel.endswith("v")
        height, width = map(int, sides.split("x"))
        padding = (0, 0) if half or valid else (height // 2, width // 2)
        self.conv = nn.Conv2d(channels, out, (height, width), 2 if half else 1, padding, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(x)), inplace=True)


class _Block(nn.Module):
    """Parallel branches, whose outputs are concatenated."""

    def __init__(self, channels: int, branches: _Branches) -> None:
        super().__init__()
        self.branches: list[list[list[str]]] = []
        self.out = 0
        for branch in branches:
            here, steps = channels, []
            for step in branch.split(", "):
                layers = [part.split() for part in step.split(" + ")]
                steps.append([name for name, *_ in layers])
                if step not in _POOLS:
                    for name, out, kernel in layers:
                        self.add_module(name, _ConvNorm(here, int(out), kernel))
                    here = sum(int(out) for _, out, _ in layers)
            self.branches.append(steps)
            self.out += here

    def forward(self, x: Tensor) -> Tensor:
        outputs = []
        for steps in self.branches:
            y = x
            for names in steps:
                y = _joined([(_POOLS.get(name) or self.get_submodule(name))(y) for name in names])
            outputs.append(y)
        return _joined(outputs)


def _joined(tensors: list[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, 1)


class InceptionV3(_Block):
    """uint8 RGB of any size -> 2048 features and the 1008 logits, without their bias, of which IS is defined.

    Pictures are resized to 299×299 as TensorFlow 1 does it, and scaled to (v − 128)/128.
    """

    def __init__(self) -> None:
        super().__init__(3, _STEM)
        channels = self.out
        for name, branches in _BLOCKS.items():
            block = _Block(channels, branches)
            self.add_module(name, block)
            channels = block.out
        self.fc = nn.Linear(channels, CLASSES)

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> InceptionV3:
        """The network, frozen, with the tensors of a state dict of torch-fidelity's or pytorch-fid's."""
        return load_state(cls, state)

    def forward(self, pixels: Shaped[Tensor, "n 3 height width"]) -> Shaped[Tensor, "n 3056"]:
        x = super().forward((resize_like_tf1(pixels, _SIZE) - 128) / 128)
        for name in _BLOCKS:
            x = self.get_submodule(name)(x)
        features = x.mean((2, 3))
        return torch.cat([features, features @ self.fc.weight.T], 1)
