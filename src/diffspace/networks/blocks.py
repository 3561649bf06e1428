"""The residual block of the U-Nets, and the styles that tell them apart (Appendix F.1, Table 7)."""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass
from typing import Literal

from torch import nn
from torch.nn import functional as F

from diffspace._shapes import Float, Tensor
from diffspace.networks.layers import Conv, Init, Resample, group_norm, uniform, xavier, zeros
from diffspace.tensors import is_transformed


@dataclass(frozen=True)
class Style:
    """The choices of one architecture."""

    # how weights are initialised: in most layers, in the projection to q, k and v, in the last layer of each branch
    init: Init
    init_attention: Init
    init_last: Init
    eps: float  # of the group normalisations
    skip_scale: float  # the factor of a sum of two branches; √½ keeps the variance
    adaptive_scale: bool = False  # the embedding scales and shifts after a normalisation, not only shifts before it
    project_resampled: bool = True  # a skip connection that resamples always has a 1×1 convolution
    filter: tuple[int, ...] = (1, 1)  # of the resampling
    fourier: bool = False  # c_noise is embedded by twice the number of random frequencies, not by a geometric series
    endpoint: bool = True  # the geometric series includes 1/10000
    late_labels: bool = False  # labels are added after the layers of the embedding, without a bias
    wide_input: bool = False  # the first convolution has as many channels as the first level
    encoder_type: Literal["standard", "skip", "residual"] = "standard"  # how the input reaches lower levels
    attended_side: int = 16  # by default levels whose longest side is at most this have attention
    attend_last: bool = True  # of these levels only the finest, and on the way up only its last block
    separate_output: bool = False  # the last normalisation and convolution are not part of `dec`


DDPMPP = Style(
    init=xavier,
    init_attention=functools.partial(xavier, gain=math.sqrt(0.2)),
    init_last=functools.partial(xavier, gain=1e-5),
    eps=1e-6,
    skip_scale=math.sqrt(0.5),
)
"""Song et al. 2021, for VP."""

NCSNPP = dataclasses.replace(DDPMPP, filter=(1, 3, 3, 1), fourier=True, encoder_type="residual")
"""Song et al. 2021, for VE."""

ADM = Style(
    init=uniform,
    init_attention=uniform,
    init_last=zeros,
    eps=1e-5,
    skip_scale=1.0,
    adaptive_scale=True,
    project_resampled=False,
    endpoint=False,
    late_labels=True,
    wide_input=True,
    attended_side=32,
    attend_last=False,
    separate_output=True,
)
"""Dhariwal and Nichol 2021."""


def _attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q·kᵀ/√d)·v."""
    if is_transformed(q):
        return (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1) @ v
    return F.scaled_dot_product_attention(q, k, v)


class UNetBlock(nn.Module):
    """Two convolutions of kernel size 3 with the embedding between them, a skip connection, then self-attention.

    h = conv₀(silu(norm₀(x))); h = silu(norm₁(h + affine(emb))), or silu((1 + scale)·norm₁(h) + shift) with
    (scale, shift) = affine(emb) where the style has an adaptive scale; y = c·(skip(x) + conv₁(h)) with c = skip_scale.
    With `heads` > 0 the block returns c·(y + proj(softmax(q·kᵀ/√d)·v)), where q, k, v = qkv(norm₂(y)), over pixels, in
    that number of heads of d channels. `resample` halves or doubles every side in conv₀ and skip.
    """

    def __init__(
        self,
        dims: int,
        in_channels: int,
        out_channels: int,
        emb_channels: int,
        style: Style,
        *,
        resample: Literal["up", "down"] | None = None,
        heads: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.style, self.dropout, self.heads = style, dropout, heads
        self.norm0 = group_norm(in_channels, style.eps)
        self.conv0 = style.init(Conv(dims, in_channels, out_channels, 3, resample=resample, filter=style.filter))
        self.affine = style.init(nn.Linear(emb_channels, out_channels * (2 if style.adaptive_scale else 1)))
        self.norm1 = group_norm(out_channels, style.eps)
        self.conv1 = style.init_last(Conv(dims, out_channels, out_channels, 3))
        self.skip: nn.Module = nn.Identity()
        if in_channels != out_channels or (resample is not None and style.project_resampled):
            self.skip = style.init(Conv(dims, in_channels, out_channels, 1, resample=resample, filter=style.filter))
        elif resample is not None:
            self.skip = Resample(dims, resample, style.filter)
        if heads:
            self.norm2 = group_norm(out_channels, style.eps)
            self.qkv = style.init_attention(Conv(dims, out_channels, 3 * out_channels, 1))
            self.proj = style.init_last(Conv(dims, out_channels, out_channels, 1))

    def forward(
        self, x: Float[Tensor, "batch channels *sides"], emb: Float[Tensor, "batch emb"]
    ) -> Float[Tensor, "batch out *_"]:
        h = self.conv0(F.silu(self.norm0(x)))
        shift = self.affine(emb)
        shift = shift.reshape(*shift.shape, *[1] * (x.ndim - 2))
        if self.style.adaptive_scale:
            scale, shift = shift.chunk(2, dim=1)
            h = F.silu(shift + (1 + scale) * self.norm1(h))
        else:
            h = F.silu(self.norm1(h + shift))
        h = self.conv1(F.dropout(h, self.dropout, self.training))
        y: Tensor = (self.skip(x) + h) * self.style.skip_scale
        return (y + self._attend(y)) * self.style.skip_scale if self.heads else y

    def _attend(self, y: Tensor) -> Tensor:
        channels = y.shape[1]

        def ordered(parameter: Tensor) -> Tensor:
            # channel 3c + j of a head's qkv is channel c of its q, k or v (j = 0, 1, 2); this puts q, k and v first
            return parameter.reshape(self.heads, -1, 3, *parameter.shape[1:]).movedim(2, 0).reshape(3 * channels, -1)

        pixels = self.norm2(y).flatten(2).mT  # no copy where channels are last
        qkv = F.linear(pixels, ordered(self.qkv.weight), ordered(self.qkv.bias).flatten())
        q, k, v = qkv.reshape(*qkv.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = _attention(q, k, v).transpose(1, 2).flatten(2)
        return F.linear(mixed, self.proj.weight.flatten(1), self.proj.bias).mT.reshape(y.shape)
