"""Preparing data sets: what is written, byte for byte, and what an interruption leaves."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import as_the_reference, pixels, png, write_zip
from PIL import Image
from races import races

from diffspace.cli.app import main
from diffspace.data import ImageFolder, ImageZip, image_source, load_data, preparation, prepare, verify
from diffspace.data.images import ImageReader

IMAGES = pixels(12, 6, 6, 3)
LABELS = [3, 0, 5, 5, 1, 0, 3, 3, 2, 1, 0, 5]
STACKED = torch.from_numpy(IMAGES).permute(0, 3, 1, 2)


def members(path: Path) -> dict[str, bytes]:
    """The files of a data set, in their order in an archive and by name in a folder."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return {file.relative_to(path).as_posix(): file.read_bytes() for file in files}
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def folder_of(path: Path, images: dict[str, np.ndarray]) -> Path:
    for name, image in images.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path / name)
    return path


@pytest.mark.parametrize("destination", ["out.zip", "out"])
def test_bytes_in_bytes_out(tmp_path: Path, destination: str) -> None:
    given = as_the_reference(IMAGES, LABELS)
    given["00000/img00000004.png"] = png(IMAGES[4], compress_level=9)  # however it is packed
    source = write_zip(tmp_path / "in.zip", given)
    done = prepare(ImageZip(source), tmp_path / destination)
    assert (done.images, done.shape, done.labelled, done.left_out) == (12, (3, 6, 6), True, ())
    written = members(tmp_path / destination)
    manifest = json.loads(written.pop("manifest.json"))
    expected = {name: content if isinstance(content, bytes) else content.encode() for name, content in given.items()}
    assert written == expected
    if destination == "out.zip":
        assert list(written) == list(given)
    assert manifest["files"] == {name: hashlib.sha256(content).hexdigest() for name, content in expected.items()}
    assert manifest["sha256"] == done.sha256
    assert manifest["source"] == "in"
    assert manifest["options"]["max_images"] is None
    assert verify(tmp_path / destination) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["in.zip", destination])


def test_what_is_written_is_what_was_read(tmp_path: Path) -> None:
    names = ["dog/b.png", "cat/1.png", "cat/2.bmp", "emu/x/y.png"]
    folder = folder_of(tmp_path / "in", {name: IMAGES[i] for i, name in enumerate(names)})
    prepare(ImageFolder(folder), tmp_path / "out.zip")
    before, after = load_data(folder), load_data(tmp_path / "out.zip")
    assert torch.equal(after.raw(), before.raw())
    assert torch.equal(after.labels, before.labels)
    assert after.class_names == before.class_names == ("cat", "dog", "emu")
    assert json.loads(members(tmp_path / "out.zip")["dataset.json"]) == {
        "labels": [[f"00000/img0000000{i}.png", label] for i, label in enumerate([0, 0, 1, 2])],
        "class_names": ["cat", "dog", "emu"],
    }


def test_the_same_call_gives_the_same_bytes_and_no_times_or_rights(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "in", {f"{i}.png": image for i, image in enumerate(IMAGES)})
    prepare(ImageFolder(folder, size=4), tmp_path / "a.zip")
    os.utime(folder / "3.png", (0, 0))
    prepare(ImageFolder(folder, size=4), tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}


def test_a_folder_and_an_archive_hold_the_same(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "in", {f"{i}.png": image for i, image in enumerate(IMAGES)})
    for name in ("out", "out.zip"):
        prepare(ImageFolder(folder, size=(3, 5)), tmp_path / name)
    assert members(tmp_path / "out") == dict(sorted(members(tmp_path / "out.zip").items()))
    assert torch.equal(load_data(tmp_path / "out").raw(), load_data(folder, size=(3, 5)).raw())


def test_a_thousand_images_a_folder_and_vectors_as_they_are(tmp_path: Path) -> None:
    small = pixels(1001, 1, 1)
    vectors = [[i / 7, -1.0] for i in range(1001)]
    source = write_zip(tmp_path / "in.zip", as_the_reference(small, vectors))
    prepare(ImageZip(source), tmp_path / "out.zip")
    written = members(tmp_path / "out.zip")
    assert list(written)[999:1003] == [
        "00000/img00000999.png",
        "00001/img00001000.png",
        "dataset.json",
        "manifest.json",
    ]
    assert json.loads(written["dataset.json"])["labels"][1000] == ["00001/img00001000.png", vectors[1000]]
    prepare(ImageZip(source), tmp_path / "few.zip", max_images=3)
    assert list(members(tmp_path / "few.zip"))[:4] == [*list(written)[:3], "dataset.json"]
    assert len(json.loads(members(tmp_path / "few.zip")["dataset.json"])["labels"]) == 3


