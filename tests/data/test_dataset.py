"""Reading, subsets and the split."""

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from diffspace.data import PIXELS, DataSet, InMemory, load_data
from diffspace.data.dataset import _quotas, permutation
from diffspace.transform import Transform


def make(sizes: list[int] | None = None, n: int = 10) -> DataSet:
    labels, names = None, ()
    if sizes is not None:
        labels = torch.cat([torch.full((size,), c) for c, size in enumerate(sizes)])
        names, n = tuple(f"class {c}" for c in range(len(sizes))), sum(sizes)
    return DataSet("toy", InMemory(torch.arange(2.0 * n).reshape(n, 2)), Transform((1.0,), (2.0,)), labels, names)


def numbers(data: DataSet) -> list[int]:
    return (data.raw()[:, 0] / 2).int().tolist()


def test_raw_and_batch() -> None:
    data = make()
    assert len(data) == 10
    assert data.sample_shape == (2,)
    assert data.raw(torch.tensor([3, 3, 0])).tolist() == [[6, 7], [6, 7], [0, 1]]
    assert data.batch(torch.tensor([3])).tolist() == [[2.5, 3]]
    assert torch.equal(data.batch(), (data.raw() - 1) / 2)
    assert data.raw(torch.tensor([], dtype=torch.int64)).shape == (0, 2)


def test_a_subset_of_a_subset() -> None:
    data = make([5, 5]).subset(torch.tensor([9, 1, 8, 2])).subset(torch.tensor([3, 0]))
    assert numbers(data) == [2, 9]
    assert data.labels.tolist() == [0, 1]
    assert data.class_names == ("class 0", "class 1")


@pytest.mark.parametrize("bad", [[-1], [10], [0, 10]])
def test_indices_out_of_range(bad: list[int]) -> None:
    for read in (make().raw, make([5, 5]).subset, make().batch):
        with pytest.raises(ValueError, match=r"indices: expected 0 to 9, got numbers in \[-?\d+, -?\d+\]"):
            read(torch.tensor(bad))
    with pytest.raises(ValueError, match="expected 0 to 1"):
        make().subset(torch.tensor([4, 5])).raw(torch.tensor([2]))


def test_inconsistent_labels_are_refused() -> None:
    rows, transform = InMemory(torch.zeros(3, 2)), Transform()
    with pytest.raises(ValueError, match="labels: expected 3, one for each sample, got 2"):
        DataSet("x", rows, transform, torch.tensor([0, 0]), ("a",))
    with pytest.raises(ValueError, match=r"labels: in \[0, 1\] with 1 class_names"):
        DataSet("x", rows, transform, torch.tensor([0, 0, 1]), ("a",))
    with pytest.raises(ValueError, match="without labels"):
        DataSet("x", rows, transform, None, ("a",))
    with pytest.raises(ValueError, match="holds no samples"):
        DataSet("x", InMemory(torch.zeros(0, 2)), transform)


@settings(deadline=None, max_examples=50)
@given(
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=8).filter(lambda s: sum(s) > sum(k > 0 for k in s)),
    data=st.data(),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_split_is_exact_stratified_and_complete(sizes: list[int], data: st.DataObject, seed: int) -> None:
    n, kept = sum(sizes), sum(size > 0 for size in sizes)
    count = data.draw(st.integers(1, n - kept))
    train, held = make(sizes).split(count, seed)
    assert len(held) == count
    assert sorted(numbers(train) + numbers(held)) == list(range(n))
    left = torch.bincount(train.labels, minlength=len(sizes)).tolist()
    out = torch.bincount(held.labels, minlength=len(sizes)).tolist()
    for size, staying, going in zip(sizes, left, out, strict=True):
        assert staying >= min(size, 1)
        if all(count * other / n <= other - 1 for other in sizes if other):  # no class is forced to stay
            assert abs(going - count * size / n) < 1


def test_a_fraction_and_the_default() -> None:
    assert len(make(n=1000).split(0.25)[1]) == 250
    assert len(make(n=1000).split()[1]) == 200
    assert len(make(n=100_000).split()[1]) == 10_000
    assert len(make(n=2).split()[1]) == 1


