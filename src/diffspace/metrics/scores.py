"""Scores of features: Fréchet distance, also for infinitely many samples, KID, Inception score, sliced Wasserstein.

Each is a function of the features of samples and of a reference, and returns an `Estimate`: a value with its standard
error. Sums go in blocks, so that 50,000 × 2048 features need little memory beside themselves.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from diffspace._shapes import Float, Int, Tensor
from diffspace.checks import check_integer, check_seed, check_type
from diffspace.metrics.features import FeatureStatistics, frechet_distance
from diffspace.tensors import check_floating

BLOCK = 1024  # rows of features that are in float64 at once


@dataclass(frozen=True)
class Estimate:
    """A score of n samples, and the standard deviation that it has over fresh samples, None where it is not known."""

    value: float
    standard_error: float | None
    n: int
    note: str = ""

    def __str__(self) -> str:
        return f"{self.value:.4g}" + ("" if self.standard_error is None else f" ± {self.standard_error:.2g}")


@dataclass(frozen=True, eq=False)
class Features:
    """Features (n, dim) of n items, which may be memory-mapped, with logits (n, classes) and labels (n,) if known."""

    values: Float[Tensor, "n dim"]
    extractor: str = "features"
    logits: Float[Tensor, "n classes"] | None = None
    labels: Int[Tensor, "n"] | None = None

    def __post_init__(self) -> None:
        check_floating("values", self.values)
        if self.values.ndim != 2 or len(self.values) == 0:
            raise ValueError(f"values: expected features (n, dim) of n > 0 items, got shape {tuple(self.values.shape)}")
        for name, part in (("logits", self.logits), ("labels", self.labels)):
            if part is not None and len(part) != len(self.values):
                raise ValueError(f"{name}: expected one for each of {len(self.values)} items, got {len(part)}")
        for block in torch.split(self.values, BLOCK):
            if not bool(torch.isfinite(block).all()):
                raise ValueError(f"values: the features of {self.extractor} have values that are not finite")

    def __len__(self) -> int:
        return len(self.values)

    @property
    def dim(self) -> int:
        """The number of features of an item."""
        return self.values.shape[1]

    @cached_property
    def statistics(self) -> FeatureStatistics:
        """Their number, mean and scatter."""
        return FeatureStatistics.of_blocks(torch.split(self.values, 4 * BLOCK), self.extractor)

    def take(self, items: Int[Tensor, "k"]) -> Features:
        """Those of some items."""
        logits, labels = (None if part is None else part[items] for part in (self.logits, self.labels))
        return replace(self, values=self.values[items], logits=logits, labels=labels)

    def part(self, start: int, stop: int) -> Features:
        """Those of items in a row, without a copy."""
        logits, labels = (None if part is None else part[start:stop] for part in (self.logits, self.labels))
        return replace(self, values=self.values[start:stop], logits=logits, labels=labels)


def check_pair(samples: Features, reference: Features | FeatureStatistics, least: int = 2) -> None:
    """Check that both are features of one extractor, and that there are at least `least` of each."""
    check_type("samples", samples, Features)
    if not isinstance(reference, Features | FeatureStatistics):
        raise ValueError(f"reference: expected Features(…) or FeatureStatistics, got {type(reference).__name__}")
    if samples.dim != reference.dim:
        raise ValueError(f"reference: expected {samples.dim} features as of samples, got {reference.dim}")
    if reference.extractor not in (None, samples.extractor):
        raise ValueError(f"reference: its features are of {reference.extractor}, those of samples {samples.extractor}")
    check_integer("number of samples", len(samples), least)
    if isinstance(reference, Features):
        check_integer("number of items of reference", len(reference), least)


# ---- Fréchet distance


def frechet(samples: Features, reference: Features | FeatureStatistics) -> Estimate:
    """The Fréchet distance d² of n samples to the reference (Heusel et al. 2017), as `frechet_distance`.

    It is biased: it falls with n, by about a constant over n. The standard error is that over fresh samples, the
    reference being fixed, to first order in 1/n (the delta method, from `frechet_slopes`).
    """
    check_pair(samples, reference)
    target = reference.statistics if isinstance(reference, Features) else reference
    value = frechet_distance(samples.statistics, target)
    n, note = len(samples), ""
    if n <= samples.dim:
        note = f"{n} items do not span {samples.dim} features: covariances are singular"
    slopes = frechet_slopes(samples.values, samples.statistics, target)
    return Estimate(value, float(slopes.std()) / math.sqrt(n), n, note)


def frechet_slopes(
    values: Float[Tensor, "n dim"], around: FeatureStatistics, target: FeatureStatistics
) -> Float[Tensor, "n"]:
    """How much each item adds to the Fréchet distance: its derivative at `around` towards the item, but a constant.

    h(x) = 2(μ − μ_t)·(x − μ) + (x − μ)ᵀ(I − T)(x − μ) with μ, Σ of `around`, μ_t, Σ_t = R·Rᵀ of `target` and the map
    T = R·(RᵀΣR)^{−1/2}·Rᵀ of optimal transport from N(0, Σ) to N(0, Σ_t).
    """
    root = target.root
    eigenvalues, vectors = torch.linalg.eigh(root.T @ around.covariance @ root)
    rounding = 1e-12 * float(eigenvalues[-1])
    inverse = torch.where(eigenvalues > rounding, eigenvalues, math.inf).rsqrt()
    transport = root @ torch.mul(vectors, inverse) @ vectors.T @ root.T
    shift = 2 * (around.mean - target.mean)

    slopes = []
    for block in torch.split(values, BLOCK):
        centred = block.double() - around.mean
        slopes.append(centred @ shift + (centred * (centred - centred @ transport)).sum(1))
    return torch.cat(slopes)


def frechet_infinity(
    samples: Features, reference: Features | FeatureStatistics, *, points: int = 15, seed: int = 0
) -> Estimate:
    """The Fréchet distance extrapolated to infinitely many samples (Chong & Forsyth 2020, arXiv:1911.07023).

    A line in 1/N through the distances of random subsets of N samples, N in `points` equal steps from n/10 to n (from
    twice the number of features, where that is more, since the distance is not yet linear there); its value at
    1/N = 0. The bias that the finite reference causes stays. The standard error is that of the distance of all samples
    and that of the line's intercept, squared and added.
    """
    check_pair(samples, reference, least=20)
    check_integer("points", points, 3)
    check_seed("seed", seed)
    target = reference.statistics if isinstance(reference, Features) else reference
    n = len(samples)
    first = max(n // 10, min(2 * samples.dim, n // 2), 2)
    sizes = np.linspace(first, n, points).astype(int)
    generator = torch.Generator().manual_seed(seed)
    distances = []
    for size in sizes.tolist():
        chosen = torch.randperm(n, generator=generator, dtype=torch.int64, device="cpu")[:size]
        distances.append(frechet_distance(FeatureStatistics.of(samples.values[chosen]), target))
    design = np.stack([np.ones(points), 1 / sizes], 1)
    (intercept, _), residual, *_ = np.linalg.lstsq(design, np.array(distances), rcond=None)
    of_line = float(residual[0]) / (points - 2) * np.linalg.inv(design.T @ design)[0, 0] if len(residual) else 0.0
    own = frechet(samples, target)
    error = math.hypot(own.standard_error or 0.0, math.sqrt(of_line))
    return Estimate(float(intercept), error, n, f"a line in 1/N through {points} N from {first} to {n}")


# ---- KID


def cubic_kernel(x: Float[Tensor, "n dim"], y: Float[Tensor, "m dim"]) -> Float[Tensor, "n m"]:
    """(x·y/dim + 1)³, in float64."""
    kernel: Tensor = (x.double() @ y.double().T / x.shape[1] + 1) ** 3
    return kernel


def kid(
    samples: Features, reference: Features, *, subsets: int | None = None, subset_size: int = 1000, seed: int = 2020
) -> Estimate:
    """KID, the unbiased squared maximum mean discrepancy with the kernel (x·y/dim + 1)³ (Bińkowski et al. 2018).

    mean_{i≠j} k(x_i, x_j) + mean_{i≠j} k(y_i, y_j) − 2·mean_{i,j} k(x_i, y_j), over all pairs, which may be negative.
    With `subsets`, the mean over that many random subsets of `subset_size`, drawn as torch-fidelity draws them.

    The standard error is that over fresh samples and a fresh reference: of the linear part, 4·var(g)/n for either
    side, and of what is quadratic, which is all there is where the distributions are equal.
    """
    check_pair(samples, reference, least=4)
    value, error = _mmd(samples.values, reference.values)
    n = len(samples)
    if subsets is None:
        return Estimate(value, error, n)
    check_integer("subsets", subsets, 2)
    check_integer("subset_size", subset_size, 2, min(n, len(reference)))
    check_seed("seed", seed)
    random = np.random.RandomState(seed)
    values = []
    for _ in range(subsets):
        rows = (torch.from_numpy(random.choice(len(x), subset_size, replace=False)) for x in (samples, reference))
        values.append(_mmd(*(x.values[at] for x, at in zip((samples, reference), rows, strict=True)))[0])
    spread = float(np.std(values, ddof=1)) / math.sqrt(subsets)
    return Estimate(float(np.mean(values)), math.hypot(error, spread), n, f"{subsets} subsets of {subset_size}")


def _mmd(x: Tensor, y: Tensor) -> tuple[float, float]:
    """The unbiased squared MMD of the cubic kernel and its standard error."""
    (rows_xx, square_xx), (rows_yy, square_yy) = _within(x), _within(y)
    rows_xy, rows_yx, square_xy = _between(x, y)
    n, m = len(x), len(y)
    value = float(rows_xx.mean() + rows_yy.mean() - 2 * rows_xy.mean())
    # mean squares of the kernels less what each of their two arguments explains
    noise_xx = max(square_xx - 2 * float(rows_xx.square().mean()) + float(rows_xx.mean()) ** 2, 0.0)
    noise_yy = max(square_yy - 2 * float(rows_yy.square().mean()) + float(rows_yy.mean()) ** 2, 0.0)
    explained = float(rows_xy.square().mean() + rows_yx.square().mean() - rows_xy.mean() ** 2)
    noise_xy = max(square_xy - explained, 0.0)
    # the variance of the means of rows, less the noise that they have from the finite number of columns
    linear_x = float((rows_xx - rows_xy).var()) - noise_xx / (n - 1) - noise_xy / m
    linear_y = float((rows_yy - rows_yx).var()) - noise_yy / (m - 1) - noise_xy / n
    linear = 4 * max(linear_x, 0.0) / n + 4 * max(linear_y, 0.0) / m
    quadratic = 2 * noise_xx / (n * (n - 1)) + 2 * noise_yy / (m * (m - 1)) + 4 * noise_xy / (n * m)
    return value, math.sqrt(linear + quadratic)


def _within(x: Tensor) -> tuple[Tensor, float]:
    """For each item the mean kernel with the other items, and the mean square over all pairs."""
    n, sums, square = len(x), [], 0.0
    for start, rows in _blocks(x):
        total = torch.zeros(len(rows), dtype=torch.float64, device="cpu")
        for first, columns in _blocks(x):
            kernel = cubic_kernel(rows, columns)
            if first == start:
                kernel.fill_diagonal_(0.0)
            total += kernel.sum(1)
            square += float(kernel.square().sum())
        sums.append(total)
    return torch.cat(sums) / (n - 1), square / (n * (n - 1))


def _between(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, float]:
    """For each item of x its mean kernel with y, for each of y with x, and the mean square over all pairs."""
    of_x = torch.zeros(len(x), dtype=torch.float64, device="cpu")
    of_y = torch.zeros(len(y), dtype=torch.float64, device="cpu")
    square = 0.0
    for start, rows in _blocks(x):
        for first, columns in _blocks(y):
            kernel = cubic_kernel(rows, columns)
            of_x[start : start + len(rows)] += kernel.sum(1)
            of_y[first : first + len(columns)] += kernel.sum(0)
            square += float(kernel.square().sum())
    return of_x / len(y), of_y / len(x), square / (len(x) * len(y))


def _blocks(x: Tensor) -> Iterator[tuple[int, Tensor]]:
    for start in range(0, len(x), BLOCK):
        yield start, x[start : start + BLOCK]


def kid_slopes(pool: Features, reference: Features) -> Float[Tensor, "n"]:
    """How much each item of a pool adds to the squared MMD to the reference, the witness 2(mean_pool k − mean_ref k).

    For two halves of a pool of 2n, mean_1 h − mean_2 h is the difference of their KIDs: exactly, with the term of
    k(x, x) by which the unbiased estimate leaves out the pairs of an item with itself.
    """
    n = len(pool) / 2
    rows, _ = _within(pool.values)
    own = torch.cat([(b.double().square().sum(1) / pool.dim + 1) ** 3 for b in torch.split(pool.values, BLOCK)])
    everyone = (rows * (len(pool) - 1) + own) / len(pool)
    return (2 * n * everyone - own) / (n - 1) - 2 * _between(pool.values, reference.values)[0]


def kernel_variance(x: Features) -> float:
    """The mean squared MMD between one item and all: mean k(x, x) less the mean kernel of two items."""
    own = torch.cat([(b.double().square().sum(1) / x.dim + 1) ** 3 for b in torch.split(x.values, BLOCK)])
    return float(own.mean() - _within(x.values)[0].mean())


# ---- Inception score


def inception_score(samples: Features, *, splits: int = 10) -> Estimate:
    """exp(mean KL(p(y|x) ‖ p(y))) over the logits of samples (Salimans et al. 2016); higher is better.

    The mean over `splits` consecutive parts, as usual; each part has its own p(y), which biases it. The standard error
    is that of the mean of KL, times the score.
    """
    logits = _logits(samples)
    check_integer("splits", splits, 1, len(samples) // 2)
    log_p = logits.double().log_softmax(1)
    bounds = [i * len(log_p) // splits for i in range(splits + 1)]
    parts = [log_p[start:stop] for start, stop in itertools.pairwise(bounds)]
    value = sum(math.exp(float(_divergence(part, part).mean())) for part in parts) / splits
    error = value * float(_divergence(log_p, log_p).std()) / math.sqrt(len(log_p))
    return Estimate(value, error, len(log_p), f"{splits} splits")


def inception_slopes(logits: Float[Tensor, "n classes"]) -> Float[Tensor, "n"]:
    """KL(p(y|x) ‖ p(y)) of each item, with p(y) of the pool: the derivative of the logarithm of the score."""
    log_p = logits.double().log_softmax(1)
    return _divergence(log_p, log_p)


def _divergence(log_p: Tensor, everyone: Tensor) -> Tensor:
    marginal = everyone.exp().mean(0).log()
    p = log_p.exp()
    return torch.where(p > 0, p * (log_p - marginal), 0.0).sum(1)


def _logits(samples: Features) -> Tensor:
    if samples.logits is None:
        raise ValueError(f"samples: the Inception score needs logits, which {samples.extractor} does not give")
    return samples.logits


# ---- sliced Wasserstein distance


def _directions(dim: int, projections: int, seed: int) -> Tensor:
    """Unit vectors (dim, projections), uniform on the sphere."""
    check_integer("projections", projections, 1)
    check_seed("seed", seed)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(dim, projections, generator=generator, dtype=torch.float64, device="cpu")
    return torch.nn.functional.normalize(drawn, dim=0)


def _projected(x: Tensor, directions: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """For some directions at once: projections (k, n) in rising order, and the items that have them."""
    at_once = max(1, 2**22 // len(x))
    for part in torch.split(directions, at_once, dim=1):
        lines = torch.cat([block.double() @ part for block in torch.split(x, BLOCK)])
        yield lines.T.contiguous().sort(1)


def _squared_distances(x: Tensor, y: Tensor, directions: Tensor) -> Tensor:
    """∫₀¹ (Q_x(t) − Q_y(t))² dt of the quantile functions of the projections onto each direction."""
    n, m = len(x), len(y)
    # the quantile functions are steps: constant between the union of i/n and j/m
    edges = torch.arange(n + 1, dtype=torch.int64, device="cpu") * m
    other = torch.arange(m + 1, dtype=torch.int64, device="cpu") * n
    union = torch.unique(torch.cat([edges, other]))
    weight = union.diff().double() / (n * m)
    of_x, of_y = union[:-1] // m, union[:-1] // n
    parts = torch.split(directions, max(1, 2**22 // max(n, m)), dim=1)
    result = []
    for part in parts:
        (low, _), (high, _) = next(_projected(x, part)), next(_projected(y, part))
        result.append(((low[:, of_x] - high[:, of_y]).square() * weight).sum(1))
    return torch.cat(result)


def sliced_wasserstein(samples: Features, reference: Features, *, projections: int = 1000, seed: int = 0) -> Estimate:
    """The sliced Wasserstein distance SW₂ (Rabin et al. 2011; Bonneel et al. 2015).

    SW₂² = E_u W₂²(u·x, u·y) over random unit vectors u, in one dimension the mean squared difference of sorted values;
    for unequal numbers that of the quantile functions, exactly. The standard error is as of `mind`.
    """
    squared = mind(samples, reference, projections=projections, seed=seed)
    scale = 3 * samples.dim
    value = math.sqrt(squared.value / scale)
    error = (squared.standard_error or 0.0) / scale / (2 * value) if value > 0 else 0.0
    return Estimate(value, error, squared.n, squared.note)


def mind(samples: Features, reference: Features, *, projections: int = 1000, seed: int = 0) -> Estimate:
    """Monge Inception Distance (Berthet et al. 2026, arXiv:2605.06797), 3·dim·SW₂²: one that needs few samples.

    The factor 3·dim brings it to the size of Fréchet distances. The standard error is that over fresh samples and
    directions, the reference being fixed: of the slopes (the delta method) and of the mean over directions.
    """
    check_pair(samples, reference)
    directions = _directions(samples.dim, projections, seed)
    distances = 3 * samples.dim * _squared_distances(samples.values, reference.values, directions)
    slopes = mind_slopes(samples, reference, projections=min(projections, 200), seed=seed)
    parts = float(slopes.std()) / math.sqrt(len(samples)), float(distances.std()) / math.sqrt(projections)
    return Estimate(float(distances.mean()), math.hypot(*parts), len(samples), f"{projections} projections")


def mind_slopes(pool: Features, reference: Features, *, projections: int = 200, seed: int = 0) -> Float[Tensor, "n"]:
    """How much each item of a pool adds to `mind`: the Kantorovich potential φ, φ' = 2(s − T(s)), over all directions.

    T maps the quantiles of the pool's projections to those of the reference's.
    """
    directions = _directions(pool.dim, projections, seed)
    n = len(pool)
    middle = (torch.arange(n, dtype=torch.float64, device="cpu") + 0.5) / n
    at = (middle * len(reference)).long()
    slopes = torch.zeros(n, dtype=torch.float64, device="cpu")
    for part in torch.split(directions, max(1, 2**22 // max(n, len(reference))), dim=1):
        (ours, items), (theirs, _) = next(_projected(pool.values, part)), next(_projected(reference.values, part))
        rise = 2 * (ours - theirs[:, at])
        potential = torch.zeros_like(ours)
        potential[:, 1:] = (0.5 * (rise[:, 1:] + rise[:, :-1]) * ours.diff(dim=1)).cumsum(1)
        potential -= potential.mean(1, keepdim=True)
        slopes.index_add_(0, items.flatten(), potential.flatten())
    return 3 * pool.dim * slopes / projections
