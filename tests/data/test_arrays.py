"""Arrays of every shape and type."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from diffspace.data import ArrayFile, DataSet
from diffspace.figures.samples import to_pixels
from diffspace.inspection import inspect

RNG = np.random.default_rng(0)


def load(folder: Path, array: np.ndarray, **options: str) -> DataSet:
    np.save(folder / "x.npy", array)
    return ArrayFile(folder / "x.npy", **options).load()


def noise(*shape: int) -> np.ndarray:
    return RNG.normal(3, 2, shape).astype(np.float32)


def test_bytes_come_back_exactly(tmp_path: Path) -> None:
    array = np.arange(2 * 256, dtype=np.uint16).astype(np.uint8).reshape(2, 1, 16, 16)
    data = load(tmp_path, array)
    x = data.batch()
    assert (x.min().item(), x.max().item()) == (-1, 1)
    assert torch.equal(data.raw(), torch.from_numpy(array))
    assert torch.equal(data.transform.inverse(x), torch.from_numpy(array))
    assert inspect(data).raw_range == (0, 255)


@pytest.mark.parametrize(
    ("shape", "dtype", "layout", "sample_shape"),
    [
        ((5, 7), "f4", "auto", (7,)),
        ((5,), "f4", "auto", (1,)),
        ((5, 8, 9), "u1", "auto", (1, 8, 9)),
        ((5, 8, 9), "?", "auto", (1, 8, 9)),
        ((5, 7, 9), "f4", "auto", (7, 9)),
        ((5, 8, 17), "f4", "auto", (8, 17)),
        ((5, 8, 9), "f4", "channels-first", (8, 9)),
        ((5, 8, 9), "f4", "no-channels", (1, 8, 9)),
        ((5, 8, 9), "f4", "channels-last", (9, 8)),
        ((5, 8, 9, 3), "u1", "auto", (3, 8, 9)),
        ((5, 8, 9, 1), "f4", "auto", (1, 8, 9)),
        ((5, 8, 9, 4), "f4", "auto", (4, 8, 9)),
        ((5, 3, 8, 9), "u1", "auto", (3, 8, 9)),
        ((5, 16, 8, 9), "f4", "auto", (16, 8, 9)),
        ((5, 64, 8, 8), "f4", "auto", (64, 8, 8)),
        ((5, 8, 9, 16), "f4", "channels-last", (16, 8, 9)),
        ((5, 4, 8, 4), "f4", "channels-first", (4, 8, 4)),
        ((5, 4, 8, 3), "f4", "channels-last", (3, 4, 8)),
        ((5, 6, 7, 8), "f4", "no-channels", (1, 6, 7, 8)),
        ((5, 2, 6, 7, 8), "f4", "auto", (2, 6, 7, 8)),
        ((5, 6, 7, 8, 1), "u1", "auto", (1, 6, 7, 8)),
        ((5, 7), "f4", "no-channels", (1, 7)),
    ],
)
def test_layouts(tmp_path: Path, shape: tuple, dtype: str, layout: str, sample_shape: tuple) -> None:
    array = (RNG.integers(0, 2, shape) if dtype == "?" else RNG.normal(50, 9, shape)).astype(dtype)
    data = load(tmp_path, array, layout=layout)
    assert data.sample_shape == sample_shape
    stored = torch.from_numpy(array.astype("f4"))[1]
    if len(sample_shape) > stored.ndim:
        stored = stored[None]
    elif sample_shape != tuple(stored.shape):
        stored = stored.movedim(-1, 0)
    assert torch.equal(data.raw(torch.tensor([1])).float()[0], stored)


def test_a_layout_that_cannot_be_told_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"dimension 1 or the last of shape \(5, 3, 8, 4\).*pass layout="):
        load(tmp_path, noise(5, 3, 8, 4))


@pytest.mark.parametrize("shape", [(5, 28, 28), (5, 8, 16), (5, 50, 3), (5, 32, 32, 2), (5, 16, 24, 13), (5, 8, 8, 8)])
@pytest.mark.parametrize("dtype", ["f8", "i4"])
def test_images_are_not_read_as_signals_of_many_channels(tmp_path: Path, shape: tuple, dtype: str) -> None:
    with pytest.raises(ValueError, match=r"dimension 1 of shape .* may hold channels or be a side of images; pass lay"):
        load(tmp_path, np.ones(shape, dtype))


def test_a_layout_without_effect(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"layout: 'channels-last' has no effect on an array of shape \(5, 7\)"):
        load(tmp_path, noise(5, 7), layout="channels-last")
    with pytest.raises(ValueError, match=r"layout: an array of shape \(5,\) has no channels"):
        load(tmp_path, noise(5), layout="channels-first")


@pytest.mark.parametrize("shape", [(400, 3), (50, 3, 40), (20, 3, 8, 9), (10, 3, 4, 5, 6), (20, 8, 9, 3)])
def test_reals_are_standardised_by_channel(tmp_path: Path, shape: tuple) -> None:
    array = noise(*shape)
    data = load(tmp_path, array)
    x = data.batch().double().movedim(1, 0).flatten(1)
    assert x.mean(1).abs().max() < 1e-6
    assert (x.std(1, correction=0) - 0.5).abs().max() < 1e-6
    moved = np.moveaxis(array, -1, 1) if shape[-1] == 3 else array
    channels = np.moveaxis(moved.astype(np.float64), 1, 0).reshape(3, -1)
    assert np.allclose(data.transform.shift, channels.mean(1), rtol=1e-12)
    assert np.allclose(data.transform.scale, 2 * channels.std(1), rtol=1e-12)
    assert torch.allclose(data.transform.inverse(data.batch()), data.raw(), atol=1e-5)
    note = "note: each channel is standardised to mean 0 and standard deviation 0.5, and samples are not clipped"
    assert note in inspect(data).lines()


def test_the_moments_of_many_chunks_are_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffspace.data.arrays._CHUNK", 30)
    array = RNG.normal(1e6, 1e-2, (1001, 3))  # so far from 0 that sums of squares would have no digit left
    data = load(tmp_path, array)
    assert np.allclose(data.transform.shift, array.mean(0), rtol=1e-15)
    assert np.allclose(data.transform.scale, 2 * array.std(0), rtol=1e-9)
    assert abs(data.batch().std(0, correction=0) - 0.5).max() < 1e-5


@pytest.mark.parametrize("values", [[0.0, 0.3, 1.0], [-1.0, 0.3, 0.9], [-0.2, 0.3, 1.3], [1e-6, 2e-6, 5e-6]])
def test_reals_of_any_range_are_standardised_and_have_no_bounds(tmp_path: Path, values: list) -> None:
    array = np.array(values, dtype=np.float32)[:, None]
    data = load(tmp_path, array)
    transform = data.transform
    assert transform.scale == pytest.approx([2 * array.astype(np.float64).std()])
    assert (transform.lowest, transform.highest, transform.shown) == (None, None, (array.min(), array.max()))
    assert any("samples are not clipped" in note for note in data.notes)
    beyond = array.max() + 3 * torch.tensor([[transform.scale[0]]])
    assert torch.allclose(transform.inverse(transform.forward(beyond)), beyond)
    pictures = [to_pixels(torch.from_numpy(array[i : i + 1, :, None, None]), transform).item() for i in range(3)]
    assert (min(pictures), max(pictures)) == (0, 255)


def test_normalize_can_be_chosen(tmp_path: Path) -> None:
    array = RNG.uniform(0, 1, (100, 2)).astype(np.float32)
    assert torch.equal(load(tmp_path, array, normalize="none").batch(), torch.from_numpy(array))
    x = load(tmp_path, array, normalize="standardize").batch()
    assert (x.std(0, correction=0) - 0.5).abs().max() < 1e-6
    data = load(tmp_path, RNG.integers(0, 256, (50, 1, 5, 5)).astype(np.uint8), normalize="standardize")
    assert abs(data.batch().std(correction=0).item() - 0.5) < 1e-6
    assert torch.equal(data.transform.inverse(data.batch()), data.raw())


def test_a_constant_channel_has_the_scale_of_the_widest(tmp_path: Path) -> None:
    array = noise(50, 3)
    array[:, 1] = 7.1
    data = load(tmp_path, array)
    assert data.transform.scale[1] == max(data.transform.scale[0], data.transform.scale[2])
    assert data.batch()[:, 1].abs().max() < 1e-6
    assert any("channels that never change: 1" in warning for warning in inspect(data).warnings)


@pytest.mark.parametrize("dtype", ["i1", "i2", "u2", "i4", "u4", "i8", "u8", ">i2", ">u2", "?"])
def test_whole_numbers_come_back_exactly(tmp_path: Path, dtype: str) -> None:
    array = RNG.integers(0, 2 if dtype == "?" else 100, (300, 2, 3)).astype(dtype)
    data = load(tmp_path, array, layout="channels-first")
    assert data.transform.kind == "integer"
    assert torch.equal(data.raw().long(), torch.from_numpy(array.astype(np.int64)))
    assert torch.equal(data.transform.inverse(data.batch()), data.raw())


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", ">f8", "g"])
def test_real_types(tmp_path: Path, dtype: str) -> None:
    array = RNG.normal(3, 2, (300, 2)).astype(dtype)
    data = load(tmp_path, array)
    assert np.array_equal(data.raw().numpy(), array)
    tolerance = 1e-2 if dtype == "f2" else 1e-5
    assert torch.allclose(data.transform.inverse(data.batch()), data.raw(), atol=tolerance)


@pytest.mark.parametrize("order", ["C", "F"])
def test_memory_order(tmp_path: Path, order: str) -> None:
    array = np.asarray(noise(6, 3, 4, 5), order=order)
    assert np.array_equal(load(tmp_path, array).raw().numpy(), array)


def test_npy_is_mapped_not_read(tmp_path: Path) -> None:
    data = load(tmp_path, noise(100, 3))
    assert isinstance(data.rows.array, np.memmap)
    before = data.raw().clone()
    data.raw().zero_()  # what is read is a copy
    assert torch.equal(data.raw(), before)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite(tmp_path: Path, bad: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffspace.data.arrays._CHUNK", 30)
    array = noise(50, 3, 4)
    array[17, 1, 2] = array[17, 2, 0] = array[40, 0, 0] = bad
    with pytest.raises(ValueError, match=r"x\.npy: 3 of 600 values are not finite; the first is at index \(17, 1, 2\)"):
        load(tmp_path, array)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((0, 3)), r"shape \(0, 3\)"),
        (np.zeros((3, 0)), r"shape \(3, 0\)"),
        (np.array(1.0), r"shape \(\)"),
        (np.zeros((2, 2), dtype=np.complex64), "got complex64 values"),
        (np.array([["a", "b"]]), "got <U1 values"),
        (np.zeros((2, 2), dtype="M8[s]"), "got datetime64"),
        (np.zeros(3, dtype=[("a", "f4")]), "got .* values"),
        (np.full((2, 2), 2**60), "exceed ±2\\^53"),
        (np.full((2, 2), 2**63, dtype=np.uint64), "exceed ±2\\^53"),
    ],
)
def test_arrays_of_no_use(tmp_path: Path, array: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(tmp_path, array)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "x.npz", x=np.array([{}], dtype=object))
    (tmp_path / "junk.npy").write_bytes(b"junk and more junk")
    for name in ("x.npy", "x.npz", "junk.npy"):
        with pytest.raises(ValueError, match=rf"{name}: cannot be read: "):
            ArrayFile(tmp_path / name).load()


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "empty.npy").touch()
    np.savez(tmp_path / "cut.npz", x=noise(50, 3))
    np.save(tmp_path / "cut.npy", noise(50, 3))
    for name in ("cut.npz", "cut.npy"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-200])
    for name in ("empty.npy", "cut.npz", "cut.npy", "missing.npy"):
        with pytest.raises(ValueError, match=rf"{name}: cannot be read: ") as error:
            ArrayFile(tmp_path / name).load()
        assert "\n" not in str(error.value)


def test_keys_of_an_npz(tmp_path: Path) -> None:
    file, arrays = tmp_path / "x.npz", {name: noise(5, 2) for name in ("x", "images", "z")}
    np.savez(file, **arrays)
    data = ArrayFile(file).load()
    assert set(data.conditions) == {"images", "z"}
    assert np.array_equal(data.cond(torch.arange(5))["z"].numpy(), arrays["z"])
    assert ArrayFile(file, conditions="none").load().notes[-1] == "arrays that nothing uses: 'images', 'z'"
    chosen = ArrayFile(file, key="x", conditions="z").load()
    assert set(chosen.conditions) == {"z"}
    assert "arrays that nothing uses: 'images'" in chosen.notes
    given = ArrayFile(file, key="z").load()
    assert np.array_equal(given.raw().numpy(), arrays["z"])
    assert given.notes[-1] == "arrays that nothing uses: 'images', 'x'"
    with pytest.raises(ValueError, match="there is no array 'y', but 'x', 'images', 'z'; pass key="):
        ArrayFile(file, key="y").load()
    np.savez(file, arrays["z"])
    assert np.array_equal(ArrayFile(file).load().raw().numpy(), arrays["z"])
    np.savez(file, z=arrays["z"])
    with pytest.raises(ValueError, match="there is no array 'x' or 'images' or 'arr_0', but 'z'"):
        ArrayFile(file).load()
    np.save(tmp_path / "x.npy", arrays["z"])
    with pytest.raises(ValueError, match=r"key='x' has no effect on a \.npy file"):
        ArrayFile(tmp_path / "x.npy", key="x").load()


@pytest.mark.parametrize(
    ("labels", "numbers", "names"),
    [
        ([2, 0, 1], [2, 0, 1], ("0", "1", "2")),
        ([[7], [-3], [7]], [1, 0, 1], ("-3", "7")),
        (["dog", "cat", "dog"], [1, 0, 1], ("cat", "dog")),
        ([b"dog", b"cat", b"dog"], [1, 0, 1], ("cat", "dog")),
        ([True, False, True], [1, 0, 1], ("False", "True")),
    ],
)
@pytest.mark.parametrize("key", ["labels", "y"])
def test_labels(tmp_path: Path, labels: list, numbers: list, names: tuple, key: str) -> None:
    np.savez(tmp_path / "x.npz", x=noise(3, 2), **{key: np.array(labels)})
    data = ArrayFile(tmp_path / "x.npz").load()
    assert (data.labels.tolist(), data.class_names) == (numbers, names)
    assert ArrayFile(tmp_path / "x.npz", classes="none").load().labels is None


def test_values_that_torch_would_change(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"x\.npy: integers up to 18446744073709551615 exceed ±2\^53"):
        load(tmp_path, np.array([[1, 2**64 - 1]], dtype=np.uint64))
    wide = np.arange(6, dtype=np.longdouble).reshape(3, 2)
    assert load(tmp_path, wide).notes[-1] == f"{wide.dtype} values are read as float64, the widest that torch has"


def test_samples_of_a_model_have_the_names_of_its_classes(tmp_path: Path) -> None:
    file, about = tmp_path / "x.npz", {"seeds": np.arange(3), "class_names": np.array(["cat", "dog", "emu"])}
    np.savez(file, x=noise(3, 2), labels=np.array([2, 0, 2]), **about)
    data = ArrayFile(file).load()
    assert (data.labels.tolist(), data.class_names) == ([2, 0, 2], ("cat", "dog", "emu"))
    assert ArrayFile(file, classes="none").load().class_names == ()
    np.savez(file, x=noise(3, 2), labels=np.array([2, 0, 3]), **about)
    with pytest.raises(ValueError, match="class_names: expected strings for the labels 0 to 3, got array"):
        ArrayFile(file).load()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(2, dtype=int), r"labels: expected integers or strings of shape \(3,\), or vectors of shape \(3, k\)"),
        (np.zeros((3, 2, 2), dtype=int), r"labels: expected integers or strings of shape \(3,\), or vectors"),
        (np.zeros(3), "labels: number 0 is 0 in every row"),
    ],
)
def test_labels_of_no_use(tmp_path: Path, labels: np.ndarray, message: str) -> None:
    np.savez(tmp_path / "x.npz", x=noise(3, 2), labels=labels)
    with pytest.raises(ValueError, match=message):
        ArrayFile(tmp_path / "x.npz").load()
    assert ArrayFile(tmp_path / "x.npz", classes="none").load().labels is None
