"""The random numbers of training, addressed by (seed, step, position in the global batch).

They come from numpy's Philox generator, which has a counter. Every sample has its own stretch of it, so that what a
sample gets depends neither on the process that trains on it nor on how many there are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from diffspace._shapes import Float, Int, Tensor

_NORMAL, _UNIFORM, _ORDER, _TORCH = range(4)
_CACHED = 2**15
_WORDS = 4  # that Philox gives for one value of its counter


@dataclass(frozen=True)
class StepRandom:
    """The random numbers of one step of training."""

    seed: int
    step: int

    def _words(self, stream: int, begin: int, end: int, count: int) -> Any:
        """`count` 64-bit words, a multiple of 4, for each position from `begin` to `end` − 1, as an array of numpy."""
        key = (self.seed & (2**64 - 1)) | (4 * self.step + stream) << 64
        return np.random.Philox(key=key, counter=begin * count // _WORDS).random_raw((end - begin) * count)

    def normal(self, begin: int, end: int, shape: Sequence[int]) -> Float[Tensor, "batch *dims"]:
        """Standard normal numbers in float32 for the positions begin … end − 1, each of this shape (Box and Muller)."""
        size = math.prod(shape)
        result = torch.empty(end - begin, size, dtype=torch.float32, device="cpu")
        rows = max(1, _CACHED // max(size, 1))  # pieces that fit the cache are several times faster
        for start in range(begin, end, rows):
            stop = min(start + rows, end)
            result[start - begin : stop - begin] = self._normal(start, stop, size)
        return result.reshape(end - begin, *shape)

    def _normal(self, begin: int, end: int, size: int) -> Tensor:
        # a word of 64 bits is two uniform numbers, which are two normal ones
        words = -(-size // (2 * _WORDS)) * _WORDS
        bits = self._words(_NORMAL, begin, end, words).view(np.uint32)
        uniform = bits.reshape(end - begin, 2, words).astype(np.float32)
        uniform += np.float32(0.5)
        uniform *= np.float32(2.0**-32)
        u, v = torch.from_numpy(uniform).unbind(1)
        radius = u.log_().mul_(-2.0).clamp_(min=0.0).sqrt_()  # u may round to 1
        angle = v.mul_(2 * math.pi)
        return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)[:, :size]

    def uniform(self, begin: int, end: int) -> Float[Tensor, "batch"]:
        """A number in (0, 1) in float64 for each of the positions."""
        bits = self._words(_UNIFORM, begin, end, _WORDS)
        return torch.from_numpy(((bits[::_WORDS] >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52)

    def strata(self, begin: int, end: int, size: int) -> Float[Tensor, "batch"]:
        """Stratified uniform numbers: one in each of `size` intervals, in random order over the global batch."""
        order = self.order(size)[begin:end]
        return (order + self.uniform(begin, end)) / size

    def order(self, size: int) -> Int[Tensor, "size"]:
        """The numbers 0 … size − 1 in random order."""
        bits = self._words(_ORDER, 0, -(-size // _WORDS), _WORDS)
        return torch.from_numpy(np.argsort(bits[:size], kind="stable"))

    def torch_seed(self, place: int = 0) -> int:
        """A seed for a generator of torch; `place` distinguishes those of one step."""
        bits = self._words(_TORCH, place, place + 1, _WORDS)
        return int(bits[0] & np.uint64(0xFFFFFFFF))
