"""Real digits and a classifier of their training part, made once for all tests of metrics."""

import pytest
from real_digits import Digits, split_digits

from diffspace.metrics import Classifier, train_classifier


@pytest.fixture(scope="session")
def digits() -> Digits:
    return split_digits()


@pytest.fixture(scope="session")
def classifier(digits: Digits) -> Classifier:
    return train_classifier(digits.train, digits.train_labels, 10)