def test_the_split_is_random_and_depends_on_the_seed() -> None:
    data = make(n=1000)
    first, again, other = (numbers(data.split(0.5, seed)[1]) for seed in (0, 0, 1))
    assert first == again != other
    # the held-out half lies anywhere: the mean of 500 of 0 … 999 has a standard deviation of 9.1
    assert abs(sum(first) / 500 - 499.5) < 40


@pytest.mark.parametrize("holdout", [0, 0.0, 1.0, -1, 1.5, 10, 9.0, 0.01])
def test_a_holdout_that_leaves_nothing_on_either_side(holdout: float) -> None:
    with pytest.raises(ValueError, match="holdout: "):
        make().split(holdout)


def test_every_class_stays_in_training() -> None:
    with pytest.raises(ValueError, match="one sample of each class left to train"):
        make([5, 5]).split(9)
    assert len(make([5, 5]).split(8)[1]) == 8
    with pytest.raises(ValueError, match="seed: expected an integer from 0 to 4294967295, got -1"):
        make().split(0.5, seed=-1)


def test_permutations_are_the_same_for_ever() -> None:
    # from a separate implementation of SeedSequence and PCG64 (O'Neill 2014, XSL-RR 128/64) in pure Python
    assert permutation(10, 0).tolist() == [3, 2, 1, 8, 6, 0, 7, 4, 5, 9]
    order = permutation(1000, 12345, 1, 7)
    assert torch.equal(order.sort().values, torch.arange(1000))
    assert hashlib.sha256(order.numpy().tobytes()).hexdigest()[:16] == "2ce07a5503881339"


def test_mirror_images_come_after_the_images_with_their_labels():
    values = torch.arange(4 * 3 * 2 * 5, dtype=torch.uint8).reshape(4, 3, 2, 5)
    data = DataSet("four", InMemory(values), PIXELS, torch.tensor([0, 1, 1, 0]), ("a", "b"))
    part = data.subset(torch.tensor([2, 0])).mirrored()
    assert len(part) == 4
    assert torch.equal(part.raw(), torch.cat([values[[2, 0]], values[[2, 0]].flip(-1)]))
    assert part.labels.tolist() == [1, 0, 1, 0]
    assert torch.equal(part.raw(torch.tensor([3, 1])), torch.stack([values[0].flip(-1), values[0]]))
    assert torch.equal(part.mirrored().raw()[4:], part.raw().flip(-1))


def test_mirror_images_of_points_are_refused():
    with pytest.raises(ValueError, match=r"mirror: expected images .* got samples of \(2,\)"):
        DataSet("points", InMemory(torch.zeros(3, 2)), Transform()).mirrored()


def test_copies_on_both_sides_of_a_split_are_noted(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (50, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "once.npy", images)
    np.save(tmp_path / "twice.npy", np.concatenate([images, images]))
    assert not [note for note in load_data(tmp_path / "once.npy").split()[0].notes if "copies" in note]
    training, held_out = load_data(tmp_path / "twice.npy").split()
    known = {x.numpy().tobytes() for x in training.raw()}
    count = sum(x.numpy().tobytes() in known for x in held_out.raw())
    assert count > 0
    for part in (training, held_out):
        assert part.notes[-1] == f"{count} of the 20 held-out samples are exact copies of training samples"


def test_quotas_grow_where_most_is_lacking():
    def slowly(sizes, count):
        shares = [count * size / sum(sizes) for size in sizes]
        quotas = [min(int(share), max(size - 1, 0)) for share, size in zip(shares, sizes, strict=True)]
        while sum(quotas) < count:
            growing = [c for c, size in enumerate(sizes) if quotas[c] < size - 1]
            quotas[max(growing, key=lambda c: shares[c] - quotas[c])] += 1
        return quotas

    rng = np.random.default_rng(0)
    for _ in range(200):
        sizes = rng.integers(0, 9, rng.integers(1, 12)).tolist()
        most = sum(max(size - 1, 0) for size in sizes)
        if most:
            count = int(rng.integers(1, most + 1))
            assert _quotas(sizes, count) == slowly(sizes, count)
    assert sum(_quotas([2] * 100_000, 40_000)) == 40_000
