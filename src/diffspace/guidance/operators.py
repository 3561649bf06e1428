"""Measurements y = A(x) + n of linear inverse problems.

A is any linear or affine, differentiable function from (B, *dims) to (B, *measured), sample by sample. Its adjoint
comes from autograd.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from diffspace._shapes import Batch, Bool, Float, Tensor
from diffspace.checks import check_integer

LinearOperator: TypeAlias = Callable[[Tensor], Tensor]
"""A(x): (B, *dims) -> (B, *measured)."""


@dataclass(frozen=True, eq=False)
class Matrix:
    """A(x) = M·x over the flattened dimensions of a sample: (B, *dims) -> (B, m), with M of shape (m, d)."""

    matrix: Float[Tensor, "m d"]

    def __call__(self, x: Batch) -> Float[Tensor, "batch m"]:
        flat = x.flatten(1)
        if flat.shape[1] != self.matrix.shape[1]:
            raise ValueError(f"matrix: shape {tuple(self.matrix.shape)} for samples of {flat.shape[1]} numbers")
        return flat @ self.matrix.to(x).T


@dataclass(frozen=True, eq=False)
class Mask:
    """A(x): the values of x where `mask` is True, (B, *dims) -> (B, m). The mask broadcasts to a sample."""

    mask: Bool[Tensor, "*dims"]

    def __call__(self, x: Batch) -> Float[Tensor, "batch m"]:
        try:
            known = self.mask.to(x.device).expand(x.shape[1:])
        except RuntimeError:
            shapes = f"{tuple(self.mask.shape)} for samples of shape {tuple(x.shape[1:])}"
            raise ValueError(f"mask: shape {shapes}") from None
        return x[:, known]


@dataclass(frozen=True)
class AveragePooling:
    """A(x): means over cubes of `factor` per side, (B, C, *sides) -> (B, C, *(sides/factor)), in any dimensions."""

    factor: int

    def __post_init__(self) -> None:
        check_integer("factor", self.factor, 1)

    def __call__(self, x: Float[Tensor, "batch channels *sides"]) -> Float[Tensor, "batch channels *pooled"]:
        if any(side % self.factor for side in x.shape[2:]):
            raise ValueError(f"factor: {self.factor} does not divide the sides {tuple(x.shape[2:])}")
        pairs = [n for side in x.shape[2:] for n in (side // self.factor, self.factor)]
        inner = tuple(range(3, 2 + len(pairs), 2))
        return x.reshape(*x.shape[:2], *pairs).mean(inner) if inner else x
