"""The endless stream of batches."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffspace.data import DataSet, InMemory, batches
from diffspace.transform import Transform


def numbered(n: int, labels: bool = False) -> DataSet:
    values = torch.arange(float(n))[:, None]
    if not labels:
        return DataSet("numbers", InMemory(values), Transform())
    return DataSet("numbers", InMemory(values), Transform(), torch.arange(n), tuple(map(str, range(n))))


def take(data: DataSet, size: int, count: int, seed: int = 0, **options: int) -> list[list[int]]:
    return [x.flatten().int().tolist() for x, _ in itertools.islice(batches(data, size, seed, **options), count)]


@settings(deadline=None, max_examples=40)
@given(n=st.integers(1, 40), size=st.integers(1, 100), seed=st.integers(0, 1000))
def test_every_epoch_is_all_samples_once(n: int, size: int, seed: int) -> None:
    count = -(-3 * n // size)
    stream = list(itertools.chain(*take(numbered(n), size, count, seed)))
    assert len(stream) == count * size
    for epoch in range(3):
        assert sorted(stream[epoch * n : (epoch + 1) * n]) == list(range(n))


@settings(deadline=None, max_examples=40)
@given(n=st.integers(10, 40), size=st.integers(1, 100), start=st.integers(0, 20))
def test_a_start_in_the_middle_goes_on_as_if_uninterrupted(n: int, size: int, start: int) -> None:
    assert take(numbered(n), size, 5, start=start) == take(numbered(n), size, start + 5)[start:]


def test_epochs_and_seeds_differ() -> None:
    first, second, third = take(numbered(100), 100, 3)
    assert len({tuple(first), tuple(second), tuple(third), tuple(take(numbered(100), 100, 1, seed=1)[0])}) == 4


def test_labels_belong_to_their_samples() -> None:
    for x, labels in itertools.islice(batches(numbered(10, labels=True), 7, 0), 20):
        assert labels is not None
        assert torch.equal(x.flatten().long(), labels)
    assert next(batches(numbered(10), 7, 0))[1] is None


def test_a_subset_gives_its_own_samples_only() -> None:
    data = numbered(10).subset(torch.tensor([2, 4, 6]))
    assert sorted(take(data, 3, 1)[0]) == [2, 4, 6]


def test_reading_ahead_changes_nothing() -> None:
    data = numbered(50, labels=True)
    for depth in (1, 3):
        ahead = batches(data, 8, 0, start=2, prefetch=depth)
        for (x, labels), (y, others) in itertools.islice(zip(ahead, batches(data, 8, 0, start=2), strict=False), 20):
            assert torch.equal(x, y)
            assert labels is not None
            assert others is not None
            assert torch.equal(labels, others)
        ahead.close()  # type: ignore[attr-defined]


def test_an_error_in_the_reading_thread_arrives() -> None:
    class Broken:
        sample_shape = (1,)

        def __len__(self) -> int:
            return 3

        def read(self, indices: torch.Tensor) -> torch.Tensor:
            raise ValueError("cannot be read")

    data = DataSet("broken", Broken(), Transform())
    with pytest.raises(ValueError, match="cannot be read"):
        next(batches(data, 2, 0, prefetch=2))


@pytest.mark.parametrize(
    "options",
    [{"batch_size": 0}, {"seed": -1}, {"start": -1}, {"prefetch": -1}],
)
def test_nonsense_is_refused_at_once(options: dict[str, int]) -> None:
    arguments = {"batch_size": 2, "seed": 0} | options
    with pytest.raises(ValueError, match=next(iter(options))):
        batches(numbered(3), **arguments)
