"""Sets of many images: what is read of them at the start, and what names an image that is not like the others."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from image_files import as_the_reference, pixels, png, write_zip
from PIL import Image

from diffspace.data import ImageFolder, ImageZip, InMemory, folder, prepare
from diffspace.data.files import FolderFiles
from diffspace.data.names import Names, NumberedNames
from diffspace.data.zip_files import ZipFiles

IMAGES = pixels(40, 4, 5, 3)
STACKED = torch.from_numpy(IMAGES).permute(0, 3, 1, 2)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sets of more than 20 images are many, of which 6 headers are read; the numbers of the images that are opened."""
    monkeypatch.setattr(folder, "_FEW", 20)
    monkeypatch.setattr(folder, "_SAMPLE", 6)
    numbers: list[int] = []
    for kind in (FolderFiles, ZipFiles):
        own = kind.open
        monkeypatch.setattr(kind, "open", lambda self, i, own=own: numbers.append(i) or own(self, i))
    return numbers


def unpacked(path: Path, members: dict) -> Path:
    for name, content in members.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.fixture(params=["zip", "folder"])
def place(request, tmp_path: Path):
    def write(members: dict, **options: object):
        if request.param == "zip":
            return ImageZip(write_zip(tmp_path / "x.zip", members), **options)
        return ImageFolder(unpacked(tmp_path / "x", members), **options)

    return write


def members(labels: list | None = None, **others: np.ndarray) -> dict:
    found = as_the_reference(IMAGES, labels)
    return {**found, **{f"00000/img000000{number}.png": png(image) for number, image in others.items()}}


def test_a_sample_of_the_headers_stands_for_all(place, opened) -> None:
    labels = [i % 3 for i in range(40)]
    data = place(members(labels), cache_mb=0).load()
    assert len(set(opened)) == len(opened) == 6
    assert data.notes[0] == "headers of 6 images stand for all 40"
    assert torch.equal(data.raw(), STACKED)
    assert data.labels.tolist() == labels
    again = place(members(labels), cache_mb=0)
    before = opened[:6]
    opened.clear()
    data = again.load()
    assert opened == before
    copy = pickle.loads(pickle.dumps(data.rows))
    assert torch.equal(copy.read(torch.tensor([39, 0])), STACKED[[39, 0]])


def not_looked_at(opened: list[int], source) -> int:
    source.load()
    number = next(i for i in range(10, 40) if i not in opened)
    opened.clear()
    return number


@pytest.mark.parametrize("cache_mb", [0, 100])
def test_an_image_of_another_size_is_named_when_it_is_read(place, opened, cache_mb: int) -> None:
    odd = not_looked_at(opened, place(members(), cache_mb=0))
    there = members(**{str(odd): pixels(1, 4, 6, 3)[0]})
    message = rf"img000000{odd}\.png: .* it is 4×6 \(height×width\) and the images that were looked at are 4×5; give"
    with pytest.raises(ValueError, match=message):
        place(there, cache_mb=cache_mb).load().raw()
    data = place(there, cache_mb=cache_mb, size=(4, 5)).load()
    others = torch.tensor([i for i in range(40) if i != odd])
    assert torch.equal(data.raw(others), STACKED[others])
    assert isinstance(data.rows, InMemory) == (cache_mb > 0)


def test_a_turned_image_has_the_size_that_it_is_shown_in(place, opened) -> None:
    odd = not_looked_at(opened, place(members(), cache_mb=0))
    exif = Image.Exif()
    exif[274] = 6
    turned = np.ascontiguousarray(np.rot90(IMAGES[odd]))
    there = {**members(), f"00000/img000000{odd}.png": png(turned, exif=exif)}
    assert torch.equal(place(there, cache_mb=0).load().raw(), STACKED)