@pytest.mark.parametrize(
    "content",
    [
        png(np.arange(36, dtype=np.uint8).reshape(6, 6) > 9),  # 1 bit
        png(IMAGES[0], transparency=(1, 2, 3)),
        png(pixels(1, 6, 6, 4)[0]),
    ],
)
def test_a_png_of_another_kind_is_written_anew(tmp_path: Path, content: bytes) -> None:
    source = write_zip(tmp_path / "in.zip", {"a.png": content})
    prepare(ImageZip(source), tmp_path / "out.zip")
    written = members(tmp_path / "out.zip")["00000/img00000000.png"]
    assert written != content
    assert written[24] == 8  # bits
    assert torch.equal(load_data(tmp_path / "out.zip").raw(), load_data(source).raw())


def test_a_turned_png_is_turned_and_its_profile_left_behind(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 3
    source = write_zip(tmp_path / "in.zip", {"a.png": png(IMAGES[0], exif=exif, icc_profile=b"profile")})
    prepare(ImageZip(source), tmp_path / "out.zip")
    assert members(tmp_path / "out.zip")["00000/img00000000.png"] == png(IMAGES[0][::-1, ::-1].copy(), compress_level=0)


@pytest.mark.parametrize("kind", ["header", "pixels"])
def test_images_that_cannot_be_read(tmp_path: Path, kind: str) -> None:
    given = as_the_reference(IMAGES, LABELS)
    broken = {"header": b"no image", "pixels": given["00000/img00000002.png"][:60]}[kind]
    given["00000/img00000002.png"] = broken
    source = write_zip(tmp_path / "in.zip", given)
    with pytest.raises(ValueError, match=r"in\.zip/00000/img00000002\.png: cannot be read as an .*on_error='skip'"):
        prepare(ImageZip(source), tmp_path / "out.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["in.zip"]
    done = prepare(ImageZip(source, on_error="skip"), tmp_path / "out.zip")
    assert done.left_out == ("00000/img00000002.png",)
    names = [name for name in given if name != "00000/img00000002.png"]  # the numbers of the others stay
    assert list(members(tmp_path / "out.zip")) == [*names, "manifest.json"]
    assert load_data(tmp_path / "out.zip").labels.tolist() == LABELS[:2] + LABELS[3:]


def test_nothing_that_can_be_read(tmp_path: Path) -> None:
    source = write_zip(tmp_path / "in.zip", {"a.png": png(IMAGES[0])[:60]})
    with pytest.raises(ValueError, match="none of its 1 images can be read"):
        prepare(ImageZip(source, on_error="skip"), tmp_path / "out.zip")
    assert not (tmp_path / "out.zip").exists()


# ---- interruption

INTERRUPTED = """
import os, signal, sys
from diffspace.data import image_source, prepare, preparation
preparation._PART = 10
phase, number, source, destination = sys.argv[1:]
def track(*at):
    if at[:2] == (phase, int(number)):
        os.kill(os.getpid(), signal.SIGKILL)
prepare(image_source(source, size=5), destination, track=track)
"""


@pytest.mark.parametrize("destination", ["out.zip", "out"])
@pytest.mark.parametrize(("phase", "number", "done"), [("headers", 35, 0), ("images", 20, 20), ("writing", 30, 35)])
def test_killed_work_is_taken_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, destination: str, phase: str, number: int, done: int
) -> None:
    source = write_zip(tmp_path / "in.zip", as_the_reference(pixels(35, 8, 8, 3), list(range(35))))
    command = [sys.executable, "-c", INTERRUPTED, phase, str(number), str(source), str(tmp_path / destination)]
    killed = subprocess.run(command, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / destination).exists()
    assert (tmp_path / f"{destination}.partial").is_dir()

    with pytest.raises(ValueError, match=rf"size: 6, but .*{destination}\.partial was begun with 5; continue"):
        prepare(image_source(source, size=6), tmp_path / destination)

    encoded = []
    png_of = ImageReader.png
    monkeypatch.setattr(ImageReader, "png", lambda *args: encoded.append(args[2]) or png_of(*args))
    monkeypatch.setattr(preparation, "_PART", 10)
    prepare(image_source(source, size=5), tmp_path / destination)
    assert len(encoded) == 35 - done
    prepare(image_source(source, size=5), tmp_path / "whole")
    assert members(tmp_path / destination).items() == members(tmp_path / "whole").items()
    assert verify(tmp_path / destination) == []
    assert not (tmp_path / f"{destination}.partial").exists()


def test_work_begun_with_other_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "_PART", 5)  # a part is written before the broken image is met
    broken = as_the_reference(IMAGES, LABELS)
    broken["00000/img00000011.png"] = broken["00000/img00000011.png"][:60]
    source = write_zip(tmp_path / "in.zip", broken)
    with pytest.raises(ValueError, match="cannot be read"):
        prepare(ImageZip(source), tmp_path / "out.zip")
    write_zip(source, as_the_reference(IMAGES, LABELS))
    with pytest.raises(ValueError, match=r"contents: .* but .*out\.zip\.partial was begun with"):
        prepare(ImageZip(source), tmp_path / "out.zip")
    shutil.rmtree(tmp_path / "out.zip.partial")
    prepare(ImageZip(source), tmp_path / "out.zip")


