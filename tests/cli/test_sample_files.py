"""The files of samples are whole, old or new, and a request that was interrupted goes on where it stopped."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

import diffspace as ds
from diffspace.cli import sample_files
from diffspace.cli.sample_files import sample_writer
from diffspace.transform import PIXELS

MODEL = ds.Model(ds.Preconditioned(ds.networks.MLP((1, 4, 4), width=4, depth=1), ds.EDMPreconditioning(0.5)), PIXELS)


def write(path, seeds, *, value=0, stop=99, **options):
    """The batches that were missing, each of one picture, of which `stop` are written."""
    cond = {"labels": torch.arange(len(seeds))}
    with sample_writer(path, MODEL, seeds, cond, 1, {"of": {"value": value}}, **options) as writer:
        missing = writer.missing
        for number in missing[:stop]:
            writer.add(number, torch.full((1, 1, 4, 4), value, dtype=torch.uint8))
        if stop < len(missing):
            raise KeyboardInterrupt
    return missing


def content(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def full_disk(monkeypatch):
    """A disk that is full after so many files."""

    def fill(count):
        left = [count]
        save = sample_files.save_image

        def limited(file, pixels):
            if not left[0]:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            left[0] -= 1
            save(file, pixels)

        monkeypatch.setattr(sample_files, "save_image", limited)

    return fill


@pytest.mark.parametrize("count", [0, 2])
def test_a_full_disk_leaves_the_pictures_of_before(tmp_path, full_disk, count):
    folder = tmp_path / "many"
    write(folder, [0, 1, 2, 1000], subdirs=True)
    (folder / "notes.txt").write_text("mine")
    before = content(folder)
    full_disk(count)
    with pytest.raises(OSError, match="No space left on device") as caught:
        write(folder, [0, 1, 5], overwrite=True, value=255)
    assert Path(caught.value.filename).name == f"{[0, 1, 5][count]:06d}.png"
    assert content(folder) == before


def test_pictures_are_replaced_in_the_end(tmp_path):
    folder = tmp_path / "many"
    write(folder, [0, 1, 2, 1000], subdirs=True)
    (folder / "notes.txt").write_text("mine")
    write(folder, [1, 5], overwrite=True, value=255)
    assert set(content(folder)) == {"000001.png", "000005.png", "labels.json", "samples.json", "notes.txt"}
    assert json.loads((folder / "labels.json").read_text()) == {"000001.png": 0, "000005.png": 1}


@pytest.mark.parametrize("marker", [None, "{}", '{"format": "mine"}', "[1]"])
def test_pictures_of_others_are_not_replaced(tmp_path, marker):
    folder = tmp_path / "digits"
    (folder / "0").mkdir(parents=True)
    for name in ("17.png", "000123.png", "0/000003.png", "labels.json"):
        (folder / name).write_bytes(b"mine")
    if marker is not None:
        (folder / "samples.json").write_text(marker)
    before = content(folder)
    with pytest.raises(ValueError, match=r"--overwrite: .*digits is not a folder of samples, with samples\.json"):
        write(folder, [1, 5], overwrite=True)
    assert content(folder) == before
    write(tmp_path / "ours", [0, 1])
    (tmp_path / "ours" / "17.png").write_bytes(b"mine")  # no name of a seed
    write(tmp_path / "ours", [5], overwrite=True)
    names = {"17.png", "000005.png", "labels.json", "samples.json"}
    assert set(content(tmp_path / "ours")) == names


def test_without_pictures_of_before_those_that_were_drawn_stay(tmp_path, full_disk):
    full_disk(2)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "many", [0, 1, 2])
    assert set(content(tmp_path / "many")) == {"000000.png", "000001.png", "labels.json", "samples.json"}


@pytest.mark.parametrize("name", ["many", "x.npz", "x.png"])
def test_the_same_request_goes_on_and_ends_as_if_nothing_had_happened(tmp_path, name):
    seeds = [0, 1, 2, 1000]
    assert write(tmp_path / "whole" / name if name == "many" else tmp_path / f"whole-{name}", seeds) == [0, 1, 2, 3]
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / name, seeds, stop=2)
    assert write(tmp_path / name, seeds) == [2, 3]
    if name == "many":
        assert content(tmp_path / name) == content(tmp_path / "whole" / name)
        (tmp_path / name / "000001.png").unlink()
        assert write(tmp_path / name, seeds) == [1]
        assert write(tmp_path / name, seeds) == []
        assert content(tmp_path / name) == content(tmp_path / "whole" / name)
    else:
        assert (tmp_path / name).read_bytes() == (tmp_path / f"whole-{name}").read_bytes()
        with pytest.raises(ValueError, match="exists already"):
            write(tmp_path / name, seeds)
        assert write(tmp_path / name, seeds, overwrite=True) == [0, 1, 2, 3]
    assert not list(tmp_path.rglob(".*"))


def test_another_request_never_adds_to_a_folder(tmp_path):
    folder = tmp_path / "many"
    with pytest.raises(KeyboardInterrupt):
        write(folder, [0, 1, 2], stop=1)
    before = content(folder)
    for seeds, options, message in (
        ([0, 1, 2, 3], {}, r"seeds was 0-2, now 0-3"),
        ([0, 1, 2], {"value": 7}, r"of\.value was 0, now 7"),
        ([0, 1, 2], {"subdirs": True}, r"subdirs was None, now True"),
    ):
        with pytest.raises(ValueError, match=f"^--out: {folder} holds the samples of another request: {message};"):
            write(folder, seeds, **options)
    assert content(folder) == before
    (folder / "samples.json").write_text("{")
    with pytest.raises(ValueError, match=r"samples\.json: cannot be read"):
        write(folder, [0, 1, 2])
    with pytest.raises(ValueError, match="is not a folder of samples"):
        write(folder, [0, 1, 2], overwrite=True)
    (folder / "samples.json").write_bytes(before["samples.json"])
    assert write(folder, [0, 1, 2], overwrite=True) == [0, 1, 2]


def test_parts_of_another_request_are_left_out(tmp_path):
    for stop in (2, 3):
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "x.npz", [0, 1, 2, 3], value=stop, stop=stop)
    assert write(tmp_path / "x.npz", [0, 1, 2, 3], value=5) == [0, 1, 2, 3]
    with np.load(tmp_path / "x.npz") as arrays:
        assert (arrays["x"] == 5).all()


def test_two_commands_do_not_write_one_folder(tmp_path):
    with sample_writer(tmp_path / "many", MODEL, [0]), pytest.raises(ValueError, match="is being written by process"):
        write(tmp_path / "many", [0, 1], overwrite=True)
    assert not list(tmp_path.rglob("*.*"))


@pytest.mark.parametrize("name", ["x.npz", "many"])
def test_what_is_not_of_a_killed_command_is_not_deleted(tmp_path, name):
    precious, hidden = tmp_path / "precious", tmp_path / (".x.npz.parts" if name == "x.npz" else "many/.new")
    for folder in (precious, hidden):
        folder.mkdir(parents=True)
        (folder / "mine.npy").write_text("mine")
    before = content(tmp_path)
    for _ in range(2):
        with pytest.raises(ValueError, match="is in the way, and not of a killed command"):
            write(tmp_path / name, [0, 1, 2], overwrite=True)
        assert content(tmp_path) == before
        (hidden / "mine.npy").unlink(missing_ok=True)
        hidden.is_symlink() or hidden.rmdir()
        hidden.is_symlink() or hidden.symlink_to(precious)
        before = content(tmp_path)


def test_a_damaged_part_is_named(tmp_path):
    for damage in (b"", None):
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "x.npz", [0, 1, 2], stop=2)
        part = tmp_path / ".x.npz.parts" / "000001.npy"
        part.write_bytes(part.read_bytes()[:-3]) if damage is not None else np.save(part, np.zeros((1, 2)))
        with pytest.raises(ValueError, match=r"000001\.npy: "):
            write(tmp_path / "x.npz", [0, 1, 2])
        part.unlink()
        assert write(tmp_path / "x.npz", [0, 1, 2]) == [1]
        (tmp_path / "x.npz").unlink()
