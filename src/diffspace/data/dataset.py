"""A data set: stored samples by number, their form in a model's space, the split, the order, and batches for training.

Orders are pure functions of a seed: they sort the raw output of PCG64, whose stream numpy guarantees, so that they are
the same on every machine and with every version of the libraries. The split sorts hashes of names or of content.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import heapq
import itertools
import math
import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

import torch

from diffspace._shapes import Bool, Float, Int, Shaped, Tensor
from diffspace.checks import check_choice, check_integer, check_seed, nearest
from diffspace.conditions import Condition
from diffspace.data.identity import Fingerprint, hashes, sampled_content
from diffspace.data.rows import ConditionRows, InMemory, Mirrored, Repeated, Rows
from diffspace.protocols import Cond
from diffspace.transform import Transform

if TYPE_CHECKING:
    import numpy as np

_SPLIT, _EPOCHS = 0, 1  # separate streams of random numbers, whatever the seed
_In = TypeVar("_In")
_Out = TypeVar("_Out")

Batch: TypeAlias = tuple[Tensor, Tensor | Cond | None]
"""x in the model's space, (B, *dims), and its conditions by name; the class numbers (B,) where there are no others."""


@dataclass(frozen=True, eq=False)
class DataSet:
    """Samples with their class labels and other conditions, if any, and the transform to a model's space.

    `labels` are class numbers, one for each sample, and `class_names` names the classes; without classes they are None
    and empty. `notes` are sentences on how the data were read, printed by `inspect`. `selection` holds the numbers of
    the rows that belong to the set, in order; None means all. `conditions` have a value for each row.
    """

    name: str
    rows: Rows = field(repr=False)
    transform: Transform
    labels: Int[Tensor, "n"] | None = field(default=None, repr=False)
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    selection: Int[Tensor, "n"] | None = field(default=None, repr=False)
    conditions: Mapping[str, ConditionRows] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for name, given in self.conditions.items():
            if len(given.rows) != len(self.rows):
                raise ValueError(f"conditions: {name!r} has {len(given.rows)} rows for {len(self.rows)} samples")
        if len(self) == 0:
            raise ValueError(f"{self.name}: holds no samples")
        if self.labels is None:
            if self.class_names:
                raise ValueError(f"class_names: {self.class_names} given without labels")
            return
        if len(self.labels) != len(self):
            raise ValueError(f"labels: expected {len(self)}, one for each sample, got {len(self.labels)}")
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= len(self.class_names):
            raise ValueError(f"labels: in [{low}, {high}] with {len(self.class_names)} class_names")

    def __len__(self) -> int:
        return len(self.rows) if self.selection is None else len(self.selection)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return self.rows.sample_shape

    @functools.cached_property
    def class_counts(self) -> tuple[int, ...]:
        """The number of samples of each class; () where there are no classes, or labels are not known in advance."""
        labels = () if self.labels is None else torch.bincount(self.labels, minlength=len(self.class_names)).tolist()
        return tuple(labels)

    def raw(self, indices: Int[Tensor, "batch"] | None = None) -> Shaped[Tensor, "batch *dims"]:
        """The stored samples with these numbers; None reads all."""
        return self.rows.read(self._row_numbers(indices))

    def batch(self, indices: Int[Tensor, "batch"] | None = None) -> Float[Tensor, "batch *dims"]:
        """The samples with these numbers in the model's space, in float32; None reads all."""
        return self.transform.forward(self.raw(indices))

    def classes(self, indices: Int[Tensor, "batch"]) -> Int[Tensor, "batch"] | None:
        """The class numbers of the samples with these numbers; None if there are no classes."""
        return None if self.labels is None else self.labels[indices]

    @property
    def conditioning(self) -> dict[str, Condition]:
        """The conditions other than the class by name, for the option `conditioning` of a network."""
        return {name: given.condition for name, given in self.conditions.items()}

    def cond(self, indices: Int[Tensor, "batch"], names: Collection[str] | None = None) -> Cond | None:
        """The conditions of the samples with these numbers by name, raw; None if there are none.

        Args:
            indices: the numbers of the samples.
            names: which; "labels" is the class. None: all. ValueError for one that the data do not have.
        """
        there = [*(["labels"] if self.class_names else []), *self.conditions]
        for name in names or ():
            if name not in there:
                raise ValueError(f"{self.name}: has no condition {name!r}; {nearest(name, there)}")
        found: dict[str, Tensor] = {}
        if self.class_names and (names is None or "labels" in names):
            labels = self.classes(indices)
            if labels is not None:
                found["labels"] = labels
        rows = self._row_numbers(indices) if self.conditions else indices
        chosen = {name: given for name, given in self.conditions.items() if names is None or name in names}
        return (found | {name: given.rows.read(rows) for name, given in chosen.items()}) or None

    def unconditional(self) -> DataSet:
        """The same samples without classes and other conditions."""
        return dataclasses.replace(self, labels=None, class_names=(), conditions={})

    def training_order(self, seed: int, begin: int, end: int) -> Int[Tensor, "batch"]:
        """The numbers of the samples at places begin … end − 1 of the endless order in which training sees them."""
        return shuffled(len(self), seed, begin, end)

    def sample_numbers(self, count: int) -> Int[Tensor, "count"]:
        """Numbers of `count` samples, or of all if there are fewer, drawn with a fixed seed."""
        return permutation(len(self), 0)[:count]

    def subset(self, indices: Int[Tensor, "batch"]) -> DataSet:
        """The data set of the samples with these numbers, in this order."""
        rows = self._row_numbers(indices)
        return dataclasses.replace(self, selection=rows, labels=None if self.labels is None else self.labels[indices])

    def split(
        self, holdout: float | int | None = None, seed: int = 0, by: Literal["hash", "position"] = "hash"
    ) -> tuple[DataSet, DataSet]:
        """(training part, held-out part), each class divided in the same proportion.

        `holdout` is a fraction of the samples or their number; None is a fifth, at most 10,000 samples, which with
        `seed=0` is the standard split of every data set. At least one sample of each class stays in training.

        Held out are those with the smallest hashes, with the seed, of their names, or of their content where they have
        none, so that the split does not move when samples come or go. Samples without names, and too large to be read
        for it, are drawn by their positions, as all are with "position"; a note says so.
        """
        import numpy as np

        check_seed("seed", seed)
        check_choice("by", by, ("hash", "position"))
        keys = self.keys() if by == "hash" else None
        if keys is None:
            plain = order = _random_bits(len(self), seed, _SPLIT)
        else:
            plain, order = hashes(keys, len(self), seed)
        out = holdout_mask(order, self.labels, holdout)
        notes = self.notes
        if keys is None:
            notes += ("held out by position: a sample that is added or removed moves other samples between the parts",)
        elif copies := int(np.isin(plain[out.numpy()], plain[~out.numpy()]).sum()):
            notes += (f"{copies} of the {int(out.sum())} held-out samples are exact copies of training samples",)
        parts = (self.subset(chosen.nonzero().flatten()) for chosen in (~out, out))
        training, held_out = (dataclasses.replace(part, notes=notes) for part in parts)
        return training, held_out

    def keys(self) -> Iterable[bytes] | None:
        """What tells each sample from the others wherever it stands: its name, or its content; None if not known."""
        rows, numbers = _origin(self.rows, self._row_numbers(None))
        return rows.keys(numbers) if hasattr(rows, "keys") else None

    def fingerprint(self) -> Fingerprint:
        """The number of samples, and a hash over them in their order: names and sizes, or content, and classes.

        Files are not read. Content without names is read as far as the split does; of more, rows evenly spaced.
        """
        digest = hashlib.blake2b(repr((self.sample_shape, self.class_names)).encode(), digest_size=16)
        for name, given in self.conditions.items():
            stored, chosen = _origin(given.rows, self._row_numbers(None))
            digest.update(f"{name} {given.condition.shape}".encode())
            for key in _identity(stored, chosen):
                digest.update(key + b"\0")
        if self.labels is not None:
            digest.update(self.labels.cpu().numpy().tobytes())
        for key in _identity(*_origin(self.rows, self._row_numbers(None))):
            digest.update(key + b"\0")
        return {"count": len(self), "digest": digest.hexdigest()}

    def mirrored(self) -> DataSet:
        """These images followed by their mirror images, left and right exchanged, with the same labels."""
        if len(self.sample_shape) != 3:
            raise ValueError(f"mirror: expected images (channels, height, width), got samples of {self.sample_shape}")
        own = self._row_numbers(None)
        rows = self.rows.mirrored() if hasattr(self.rows, "mirrored") else Mirrored(self.rows)
        labels = None if self.labels is None else self.labels.repeat(2)
        selection = torch.cat([own, own + len(self.rows)])
        conditions = {name: given.mirrored() for name, given in self.conditions.items()}
        return dataclasses.replace(self, rows=rows, selection=selection, labels=labels, conditions=conditions)

    def _row_numbers(self, indices: Tensor | None) -> Tensor:
        if indices is None:
            return (
                torch.arange(len(self), dtype=torch.int64, device="cpu") if self.selection is None else self.selection
            )
        if indices.numel():
            low, high = int(indices.min()), int(indices.max())
            if low < 0 or high >= len(self):
                raise ValueError(f"indices: expected 0 to {len(self) - 1}, got numbers in [{low}, {high}]")
        return indices if self.selection is None else self.selection[indices]