def test_a_folder_in_the_way_is_left_alone(tmp_path: Path) -> None:
    source = write_zip(tmp_path / "in.zip", as_the_reference(IMAGES, LABELS))
    (tmp_path / "out.zip.partial").mkdir()
    (tmp_path / "out.zip.partial" / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"out\.zip\.partial: exists and was not made by this command"):
        prepare(ImageZip(source), tmp_path / "out.zip")
    (tmp_path / "out.zip.partial" / "state.json").write_text("[1")
    with pytest.raises(ValueError, match=r"state\.json: is damaged; remove"):
        prepare(ImageZip(source), tmp_path / "out.zip")
    assert (tmp_path / "out.zip.partial" / "mine.txt").read_text() == "mine"


# ---- destinations


def test_nothing_is_overwritten_unless_told(tmp_path: Path) -> None:
    first = write_zip(tmp_path / "1.zip", as_the_reference(IMAGES, LABELS))
    second = write_zip(tmp_path / "2.zip", as_the_reference(IMAGES[:3], LABELS[:3]))
    for name in ("out", "out.zip"):
        prepare(ImageZip(first), tmp_path / name)
        with pytest.raises(ValueError, match=rf"destination: .*{name} exists already"):
            prepare(ImageZip(second), tmp_path / name)
        assert len(load_data(tmp_path / name)) == 12
        prepare(ImageZip(second), tmp_path / name, overwrite=True)
        assert len(load_data(tmp_path / name)) == 3
        assert verify(tmp_path / name) == []


def test_destinations_that_are_refused(tmp_path: Path) -> None:
    source = ImageFolder(folder_of(tmp_path / "in", {"a.png": IMAGES[0]}))
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").touch()
    (tmp_path / "folder.zip").mkdir()
    for destination, message in (
        (tmp_path / "x.tar", r"expected \.zip or a folder, got .*x\.tar"),
        (tmp_path / "no" / "x.zip", "there is no folder"),
        (tmp_path / "in" / "x.zip", "contain one another"),
        (tmp_path / "folder.zip", r"folder\.zip is a folder; choose another name"),
        (mine, "mine was not prepared by diffspace and is not overwritten"),
    ):
        with pytest.raises(ValueError, match=f"destination: .*{message}"):
            prepare(source, destination, overwrite=True)
    assert (mine / "thesis.tex").exists()
    for most in (0, -1, True):
        with pytest.raises(ValueError, match="max_images"):
            prepare(source, tmp_path / "x.zip", max_images=most)
    (tmp_path / "empty").mkdir()
    assert prepare(source, tmp_path / "empty").images == 1


# ---- several at once

posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and flock")


@posix
@pytest.mark.parametrize("kind", ["prepare", "encode"])
@pytest.mark.parametrize(
    "count", [pytest.param(2, id="two races"), pytest.param(25, id="25 races", marks=pytest.mark.slow)]
)
def test_of_two_at_once_one_is_done_and_nothing_is_lost(kind: str, count: int) -> None:
    for overwrite in (False, True):
        outcomes = races(kind, count, overwrite)
        assert all(outcome.startswith("whole") for outcome in outcomes), outcomes


