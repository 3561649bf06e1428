"""Exact denoisers that have a name: problems of which every solver's error is known."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping

import torch

from diffspace.config import kinds
from diffspace.data.sources import load_data
from diffspace.oracles import FiniteData, GaussianMixture, Oracle

__all__ = ["ORACLES", "is_oracle", "named_oracle"]

_PREFIX = "oracle:"


def _ring() -> Oracle:
    angles = torch.arange(8, dtype=torch.float64) * (math.pi / 4)
    means = torch.stack([angles.cos(), angles.sin()], 1).reshape(8, 1, 1, 2)
    return GaussianMixture(means, stds=torch.full((8,), 0.1, dtype=torch.float64))


@functools.cache
def _fitted() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    from sklearn.datasets import load_digits
    from sklearn.mixture import GaussianMixture as Fit
    from threadpoolctl import threadpool_limits

    # of so small products threads make a multiple of the time where others compute too
    with threadpool_limits(1):
        fit = Fit(10, covariance_type="full", reg_covar=0.09, random_state=0, max_iter=200)
        fit.fit(load_digits().data / 8 - 1)
    means, covariances, weights = (torch.from_numpy(a) for a in (fit.means_, fit.covariances_, fit.weights_))
    return means, covariances, weights


def _mixture() -> Oracle:
    means, covariances, weights = _fitted()
    return GaussianMixture(means.reshape(-1, 1, 8, 8), weights=weights, covariances=covariances)


def _finite(data: str) -> Oracle:
    return FiniteData(load_data(data).batch())


ORACLES: Mapping[str, Callable[[], Oracle]] = {
    "mixture": _mixture,
    "ring": _ring,
    "digits": functools.partial(_finite, "digits"),
}
"""The oracles that have a name of their own."""


def is_oracle(name: str) -> bool:
    """Whether `named_oracle` is meant, and not a folder: ./ring is a folder."""
    return name in ORACLES or name.startswith(_PREFIX)


def named_oracle(name: str) -> Oracle:
    """The exact denoiser of this name, in float64, in the space in which a model would see the data.

    - "mixture": ten Gaussians with full covariances that scikit-learn fits to the digits, samples of shape (1, 8, 8);
      smooth, and of the size of a small picture;
    - "ring": eight equal Gaussians of standard deviation 0.1 on the unit circle, samples of shape (1, 1, 2);
    - "digits": the 1797 digits with equal probability, (1, 8, 8), every end point one of them;
    - "oracle:DATA": the finite data set of any source of `load_data`, a name or a path.

    ValueError for another name.
    """
    if name in ORACLES:
        return ORACLES[name]()
    if name.startswith(_PREFIX):
        return _finite(name.removeprefix(_PREFIX))
    sources = ", ".join(kinds("source"))
    raise ValueError(
        f"oracle: expected {', '.join(ORACLES)}, or {_PREFIX}DATA with a path or one of {sources}, got {name!r}"
    )