def _origin(rows: Any, numbers: Tensor) -> tuple[Any, Tensor]:
    """The rows that others were made from, and the numbers there."""
    while isinstance(rows, InMemory | Mirrored | Repeated) and rows.origin is not None:
        rows = rows.origin
        numbers = numbers % len(rows)
    return rows, numbers


def _identity(rows: Any, numbers: Tensor) -> Iterator[bytes]:
    """What tells rows from others: names and sizes, or content, of much content a part."""
    keys = rows.keys(numbers) if hasattr(rows, "keys") else None
    yield from sampled_content(rows.read, numbers) if keys is None else keys
    yield from (b"%d" % version for version in (rows.versions(numbers) if hasattr(rows, "versions") else ()))


def fingerprints(training: DataSet, held_out: DataSet | None = None) -> dict[str, Fingerprint]:
    """The fingerprints of the parts of a data set, by name, for `differences`."""
    found = {"training": training.fingerprint()}
    return found if held_out is None else found | {"held-out": held_out.fingerprint()}


def permutation(n: int, seed: int, *key: int) -> Int[Tensor, "n"]:
    """The numbers 0 … n − 1 in an order that `seed` and `key` determine, integers of at least 0."""
    import numpy as np

    check_seed("seed", seed)
    return torch.from_numpy(np.argsort(_random_bits(n, seed, *key), kind="stable"))