@posix
def test_who_works_there_is_named(tmp_path: Path) -> None:
    source = write_zip(tmp_path / "in.zip", as_the_reference(IMAGES, LABELS))

    def again(*at: object) -> None:
        with pytest.raises(ValueError, match=rf"out\.partial is being written by process {os.getpid()} on"):
            prepare(ImageZip(source), tmp_path / "out")

    prepare(ImageZip(source), tmp_path / "out", track=again)
    assert verify(tmp_path / "out") == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.zip", "out"]


def test_a_folder_that_is_replaced_is_there_old_or_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = write_zip(tmp_path / "1.zip", as_the_reference(IMAGES, LABELS))
    second = ImageZip(write_zip(tmp_path / "2.zip", as_the_reference(IMAGES[:3], LABELS[:3])))
    target = tmp_path / "out"
    prepare(ImageZip(first), target)
    rename = Path.rename

    def full(path: Path, place: Path) -> Path:
        if path.name == "whole":
            raise OSError("no more")
        return rename(path, place)

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(OSError, match="no more"):
        prepare(second, target, overwrite=True)
    assert len(load_data(target)) == 12
    assert verify(target) == []
    monkeypatch.undo()
    target.rename(tmp_path / "out.partial" / "replaced")  # as a process leaves it that is killed between the renames
    with pytest.raises(ValueError, match="exists already"):
        prepare(second, target)
    assert len(load_data(target)) == 12
    prepare(second, target, overwrite=True)
    assert len(load_data(target)) == 3
    assert not (tmp_path / "out.partial").exists()


def test_a_place_that_cannot_be_written_is_named_first(tmp_path: Path) -> None:
    source = ImageFolder(folder_of(tmp_path / "in", {"a.png": IMAGES[0]}))
    with pytest.raises(ValueError, match=r"^destination: .*x cannot be written: File name too long"):
        prepare(source, tmp_path / ("x" * 300))


# ---- the command line


def test_prepare_and_verify_on_the_command_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = write_zip(tmp_path / "in.zip", as_the_reference(IMAGES, LABELS))
    out = tmp_path / "out.zip"
    command = ["data", "prepare", str(source), str(out), "--size", "4x8", "--crop", "none", "--max-images", "7"]
    assert main(command) == 0
    assert "7 images of 3×4×8 with labels; sha256 " in capfd.readouterr().out
    assert torch.equal(load_data(out).raw(), load_data(source, size=(4, 8), crop="none").raw()[:7])
    assert main(["data", "verify", str(out)]) == 0
    assert main(command) == 2
    assert "exists already" in capfd.readouterr().err
    assert main([*command, "--overwrite"]) == 0
    content = bytearray(out.read_bytes())
    content[content.index(b"IDAT") + 9] ^= 1
    out.write_bytes(bytes(content))
    assert main(["data", "verify", str(out)]) == 1
    assert "img00000000.png: is damaged" in capfd.readouterr().err
    assert main(["data", "prepare", str(source), str(out), "--size", "big"]) == 2
    assert "--size: expected HEIGHTxWIDTH" in capfd.readouterr().err
    assert main(["data", "prepare", "digits", str(out)]) == 2
    assert main(["data", "prepare", str(tmp_path / "nowhere"), str(out)]) == 2
    assert main(["data", "verify", str(source)]) == 2


def test_a_destination_never_swallows_its_source(tmp_path):
    source = tmp_path / "prepared" / "x.zip"
    source.parent.mkdir()
    with zipfile.ZipFile(source, "w") as archive:
        archive.writestr("a.png", png(IMAGES[0]))
    before = source.read_bytes()
    for destination in (source, source.parent):
        with pytest.raises(ValueError, match="contain one another"):
            prepare(image_source(source), destination, overwrite=True)
    assert source.read_bytes() == before


def test_a_mistake_does_not_bind_its_correction(tmp_path):
    source = folder_of(tmp_path / "in", {"a.png": IMAGES[0], "b.png": IMAGES[1][:4]})
    target = tmp_path / "x.zip"
    with pytest.raises(ValueError, match="pass the size that all should have"):
        prepare(image_source(source), target)
    (source / "c.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="on_error='skip' leaves such images out"):
        prepare(image_source(source, size=4), target)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert prepare(image_source(source, size=4, on_error="skip"), target).images == 2
