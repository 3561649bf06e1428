"""Sets of many images: what is read of them at the start, and what names an image that is not like the others."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import as_the_reference, pixels, png, write_zip
from PIL import Image

from diffspace.data import ImageFolder, ImageZip, InMemory, prepare, stored_images
from diffspace.data.archives import FolderImages, ZipImages

IMAGES = pixels(40, 4, 5, 3)
STACKED = torch.from_numpy(IMAGES).permute(0, 3, 1, 2)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sets of more than 20 images are many, of which 6 headers are read; the numbers of the images that are opened."""
    monkeypatch.setattr(stored_images, "_MANY", 20)
    monkeypatch.setattr(stored_images, "_SAMPLE", 6)
    numbers: list[int] = []
    for kind in (FolderImages, ZipImages):
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
    message = rf"img000000{odd}\.png: .* it is 4×6 \(height×width\) and the images examined are 4×5; pass"
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
    with pytest.raises(ValueError, match=rf"img000000{odd}\.png: .* it has colours and .* are gray; pass channels"):
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
    with pytest.raises(ValueError, match=rf"size: .*00\.png is 4×5, .*{odd}\.png 4×6 .*pass the size"):
        place(members(**{str(odd): pixels(1, 4, 6, 3)[0]}), on_error="skip", cache_mb=0).load()


def test_preparation_reads_all_headers(place, opened, tmp_path: Path) -> None:
    odd = not_looked_at(opened, place(members(), cache_mb=0))
    with pytest.raises(ValueError, match=r"pass the size that all should have"):
        prepare(place(members(**{str(odd): pixels(1, 4, 6, 3)[0]})), tmp_path / "out.zip")


def test_few_images_are_all_looked_at(place, opened) -> None:
    data = place(as_the_reference(IMAGES[:20], None), cache_mb=0).load()
    assert sorted(opened) == list(range(20))
    assert not [note for note in data.notes if "headers" in note]
