"""Images in data sets of the Hugging Face `datasets` library, read at random or as a stream."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import pickle
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn

import torch

from diffspace._shapes import Int, Shaped, Tensor
from diffspace.checks import check_integer, require_package
from diffspace.data.dataset import DataSet, holdout_size, shuffled
from diffspace.data.identity import MOST_BYTES, Fingerprint
from diffspace.data.rows import InMemory
from diffspace.data.stored_images import ImageRows, ImageSource, NumberedImages, StoredImages
from diffspace.files import check_file, read_bytes, reading

_IMAGES = ("image", "img")
_LABELS = ("label", "labels", "fine_label")
_LARGEST = 2**30  # bytes of an image
_EXAMINED = 64  # samples at the beginning of a stream


@dataclass(frozen=True)
class HuggingFaceImages(ImageSource):
    """Images in a data set of the Hugging Face Hub, hf:owner/name or hf:owner/name:split, in a folder that `datasets`
    saved, or in Parquet: a file, or a folder of files; requires `datasets`. See `ImageSource` for the other options.

    The split is "train" if there are several and none is given. Images are the column "image" or "img", class numbers
    the column "label", "labels" or "fine_label".

    Args:
        streaming: Read samples one after the other, and download nothing before. They are shuffled within windows, so
            that a stream sorted by class stays sorted. The first samples are held out; the first 64 determine size and
            channels; classes need a column with names.
        window: Samples in a window of a stream, kept encoded in memory.
        count: The number of samples, if the data set does not know it.
    """

    streaming: bool = False
    window: int = 4096
    count: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("window", self.window, 1)
        if self.count is not None:
            check_integer("count", self.count, 1)
        if self.streaming and self.conditions:
            raise ValueError("conditions: are not supported with a stream, whose samples have no names")
        if self.streaming and self.on_error == "skip":
            raise ValueError("on_error: 'skip' has no effect on a stream")
        if not self.streaming and (self.count is not None or self.window != type(self).window):
            raise ValueError("window, count: have no effect without streaming")

    @property
    def name(self) -> str:
        path = str(self.path).removeprefix("hf:").rstrip("/").rpartition("/")[2]
        return path.partition(":")[0].removesuffix(".parquet")

    def open(self) -> StoredImages:
        if self.streaming:
            raise ValueError(f"streaming: {self.path} must be read at random here; leave streaming out")
        table, column, key, _ = self._table()
        labels = None if key is None else list(table[key])
        names = _class_names(table, key)
        read = functools.partial(_read_row, table, column)
        keys = functools.partial(_row_keys, table, column) if table.data.nbytes <= MOST_BYTES else None
        place, count, version = Path(self.path), len(table), str(table._fingerprint)
        images = NumberedImages(place, range(count), read, version, labels, names, keys)
        images.unused = [name for name in table.column_names if name not in (column, *_LABELS)]
        return images

    def load(self) -> DataSet:
        """Look at the images, and read them if they fit in memory; of a stream look at the first."""
        if not self.streaming:
            return super().load()
        path = Path(self.path)
        table, column, key, known = self._table()
        count = known if self.count is None else self.count
        if count is None:
            raise ValueError(f"count: {self.path} does not say how many samples it has; pass their number")
        class_names = _class_names(table, key)
        nameless = None if class_names else key
        key = key if class_names else None
        unused = [name for name in table.column_names if name not in (column, *_LABELS)]
        table = table.select_columns([name for name in (column, key) if name is not None])
        # iterators of one table share where they are, also those of other threads, and copy.deepcopy disturbs them too
        stored = pickle.dumps(table)

        def start(number: int) -> Iterator[StreamedSample]:
            own = pickle.loads(stored)
            with reading(path):
                for i, row in enumerate(own.skip(number) if number else own, start=number):
                    label = None if key is None else row[key]
                    if key is not None and not (isinstance(label, int) and 0 <= label < len(class_names)):
                        most = len(class_names) - 1
                        raise ValueError(f"sample {i}: expected a label from 0 to {most}, got {label!r}")
                    yield StreamedSample(_content(row[column]), label)

        first = [sample.image for sample in itertools.islice(start(0), _EXAMINED)]
        examined = NumberedImages(path, range(len(first)), first.__getitem__)
        examined.unused = unused
        like, notes = self.survey(examined)
        rows = ImageStream(path, start, count, self.window, like)
        if nameless is not None:
            notes.append(f"labels: the column {nameless!r} is not used, since a stream needs the names of classes")
        notes.append(f"a stream of {count} samples, shuffled in windows of {self.window}")
        transform = self.transform(path, like, like.reader, notes)
        return StreamedDataSet(self.name, rows, transform, None, class_names, tuple(notes))

    def _table(self) -> tuple[Any, str, str | None, int | None]:
        """The table, its columns of images and of labels, and its number of samples if known without reading it."""
        datasets = require_package("datasets", "a data set of Hugging Face")
        with reading(Path(self.path)):
            table, count = _open_table(datasets, str(self.path), self.streaming)
            there = table.column_names or ()
            column = next((name for name in _IMAGES if name in there), None)
            if column is None:
                raise ValueError(f"has no column {' or '.join(map(repr, _IMAGES))}, but {', '.join(there)}")
            key = next((name for name in _LABELS if name in there), None) if self.classes == "auto" else None
            return table.cast_column(column, datasets.Image(decode=False)), column, key, count


def _class_names(table: Any, key: str | None) -> tuple[str, ...]:
    return () if key is None else tuple(getattr(table.features[key], "names", None) or ())


def _open_table(datasets: Any, spec: str, streaming: bool) -> tuple[Any, int | None]:
    options = {"streaming": True} if streaming else {}
    path = Path(spec).expanduser()
    if spec.startswith("hf:"):
        name, _, split = spec.removeprefix("hf:").partition(":")
        table = datasets.load_dataset(name, split=split or "train", **options)
        splits = getattr(getattr(table, "info", None), "splits", None) or {}
        return table, getattr(splits.get(split or "train"), "num_examples", None) or None
    files = [str(path)] if path.is_file() else sorted(map(str, path.glob("*.parquet")))
    for file in files:
        check_file(Path(file))
    if files:
        count = sum(require_package("pyarrow.parquet", "a Parquet file").read_metadata(file).num_rows for file in files)
        return datasets.load_dataset("parquet", data_files=files, split="train", **options), count
    saved = datasets.load_from_disk(str(path))
    table = saved["train"] if isinstance(saved, dict) else saved
    return (table.to_iterable_dataset() if streaming else table), len(table)


def _read_row(table: Any, column: str, number: int) -> bytes:
    return _content(table[number][column])


def _row_keys(table: Any, column: str, numbers: Sequence[int]) -> Iterator[bytes]:
    """The content of images, or where they are files, the paths of these."""
    for image in (row[column] for row in table.select(numbers)):
        yield str(image["path"]).encode() if image["bytes"] is None else image["bytes"]


def _content(image: Any) -> bytes:
    content = image["bytes"]
    return read_bytes(Path(image["path"]), _LARGEST) if content is None else bytes(content)


class StreamedSample(NamedTuple):
    """An encoded image, and its class number if it has one."""

    image: bytes
    label: int | None


@dataclass(eq=False)
class ImageStream:
    """Samples number `first` to `first` + `count` − 1 of a stream as rows, of which windows are kept, still encoded.

    `start(k)` gives the samples from number k on, which are decoded as `like` decodes its own. Rows must be read window
    by window (`shuffled`); while one window is used, a thread reads the next. A resumed training, and each epoch, start
    the stream anew and skip what comes before. ValueError names a stream that ends too early, rows that are read in
    another order, and an unreadable image.
    """

    path: Path
    start: Callable[[int], Iterator[StreamedSample]]
    count: int
    window: int
    like: ImageRows
    first: int = 0

    def __post_init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._lock = threading.Lock()
        self._windows: dict[int, Future[list[StreamedSample]]] = {}
        self._samples: Iterator[StreamedSample] = iter(())
        self._next: int | None = None  # the row that comes next in `_samples`

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return self.like.sample_shape

    def __len__(self) -> int:
        return self.count

    def read(self, indices: Int[Tensor, "batch"]) -> Shaped[Tensor, "batch channels height width"]:
        found = self._find(indices)
        images = NumberedImages(self.path, (indices + self.first).tolist(), lambda i: found[i].image)
        rows = dataclasses.replace(self.like, images=images, numbers=range(len(found)))
        return rows.read(torch.arange(len(found), dtype=torch.int64, device="cpu"))

    def classes(self, indices: Int[Tensor, "batch"]) -> Int[Tensor, "batch"]:
        """The class numbers of rows that have some."""
        return torch.tensor([sample.label for sample in self._find(indices)], dtype=torch.int64, device="cpu")

    def rest(self, begin: int) -> ImageStream:
        """The rows from number `begin` on."""
        return dataclasses.replace(self, count=self.count - begin, first=self.first + begin)

    def _find(self, indices: Tensor) -> list[StreamedSample]:
        windows, places = indices // self.window, indices % self.window
        with self._lock:
            needed = list(dict.fromkeys(windows.tolist()))
            if len(needed) > 2 + len(indices) // self.window:
                raise ValueError(f"{self.path}: a stream is read in its own order, not {len(indices)} rows at random")
            upcoming = [(needed[-1] + 1) % -(-self.count // self.window)] if needed else []
            kept = {number: self._windows.get(number) for number in (*needed, *upcoming)}
            self._windows = {n: found or self._thread.submit(self._fetch, n) for n, found in kept.items()}
            samples = {number: self._windows[number].result() for number in needed}
        return [samples[w][p] for w, p in zip(windows.tolist(), places.tolist(), strict=True)]

    def _fetch(self, number: int) -> list[StreamedSample]:
        """The samples in a window; runs in the thread of the stream alone."""
        begin = number * self.window
        size = min(self.window, self.count - begin)
        if self._next != begin:
            self._samples = self.start(self.first + begin)
        self._next = None
        alive = threading.main_thread().is_alive  # a program that ends does not wait for a download
        got = list(itertools.islice(itertools.takewhile(lambda _: alive(), self._samples), size))
        if len(got) < size:
            end = self.first + begin + len(got)
            raise ValueError(f"{self.path}: the stream ends after {end} samples; pass their number as count")
        self._next = begin + size
        return got


@dataclass(frozen=True, eq=False)
class StreamedDataSet(DataSet):
    """The samples of a stream, read window by window; `labels` is None, as they are known only where samples are."""

    rows: ImageStream = field(repr=False)

    def __post_init__(self) -> None:
        """There is nothing to check: `count` is at least 1, and labels are checked when they are read."""

    def raw(self, indices: Int[Tensor, "batch"] | None = None) -> Shaped[Tensor, "batch *dims"]:
        if indices is None:
            self._refuse("all samples")
        return super().raw(indices)

    def classes(self, indices: Int[Tensor, "batch"]) -> Int[Tensor, "batch"] | None:
        return self.rows.classes(indices) if self.class_names else None

    def training_order(self, seed: int, begin: int, end: int) -> Int[Tensor, "batch"]:
        return shuffled(len(self), seed, begin, end, self.rows.window)

    def sample_numbers(self, count: int) -> Int[Tensor, "count"]:
        """The numbers of the first `count` samples."""
        return torch.arange(min(count, len(self)), dtype=torch.int64, device="cpu")

    def subset(self, indices: Int[Tensor, "batch"]) -> DataSet:
        self._refuse("subset")

    def mirrored(self) -> DataSet:
        self._refuse("mirror")

    def fingerprint(self) -> Fingerprint:
        """The number of samples, and a hash of the name and of where the samples are: none is read."""
        where = repr((self.name, self.class_names, self.rows.first))
        return {"count": len(self), "digest": hashlib.blake2b(where.encode(), digest_size=16).hexdigest()}

    def split(
        self, holdout: float | int | None = None, seed: int = 0, by: Literal["hash", "position"] = "hash"
    ) -> tuple[DataSet, DataSet]:
        """(the rest, the first samples in memory), whatever the seed; `holdout` None is a fifth, at most 1000."""
        first = torch.arange(holdout_size(len(self), holdout, 1000), dtype=torch.int64, device="cpu")
        rows, labels = InMemory(self.raw(first)), self.classes(first)
        held_out = DataSet(self.name, rows, self.transform, labels, self.class_names, self.notes)
        return dataclasses.replace(self, rows=self.rows.rest(len(first))), held_out

    def _refuse(self, what: str) -> NoReturn:
        raise ValueError(f"{what}: {self.name} is a stream, which cannot be read at random")