def test_an_image_with_colours_among_gray_ones_is_named(place, opened) -> None:
    gray = pixels(40, 4, 5)
    there = as_the_reference(gray, None)
    odd = not_looked_at(opened, place(there, cache_mb=0))
    there[f"00000/img000000{odd}.png"] = png(IMAGES[odd])
    assert place(there, cache_mb=0).load().sample_shape == (1, 4, 5)
    with pytest.raises(ValueError, match=rf"img000000{odd}\.png: .* it has colours and .* are gray; give the channels"):
        place(there, cache_mb=0).load().raw()
    data = place(there, cache_mb=0, channels="RGB").load()
    assert torch.equal(data.raw()[odd], STACKED[odd])
    data = place(there, cache_mb=0, channels="grayscale").load()
    assert torch.equal(data.raw()[:odd, 0], torch.from_numpy(gray[:odd]))


def test_a_broken_image_is_named_when_it_is_read_or_found_by_skip(place, opened) -> None:
    odd = not_looked_at(opened, place(members(), cache_mb=0))
    there = {**members([i % 2 for i in range(40)]), f"00000/img000000{odd}.png": b"no image"}
    data = place(there, cache_mb=0).load()
    with pytest.raises(ValueError, match=rf"img000000{odd}\.png: cannot be read as an image: cannot identify"):
        data.raw()
    with pytest.warns(UserWarning, match=rf"left out: 1: 00000/img000000{odd}\.png"):
        data = place(there, cache_mb=0, on_error="skip").load()
    kept = [i for i in range(40) if i != odd]
    assert data.labels.tolist() == [i % 2 for i in kept]
    assert torch.equal(data.raw(), STACKED[kept])


def test_skipping_finds_sizes_that_differ(place, opened) -> None:
    odd = not_looked_at(opened, place(members(), cache_mb=0))
    with pytest.raises(ValueError, match=rf"size: .*00\.png is 4×5, .*{odd}\.png 4×6 .*give the size"):
        place(members(**{str(odd): pixels(1, 4, 6, 3)[0]}), on_error="skip", cache_mb=0).load()


def test_preparation_reads_all_headers(place, opened, tmp_path: Path) -> None:
    odd = not_looked_at(opened, place(members(), cache_mb=0))
    with pytest.raises(ValueError, match=r"give the size that all shall have"):
        prepare(place(members(**{str(odd): pixels(1, 4, 6, 3)[0]})), tmp_path / "out.zip")


def test_few_images_are_all_looked_at(place, opened) -> None:
    data = place(as_the_reference(IMAGES[:20], None), cache_mb=0).load()
    assert sorted(opened) == list(range(20))
    assert not [note for note in data.notes if "headers" in note]


# any text that a file system may give: what is no UTF-8 comes as lone surrogates
NAME = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\udc80\udcff"), max_size=8)


@given(st.lists(NAME, max_size=20), st.data())
def test_names_are_a_sequence_of_strings(given_names: list[str], data) -> None:
    names = Names(iter(given_names))
    assert (len(names), list(names), [names[i] for i in range(len(names))]) == (
        len(given_names),
        given_names,
        given_names,
    )
    part = data.draw(st.slices(len(given_names)))
    assert list(names[part]) == given_names[part]
    if given_names:
        numbers = data.draw(st.lists(st.integers(0, len(given_names) - 1), max_size=9))
        assert list(names.take(numbers)) == [given_names[i] for i in numbers]
        assert names[-1] == given_names[-1]
    with pytest.raises(IndexError):
        names[len(names)]
    assert list(pickle.loads(pickle.dumps(names))) == given_names


def test_names_take_little_memory() -> None:
    names = Names(f"{i // 1000:05d}/img{i:08d}.png" for i in range(100_000))
    assert len(pickle.dumps(names)) < 37 * 100_000


def test_numbered_names() -> None:
    names = NumberedNames(range(12))
    assert (len(names), names[11], names[-1], list(names[2:4])) == (
        12,
        "00000011.png",
        "00000011.png",
        ["00000002.png", "00000003.png"],
    )
