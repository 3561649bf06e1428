"""Batches, and the threads that decode: what comes, in which order, from how many at once."""

import itertools
import os
import threading
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings, strategies as st
from image_files import as_the_reference, pixels, write_zip

from diffspace.data import DataSet, ImageZip, InMemory, batches
from diffspace.data.dataset import available_processors, ordered_map
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
            assert torch.equal(labels, others)
        ahead.close()


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"seed": -1}, {"start": -1}, {"prefetch": -1}])
def test_nonsense_is_refused_at_once(options: dict[str, int]) -> None:
    arguments = {"batch_size": 2, "seed": 0} | options
    with pytest.raises(ValueError, match=next(iter(options))):
        batches(numbered(3), **arguments)


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_batches_do_not_depend_on_the_number_of_threads(tmp_path: Path, workers: int) -> None:
    members = as_the_reference(pixels(40, 12, 10, 3), [i % 4 for i in range(40)])
    path = write_zip(tmp_path / "x.zip", members)
    plain, threaded = (ImageZip(path, size=8, cache_mb=0, workers=count).load() for count in (None, workers))
    for (x, y), (a, b), _ in zip(batches(plain, 17, 0), batches(threaded, 17, 0, prefetch=2), range(6), strict=False):
        assert torch.equal(x, a)
        assert torch.equal(y, b)
    with pytest.raises(ValueError, match="workers: expected an integer of at least 1, got 0"):
        ImageZip(path, workers=0)


def test_only_large_images_are_decoded_by_many_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffspace.data.stored_images.available_processors", lambda: 3)
    for side, threads in ((96, 1), (97, 3)):
        path = write_zip(tmp_path / f"{side}.zip", as_the_reference(pixels(2, side, side), None))
        assert ImageZip(path, cache_mb=0).load().rows.threads == threads
        assert ImageZip(path, cache_mb=0, workers=2).load().rows.threads == 2


@pytest.mark.parametrize("count", [2, 5])
def test_as_many_threads_as_are_asked_for_work_at_once(count: int) -> None:
    barrier = threading.Barrier(count, timeout=30)  # which breaks unless that many wait for each other

    def double(i: int) -> int:
        barrier.wait()
        return 2 * i

    assert list(ordered_map(double, range(4 * count), count, ahead=100)) == list(range(0, 8 * count, 2))


def test_an_error_is_raised_in_the_turn_of_its_item() -> None:
    def fail(i: int) -> int:
        if i >= 5:
            raise ValueError(f"item {i}")
        return i

    results = ordered_map(fail, itertools.count(), 4, ahead=10)
    assert list(itertools.islice(results, 5)) == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="item 5"):
        next(results)


def test_no_more_is_done_ahead_than_is_said() -> None:
    done: list[int] = []
    results = ordered_map(done.append, itertools.count(), 1, ahead=3)
    next(results)
    results.close()
    assert done == list(range(len(done)))
    assert len(done) <= 4


def test_processes_that_train_together_share_the_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    assert available_processors() == 16
    for world, each in ((4, 4), (3, 5), (64, 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(world))
        assert available_processors() == each
