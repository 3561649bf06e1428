"""A multilayer perceptron, for points and for small samples of any shape."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn
from torch.nn import functional as F

from diffspace._shapes import Float, Tensor
from diffspace.networks.conditioning import (
    ConditionedNetwork,
    config_of,
    require_int,
    require_ints,
    require_probability,
)
from diffspace.networks.layers import PositionalEmbedding, linear
from diffspace.protocols import Cond, check_cond

__all__ = ["MLP"]


class MLP(ConditionedNetwork):
    """F(x; c_noise) for samples of any `shape`, which are flattened.

    There are `depth` residual blocks of `width` features (an even number),
    h ← h + W₁·silu(W₀·silu(norm(h)) + W_e·emb), and a last layer that is zero at first.

    Conditions: "labels", class indices (B,) or vectors (B, label_dim), dropped in training with probability
    `label_dropout`; "augment" (B, augment_dim). A missing one is zeros.
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        label_dim: int = 0,
        augment_dim: int = 0,
        width: int = 128,
        depth: int = 3,
        dropout: float = 0.0,
        label_dropout: float = 0.0,
    ) -> None:
        require_ints("shape", shape)
        require_int("width", width, 4)
        require_int("depth", depth, 1)
        require_probability("dropout", dropout)
        if width % 2:
            raise ValueError(f"width: {width}; want an even number")
        super().__init__(
            PositionalEmbedding(width),
            noise_channels=width,
            emb_channels=width,
            label_dim=label_dim,
            augment_dim=augment_dim,
            label_dropout=label_dropout,
        )
        self.config = config_of(MLP, locals())
        self.shape = tuple(shape)
        self.input = linear(math.prod(shape), width)
        self.blocks = nn.ModuleList(_Block(width, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, math.prod(shape))
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(
        self, x: Float[Tensor, "batch *dims"], c_noise: Float[Tensor, "batch"], cond: Cond | None = None
    ) -> Float[Tensor, "batch *dims"]:
        """F(x; c_noise) for x that is already scaled by c_in."""
        if x.shape[1:] != self.shape:
            raise ValueError(f"x: shape {tuple(x.shape)}; want (B, {', '.join(map(str, self.shape))})")
        emb = self.embed(len(x), c_noise, check_cond(cond, self.conditions, "MLP"))
        h = self.input(x.flatten(1))
        for block in self.blocks:
            h = block(h, emb)
        y: Tensor = self.output(F.silu(self.norm(h)))
        return y.reshape(x.shape)


class _Block(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.norm = nn.LayerNorm(width)
        self.layer0 = linear(width, width)
        self.affine = linear(width, width, bias=False)
        self.layer1 = linear(width, width)

    def forward(self, h: Tensor, emb: Tensor) -> Tensor:
        y: Tensor = F.silu(self.layer0(F.silu(self.norm(h))) + self.affine(emb))
        y = self.layer1(F.dropout(y, self.dropout, self.training))
        return h + y
