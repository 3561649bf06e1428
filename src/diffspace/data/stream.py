"""Images that come one after the other and cannot be read at random."""

from __future__ import annotations

import hashlib
import io
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from diffspace._shapes import Int, Shaped, Tensor
from diffspace.data.files import ByteFile
from diffspace.data.workers import Workers

if TYPE_CHECKING:
    from diffspace.data.images import ImageReader

__all__ = ["EncodedImages", "ImageStream", "StreamedSample"]


class StreamedSample(NamedTuple):
    """An encoded image, with its class number where it has one."""

    image: bytes
    label: int | None


@dataclass(frozen=True)
class EncodedImages:
    """Encoded images in memory, read like files."""

    path: Path
    names: Sequence[str]
    images: Sequence[bytes]
    others: int = 0

    def open(self, number: int) -> ByteFile:
        return io.BytesIO(self.images[number])

    def index(self) -> None:
        return None

    def fingerprint(self) -> str:
        return hashlib.sha256(b"".join(self.images)).hexdigest()


class ImageStream:
    """Samples number `first` and the following `count` of a stream as rows, of which a window is kept, still encoded.

    `start(k)` gives the samples from number k on. Rows are to be asked for window by window (`order.windowed`); while
    one window is used, a thread reads the next. A run that is taken up again, and each epoch, start the stream anew
    and skip what comes before.

    Errors: ValueError names a stream that ends too early, rows that are asked for in another order, and an image that
    cannot be read.
    """

    def __init__(
        self,
        path: Path,
        start: Callable[[int], Iterator[StreamedSample]],
        count: int,
        window: int,
        reader: ImageReader,
        workers: Workers,
        first: int = 0,
    ) -> None:
        self.window = window
        self._path, self._start, self._count, self._first = path, start, count, first
        self._reader, self._workers = reader, workers
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._lock = threading.Lock()
        self._windows: dict[int, Future[list[StreamedSample]]] = {}
        self._samples: Iterator[StreamedSample] = iter(())
        self._next: int | None = None  # the row that comes next in `_samples`

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return self._reader.shape

    def __len__(self) -> int:
        return self._count

    def read(self, indices: Int[Tensor, "batch"]) -> Shaped[Tensor, "batch channels height width"]:
        names = [f"{self._first + row:08d}.png" for row in indices.tolist()]
        images = EncodedImages(self._path, names, [sample.image for sample in self._find(indices)])
        pixels = self._workers.map(lambda i: self._reader(images, i), range(len(names)))
        return torch.stack(pixels) if pixels else torch.empty((0, *self.sample_shape), dtype=torch.uint8)

    def classes(self, indices: Int[Tensor, "batch"]) -> Int[Tensor, "batch"] | None:
        """The class numbers of rows, where they have some."""
        labels = [sample.label for sample in self._find(indices)]
        found = [label for label in labels if label is not None]
        return torch.tensor(found) if found and len(found) == len(labels) else None

    def rest(self, begin: int) -> ImageStream:
        """The rows from number `begin` on."""
        return ImageStream(
            self._path,
            self._start,
            self._count - begin,
            self.window,
            self._reader,
            self._workers,
            self._first + begin,
        )

    def _find(self, indices: Tensor) -> list[StreamedSample]:
        windows, places = indices // self.window, indices % self.window
        with self._lock:
            wanted = list(dict.fromkeys(windows.tolist()))
            if len(wanted) > 2 + len(indices) // self.window:
                raise ValueError(f"{self._path}: a stream is read in its own order, not {len(indices)} rows at random")
            upcoming = (wanted[-1] + 1) % -(-self._count // self.window) if wanted else 0
            kept = {number: self._windows.get(number) for number in (*wanted, upcoming)}
            self._windows = {n: found or self._thread.submit(self._fetch, n) for n, found in kept.items()}
            there = {number: self._windows[number].result() for number in wanted}
        return [there[w][p] for w, p in zip(windows.tolist(), places.tolist(), strict=True)]

    def _fetch(self, number: int) -> list[StreamedSample]:
        """The samples in a window; runs in the thread of the stream alone."""
        begin = number * self.window
        size = min(self.window, self._count - begin)
        if self._next != begin:
            self._samples = self._start(self._first + begin)
        self._next = None
        # a program that ends shall not wait for a download
        alive = threading.main_thread().is_alive
        got = list(itertools.islice(itertools.takewhile(lambda _: alive(), self._samples), size))
        if len(got) < size:
            there = self._first + begin + len(got)
            raise ValueError(f"{self._path}: the stream ends after {there} samples; give their number as count")
        self._next = begin + size
        return got
