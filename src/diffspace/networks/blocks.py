"""The residual block of the U-Nets."""

from __future__ import annotations

from typing import Literal

from torch import nn
from torch.nn import functional as F

from diffspace._shapes import Float, Tensor
from diffspace.networks.layers import Conv, Resample, group_norm
from diffspace.networks.styles import Style


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
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return F.linear(mixed, self.proj.weight.flatten(1), self.proj.bias).mT.reshape(y.shape)
