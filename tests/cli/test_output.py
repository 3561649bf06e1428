"""What commands write is whole, old or new, and what cannot be written is known before any work."""

import errno
import json
import os
from pathlib import Path

import pytest
import torch

from diffspace.cli import output
from diffspace.cli.options import MOST_SAMPLES, parse_seeds
from diffspace.cli.output import SampleWriter, check_target
from diffspace.transform import PIXELS


def write(path, seeds, *, overwrite=False, value=0, **options):
    labels = torch.arange(len(seeds))
    with SampleWriter(path, PIXELS, (1, 4, 4), overwrite=overwrite, **options) as writer:
        for seed, label in zip(seeds, labels, strict=True):
            writer.add(torch.full((1, 1, 4, 4), value, dtype=torch.uint8), [seed], {"labels": label[None]})


def content(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def full_disk(monkeypatch):
    """A disk that is full after so many files."""

    def fill(count):
        left = [count]
        save = output.save_image

        def limited(file, pixels):
            if not left[0]:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            left[0] -= 1
            save(file, pixels)

        monkeypatch.setattr(output, "save_image", limited)

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
    assert set(content(folder)) == {"000001.png", "000005.png", "labels.json", "notes.txt"}
    assert json.loads((folder / "labels.json").read_text()) == {"000001.png": 0, "000005.png": 1}


def test_without_pictures_of_before_those_that_were_drawn_stay(tmp_path, full_disk):
    full_disk(2)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "many", [0, 1, 2])
    assert set(content(tmp_path / "many")) == {"000000.png", "000001.png", "labels.json"}


def test_a_target_that_cannot_be_written_is_named_before(tmp_path):
    (tmp_path / "file").touch()
    for path, suffix, message in (
        (tmp_path / ("x" * 300 + ".png"), ".png", "File name too long"),
        (tmp_path / "file" / "folder", "", "Not a directory"),
    ):
        with pytest.raises(ValueError, match=f"^--out: {path} cannot be written: {message}"):
            check_target("--out", path, suffix, False)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_seeds_are_a_list_of_bounded_length():
    for text in (f"0-{2**32 - 1}", f"0-{MOST_SAMPLES}", f"0-{MOST_SAMPLES - 1},5"):
        with pytest.raises(ValueError, match=f"--seeds: expected at most {MOST_SAMPLES} seeds"):
            parse_seeds(text)


def test_a_run_that_cannot_be_written_is_refused_before_its_data_are_read(tmp_path, capsys):
    from diffspace.cli.app import main

    (tmp_path / "file").touch()
    out = tmp_path / "file" / "run"
    assert main(["train", str(tmp_path / "no data"), "images=100", "--out", str(out)]) == 2
    assert f"--out: {out} cannot be written: Not a directory" in capsys.readouterr().err
