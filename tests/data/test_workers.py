"""Threads that decode: what comes, in which order, from how many at once."""

import multiprocessing
import os
import threading
from pathlib import Path

import pytest
import torch
from image_files import as_the_reference, pixels, write_zip

from diffspace.data import ImageZip, batches
from diffspace.data.workers import Workers

IMAGES = pixels(40, 12, 10, 3)


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_batches_do_not_depend_on_the_number(tmp_path: Path, workers: int) -> None:
    path = write_zip(tmp_path / "x.zip", as_the_reference(IMAGES, [i % 4 for i in range(40)]))
    plain, threaded = (ImageZip(path, size=8, cache_mb=0, workers=count).load() for count in (None, workers))
    for (x, y), (a, b), _ in zip(batches(plain, 17, 0), batches(threaded, 17, 0, prefetch=2), range(6), strict=False):
        assert torch.equal(x, a)
        assert torch.equal(y, b)
    with pytest.raises(ValueError, match="workers: 0; want a whole number of at least 1"):
        ImageZip(path, workers=0)


@pytest.mark.parametrize("count", [2, 5])
def test_as_many_threads_as_are_asked_for_work_at_once(count: int) -> None:
    barrier = threading.Barrier(count, timeout=30)  # which breaks unless so many wait for each other

    def double(i: int) -> int:
        barrier.wait()
        return 2 * i

    assert Workers(count).map(double, range(4 * count)) == list(range(0, 8 * count, 2))


def test_one_worker_is_no_thread() -> None:
    assert set(Workers(1).map(lambda _: threading.get_ident(), range(9))) == {threading.get_ident()}


def test_quick_work_stays_on_one_thread_and_slow_work_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffspace.data.workers._processors", lambda: 3)
    here = threading.get_ident()
    assert set(Workers().map(lambda _: threading.get_ident(), range(50))) == {here}
    slow = threading.Event()
    workers = Workers()
    names = workers.map(lambda _: slow.wait(0.001) or threading.get_ident(), range(50))
    assert set(names[:8]) == {here}
    assert here not in names[8:]
    assert here not in workers.map(lambda _: threading.get_ident(), range(5))  # once tried, it is settled


def test_processes_that_train_together_share_the_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    from diffspace.data.workers import _processors

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    assert _processors() == 16
    for world, each in ((4, 4), (3, 5), (64, 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(world))
        assert _processors() == each


def test_an_error_is_that_of_the_first_item_that_has_one() -> None:
    def fail(i: int) -> int:
        if i >= 5:
            raise ValueError(f"item {i}")
        return i

    workers = Workers(4)
    with pytest.raises(ValueError, match="item 5"):
        workers.map(fail, range(100))
    assert workers.map(abs, range(-3, 0)) == [3, 2, 1]


def _child(workers: Workers, results) -> None:
    results.put(workers.map(abs, range(-50, 0)))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own() -> None:
    workers = Workers(2)
    assert workers.map(abs, range(-50, 0)) == list(range(50, 0, -1))
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=_child, args=(workers, results))
    child.start()
    assert results.get(timeout=60) == list(range(50, 0, -1))
    child.join()


def test_progress_is_told() -> None:
    told = []
    Workers(2).map(abs, range(2500), lambda done, total: told.append((done, total)))
    assert told == [(1024, 2500), (2048, 2500), (2500, 2500)]
