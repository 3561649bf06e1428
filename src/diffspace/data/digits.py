"""Real handwriting that comes with scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from diffspace.data.dataset import DataSet, InMemory
from diffspace.transform import Transform

__all__ = ["Digits"]


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
