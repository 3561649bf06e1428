"""scikit-learn's digits and their fixed split."""

import hashlib

import torch
from sklearn.datasets import load_digits

from diffspace.data import Digits


def test_digits_are_scikit_learns() -> None:
    data, source = Digits().load(), load_digits()
    assert len(data) == 1797
    assert data.sample_shape == (1, 8, 8)
    assert data.class_names == tuple("0123456789")
    assert data.labels.tolist() == source.target.tolist()
    assert data.raw()[:, 0].tolist() == source.images.tolist()


def test_the_way_to_the_model_and_back_is_exact() -> None:
    data = Digits().load()
    x = data.batch()
    assert x.dtype == torch.float32
    assert torch.equal(x, torch.from_numpy(load_digits().data).float().reshape(-1, 1, 8, 8) / 8 - 1)
    assert torch.equal(data.transform.inverse(x), data.raw())


def test_the_fixed_split() -> None:
    data = Digits().load()
    train, held = data.split()
    assert (len(train), len(held)) == (1438, 359)
    for digit in range(10):
        total = (data.labels == digit).sum()
        assert abs((held.labels == digit).sum() - total * 359 / 1797) < 1
    # from separate implementations in pure Python: of the hashes, of the permutation, and of largest remainders
    assert hashlib.sha256(held.selection.numpy().tobytes()).hexdigest()[:16] == "681ee2d5790784ee"
    former = data.split(by="position")[1].selection
    assert former[:8].tolist() == [3, 6, 11, 14, 17, 20, 36, 39]
    assert hashlib.sha256(former.numpy().tobytes()).hexdigest()[:16] == "29234ccf4e10652c"
