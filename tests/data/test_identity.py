"""The split and the fingerprint of data that change: by names, and by content where there are none."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import as_the_reference, pixels, png, write_zip
from sklearn.datasets import load_digits

from diffspace.data import DataSet, InMemory, image_source, load_data, prepare
from diffspace.data.identity import differences
from diffspace.transform import Transform

IMAGES = pixels(120, 4, 4)
NAMES = [f"{'abc'[i % 3]}/{i:03d}.png" for i in range(120)]


def folder_of(path: Path, numbers, named=NAMES) -> Path:
    for name, i in zip(named, numbers, strict=False):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(png(IMAGES[i]))
    return path


def stored(part: DataSet) -> set[bytes]:
    return {row.numpy().tobytes() for row in part.raw()}


def were_trained_on(then: DataSet, now: DataSet, **how) -> int:
    """How many held-out samples of a data set had been in the training part of another."""
    return len(stored(then.split(30, **how)[0]) & stored(now.split(30, **how)[1]))


def write(kind: str, path: Path, numbers: list[int]) -> DataSet:
    if kind == "folder":
        return load_data(folder_of(path, numbers, [NAMES[i] for i in numbers]))
    if kind == "zip":
        return load_data(write_zip(path.with_suffix(".zip"), {NAMES[i]: png(IMAGES[i]) for i in numbers}), cache_mb=0)
    if kind == "array":
        np.savez(path.with_suffix(".npz"), x=IMAGES[numbers], labels=np.array(numbers) % 3)
        return load_data(path.with_suffix(".npz"))
    written = write_zip(path.with_suffix(".zip"), {NAMES[i]: png(IMAGES[i]) for i in numbers})
    prepare(image_source(written), path)
    return load_data(path)


@pytest.mark.parametrize("kind", ["folder", "zip", "array", "prepared"])
def test_held_out_samples_stay_held_out_when_one_is_removed(tmp_path: Path, kind: str) -> None:
    everything = list(range(120))
    then = write(kind, tmp_path / "then", everything)
    assert (len(then.split(30)[1]), then.class_names and len(then.class_names)) == (30, 3)
    by_position = []
    for gone in (0, 1, 50, 119):
        now = write(kind, tmp_path / f"without-{gone}", [i for i in everything if i != gone])
        # of a class from which one is held out less or more, another takes its place
        assert were_trained_on(then, now) <= 1
        assert not differences({"all": now.fingerprint()}, {"all": now.fingerprint()})
        assert differences({"all": then.fingerprint()}, {"all": now.fingerprint()}) == (
            "the all part has 119 samples, 120 then"
        )
        by_position.append(were_trained_on(then, now, by="position"))
    assert max(by_position) > 15


def test_a_sample_that_was_replaced_is_noticed(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "x", range(120))
    before = load_data(folder).fingerprint()
    (folder / NAMES[7]).write_bytes(png(IMAGES[8], compress_level=0))
    assert load_data(folder).fingerprint() != before
    values = torch.randn(50, 3)
    first = DataSet("x", InMemory(values.clone()), Transform())
    values[31, 1] += 1e-6
    other = DataSet("x", InMemory(values), Transform())
    assert first.fingerprint()["count"] == other.fingerprint()["count"]
    assert first.fingerprint()["digest"] != other.fingerprint()["digest"]
    named = (torch.arange(50) % 2, ("a", "b"))
    assert DataSet("x", InMemory(values), Transform(), *named).fingerprint() != other.fingerprint()


def test_the_fingerprint_is_that_of_names_and_sizes_wherever_they_lie(tmp_path: Path) -> None:
    here, there = (folder_of(tmp_path / name, range(120)) for name in ("here", "there"))
    assert load_data(here).fingerprint() == load_data(there, cache_mb=0, workers=2).fingerprint()
    mirrored = load_data(here).mirrored()
    assert mirrored.fingerprint()["count"] == 240
    (there / NAMES[3]).write_bytes(png(IMAGES[3]) + b" ")
    assert load_data(there).mirrored().fingerprint() != mirrored.fingerprint()


def test_the_smallest_hashes_of_each_class_are_held_out() -> None:
    # a separate implementation: the hash of the content with the seed, the first of each class in its proportion
    data, source = load_data("digits"), load_digits()
    rows = [image.astype(np.uint8).tobytes() for image in source.images]
    order = [hashlib.blake2b(b"5\0" + row, digest_size=8).digest()[::-1] for row in rows]
    held = set(data.split(180, seed=5)[1].selection.tolist())
    assert len(held) == 180
    for digit in range(10):
        mine = sorted(np.flatnonzero(source.target == digit).tolist(), key=order.__getitem__)
        out = [i for i in mine if i in held]
        assert abs(len(out) - len(mine) * 180 / 1797) < 1
        assert out == mine[: len(out)]


def test_copies_are_divided_like_others() -> None:
    data = DataSet(
        "coins", InMemory(torch.tensor([0, 1]).repeat(500)[:, None]), Transform(dtype="int64", kind="integer")
    )
    held = data.split(0.5)[1].raw()
    assert abs(float(held.float().mean()) - 0.5) < 0.1


def test_what_cannot_be_read_is_held_out_by_position_with_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    data = DataSet("x", InMemory(torch.randn(300, 2)), Transform())
    by_position = data.split(40, by="position")[1].selection
    monkeypatch.setattr("diffspace.data.identity.MOST_BYTES", 100)
    training, held = data.split(40)
    assert held.selection.tolist() == by_position.tolist()
    assert training.notes == held.notes != data.notes
    assert "held out by position" in training.notes[-1]
    assert data.fingerprint() == data.fingerprint() != training.fingerprint()


def test_a_prepared_data_set_has_the_same_split_in_any_form(tmp_path: Path) -> None:
    source = image_source(write_zip(tmp_path / "in.zip", as_the_reference(IMAGES, None)))
    parts = []
    for name in ("a", "a.zip"):
        prepare(source, tmp_path / name)
        parts.append(stored(load_data(tmp_path / name).split(30)[1]))
    assert parts[0] == parts[1]
