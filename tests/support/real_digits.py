"""scikit-learn's handwritten digits in two disjoint parts."""

from typing import NamedTuple

import torch
from sklearn.datasets import load_digits
from torch import Tensor


class Digits(NamedTuple):
    """Images of shape (1, 8, 8) in [−1, 1], with their labels."""

    train: Tensor
    train_labels: Tensor
    held_out: Tensor
    held_out_labels: Tensor


def split_digits() -> Digits:
    """1347 training and 450 held-out images, drawn at random."""
    source = load_digits()
    x = torch.tensor(source.images, dtype=torch.float32)[:, None] / 8 - 1
    y = torch.tensor(source.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x, y = x[order], y[order]
    return Digits(x[450:], y[450:], x[:450], y[:450])
