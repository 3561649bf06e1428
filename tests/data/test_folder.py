"""Folders of images: what lies where, classes, sizes, errors."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffspace.data import ImageFolder, InMemory
from diffspace.inspection import inspect

RNG = np.random.default_rng(0)


def write(path: Path, *shape: int) -> np.ndarray:
    """A PNG of random pixels at `path`, and its pixels (H, W) or (H, W, C)."""
    pixels = RNG.integers(0, 256, shape or (4, 5, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def cut(path: Path) -> None:
    """A PNG whose second half is missing."""
    write(path, 32, 32, 3)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_pixels_in_the_order_of_names(tmp_path: Path) -> None:
    images = [write(tmp_path / name) for name in ("a.png", "b.PNG", "c d.bmp", "日本 é.png")]
    data = ImageFolder(tmp_path).load()
    assert data.sample_shape == (3, 4, 5)
    assert data.labels is None
    assert torch.equal(data.raw(), torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2))
    assert data.name == tmp_path.name


def test_classes_are_the_first_level_of_folders(tmp_path: Path) -> None:
    for name in ("dog/deep/er/1.png", "cat/2.png", "cat/1.png", "a b/ü.png"):
        write(tmp_path / name)
    data = ImageFolder(tmp_path).load()
    assert data.class_names == ("a b", "cat", "dog")
    assert data.labels.tolist() == [0, 1, 1, 2]
    assert ImageFolder(tmp_path, classes="none").load().labels is None


def test_one_sub_folder_is_no_class(tmp_path: Path) -> None:
    write(tmp_path / "all" / "1.png")
    data = ImageFolder(tmp_path).load()
    assert (data.labels, data.class_names) == (None, ())


def test_images_beside_class_folders(tmp_path: Path) -> None:
    write(tmp_path / "cat" / "1.png")
    write(tmp_path / "lost.png")
    with pytest.raises(ValueError, match=r"lost\.png, cat/.*classes='none'"):
        ImageFolder(tmp_path).load()
    assert len(ImageFolder(tmp_path, classes="none").load()) == 2


def test_classes_within_one_folder_are_noted(tmp_path: Path) -> None:
    for name in ("photos/cat/1.png", "photos/dog/1.png"):
        write(tmp_path / name)
    with pytest.warns(UserWarning, match="photos/ encloses cat, dog, which are not counted as classes; move them up"):
        assert ImageFolder(tmp_path).load().class_names == ()


def test_a_class_folder_without_images_is_named(tmp_path: Path) -> None:
    for name in ("cat/1.png", "dog/1.png"):
        write(tmp_path / name)
    (tmp_path / "emu").mkdir()
    with pytest.warns(UserWarning, match="sub-folders without images are not counted as classes: emu"):
        data = ImageFolder(tmp_path).load()
    assert data.class_names == ("cat", "dog")


def test_hidden_names_and_other_files_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "1.png")
    write(tmp_path / ".hidden.png")
    write(tmp_path / ".thumbs" / "1.png")
    (tmp_path / "README.txt").write_text("no image")
    (tmp_path / "labels").write_text("no image")
    data = ImageFolder(tmp_path).load()
    assert len(data) == 1
    assert data.notes == ("files that are not images, ignored: 2",)
    assert "note: files that are not images, ignored: 2" in inspect(data).lines()


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    pixels = write(tmp_path / "store" / "1.png")
    root = tmp_path / "root"
    root.mkdir()
    (root / "link.png").symlink_to(tmp_path / "store" / "1.png")
    (root / "loop").symlink_to(root)
    (root / "store").symlink_to(tmp_path / "store")
    data = ImageFolder(root, classes="none").load()
    assert torch.equal(data.raw(), torch.from_numpy(np.stack([pixels, pixels])).permute(0, 3, 1, 2))


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere: cannot be listed as a folder: No such file"):
        ImageFolder(tmp_path / "nowhere").load()
    write(tmp_path / "1.png")
    with pytest.raises(ValueError, match=r"1\.png: cannot be listed as a folder: Not a directory"):
        ImageFolder(tmp_path / "1.png").load()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: holds no images$"):
        ImageFolder(tmp_path / "empty").load()
    (tmp_path / "empty" / "a.txt").touch()
    with pytest.raises(ValueError, match=r"holds no images; files that are not images, ignored: 1$"):
        ImageFolder(tmp_path / "empty").load()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="everything can be read here")
def test_a_folder_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0)
    with pytest.raises(ValueError, match=r"locked: cannot be listed as a folder: Permission denied"):
        ImageFolder(tmp_path).load()


@pytest.mark.parametrize("cache_mb", [0, 100])
def test_broken_files_are_named_or_skipped(tmp_path: Path, cache_mb: int) -> None:
    good = write(tmp_path / "b.png", 32, 32, 3)
    cut(tmp_path / "a.png")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(ValueError, match=r"(empty\.jpg|a\.png): cannot be read as an image: .*; on_error='skip'"):
        ImageFolder(tmp_path, cache_mb=cache_mb).load()
    with pytest.warns(UserWarning, match=r"left out: 4: a\.png, empty\.jpg, gone\.png, text\.png$") as caught:
        data = ImageFolder(tmp_path, on_error="skip", cache_mb=cache_mb).load()
    assert len(caught) == 1
    assert torch.equal(data.raw(), torch.from_numpy(good).permute(2, 0, 1)[None])
    assert "unreadable images left out: 4" in data.notes


def test_a_truncated_file_is_named_when_it_is_decoded(tmp_path: Path) -> None:
    cut(tmp_path / "cut.png")
    with pytest.raises(ValueError, match=r"cut\.png: cannot be read as an image: image file is truncated"):
        ImageFolder(tmp_path).load()
    lazy = ImageFolder(tmp_path, cache_mb=0).load()
    with pytest.raises(ValueError, match=r"cut\.png: cannot be read as an image"):
        lazy.raw()
    with pytest.raises(ValueError, match="none of its 1 images can be read"):
        ImageFolder(tmp_path, on_error="skip").load()


def test_labels_follow_the_files_that_are_left(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/1.png", "c/1.png"):
        write(tmp_path / name, 32, 32, 3)
    cut(tmp_path / "a" / "0.png")
    cut(tmp_path / "b" / "2.png")
    with pytest.warns(UserWarning, match="left out: 2"):
        data = ImageFolder(tmp_path, on_error="skip").load()
    assert data.labels.tolist() == [0, 1, 2]


def test_decoding_on_demand_gives_the_same(tmp_path: Path) -> None:
    for i in range(20):
        write(tmp_path / f"{i % 2}" / f"{i}.png", 9, 7, 3)
    options = {"size": (6, 5)}
    kept, lazy = (ImageFolder(tmp_path, cache_mb=mb, **options).load() for mb in (100, 0))
    assert isinstance(kept.rows, InMemory)
    assert not isinstance(lazy.rows, InMemory)
    indices = torch.tensor([19, 0, 0, 7])
    assert torch.equal(kept.raw(indices), lazy.raw(indices))
    assert torch.equal(kept.raw(), lazy.raw())
    assert lazy.raw(torch.tensor([], dtype=torch.int64)).shape == (0, 3, 6, 5)
    assert any("decoded whenever they are read" in note for note in lazy.notes)


def test_the_cache_limit_is_exact(tmp_path: Path) -> None:
    for i in range(2):
        write(tmp_path / f"{i}.png", 512, 1024)  # half a megabyte each
    assert isinstance(ImageFolder(tmp_path, cache_mb=1).load().rows, InMemory)
    write(tmp_path / "one more.png", 512, 1024)
    assert not isinstance(ImageFolder(tmp_path, cache_mb=1).load().rows, InMemory)


def test_sizes_that_differ_need_a_size(tmp_path: Path) -> None:
    write(tmp_path / "a.png", 4, 5, 3)
    write(tmp_path / "b.png", 4, 6, 3)
    with pytest.raises(ValueError, match=r"size: .*a\.png is 4×5, .*b\.png 4×6 .*pass the size"):
        ImageFolder(tmp_path).load()
    assert ImageFolder(tmp_path, size=3).load().sample_shape == (3, 3, 3)
    data = ImageFolder(tmp_path, size=(8, 2)).load()
    assert data.sample_shape == (3, 8, 2)
    assert data.notes == ("images smaller than 8×2, enlarged: 2",)


def test_options_without_effect_and_nonsense(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="crop: 'center' has no effect without size"):
        ImageFolder(tmp_path, crop="center")
    with pytest.raises(ValueError, match=r"size: expected .* got 0"):
        ImageFolder(tmp_path, size=0)
    with pytest.raises(ValueError, match=r"size: expected .* got -1"):
        ImageFolder(tmp_path, size=(3, -1))
    with pytest.raises(ValueError, match=r"cache_mb: expected .* got -1"):
        ImageFolder(tmp_path, cache_mb=-1)


def test_messages_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(ValueError, match=re.escape("text.png: cannot be read as an image: cannot identify")) as error:
        ImageFolder(tmp_path).load()
    assert "\n" not in str(error.value)
    assert str(error.value).count("text.png") == 1