def _random_bits(n: int, seed: int, *key: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    import numpy as np

    return np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)).random_raw(n)


_recent_permutation = functools.lru_cache(maxsize=4)(permutation)


def shuffled(n: int, seed: int, begin: int, end: int, window: int | None = None) -> Int[Tensor, "batch"]:
    """The places begin … end − 1 of an endless order: range(n) shuffled anew in each epoch.

    With `window`, range(n) is cut into windows of that length, shuffled one by one: for samples that come in a stream.
    """
    parts = []
    size = window or n
    while begin < end:
        epoch, place = divmod(begin, n)
        number, offset = divmod(place, size)
        key = (epoch,) if window is None else (epoch, number)
        order = _recent_permutation(min(size, n - number * size), seed, _EPOCHS, *key)
        parts.append(number * size + order[offset : offset + end - begin])
        begin += len(parts[-1])
    return torch.cat(parts)


def holdout_size(n: int, holdout: float | int | None, most: int, kept: int = 1, what: str = "one sample") -> int:
    """How many of n samples to hold out, of which `kept` stay in training; None is a fifth, at most `most`."""
    if holdout is None:
        count = min(max(round(n / 5), 1), most)
    elif isinstance(holdout, float):
        if not 0 < holdout < 1:
            raise ValueError(f"holdout: expected a fraction in (0, 1) or an integer, got {holdout}")
        count = round(n * holdout)
    else:
        count = holdout
    if not 1 <= count <= n - kept:
        share = "a fifth" if holdout is None else holdout
        raise ValueError(f"holdout: {share} is {count} of {n} samples; expected at least 1, and {what} left to train")
    return count


