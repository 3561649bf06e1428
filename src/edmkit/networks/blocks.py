"""The residual block of the U-Nets."""

from __future__ import annotations

import math
from typing import Literal

from torch import nn
from torch.nn import functional as F

from edmkit._shapes import Float, Tensor
from edmkit.networks.layers import Conv2d, group_norm, linear

__all__ = ["UNetBlock"]

_SKIP_SCALE = math.sqrt(0.5)  # a sum of two branches has the variance of one


class UNetBlock(nn.Module):
    """Two 3×3 convolutions with the embedding added between them, a skip connection, then self-attention.

    y = √½·(skip(x) + conv₁(silu(norm₁(conv₀(silu(norm₀(x))) + affine(emb))))). With `attention` the block
    returns √½·(y + proj(softmax(q·kᵀ/√C)·v)), where q, k, v = qkv(norm₂(y)), over pixels, with one head.
    `resample` halves or doubles height and width in conv₀ and skip (Song et al. 2021, Appendix H).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        emb_channels: int,
        *,
        resample: Literal["up", "down"] | None = None,
        attention: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.attention = attention
        self.norm0 = group_norm(in_channels)
        self.conv0 = Conv2d(in_channels, out_channels, 3, resample=resample)
        self.affine = linear(emb_channels, out_channels)
        self.norm1 = group_norm(out_channels)
        self.conv1 = Conv2d(out_channels, out_channels, 3, gain=1e-5)
        self.skip: nn.Module = nn.Identity()
        if resample is not None or in_channels != out_channels:
            self.skip = Conv2d(in_channels, out_channels, 1, resample=resample)
        if attention:
            self.norm2 = group_norm(out_channels)
            self.qkv = Conv2d(out_channels, 3 * out_channels, 1, gain=math.sqrt(0.2))
            self.proj = Conv2d(out_channels, out_channels, 1, gain=1e-5)

    def forward(
        self, x: Float[Tensor, "batch channels height width"], emb: Float[Tensor, "batch emb"]
    ) -> Float[Tensor, "batch out _ _"]:
        """The block applied to features x, with embedding vectors emb."""
        h = self.conv0(F.silu(self.norm0(x)))
        h = F.silu(self.norm1(h + self.affine(emb)[:, :, None, None]))
        h = self.conv1(F.dropout(h, self.dropout, self.training))
        y: Tensor = (self.skip(x) + h) * _SKIP_SCALE
        return (y + self._attend(y)) * _SKIP_SCALE if self.attention else y

    def _attend(self, y: Tensor) -> Tensor:
        batch, channels, height, width = y.shape
        # channel 3c + j of qkv is channel c of q, k or v, for j = 0, 1, 2
        qkv = self.qkv(self.norm2(y)).reshape(batch, channels, 3, height * width)
        q, k, v = qkv.permute(2, 0, 3, 1).contiguous().unsqueeze(2)
        mixed = F.scaled_dot_product_attention(q, k, v)
        projected: Tensor = self.proj(mixed.mT.reshape(batch, channels, height, width))
        return projected
