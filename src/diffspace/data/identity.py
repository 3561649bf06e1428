"""What tells samples from one another wherever they stand: their names, or their content where they have none.

From it follow the held-out part, which does not move when samples come or go, and the fingerprint of a data set.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from diffspace._shapes import Int, Tensor

if TYPE_CHECKING:
    import numpy as np

Fingerprint = dict[str, Any]
"""{"count": samples, "digest": a hash over their names and sizes, or their content, and their classes}."""

MOST_BYTES, _MOST_ROWS = 2**31, 2**23  # of content that is hashed
_BLOCK = 2**24  # bytes read at once
_SAMPLED, _SAMPLED_BYTES = 256, 2**28  # of larger content, as many rows stand for all


def content(read: Callable[[Tensor], Tensor], numbers: Int[Tensor, "n"]) -> Iterator[bytes]:
    """The stored values of the rows with these numbers, as bytes."""
    if len(numbers):
        for some in torch.split(numbers, max(1, _BLOCK // max(1, read(numbers[:1]).nbytes))):
            values = read(some).cpu().contiguous().reshape(len(some), -1).view(torch.uint8)
            yield from (row.tobytes() for row in values.numpy())


def content_keys(read: Callable[[Tensor], Tensor], numbers: Int[Tensor, "n"], nbytes: int) -> Iterator[bytes] | None:
    """The content of rows as what tells them apart; None if it is too much to be read, `nbytes` in all."""
    return content(read, numbers) if nbytes <= MOST_BYTES and len(numbers) <= _MOST_ROWS else None


def sampled_content(read: Callable[[Tensor], Tensor], numbers: Int[Tensor, "n"]) -> Iterator[bytes]:
    """The content of a few rows, evenly spaced, in place of all."""
    n = len(numbers)
    count = min(n, max(8, min(_SAMPLED, _SAMPLED_BYTES // max(1, read(numbers[:1]).nbytes))))
    return content(read, numbers[torch.arange(count, dtype=torch.int64, device="cpu") * n // count])


_Hashes: TypeAlias = "np.ndarray[Any, np.dtype[np.uint64]]"


def hashes(keys: Iterable[bytes], count: int, seed: int) -> tuple[_Hashes, _Hashes]:
    """A hash of each key with the seed; and those where of equal ones each is the one before, hashed again."""
    import numpy as np

    start = hashlib.blake2b(f"{seed}\0".encode(), digest_size=8)

    def of(key: bytes) -> int:
        digest = start.copy()
        digest.update(key)
        return int.from_bytes(digest.digest(), "little")

    values = np.fromiter(map(of, keys), np.uint64, count)
    plain, order = values.copy(), np.argsort(values, kind="stable")
    for i in np.flatnonzero(values[order[1:]] == values[order[:-1]]).tolist():
        values[order[i + 1]] = of(values[order[i]].tobytes())
    return plain, values


def differences(then: object, now: Mapping[str, Fingerprint]) -> str:
    """How data differ from those of other fingerprints, part by part; an empty text if they do not.

    `then` comes from a file: parts that it does not have are not compared.
    """
    found = []
    for part, fingerprint in now.items():
        before = then.get(part, fingerprint) if isinstance(then, Mapping) else fingerprint
        if before != fingerprint:
            count, had = fingerprint["count"], before.get("count") if isinstance(before, Mapping) else "others"
            same = "as many samples as then, but not the same" if count == had else f"{count} samples, {had} then"
            found.append(f"the {part} part has {same}")
    return ", ".join(found)
