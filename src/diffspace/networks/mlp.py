"""A multilayer perceptron, for points and for small samples of any shape."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from diffspace._shapes import Batch, Float, Tensor
from diffspace.checks import check_integer, check_number
from diffspace.networks.embedding import ConditionedNetwork, check_shape, check_sizes, config_of
from diffspace.networks.layers import PositionalEmbedding, xavier, zeros
from diffspace.protocols import Cond


class MLP(ConditionedNetwork):
    """F(x; c_noise) for samples of any shape, which are flattened.

    `depth` residual blocks of `width` features compute h + W₁·silu(W₀·silu(norm(h)) + W_e·emb); the last layer is
    initially zero.

    Args:
        shape: the shape of one sample.
        width: features of every layer, an even number of at least 4.
        depth: number of residual blocks.
        dropout: probability in the blocks.
        label_dim: number of classes; the condition "labels" is class indices (B,) or vectors (B, label_dim).
        label_dropout: probability that a condition is dropped in training.
        augment_dim: length of the condition "augment", (B, augment_dim).
        conditioning: further conditions by name, each a `Condition`; images are flattened beside x.
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        width: int = 128,
        depth: int = 3,
        dropout: float = 0.0,
        label_dim: int = 0,
        label_dropout: float = 0.0,
        augment_dim: int = 0,
        conditioning: Mapping[str, Any] | None = None,
    ) -> None:
        check_sizes("shape", shape)
        check_integer("width", width, 4)
        check_integer("depth", depth, 1)
        check_number("dropout", dropout, "[0, 1)")
        if width % 2:
            raise ValueError(f"width: expected an even number, got {width}")
        super().__init__(
            PositionalEmbedding(width),
            noise_channels=width,
            emb_channels=width,
            label_dim=label_dim,
            augment_dim=augment_dim,
            label_dropout=label_dropout,
            conditioning=conditioning,
        )
        self.config = config_of(MLP, locals())
        self.shape = tuple(shape)
        beside = sum(math.prod(each.shape) + (label_dropout > 0) for _, each in self._of_kind(image=True))
        self.input = xavier(nn.Linear(math.prod(shape) + beside, width))
        self.blocks = nn.ModuleList(_Block(width, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.output = zeros(nn.Linear(width, math.prod(shape)))

    def forward(self, x: Batch, c_noise: Float[Tensor, "batch"], cond: Cond | None = None) -> Batch:
        """F(x; c_noise) for x scaled by c_in."""
        check_shape("x", x, (x.shape[0], *self.shape))
        given = self.receive(x, cond)
        emb = self.embed(x.shape[0], c_noise, given)
        flat = [x, *(part for pair in self.images(x, given) for part in pair if part is not None)]
        h = self.input(torch.cat([part.flatten(1) for part in flat], dim=1))
        for block in self.blocks:
            h = block(h, emb)
        y: Tensor = self.output(F.silu(self.norm(h)))
        return y.reshape(x.shape)


class _Block(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.norm = nn.LayerNorm(width)
        self.layer0 = xavier(nn.Linear(width, width))
        self.affine = xavier(nn.Linear(width, width, bias=False))
        self.layer1 = xavier(nn.Linear(width, width))

    def forward(self, h: Tensor, emb: Tensor) -> Tensor:
        y: Tensor = F.silu(self.layer0(F.silu(self.norm(h))) + self.affine(emb))
        y = self.layer1(F.dropout(y, self.dropout, self.training))
        return h + y
