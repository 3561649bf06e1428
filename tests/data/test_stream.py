"""Data sets of Hugging Face in Parquet and Arrow, at random and as streams."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from image_files import pixels, png
from PIL import Image

from diffspace.data import PIXELS, InMemory, batches, image_source, load_data, make_source, prepare
from diffspace.data.dataset import shuffled
from diffspace.data.huggingface import HuggingFaceImages, ImageStream, StreamedDataSet, StreamedSample
from diffspace.data.stored_images import ImageRows, NumberedImages
from diffspace.inspection import inspect

datasets = pytest.importorskip("datasets")

IMAGES = pixels(50, 6, 5, 3)
LABELS = [i * i % 3 for i in range(50)]
STACKED = torch.from_numpy(IMAGES).permute(0, 3, 1, 2)


@pytest.fixture(autouse=True)
def quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def table(images: np.ndarray = IMAGES, labels: list | None = LABELS, names: list[str] | None = None):
    columns: dict = {"image": [Image.fromarray(image) for image in images]}
    features: dict = {"image": datasets.Image()}
    if labels is not None:
        columns["label"] = labels
        features["label"] = datasets.ClassLabel(names=names or ["cat", "dog", "emu"])
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


@pytest.fixture(params=["file", "folder", "saved"])
def place(request, tmp_path: Path) -> Path:
    if request.param == "file":
        table().to_parquet(tmp_path / "pets.parquet")
        return tmp_path / "pets.parquet"
    target = tmp_path / "pets"
    if request.param == "saved":
        table().save_to_disk(target)
        return target
    target.mkdir()
    for i in range(2):
        table(IMAGES[25 * i : 25 * i + 25], LABELS[25 * i : 25 * i + 25]).to_parquet(target / f"{i}.parquet")
    return target


def test_at_random(place: Path, tmp_path: Path) -> None:
    data = load_data(place, cache_mb=0)
    assert isinstance(make_source(place), HuggingFaceImages)
    assert data.name == "pets"
    assert torch.equal(data.raw(), STACKED)
    assert (data.labels.tolist(), data.class_names) == (LABELS, ("cat", "dog", "emu"))
    prepare(image_source(place), tmp_path / "out.zip")
    assert torch.equal(load_data(tmp_path / "out.zip").raw(), STACKED)


def test_a_stream_gives_each_sample_once_an_epoch_with_its_label(place: Path) -> None:
    data = load_data(place, streaming=True, window=16)
    assert (len(data), data.class_names, data.sample_shape) == (50, ("cat", "dog", "emu"), (3, 6, 5))
    assert data.notes[-1] == "a stream of 50 samples, shuffled in windows of 16"
    seen = []
    for x, labels in itertools.islice(batches(data, 10, seed=3, prefetch=1), 15):
        for image, label in zip(data.transform.inverse(x), labels, strict=True):
            number = next(i for i in range(50) if torch.equal(STACKED[i], image))
            assert LABELS[number] == label
            seen.append(number)
    for epoch in range(3):
        assert sorted(seen[50 * epoch : 50 * epoch + 50]) == list(range(50))
        for first in range(0, 50, 16):
            part = seen[50 * epoch + first : 50 * epoch + min(first + 16, 50)]
            assert sorted(part) == list(range(first, min(first + 16, 50)))
            assert part != sorted(part) or len(part) < 16
    assert seen[:50] != seen[50:100]


def test_a_stream_that_is_taken_up_again_goes_on_as_it_would_have(place: Path) -> None:
    whole = list(itertools.islice(batches(load_data(place, streaming=True, window=16), 7, seed=0), 20))
    for start in (0, 1, 6, 13):
        again = batches(load_data(place, streaming=True, window=16), 7, seed=0, start=start, prefetch=2)
        for (x, labels), (a, b) in zip(whole[start:], again, strict=False):
            assert torch.equal(x, a)
            assert torch.equal(labels, b)


def test_iterators_in_several_threads_do_not_disturb_each_other(tmp_path: Path) -> None:
    for i in range(2):
        table(IMAGES[25 * i : 25 * i + 25], LABELS[25 * i : 25 * i + 25]).to_parquet(tmp_path / f"{i}.parquet")
    rows = load_data(tmp_path, streaming=True, window=16).rows

    def count(first: int) -> int:
        return sum(1 for _ in rows.start(first))

    with ThreadPoolExecutor(2) as pool:
        for _ in range(30):
            assert list(pool.map(count, (0, 11))) == [50, 39]


def test_the_first_samples_are_held_out(place: Path) -> None:
    training, held_out = load_data(place, streaming=True, window=16).split(11)
    assert isinstance(held_out.rows, InMemory)
    assert torch.equal(held_out.raw(), STACKED[:11])
    assert held_out.labels.tolist() == LABELS[:11]
    assert len(training) == 39
    x, labels = next(batches(training, 39, seed=1))
    order = shuffled(39, 1, 0, 39, window=16) + 11
    assert torch.equal(training.transform.inverse(x), STACKED[order])
    assert labels.tolist() == [LABELS[i] for i in order]
    assert len(load_data(place, streaming=True).split()[1]) == 10
    for holdout in (0, 50, 1.0 - 1e-9):
        with pytest.raises(ValueError, match=r"holdout: .* left to train"):
            load_data(place, streaming=True).split(holdout)


def test_what_a_stream_cannot_do(place: Path, tmp_path: Path) -> None:
    data = load_data(place, streaming=True, window=4)
    for what, call in (
        ("all samples", data.raw),
        ("mirror", data.mirrored),
        ("subset", lambda: data.subset(torch.tensor([1]))),
    ):
        with pytest.raises(ValueError, match=f"^{what}: pets is a stream, which cannot be read at random"):
            call()
    with pytest.raises(ValueError, match=r"a stream is read in its own order, not 4 rows at random"):
        data.raw(torch.tensor([0, 12, 40, 25]))
    with pytest.raises(ValueError, match=r"streaming: .* must be read at random here"):
        prepare(image_source(place, streaming=True), tmp_path / "out.zip")
    with pytest.raises(ValueError, match="on_error: 'skip' has no effect on a stream"):
        load_data(place, streaming=True, on_error="skip")
    with pytest.raises(ValueError, match="have no effect without streaming"):
        load_data(place, window=3)
    assert inspect(data).measured == 50


def test_options_of_images(place: Path) -> None:
    data = load_data(place, streaming=True, size=4, channels="grayscale", classes="none")
    at_random = load_data(place, size=4, channels="grayscale", classes="none")
    assert (data.class_names, data.sample_shape) == ((), (1, 4, 4))
    assert torch.equal(data.raw(torch.arange(50)), at_random.raw())
    assert next(batches(data, 3, 0))[1] is None


def test_an_odd_image_later_in_a_stream_is_named(tmp_path: Path) -> None:
    images = [Image.fromarray(image) for image in pixels(100, 4, 4)]
    images[80] = Image.fromarray(pixels(1, 4, 5)[0])
    features = datasets.Features({"image": datasets.Image()})
    datasets.Dataset.from_dict({"image": images}, features=features).to_parquet(tmp_path / "x.parquet")
    data = load_data(tmp_path / "x.parquet", streaming=True)
    assert data.sample_shape == (1, 4, 4)
    with pytest.raises(ValueError, match=r"x\.parquet/00000080\.png: .* it is 4×5 .* examined are 4×4; pass size"):
        data.raw(torch.arange(100))


def test_a_stream_of_another_length(place: Path) -> None:
    few = load_data(place, streaming=True, count=20)
    assert sorted(shuffled(20, 0, 0, 20, window=4096).tolist()) == list(range(20))
    assert torch.equal(few.raw(torch.arange(20)), STACKED[:20])
    many = load_data(place, streaming=True, count=60, window=16)
    with pytest.raises(ValueError, match=r"the stream ends after 50 samples; pass their number as count"):
        list(itertools.islice(batches(many, 10, 0), 6))


def test_labels_of_a_stream(tmp_path: Path) -> None:
    table(labels=[-1, *LABELS[1:]]).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"x\.parquet: cannot be read: sample 0: expected a label from 0 to 2, got -1"):
        load_data(tmp_path / "x.parquet", streaming=True)
    assert load_data(tmp_path / "x.parquet", streaming=True, classes="none").class_names == ()
    plain = table().cast_column("label", datasets.Value("int64"))
    plain.to_parquet(tmp_path / "y.parquet")
    assert load_data(tmp_path / "y.parquet", streaming=True).class_names == ()
    assert load_data(tmp_path / "y.parquet").labels.tolist() == LABELS


def test_a_hub_stream_knows_its_number_or_needs_count(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(name: str, split: str, streaming: bool):
        assert streaming
        found = table().to_iterable_dataset(num_shards=2)
        if name == "owner/known":
            found.info.splits = datasets.SplitDict({split: datasets.SplitInfo(split, num_examples=50)})
        return found

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert len(load_data("hf:owner/known:test", streaming=True)) == 50
    assert torch.equal(load_data("hf:owner/known", streaming=True).raw(torch.arange(50)), STACKED)
    with pytest.raises(ValueError, match="count: hf:owner/unknown does not say how many samples it has; pass their"):
        load_data("hf:owner/unknown", streaming=True)
    assert len(load_data("hf:owner/unknown", streaming=True, count=50)) == 50


def stream(count: int, window: int, starts: list[int]) -> ImageStream:
    from diffspace.data.images import ImageReader

    def start(number: int):
        starts.append(number)
        return (StreamedSample(png(IMAGES[i % 50]), i % 3) for i in range(number, count))

    nothing = NumberedImages(Path("s"), (), lambda _: None)
    return ImageStream(Path("s"), start, count, window, ImageRows(nothing, (), ImageReader("RGB", (6, 5), "center"), 1))


def test_a_stream_is_started_once_an_epoch_and_skipped_to_where_it_goes_on() -> None:
    starts: list[int] = []
    data = StreamedDataSet("s", stream(40, 8, starts), PIXELS, None, ("a", "b", "c"))
    list(itertools.islice(batches(data, 4, 0), 25))
    assert starts[:3] == [0, 0, 0]
    assert len(starts) == 3
    starts.clear()
    data = StreamedDataSet("s", stream(40, 8, starts), PIXELS, None, ("a", "b", "c"))
    next(batches(data, 4, 0, start=7))  # places 28 … 31 are in the window of 24 … 31
    assert starts[0] == 24


def test_no_more_than_three_windows_are_kept() -> None:
    rows = stream(40, 8, [])
    for first in range(0, 36, 4):
        rows.read(torch.arange(first, first + 8).clamp(max=39))
        assert len(rows._windows) <= 3


@settings(deadline=None)
@given(n=st.integers(1, 60), window=st.integers(1, 70), seed=st.integers(0, 9), begin=st.integers(0, 150))
def test_windows_are_permuted_within_themselves(n: int, window: int, seed: int, begin: int) -> None:
    whole = shuffled(n, seed, 0, 3 * n, window).tolist()
    for epoch in range(3):
        for first in range(0, n, window):
            last = min(first + window, n)
            assert sorted(whole[epoch * n + first : epoch * n + last]) == list(range(first, last))
    begin %= 3 * n
    assert shuffled(n, seed, begin, 3 * n, window).tolist() == whole[begin:]
