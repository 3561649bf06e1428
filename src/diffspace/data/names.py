"""Many names in little memory."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import overload

__all__ = ["Names", "NumberedNames"]


class Names(Sequence[str]):
    """Strings in one piece of memory: their UTF-8 and 12 bytes for each, a fifth of what a tuple of them takes."""

    def __init__(self, names: Iterable[str]) -> None:
        # names of files that are no UTF-8 are kept as the system gives them
        encoded = [name.encode(errors="surrogateescape") for name in names]
        self._text = b"".join(encoded)
        self._lengths = array("I", map(len, encoded))
        self._starts = array("q", accumulate(self._lengths, initial=0))
        self._starts.pop()

    def take(self, numbers: Iterable[int]) -> Names:
        """The names with these numbers, in this order; the text is shared."""
        taken = Names.__new__(Names)
        taken._text = self._text
        chosen = array("q", numbers)
        taken._starts = array("q", map(self._starts.__getitem__, chosen))
        taken._lengths = array("I", map(self._lengths.__getitem__, chosen))
        return taken

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, number: int) -> str: ...

    @overload
    def __getitem__(self, number: slice) -> Sequence[str]: ...

    def __getitem__(self, number: int | slice) -> str | Sequence[str]:
        if isinstance(number, slice):
            return self.take(range(*number.indices(len(self))))
        start = self._starts[number]
        return self._text[start : start + self._lengths[number]].decode(errors="surrogateescape")

    def __iter__(self) -> Iterator[str]:
        for start, length in zip(self._starts, self._lengths, strict=True):
            yield self._text[start : start + length].decode(errors="surrogateescape")


class NumberedNames(Sequence[str]):
    """00000000.png, 00000001.png, …, which take no memory."""

    def __init__(self, numbers: range) -> None:
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, number: int) -> str: ...

    @overload
    def __getitem__(self, number: slice) -> Sequence[str]: ...

    def __getitem__(self, number: int | slice) -> str | Sequence[str]:
        if isinstance(number, slice):
            return NumberedNames(self._numbers[number])
        return f"{self._numbers[number]:08d}.png"
