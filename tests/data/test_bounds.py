"""What a small file or a short name can make us build is bounded, and nothing that waits is opened."""

import gzip
import io
import os
import re
import tarfile
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from image_files import png, write_zip

from diffspace.data import image_source, load_data, make_source
from diffspace.data.archives import list_files

IMAGE = png(np.zeros((4, 4), np.uint8))


@pytest.fixture
def refused():
    """Asserts that a source is refused with a line that names it, in little time and memory."""

    def check(spec, match, name=None):
        tracemalloc.start()
        start = time.perf_counter()
        try:
            with pytest.raises(ValueError, match=match) as error:
                load_data(spec)
            seconds, peak = time.perf_counter() - start, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert (name or str(spec)) in str(error.value)
        assert peak < 200e6
        assert seconds < 10

    return check


def array_header(kind: str, shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": shape})
    return file.getvalue()


def npz(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


def test_arrays_that_are_none_or_too_large(tmp_path: Path, refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffspace.files._BOMB_BYTES", 2**20)
    zeros = array_header("|u1", (2, 2**21)) + bytes(2**22)
    refused(npz(tmp_path / "bomb.npz", x=zeros), "x.npy: claims .* a decompression bomb")
    refused(npz(tmp_path / "text.npz", x=b"no array"), "magic string")
    refused(npz(tmp_path / "large.npz", x=array_header("<f8", (10**12,))), "claims shape")
    refused(npz(tmp_path / "void.npz", x=array_header("|S0", (10**9,))), "claims shape")
    few = array_header("<f4", (3, 1)) + bytes(12)
    refused(npz(tmp_path / "labels.npz", x=few, labels=array_header("|S0", (10**9,))), "labels.npy: claims shape")
    refused(npz(tmp_path / "none.npz"), "there is no array")
    assert len(load_data(npz(tmp_path / "whole.npz", x=few))) == 3


def test_ranges_of_names(refused) -> None:
    for name in ("{000000..999999}{000000..999999}.tar", "{0..100000}.tar", f"{{0..{10**30}}}.tar", "{5..4}.tar"):
        refused(name, "expected 1 to 100000 names in all, got")


def test_ways_through_links(tmp_path: Path, refused) -> None:
    for i in range(24):
        (tmp_path / f"{i}").mkdir()
        if i:
            for name in ("a", "b"):
                (tmp_path / f"{i - 1}" / name).symlink_to(tmp_path / f"{i}", target_is_directory=True)
    refused(tmp_path / "0", "links lead to the same folders again and again")
    (tmp_path / "23" / "x.png").write_bytes(IMAGE)
    assert len(list(list_files(tmp_path / "19"))) == 16  # a few ways are ways


def test_folders_within_folders(tmp_path: Path) -> None:
    before, depth = Path.cwd(), 1200  # more than Python's calls may be deep, also those that clean up
    os.chdir(tmp_path)
    try:
        for _ in range(depth):
            os.mkdir("a")
            os.chdir("a")
        Path("x.png").write_bytes(IMAGE)
        assert [name.count("/") for name in list_files(tmp_path)] == [depth]
        Path("x.png").unlink()
        for _ in range(depth):
            os.chdir("..")
            os.rmdir("a")
    finally:
        os.chdir(before)


def zeros_in_tar(path: Path, *members: tuple[str, int, bytes]) -> Path:
    """A packed tar archive of members of zeros, by name, size and type."""
    with gzip.open(path, "wb", compresslevel=1) as file:
        for name, size, kind in members:
            info = tarfile.TarInfo(name)
            info.size, info.type = size, kind
            file.write(info.tobuf())
            for begin in range(0, size, 2**20):
                file.write(bytes(min(2**20, size - begin)))
            file.write(bytes(-size % 512))
        file.write(bytes(1024))
    return path


def test_archives_of_cifar(tmp_path: Path, refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffspace.data.formats._CIFAR_LARGEST", 2**23)
    junk = [(f"junk{i}", 2**22, tarfile.REGTYPE) for i in range(4)]
    refused(zeros_in_tar(tmp_path / "junk.tar.gz", *junk), "claims")
    refused(zeros_in_tar(tmp_path / "pax.tar.gz", ("x", 2**22, tarfile.XHDTYPE)), "a header claims 4194304 bytes")
    refused(zeros_in_tar(tmp_path / "name.tar.gz", ("x", 2**22, tarfile.GNUTYPE_LONGNAME)), "a header claims")
    refused(zeros_in_tar(tmp_path / "link.tar.gz", ("x", 0, tarfile.SYMTYPE)), "is a link")


def test_an_index_is_no_larger_than_its_images_need(tmp_path: Path, refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffspace.data.archives.LARGEST_TEXT", 2**12)
    index = b"[" + b"[]," * 10_000 + b"[]]"
    refused(write_zip(tmp_path / "x.zip", {"a.png": IMAGE, "dataset.json": index}), "too many for 1 images")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.png").write_bytes(IMAGE)
    (folder / "dataset.json").write_bytes(index)
    refused(folder, "it has more than 8192 bytes")


def test_numbers_of_points_and_pixels() -> None:
    with pytest.raises(ValueError, match="n: expected an integer from 1 to"):
        make_source("two-moons", n=10**11)
    with pytest.raises(ValueError, match="size: expected an integer from 1 to 8192"):
        image_source(".", size=10**6)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_named_pipes_are_not_waited_for(tmp_path: Path, refused) -> None:
    for folder, name, others in (
        ("images", "a.png", {}),
        ("shards", "a.tar", {}),
        ("mixed", "b.png", {"a.png": IMAGE}),
        ("indexed", "c.png", {"a.png": IMAGE, "dataset.json": b'{"labels": null}'}),
    ):
        (tmp_path / folder).mkdir()
        os.mkfifo(tmp_path / folder / name)
        for other, content in others.items():
            (tmp_path / folder / other).write_bytes(content)
        refused(tmp_path / folder, re.escape(f"{tmp_path / folder / name}") + ".*is a named pipe")
    for name in ("x.npy", "x.npz", "x.zip", "x.tar", "x.tar.gz", "x-idx3-ubyte"):
        os.mkfifo(tmp_path / name)
        refused(tmp_path / name, "is neither a folder of images nor a file")
