"""Files of feature statistics: the reference's `.npz` (`mu`, `sigma`), edm2's pickles, and our own, which both read."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from diffspace._shapes import Tensor
from diffspace.checks import nearest
from diffspace.files import atomic_path, missing_path, read_arrays, reading
from diffspace.metrics.features import FeatureStatistics
from diffspace.pickles import Record, read_pickle

_COUNT = "num_images"  # edm2's name, which the reference's files lack


def load_statistics(path: str | Path, metric: str | None = None) -> FeatureStatistics:
    """The statistics in a `.npz` file or a pickle, of which nothing is executed; n is None where the file has none.

    A `.npz` has `mu` (dim,) and `sigma` (dim, dim), the unbiased covariance, as the reference's fid.py writes them;
    edm2's pickles have such a pair for each `metric`, "fid" (Inception) and "fd_dinov2", of which one is to be named if
    there are several. ValueError, which names the file, for anything else.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise ValueError(f"statistics: there is no file {missing_path(path)}")
    with reading(path, "statistics"):
        with path.open("rb") as file:
            packed = file.read(2) == b"PK"
        if packed:
            import numpy as np

            arrays = read_arrays(path)
            content = {name: torch.from_numpy(a) if a.dtype.kind == "f" else a for name, a in arrays.items()}
            count, name = (arrays[key].item() if key in arrays else None for key in (_COUNT, "extractor"))
            return _statistics(content, count, name if isinstance(name, str | np.str_) else None)
        content = read_pickle(path)
        if not isinstance(content, Mapping):
            raise ValueError(f"expected a mapping with mu and sigma, got a {type(content).__name__}")
        sets = {name: value for name, value in content.items() if isinstance(value, Mapping)}
        if "mu" in content:
            chosen: Mapping[str, Any] = content
        elif metric is None and len(sets) == 1:
            (chosen,) = sets.values()
        elif metric in sets:
            chosen = sets[metric]
        else:
            raise ValueError(
                f"metric: expected the name of statistics in the file, got {metric!r}; {nearest('', sets)}"
            )
        return _statistics(
            {k: _tensor(v) for k, v in chosen.items() if k in ("mu", "sigma")}, content.get(_COUNT), None
        )


def _statistics(content: Mapping[str, Any], count: object, extractor: str | None) -> FeatureStatistics:
    mu, sigma = (content.get(name) for name in ("mu", "sigma"))
    if not isinstance(mu, Tensor) or not isinstance(sigma, Tensor) or mu.ndim != 1 or sigma.shape != (len(mu),) * 2:
        there = ", ".join(content) or "nothing"
        raise ValueError(f"expected floating-point mu (dim,) and sigma (dim, dim), got {there}")
    n = count if isinstance(count, int) and count >= 2 else None
    return FeatureStatistics.from_moments(n, mu, sigma, extractor)


def _tensor(value: object) -> Tensor | None:
    """A tensor, or an array of a pickle of real numbers; None for anything else."""
    match value:
        case Tensor():
            return value if value.is_floating_point() else None
        case Record("ndarray", {"dtype": "f4" | "f8" as kind, "order": "<", "shape": shape, "data": data}):
            flat = torch.frombuffer(bytearray(data), dtype=torch.float32 if kind == "f4" else torch.float64)
            by_columns = value.state["by_columns"]
            return flat.reshape(shape[::-1]).T if by_columns and len(shape) == 2 else flat.reshape(shape)
    return None


def save_statistics(path: str | Path, statistics: FeatureStatistics) -> None:
    """Write a `.npz` that the reference's fid.py reads: `mu` and `sigma` in float64.

    Where they are known it also has `num_images` and `extractor`.
    """
    import numpy as np

    path = Path(path).expanduser()
    if path.suffix != ".npz":
        raise ValueError(f"path: expected a name that ends in .npz, got {path}")
    arrays: dict[str, Any] = {"mu": statistics.mean.numpy(), "sigma": statistics.covariance.numpy()}
    if statistics.n is not None:
        arrays[_COUNT] = np.array(statistics.n)
    if statistics.extractor is not None:
        arrays["extractor"] = np.array(statistics.extractor)
    content = io.BytesIO()  # numpy does not notice that a disk is full
    np.savez(content, **arrays)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.getbuffer())
