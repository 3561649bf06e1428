import errno
import os

import numpy as np
import pytest
import torch

from diffspace.files import (
    atomic_path,
    atomic_paths,
    check_entries,
    check_writable,
    missing_path,
    open_in_place,
    parse_json,
    read_bytes,
    read_json,
    reading,
    save_array,
    save_tensors,
    write_text,
    writing,
)


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


def test_several_files_are_replaced_together_or_not_at_all(tmp_path):
    one, other = tmp_path / "a.txt", tmp_path / "b.txt"
    one.write_text("old")
    with atomic_paths(one, other) as (first, second):
        first.write_text("new")
        second.write_text("new")
    assert one.read_text() == other.read_text() == "new"

    def fail():
        with atomic_paths(one, other) as (first, second):
            first.write_text("half")
            second.write_text("half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left on device") as caught:
        fail()
    assert caught.value.filename in (str(one), str(other))
    assert one.read_text() == other.read_text() == "new"
    assert sorted(tmp_path.iterdir()) == [one, other]


def test_an_error_of_writing_names_the_file_and_not_its_temporary_name(tmp_path):
    target = tmp_path / "no" / "a.safetensors"
    for write in (lambda: write_text(target, ""), lambda: save_tensors(target, {"a": torch.zeros(1)})):
        with pytest.raises(OSError, match="No such file") as caught:
            write()
        assert caught.value.filename == str(target)

    def read_another():
        with writing(target):
            (tmp_path / "other").read_text()

    with pytest.raises(FileNotFoundError, match="other"):
        read_another()


def test_what_cannot_be_written_is_known_before(tmp_path):
    check_writable(tmp_path / "new.txt")
    check_writable(tmp_path / "a" / "b" / "new")
    check_writable(tmp_path)
    (tmp_path / "file").touch()
    for place in (tmp_path / "file" / "x.png", tmp_path / ("x" * 300)):
        with pytest.raises(OSError, match=r"Not a directory|File name too long") as caught:
            check_writable(place)
        assert caught.value.filename == str(place)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_and_devices_are_refused_without_waiting(tmp_path):
    pipe, device = tmp_path / "pipe", tmp_path / "zero"
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    for path, kind in ((pipe, "named pipe"), (device, "device")):
        for read in (read_bytes, read_json):
            with pytest.raises(ValueError, match=f"^{path}: is a {kind}; expected a file$"):
                read(path)
        with pytest.raises(ValueError, match=f"^{path}: is a {kind}"), reading(path):
            path.open()


def test_bounds_of_json(tmp_path):
    path = tmp_path / "a.json"
    for text, message in (
        ("[" * 100_000, "it is nested too deeply"),
        ("[" * 80 + "]" * 80, "it is nested too deeply"),
        ('{"a": ' * 80 + "1" + "}" * 80, "it is nested too deeply"),
        ("1" * 5000, "Exceeds the limit"),
        ("{", "Expecting property name"),
        ("", "Expecting value"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=f"^{path}: cannot be read as JSON: {message}"):
            read_json(path)
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ValueError, match=f"^{path}: cannot be read as JSON"):
        read_json(path)
    path.write_text("[" * 60 + "]" * 60)
    read_json(path)
    with pytest.raises(ValueError, match=f"^{path}: cannot be read: it has more than 7 bytes"):
        read_bytes(path, 7)
    assert parse_json('{"a": [1, {"b": null}]}') == {"a": [1, {"b": None}]}


def test_entries_and_their_types(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": 1, "b": [], "c": true}')
    assert read_json(path, a=int, b=list, c=bool)["a"] == 1
    for entries, message in (
        ({"d": int}, "it lacks d"),
        ({"a": str}, "a: expected a str, got a int"),
        ({"c": int}, "c: expected a int, got a bool"),
    ):
        with pytest.raises(ValueError, match=f"^{path}: cannot be read: {message}$"):
            read_json(path, **entries)
    with pytest.raises(ValueError, match="expected a mapping of names to values, got a list"):
        check_entries([])


@pytest.mark.skipif(os.name != "posix", reason="limits of POSIX")
def test_an_array_is_written_whole_or_not_at_all(tmp_path):
    import resource

    array = np.arange(500)
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, former[1]))  # less than a buffer: numpy.save notices nothing
    try:
        with pytest.raises(OSError, match=r"x\.npy"), atomic_path(tmp_path / "x.npy") as temporary:
            save_array(temporary, array)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
    assert not list(tmp_path.iterdir())
    save_array(tmp_path / "x.npy", array)
    assert np.array_equal(np.load(tmp_path / "x.npy"), array)


def test_a_folder_is_told_from_a_file_that_is_missing(tmp_path):
    (tmp_path / "model").mkdir()
    assert missing_path(tmp_path / "model") == f"{tmp_path / 'model'} (it is a folder)"
    assert missing_path(tmp_path / "modle") == f"{tmp_path / 'modle'}; did you mean {tmp_path / 'model'}?"
