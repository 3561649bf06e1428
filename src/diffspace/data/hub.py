"""Images in a data set of the Hugging Face `datasets` library."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffspace.data._options import package, whole_number
from diffspace.data.dataset import PIXELS, DataSet
from diffspace.data.files import Files
from diffspace.data.folder import ImageSource
from diffspace.data.names import NumberedNames
from diffspace.data.numbered import NumberedFiles
from diffspace.data.stream import EncodedImages, ImageStream, StreamedSample
from diffspace.data.workers import Workers

__all__ = ["HubImages"]

_IMAGES = ("image", "img")
_LABELS = ("label", "labels", "fine_label")
_LOOKED_AT = 64  # samples at the beginning of a stream


@dataclass(frozen=True)
class HubImages(ImageSource):
    """Images in a data set of the Hugging Face Hub, hf:owner/name or hf:owner/name:split, in a folder into which
    `datasets` saved one, or in Parquet: a file, or a folder of them; needs `datasets`. The split is "train" where there
    are several and none is given. See `ImageSource` for the options.

    Images are the column "image" or "img", class numbers the column "label", "labels" or "fine_label".

    - `streaming`: samples are read one after the other and nothing is downloaded before. Their order is that of the
      stream, in windows of `window` samples that are shuffled anew in each epoch: a function of the seed, but a stream
      sorted by class stays so. `count` is the number of samples where the data set does not know it. The first samples
      are held out. The first 64 say what size and channels there are; classes need a column with names.
    """

    streaming: bool = False
    window: int = 4096
    count: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        whole_number("window", self.window, least=1)
        if self.count is not None:
            whole_number("count", self.count, least=1)
        if self.streaming and self.on_error == "skip":
            raise ValueError("on_error: 'skip' has no effect on a stream")
        if not self.streaming and (self.count is not None or self.window != type(self).window):
            raise ValueError("window, count: have no effect without streaming")

    @property
    def name(self) -> str:
        path = str(self.path).removeprefix("hf:").rstrip("/").rpartition("/")[2]
        return path.partition(":")[0].removesuffix(".parquet")

    def files(self) -> Files:
        if self.streaming:
            raise ValueError(f"streaming: {self.path} is to be read at random; leave streaming out")
        datasets = package("datasets", "a data set of the Hugging Face Hub")
        try:
            table, _ = _table(datasets, str(self.path), streaming=False)
            images, labels = self._columns(table)
            return _HubFiles(Path(self.path), table.cast_column(images, datasets.Image(decode=False)), images, labels)
        except (OSError, ValueError, TypeError) as error:  # it raises its own kinds of these
            raise self._unreadable(error) from None

    def load(self) -> DataSet:
        """Look through the images, and read them where they fit in memory; of a stream look at the first."""
        return self._stream() if self.streaming else super().load()

    def _stream(self) -> DataSet:
        from diffspace.data.images import ImageReader

        datasets = package("datasets", "a data set of the Hugging Face Hub")
        path = Path(self.path)
        try:
            table, known = _table(datasets, str(self.path), streaming=True)
            images, key = self._columns(table)
            count = known if self.count is None else self.count
            class_names = tuple(getattr(table.features[key], "names", None) or ()) if key is not None else ()
            key = key if class_names else None
            table = table.select_columns([name for name in (images, key) if name is not None])
            table = table.cast_column(images, datasets.Image(decode=False))
        except (OSError, ValueError, TypeError) as error:
            raise self._unreadable(error) from None
        if count is None:
            raise ValueError(f"count: {self.path} does not say how many samples it has; give their number")

        def start(number: int) -> Iterator[StreamedSample]:
            try:
                for i, row in enumerate(table.skip(number) if number else table, start=number):
                    label = None if key is None else row[key]
                    if key is not None and not (isinstance(label, int) and 0 <= label < len(class_names)):
                        raise ValueError(f"sample {i}: label {label!r}; want 0 to {len(class_names) - 1}")
                    yield StreamedSample(_content(row[images]), label)
            except (OSError, ValueError, TypeError) as error:
                raise self._unreadable(error) from None

        first = [sample.image for sample in itertools.islice(start(0), _LOOKED_AT)]
        survey = self.survey(EncodedImages(path, NumberedNames(range(len(first))), first))
        like = survey.reader
        gray = like.channels == "grayscale" and self.channels == "auto"
        reader = ImageReader(like.channels, like.size, like.crop, one_size=self.size is None, all_gray=gray)
        rows = ImageStream(path, start, count, self.window, reader, Workers(self.workers))
        notes = [*survey.notes, f"a stream of {count} samples, shuffled in windows of {self.window}"]
        return DataSet(self.name, rows, PIXELS, None, class_names, tuple(notes))

    def _columns(self, table: Any) -> tuple[str, str | None]:
        images = _column(table, _IMAGES)
        if images is None:
            there = ", ".join(table.column_names or ())
            raise ValueError(f"has no column {_IMAGES[0]!r} or {_IMAGES[1]!r}, but {there}")
        return images, _column(table, _LABELS) if self.classes == "auto" else None

    def _unreadable(self, error: Exception) -> ValueError:
        return ValueError(f"{self.path}: cannot be read: {' '.join(str(error).split())}")


class _HubFiles(NumberedFiles):
    def __init__(self, path: Path, table: Any, images: str, key: str | None) -> None:
        self._table, self._images = table, images
        labels = None if key is None else list(table[key])
        class_names: Sequence[str] = () if key is None else getattr(table.features[key], "names", None) or ()
        super().__init__(path, len(table), str(table._fingerprint), labels, class_names)

    def read(self, number: int) -> bytes:
        return _content(self._table[number][self._images])


def _content(image: Any) -> bytes:
    content = image["bytes"]
    return Path(image["path"]).read_bytes() if content is None else bytes(content)


def _table(datasets: Any, spec: str, streaming: bool) -> tuple[Any, int | None]:
    """The table, and how many samples it has as far as that is known without reading it."""
    options = {"streaming": True} if streaming else {}
    path = Path(spec).expanduser()
    if spec.startswith("hf:"):
        name, _, split = spec.removeprefix("hf:").partition(":")
        table = datasets.load_dataset(name, split=split or "train", **options)
        splits = getattr(getattr(table, "info", None), "splits", None) or {}
        return table, getattr(splits.get(split or "train"), "num_examples", None) or None
    if found := _parquet(path):
        files = [str(file) for file in found]
        count = sum(package("pyarrow.parquet", "a Parquet file").read_metadata(file).num_rows for file in files)
        return datasets.load_dataset("parquet", data_files=files, split="train", **options), count
    saved = datasets.load_from_disk(str(path))
    table = saved["train"] if isinstance(saved, dict) else saved
    return (table.to_iterable_dataset() if streaming else table), len(table)


def _parquet(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(path.glob("*.parquet"))
    return [path] if path.suffix == ".parquet" else []


def _column(table: Any, names: Sequence[str]) -> str | None:
    return next((name for name in names if name in (table.column_names or ())), None)
