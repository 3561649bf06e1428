"""Features of data, and the Fréchet distance between two clouds of them, taken as Gaussians (Heusel et al. 2017)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch

from diffspace._shapes import Float, Tensor
from diffspace.checks import check_integer

_BLOCK = 2048  # features that are in float64 at once
_ROWS = 1024  # features that are added at once at least


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

    @classmethod
    def leading(cls, train: Float[Tensor, "n *dims"]) -> PCA:
        """The 64 leading components, or all if there are fewer, of up to 2048 items spread over `train`."""
        some = train[:: math.ceil(len(train) / 2048)]
        return cls.fit(some, min(64, len(some), math.prod(train.shape[1:])))

    @property
    def dim(self) -> int:
        return len(self.components)

    @property
    def name(self) -> str:
        return f"pca-{self.dim} {fingerprint([self.mean, self.components])}"

    def __call__(self, x: Float[Tensor, "n *dims"]) -> Float[Tensor, "n dim"]:
        return in_batches(lambda batch: (_flat(batch, len(self.mean)).double() - self.mean) @ self.components.T, x)


@dataclass(frozen=True, eq=False)
class NetworkExtractor:
    """The `FeatureExtractor` of a network.

    Args:
        network: takes data in the model's space, on `device`, and gives features (n, dim), perhaps followed by others.
        name: of the network, its weights, and what is done to the data before.
        dim: the number of features.
        device: where the network is; results are on the CPU.
        batch_size: items at a time.
    """

    network: Callable[[Tensor], Tensor]
    name: str
    dim: int
    device: torch.device | None = None
    batch_size: int = 32

    def __call__(self, x: Float[Tensor, "n *dims"]) -> Float[Tensor, "n dim"]:
        """Features (n, dim)."""
        return self._run(x)[:, : self.dim].contiguous()

    def _run(self, x: Tensor) -> Tensor:
        return in_batches(self.network, x, batch_size=self.batch_size, device=self.device).to(torch.float32)


class NetworkClassifier(NetworkExtractor):
    """A `NetworkExtractor` whose network also gives class logits, after its features."""

    def logits(self, x: Float[Tensor, "n *dims"]) -> Float[Tensor, "n classes"]:
        """What softmax turns into the probabilities of classes."""
        return self.features_and_logits(x)[1]

    def features_and_logits(
        self, x: Float[Tensor, "n *dims"]
    ) -> tuple[Float[Tensor, "n dim"], Float[Tensor, "n classes"]]:
        """Both in one pass."""
        both = self._run(x)
        return both[:, : self.dim].contiguous(), both[:, self.dim :].contiguous()


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


# ---- their distance


@dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """Number, mean and scatter Σ_i (f_i − mean)(f_i − mean)ᵀ of feature vectors, in float64 on the CPU.

    `of` makes them from features of shape (n, dim), `of_blocks` and `add` a block at a time, `from_moments` from a
    known mean and covariance. n is None where a file does not state it; `scatter` is the covariance then. `extractor`
    names what made the features, where that is known.
    """

    n: int | None
    mean: Float[Tensor, "dim"]
    scatter: Float[Tensor, "dim dim"]
    extractor: str | None = None

    def __post_init__(self) -> None:
        if self.n is not None:
            check_integer("n", self.n, 1)
        for name, value in (("mean", self.mean), ("scatter", self.scatter)):
            if value.dtype != torch.float64 or value.device.type != "cpu":
                raise ValueError(f"{name}: expected torch.float64 on cpu, got {value.dtype} on {value.device}")
            if not bool(torch.isfinite(value).all()):
                raise ValueError(f"{name}: has values that are not finite")
        if self.scatter.shape != (self.dim, self.dim):
            raise ValueError(f"scatter: expected shape {(self.dim, self.dim)}, got {tuple(self.scatter.shape)}")

    @classmethod
    def of(cls, features: Float[Tensor, "n dim"], extractor: str | None = None) -> FeatureStatistics:
        """The statistics of features of shape (n, dim), n ≥ 1, of which a block is in float64 at a time."""
        if len(features) == 0:
            raise ValueError("features: expected at least one, got none")
        blocks = torch.split(features.detach(), _BLOCK)
        dim = features.shape[1]
        total = torch.zeros(dim, dtype=torch.float64, device="cpu")
        scatter = torch.zeros(dim, dim, dtype=torch.float64, device="cpu")
        for block in blocks:
            total += block.to("cpu", torch.float64).sum(0)
        mean = total / len(features)
        for block in blocks:
            centred = block.to("cpu", torch.float64) - mean
            scatter.addmm_(centred.T, centred)
        return cls(len(features), mean, scatter, extractor)

    @classmethod
    def of_blocks(cls, blocks: Iterable[Tensor], extractor: str | None = None) -> FeatureStatistics:
        """The statistics of all blocks (n, dim) together, in memory for a block and some of dim·dim numbers."""
        result: FeatureStatistics | None = None
        for block in _gathered(blocks):
            result = cls.of(block, extractor) if result is None else result.add(block)
        if result is None:
            raise ValueError("blocks: expected at least one, got none")
        return result

    def add(self, features: Float[Tensor, "m dim"]) -> FeatureStatistics:
        """The statistics of these features and further ones, by the formula of Chan et al. 1979, which does not cancel.

        ValueError where n is not known.
        """
        n, more = self.n, FeatureStatistics.of(features)
        if n is None:
            raise ValueError("n: is not known of these statistics, and add needs it")
        if more.dim != self.dim:
            raise ValueError(f"features: expected {self.dim} of them as before, got {more.dim}")
        total = n + len(features)
        delta = more.mean - self.mean
        scatter = (self.scatter + more.scatter).addr_(delta, delta, alpha=n * len(features) / total)
        return FeatureStatistics(total, self.mean + delta * (len(features) / total), scatter, self.extractor)

    @classmethod
    def from_moments(
        cls,
        n: int | None,
        mean: Float[Tensor, "dim"],
        covariance: Float[Tensor, "dim dim"],
        extractor: str | None = None,
    ) -> FeatureStatistics:
        """From the mean and the unbiased covariance of n ≥ 2 feature vectors, or of an unknown number of them."""
        if n is not None:
            check_integer("n", n, 2)
        wide = covariance.detach().to("cpu", torch.float64)
        if wide.shape != (len(mean), len(mean)):
            raise ValueError(f"covariance: expected shape {(len(mean), len(mean))}, got {tuple(wide.shape)}")
        if not torch.allclose(wide, wide.T, rtol=1e-5, atol=1e-6 * float(wide.abs().max())):
            raise ValueError("covariance: not symmetric")
        factor = 1 if n is None else n - 1
        return cls(n, mean.detach().to("cpu", torch.float64), (wide + wide.T) * (factor / 2), extractor)

    @property
    def dim(self) -> int:
        """The number of features."""
        return self.mean.numel()

    @property
    def covariance(self) -> Float[Tensor, "dim dim"]:
        """The unbiased covariance, scatter / (n − 1); a ValueError for n = 1."""
        if self.n is None:
            return self.scatter
        if self.n < 2:
            raise ValueError(f"n: the covariance needs at least 2 items, got {self.n}")
        return self.scatter / (self.n - 1)

    @cached_property
    def root(self) -> Float[Tensor, "dim dim"]:
        """A square R with R·Rᵀ = Σ, the covariance; a ValueError where that has a negative eigenvalue."""
        values, vectors = torch.linalg.eigh(self.covariance)
        largest = float(values.abs().max())
        if float(values[0]) < -1e-6 * largest:
            raise ValueError(f"covariance: not positive semi-definite, its lowest eigenvalue is {float(values[0]):g}")
        # eigenvalues lost in rounding are those of a rank-deficient Σ, and their roots would not be small
        rounding = math.ulp(1.0) * self.dim * largest
        values = torch.where(values > rounding, values, 0.0)
        return torch.mul(vectors, values.sqrt())


def _gathered(blocks: Iterable[Tensor]) -> Iterator[Tensor]:
    """The rows of all blocks, in blocks of at least 1024: adding one costs as much as a thousand rows, or few."""
    waiting: list[Tensor] = []
    for block in blocks:
        waiting.append(block)
        if sum(map(len, waiting)) >= _ROWS:
            yield torch.cat(waiting) if len(waiting) > 1 else block
            waiting = []
    if waiting:
        yield torch.cat(waiting)


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """‖μ_a − μ_b‖² + tr(Σ_a + Σ_b − 2(Σ_a·Σ_b)^{1/2}), in float64, for covariances of any rank.

    With Σ = R·Rᵀ the trace is the minimum of ‖R_a − R_b·U‖²_F over orthogonal U, which is at the polar factor
    of R_bᵀ·R_a. A sum of squares is neither complex nor negative and, unlike the trace as written, does not
    lose the digits of a small distance by cancellation.
    """
    if a.dim != b.dim:
        raise ValueError(f"b: expected {a.dim} features as in a, got {b.dim}")
    left, _, right = torch.linalg.svd(b.root.T @ a.root)
    covariance_part = (a.root - b.root @ (left @ right)).square().sum()
    return float((a.mean - b.mean).square().sum() + covariance_part)
