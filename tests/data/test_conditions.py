"""Conditions of data sets: arrays of an .npz, a CSV, folders of the same names, several labels at once."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffspace.data import ArrayFile, ImageFolder, batches, load_data
from diffspace.data.condition_values import class_numbers

RNG = np.random.default_rng(0)


def arrays(tmp_path: Path, **members: np.ndarray) -> Path:
    np.savez(tmp_path / "x.npz", **{"x": RNG.normal(size=(20, 1, 8, 8)), **members})
    return tmp_path / "x.npz"


def pictures(folder: Path, names: list[str], side: int = 8) -> np.ndarray:
    folder.mkdir()
    pixels = RNG.integers(0, 256, (len(names), side, side), dtype=np.uint8)
    for name, each in zip(names, pixels, strict=True):
        Image.fromarray(each).save(folder / name)
    return pixels


def test_arrays_follow_their_samples_into_every_part(tmp_path: Path) -> None:
    members = {
        "params": RNG.normal(size=(20, 3)),
        "height": RNG.uniform(size=20),
        "low": RNG.integers(0, 256, (20, 1, 4, 4), dtype=np.uint8),
    }
    data = load_data(arrays(tmp_path, **members))
    kinds = {name: condition.shape for name, condition in data.conditioning.items()}
    assert kinds == {"params": (3,), "height": (1,), "low": (1, 4, 4)}
    x = np.load(tmp_path / "x.npz")["x"]
    training, held_out = data.split()
    for part in (training, held_out, training.subset(torch.tensor([3, 1]))):
        numbers = torch.arange(len(part))
        for raw, row in zip(part.raw(numbers), numbers, strict=True):
            place = int(np.abs(x - raw.numpy()).reshape(20, -1).max(1).argmin())
            cond = part.cond(row[None])
            for name, values in members.items():
                assert np.allclose(cond[name][0].numpy().squeeze(), values[place].squeeze())
    given, cond = next(batches(training, 4, seed=0))
    assert given.shape == (4, 1, 8, 8)
    assert {name: len(value) for name, value in cond.items()} == dict.fromkeys(members, 4)
    assert data.unconditional().cond(torch.arange(2)) is None


def test_mirrored_samples_have_mirrored_images_and_the_same_numbers(tmp_path: Path) -> None:
    low = RNG.normal(size=(20, 1, 8, 4))
    data = load_data(arrays(tmp_path, low=low, v=RNG.normal(size=20))).mirrored()
    one, other = data.cond(torch.tensor([3])), data.cond(torch.tensor([23]))
    assert torch.equal(other["low"], one["low"].flip(-1))
    assert torch.equal(other["v"], one["v"])


def test_fingerprints_see_conditions(tmp_path: Path) -> None:
    x, v = RNG.normal(size=(20, 2)), RNG.normal(size=20)
    found = []
    for values, name in ((v, "v"), (v + (np.arange(20) == 7), "v"), (v, "w")):
        np.savez(tmp_path / "x.npz", x=x, **{name: values})
        found.append(load_data(tmp_path / "x.npz").fingerprint()["digest"])
    assert len(set(found)) == 3


def test_channels_are_where_those_of_the_samples_are(tmp_path: Path) -> None:
    low = RNG.integers(0, 256, (20, 4, 4, 3), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", x=RNG.integers(0, 256, (20, 8, 8, 3), dtype=np.uint8), low=low)
    data = load_data(tmp_path / "x.npz")
    assert np.array_equal(data.cond(torch.arange(20))["low"].numpy(), np.moveaxis(low, -1, 1))
    np.savez(tmp_path / "x.npz", x=RNG.integers(0, 256, (20, 8, 8), dtype=np.uint8), low=low[..., 0])
    assert load_data(tmp_path / "x.npz").conditioning["low"].shape == (1, 4, 4)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"v": np.zeros(19)}, r"x.npz: v: expected numbers in 20 rows like the samples, got float64 of shape \(19,\)"),
        ({"v": np.full((20, 1), np.nan)}, "x.npz: v: 20 of 20 rows are not finite, the first is number 0"),
        ({"v": np.ones((20, 2))}, "x.npz: v: number 0 is 1 in every row, which conditions nothing"),
        ({"v": np.array(["a"] * 20)}, "x.npz: v: expected numbers in 20 rows"),
        (
            {"low": np.zeros((20, 1, 3, 4))},
            "x.npz: low: its sides are 3×4, those of the samples 8×8; expected the same",
        ),
        ({"low": np.zeros((20, 1, 4))}, "x.npz: low: expected numbers .* as many dimensions as the samples"),
        ({"low": np.zeros((20, 1, 4, 4))}, "x.npz: low: is 0 everywhere"),
        ({"v": 1e9 + np.arange(20) / 20}, "x.npz: v: differences are lost in float32"),
        ({"a=b": np.arange(20)}, "x.npz: a=b: conditioning: 'a=b' cannot be the name"),
    ],
)
def test_arrays_that_are_no_conditions(tmp_path: Path, members: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        ArrayFile(arrays(tmp_path, **members)).load()
    assert "\n" not in str(error.value)
    assert not ArrayFile(tmp_path / "x.npz", conditions="none").load().conditions


def test_several_labels_at_once(tmp_path: Path) -> None:
    several = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 1], [1, 0, 0]] * 5)
    data = load_data(arrays(tmp_path, labels=several, class_names=np.array(["cat", "dog", "hat"])))
    assert (data.labels, data.class_names) == (None, ())
    assert data.conditioning["labels"].names == ("cat", "dog", "hat")
    assert np.array_equal(data.cond(torch.arange(20))["labels"].numpy(), several)
    one = load_data(arrays(tmp_path, labels=np.eye(5, dtype=int)[np.arange(20) % 5]))
    assert one.labels.tolist() == [k % 5 for k in range(20)]


def test_vectors_of_a_dataset_json(tmp_path: Path) -> None:
    names = [f"{k}.png" for k in range(6)]
    pictures(tmp_path / "data", names)
    vectors = {name: [k / 4, 2.0 - k] for k, name in enumerate(names)}
    (tmp_path / "data" / "dataset.json").write_text(json.dumps({"labels": list(vectors.items())}))
    data = load_data(tmp_path / "data")
    assert torch.equal(data.cond(torch.tensor([4, 1]))["labels"], torch.tensor([vectors["4.png"], vectors["1.png"]]))


def test_a_csv_beside_a_folder(tmp_path: Path) -> None:
    names = [f"{k}.png" for k in range(6)]
    pictures(tmp_path / "data", names)
    lines = [f"{name},{k / 2},{k * k}" for k, name in enumerate(names)]
    table = tmp_path / "values.csv"
    table.write_text("\ufefffile,width,age\n" + "\n".join([*reversed(lines), "more.png,1,1"]) + "\n", encoding="utf-8")
    data = load_data(tmp_path / "data", conditions=str(table))
    assert data.cond(torch.tensor([3]))["width"].tolist() == [[1.5]]
    assert data.cond(torch.tensor([3]))["age"].tolist() == [[9.0]]
    assert any("rows without an image of the data, ignored: 1, 'more.png' among them" in note for note in data.notes)
    for text, message in (
        ("file,width\n0.png,1\n1.png,wide\n", "row 3, column 'width': expected a number, got 'wide'"),
        ("file,width\n0.png,nan\n", "row 2, column 'width': expected a number, got 'nan'"),
        ("file,width\n0.png,1,2\n", "row 2 has 3 columns, expected 2"),
        ("file,width\n0.png,1\n0.png,2\n", "row 3: '0.png' has a row already"),
        ("file,width\n0.png,1\n1.png,2\n", "has no row for 4 of 6 images, '2.png' among them"),
        ("file\n0.png\n", "expected a line of names"),
        ("", "expected a line of names"),
    ):
        table.write_text(text)
        with pytest.raises(ValueError, match=message):
            load_data(tmp_path / "data", conditions=str(table))


@pytest.mark.parametrize("cache_mb", [0, 10])
def test_folders_paired_by_name(tmp_path: Path, cache_mb: int) -> None:
    names = [f"{k}.png" for k in range(6)]
    pictures(tmp_path / "data", names)
    order = [4, 2, 0, 5, 1, 3]
    low = pictures(tmp_path / "low", [f"{k}.bmp" for k in order], side=4)
    (tmp_path / "low" / "9.png").write_bytes((tmp_path / "data" / "0.png").read_bytes())
    with pytest.raises(ValueError, match=r"size: .*low/0.bmp is 4×4"):
        load_data(tmp_path / "data", conditions=str(tmp_path / "low"))
    (tmp_path / "low" / "9.png").unlink()
    (tmp_path / "low" / "7.bmp").write_bytes((tmp_path / "low" / "0.bmp").read_bytes())
    data = load_data(tmp_path / "data", conditions=str(tmp_path / "low"), cache_mb=cache_mb)
    assert any("images without an image of the data, ignored: 1, '7' among them" in note for note in data.notes)
    training, _ = data.split()
    given = training.cond(torch.arange(len(training)))["low"][:, 0].numpy()
    places = [int(name) for name in (key.decode().removesuffix(".png") for key in training.keys() or ())]
    assert np.array_equal(given, [low[order.index(place)] for place in places])
    before = data.fingerprint()
    Image.fromarray(np.zeros((4, 4), np.uint8)).convert("RGB").save(tmp_path / "low" / "2.bmp")
    assert load_data(tmp_path / "data", conditions=str(tmp_path / "low"), cache_mb=cache_mb).fingerprint() != before
    (tmp_path / "low" / "3.bmp").unlink()
    with pytest.raises(ValueError, match=r"low: has no image for 1 of 6, '3.png' among them"):
        load_data(tmp_path / "data", conditions=str(tmp_path / "low"))
    with pytest.raises(ValueError, match=r"conditions: expected a .csv, or a folder or .zip of images, got 'no'"):
        load_data(tmp_path / "data", conditions="no")


def test_a_name_twice(tmp_path: Path) -> None:
    names = [f"{k}.png" for k in range(4)]
    pictures(tmp_path / "data", names)
    pictures(tmp_path / "low", names)
    (tmp_path / "t.csv").write_text("file,low\n" + "".join(f"{name},{k}\n" for k, name in enumerate(names)))
    both = f"{tmp_path / 'low'},{tmp_path / 't.csv'}"
    with pytest.raises(ValueError, match="conditions: 'low' is given twice"):
        ImageFolder(tmp_path / "data", conditions=both).load()


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float32])
def test_a_mask_is_seen_as_minus_one_and_one(tmp_path, dtype):
    mask = (RNG.random((20, 1, 8, 8)) > 0.5).astype(dtype)
    data = load_data(arrays(tmp_path, mask=mask))
    seen = data.conditioning["mask"].standardise(data.cond(torch.arange(20))["mask"])
    expected = (torch.from_numpy(mask.astype("f4")) - 0.5) / 0.5
    assert torch.allclose(seen, expected, atol=0.2)  # real numbers are standardised
    assert dtype is np.float32 or torch.equal(seen, expected)


def test_every_image_is_looked_through(tmp_path):
    low = RNG.normal(size=(8200, 2, 2, 2))
    low[1, 0, 1, 1] = np.nan
    np.savez(tmp_path / "x.npz", x=RNG.normal(size=(8200, 2, 6, 6)), low=low)
    with pytest.raises(ValueError, match="low: holds values that are not finite"):
        load_data(tmp_path / "x.npz")


def test_real_labels_in_a_column_are_a_condition(tmp_path):
    column = RNG.normal(size=(20, 1))
    for labels in (column, column[:, 0]):
        found = load_data(arrays(tmp_path, labels=labels))
        assert torch.equal(found.cond(torch.arange(20))["labels"], torch.from_numpy(column).float())


def test_a_name_that_samples_have_is_a_condition_if_asked_for(tmp_path):
    data = load_data(arrays(tmp_path, seeds=np.arange(20.0)), conditions="seeds")
    assert list(data.conditioning) == ["seeds"]


def test_class_names_come_from_texts_and_what_is_none_is_named():
    numbers, names = class_numbers("file", ["dog", "cat", "dog"], ())
    assert (numbers.tolist(), names) == ([1, 0, 1], ("cat", "dog"))
    for odd in (None, 0.5, True, "cat"):
        with pytest.raises(ValueError, match=rf"file: labels: expected .*, got {odd!r} in row 1; classes='none'"):
            class_numbers("file", [3, odd, 1], ())
