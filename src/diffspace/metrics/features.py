"""Feature extractors: maps from data to the vectors in which a Fréchet distance is taken."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from diffspace._shapes import Float, Tensor
from diffspace.checks import check_integer


@runtime_checkable
class FeatureExtractor(Protocol):
    """Features (n, dim) of data (n, *dims) in the model's space, on the CPU and without gradients.

    `name` is printed with every score: two extractors that can disagree need different names.
    """

    @property
    def name(self) -> str: ...

    @property
    def dim(self) -> int: ...

    def __call__(self, x: Tensor, /) -> Tensor: ...


@dataclass(frozen=True)
class Identity:
    """The data themselves, flattened to `dim` numbers: for points and vectors."""

    dim: int

    @property
    def name(self) -> str:
        return f"identity-{self.dim}"

    def __call__(self, x: Float[Tensor, "n *dims"]) -> Float[Tensor, "n dim"]:
        return _flat(x, self.dim)


@dataclass(frozen=True, eq=False)
class PCA:
    """The leading principal components of real data: for images and arrays without labels.

    f(x) = components·(x − mean), with `mean` of shape (elements,) and orthonormal rows in `components` (dim,
    elements), both in float64.
    """

    mean: Float[Tensor, "elements"]
    components: Float[Tensor, "dim elements"]

    @classmethod
    def fit(cls, x: Float[Tensor, "n *dims"], dim: int) -> PCA:
        """The `dim` directions in which x varies most; takes time n·elements·min(n, elements)."""
        flat = x.detach().to("cpu", torch.float64).flatten(1)
        check_integer("dim", dim, 1, min(flat.shape))
        mean = flat.mean(0)
        return cls(mean, torch.linalg.svd(flat - mean, full_matrices=False).Vh[:dim])

    @property
    def dim(self) -> int:
        return len(self.components)

    @property
    def name(self) -> str:
        return f"pca-{self.dim} {fingerprint([self.mean, self.components])}"

    def __call__(self, x: Float[Tensor, "n *dims"]) -> Float[Tensor, "n dim"]:
        return in_batches(lambda batch: (_flat(batch, len(self.mean)).double() - self.mean) @ self.components.T, x)


def default_extractor(train: Float[Tensor, "n *dims"]) -> Identity | PCA:
    """Identity up to 64 elements, else the 64 leading principal components of up to 2048 items, spread over `train`."""
    elements = math.prod(train.shape[1:])
    if elements <= 64:
        return Identity(elements)
    some = train[:: math.ceil(len(train) / 2048)]
    return PCA.fit(some, min(64, len(some)))


@torch.no_grad()
def in_batches(
    function: Callable[[Tensor], Tensor],
    x: Float[Tensor, "n *dims"],
    *,
    batch_size: int = 512,
    device: torch.device | None = None,
) -> Tensor:
    """function(x), a batch at a time on `device`, joined on the CPU, without gradients."""
    check_integer("batch_size", batch_size, 1)
    return torch.cat([function(batch.to(device or "cpu")).cpu() for batch in torch.split(x, batch_size)])


def fingerprint(tensors: Iterable[Tensor]) -> str:
    """Eight hexadecimal digits, a hash of the tensors' bits."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:8]


def _flat(x: Tensor, elements: int) -> Tensor:
    flat = x.detach().cpu().flatten(1)
    if flat.shape[1] != elements:
        raise ValueError(f"x: expected items of {elements} elements, got shape {tuple(x.shape)}")
    return flat
