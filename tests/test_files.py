import errno
import os

import pytest

from diffspace.files import atomic_path, open_in_place, write_text, writing


def test_success_replaces_and_leaves_nothing_else(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    write_text(target, "new σ")
    assert target.read_text(encoding="utf-8") == "new σ"
    assert list(tmp_path.iterdir()) == [target]


def test_failure_keeps_the_old_file_and_leaves_nothing_else(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def write_half():
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_results_are_as_readable_as_other_files(tmp_path):
    plain = tmp_path / "plain"
    plain.write_text("")
    write_text(tmp_path / "ours", "")
    assert (tmp_path / "ours").stat().st_mode == plain.stat().st_mode


def test_a_full_disk_names_the_file_that_was_written(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def write_half():
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match=f"No space left on device.*{target}"):
        write_half()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
    with pytest.raises(FileNotFoundError, match="none"), writing(target):  # an error of another file is its own
        (tmp_path / "none").read_text()


@pytest.mark.skipif(os.name != "posix", reason="links and pipes")
def test_what_is_written_in_place_is_a_file_of_its_own(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    makers = [lambda path: path.symlink_to(precious), lambda path: path.hardlink_to(precious), os.mkfifo]
    for i, make in enumerate(makers):
        make(tmp_path / str(i))
        with pytest.raises(ValueError, match=f"{i}: is a link, a pipe or a device"):
            open_in_place(tmp_path / str(i))
        (tmp_path / str(i)).unlink()
    assert precious.read_text() == "mine"
    for _ in range(2):
        descriptor = open_in_place(tmp_path / "new")
        os.write(descriptor, b"text")
        os.close(descriptor)
    assert (tmp_path / "new").read_text() == "text"