def holdout_mask(
    order: np.ndarray[Any, np.dtype[np.uint64]], labels: Int[Tensor, "n"] | None, holdout: float | int | None
) -> Bool[Tensor, "n"]:
    """Which of n samples are held out: in proportion from each class, those that are first in order."""
    import numpy as np

    n = len(order)
    groups = torch.zeros(n, dtype=torch.int64, device="cpu") if labels is None else labels
    sizes = torch.bincount(groups)
    what = "one sample" if labels is None else "one sample of each class"
    count = holdout_size(n, holdout, 10_000, int((sizes > 0).sum()), what)
    by_class = torch.from_numpy(np.lexsort((order, groups.numpy())))
    rank = torch.arange(n, dtype=torch.int64, device="cpu") - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    out = torch.zeros(n, dtype=torch.bool, device="cpu")
    out[by_class] = rank < torch.tensor(
        _quotas(sizes.tolist(), count), dtype=torch.int64, device="cpu"
    ).repeat_interleave(sizes)
    return out


def _quotas(sizes: list[int], count: int) -> list[int]:
    """How many of each class make up `count`: in proportion, by largest remainders, never a whole class."""
    total = sum(sizes)
    shares = [count * size / total for size in sizes]
    quotas = [min(math.floor(share), max(size - 1, 0)) for share, size in zip(shares, sizes, strict=True)]
    # the first of those that lack most grows by one, again and again
    lacking = [(quotas[c] - shares[c], c) for c, size in enumerate(sizes) if quotas[c] < size - 1]
    heapq.heapify(lacking)
    for _ in range(count - sum(quotas)):
        c = lacking[0][1]
        quotas[c] += 1
        if quotas[c] < sizes[c] - 1:
            heapq.heapreplace(lacking, (quotas[c] - shares[c], c))
        else:
            heapq.heappop(lacking)
    return quotas


# ---- batches


def batches(
    data: DataSet, batch_size: int, seed: int, start: int = 0, prefetch: int = 0, part: tuple[int, int] | None = None
) -> Iterator[Batch]:
    """Batches number `start`, `start` + 1, … without end.

    Batch k holds the places k·B … (k+1)·B − 1 of an order in which every epoch is all samples, shuffled anew. It
    depends on (data, batch_size, seed, k) alone, so that training resumes exactly. Batches run over the ends of epochs,
    and `batch_size` may exceed the size of the data set.

    Args:
        data: The data set.
        batch_size: Samples in a batch.
        seed: Determines the order.
        start: The number of the first batch.
        prefetch: Batches that a thread prepares ahead, useful if samples are decoded on demand. 0: no thread.
        part: (begin, end): only these places of each batch, for one of several processes that share it.
    """
    check_integer("batch_size", batch_size, 1)
    check_seed("seed", seed)
    check_integer("start", start, 0)
    check_integer("prefetch", prefetch, 0)
    begin, end = (0, batch_size) if part is None else part
    if not 0 <= begin < end <= batch_size:
        raise ValueError(f"part: expected 0 ≤ begin < end ≤ batch_size = {batch_size}, got {part}")

    def batch(number: int) -> Batch:
        indices = data.training_order(seed, number * batch_size + begin, number * batch_size + end)
        return data.batch(indices), data.cond(indices) if data.conditions else data.classes(indices)

    numbers = itertools.count(start)
    return ordered_map(batch, numbers, threads=1, ahead=prefetch) if prefetch else map(batch, numbers)


def ordered_map(function: Callable[[_In], _Out], items: Iterable[_In], threads: int, ahead: int) -> Iterator[_Out]:
    """function(item) for each item, in order, computed on `threads` threads up to `ahead` items before its turn.

    An exception is raised in the turn of its item.
    """
    pool = ThreadPoolExecutor(threads)
    waiting = deque[Future[_Out]]()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def available_processors() -> int:
    """The processors for this process: its share if several train together on this machine (torchrun's variable)."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, here // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
