"""What cannot be written, or is too much, is known before any work."""

import pytest

from diffspace.cli.options import MOST_SAMPLES, parse_seeds
from diffspace.cli.output import check_target


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
