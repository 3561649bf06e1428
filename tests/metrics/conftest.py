"""Real digits in three disjoint parts, and a classifier of the first, made once for all tests of metrics."""

from typing import NamedTuple

import pytest
import torch
from edmkit.metrics import Classifier, train_classifier
from sklearn.datasets import load_digits
from torch import Tensor


class Digits(NamedTuple):
    train: Tensor
    train_labels: Tensor
    held_out: Tensor
    held_out_labels: Tensor


@pytest.fixture(scope="session")
def digits() -> Digits:
    """1347 training and 450 held-out images of shape (1, 8, 8) in [−1, 1]."""
    source = load_digits()
    x = torch.tensor(source.images, dtype=torch.float32)[:, None] / 8 - 1
    y = torch.tensor(source.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x, y = x[order], y[order]
    return Digits(x[450:], y[450:], x[:450], y[:450])


@pytest.fixture(scope="session")
def classifier(digits: Digits) -> Classifier:
    return train_classifier(digits.train, digits.train_labels, 10)
