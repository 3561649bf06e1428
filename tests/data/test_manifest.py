"""Verification: one byte of any file, and of what lies between the files of an archive."""

import json
from pathlib import Path

import pytest
from image_files import as_the_reference, pixels, write_zip

from diffspace.data import ImageZip, prepare, verify


@pytest.fixture
def source(tmp_path: Path) -> ImageZip:
    return ImageZip(write_zip(tmp_path / "in.zip", as_the_reference(pixels(3, 2, 2), [0, 1, 0])))


def test_every_byte_of_an_archive_counts(tmp_path: Path, source: ImageZip) -> None:
    path = tmp_path / "out.zip"
    prepare(source, path)
    content = path.read_bytes()
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        try:
            problems = verify(path)
        except ValueError as error:  # the directory is not readable
            problems = [str(error)]
        assert problems, at
        assert all(problem.startswith(str(path)) and "\n" not in problem for problem in problems)
    path.write_bytes(content + b"x")
    assert verify(path)
    path.write_bytes(content)
    assert verify(path) == []


def test_every_byte_of_a_folder_counts(tmp_path: Path, source: ImageZip) -> None:
    folder = tmp_path / "out"
    prepare(source, folder)
    for file in [file for file in sorted(folder.rglob("*")) if file.is_file()]:
        content = file.read_bytes()
        for at in range(len(content)):
            file.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
            problems = verify(folder)
            assert len(problems) == 1, (file, at)
            assert problems[0].startswith(f"{file}: is not what was written")
        file.write_bytes(content)
    assert verify(folder) == []


def test_files_that_are_missing_or_too_many(tmp_path: Path, source: ImageZip) -> None:
    folder = tmp_path / "out"
    prepare(source, folder)
    (folder / "00000" / "img00000001.png").rename(folder / "00000" / "img00000009.png")
    assert verify(folder) == [
        f"{folder}/00000/img00000001.png: is missing",
        f"{folder}/00000/img00000009.png: is not in the manifest",
    ]


def test_what_is_no_prepared_data_set(tmp_path: Path, source: ImageZip) -> None:
    with pytest.raises(ValueError, match=r"manifest\.json: does not exist; expected a data set written by"):
        verify(source.path)
    with pytest.raises(ValueError, match=r"nowhere: cannot be read: No such file"):
        verify(tmp_path / "nowhere")
    (tmp_path / "folder").mkdir()
    for text in ("", "[]", "{", '"x"', json.dumps({"files": []}), json.dumps({"files": {"a": 1}, "sha256": ""})):
        (tmp_path / "folder" / "manifest.json").write_text(text)
        assert verify(tmp_path / "folder") == [
            f"{tmp_path}/folder/manifest.json: is not what was written; the other files were not checked"
        ]
