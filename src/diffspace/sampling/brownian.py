"""Brownian paths that do not depend on the steps at which they are looked at."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from diffspace._shapes import Float, Tensor
from diffspace.sampling.streams import step_noise

# ln τ from −128 to 128 is halved 17 times, down to cells of 2^−9
_REACH, _DEPTH = 128.0, 17
_WIDTH = 2 * _REACH / (1 << _DEPTH)
_FIRST_ADDRESS = 1 << 31  # far from those of steps, so that churn draws other noise


class BrownianPath:
    """A standard Brownian motion B(τ), τ ≥ 0, B(0) = 0, for each seed; the order of calls has no effect on B at any τ.

    The interval of ln τ is halved again and again, the value in the middle drawn from the Brownian bridge between the
    ends with noise addressed by (seed, interval) (Lévy's construction); in the last cell, 2^−9 long in ln τ, a bridge
    is drawn at τ itself, always with the same noise. So two values in one cell do not have the law of a Brownian
    motion: `increment` refuses them. Values are float64 on the CPU.
    """

    def __init__(self, seeds: Sequence[int], shape: Sequence[int]) -> None:
        self.seeds = tuple(seeds)
        self.shape = tuple(shape)
        self._ends = tuple(math.exp(0.5 * u) * self._noise(i).double() for i, u in enumerate((-_REACH, _REACH)))
        self._known: dict[int, Tensor] = {}  # the nodes of the last descent, of which the next shares the first
        self._latest: tuple[float, Tensor] | None = None  # where the last increment ended, as the next begins there

    def _noise(self, node: int) -> Tensor:
        return step_noise(self.seeds, _FIRST_ADDRESS + node, self.shape)

    def __call__(self, clock: float) -> Float[Tensor, "batch *dims"]:
        """B at a time of the clock; ValueError for one that is negative, not finite or beyond e^±128."""
        if clock == 0:
            return torch.zeros_like(self._ends[0])
        leaf = (1 << _DEPTH) + _cell(clock)
        low, high = -_REACH, _REACH
        at_low, at_high = self._ends
        nodes = {}
        for depth in range(_DEPTH, 0, -1):
            middle, node = 0.5 * (low + high), leaf >> depth
            value = self._known.get(node)
            if value is None:
                value = self._bridge(low, high, at_low, at_high, math.exp(middle), 2 * node)
            nodes[node] = value
            if leaf >> (depth - 1) & 1:
                low, at_low = middle, value
            else:
                high, at_high = middle, value
        self._known = nodes
        return self._bridge(low, high, at_low, at_high, clock, 2 * leaf)

    def _bridge(self, low: float, high: float, at_low: Tensor, at_high: Tensor, clock: float, address: int) -> Tensor:
        """A draw at `clock` between two known values: mean on the line between them, variance (τ−a)(b−τ)/(b−a)."""
        a, b = math.exp(low), math.exp(high)
        share = (clock - a) / (b - a)
        std = math.sqrt(max(share * (b - clock), 0.0))
        return torch.lerp(at_low, at_high, share).add_(self._noise(address), alpha=std)

    def increment(self, start: float, end: float) -> Float[Tensor, "batch *dims"]:
        """B(end) − B(start); ValueError where the two differ but lie in one cell."""
        if start != end and start > 0 and end > 0 and _cell(start) == _cell(end):
            raise ValueError(
                f"clock: expected steps of at least 1/{1 / _WIDTH:g} in its logarithm, got {start!r} to {end!r}; "
                "a solver that adds noise needs fewer steps"
            )
        known = self._latest
        at_start = known[1] if known is not None and known[0] == start else self(start)
        at_end = self(end)
        self._latest = (end, at_end)
        return at_end - at_start


def _cell(clock: float) -> int:
    """The number of the cell that holds a clock > 0."""
    if not (math.isfinite(clock) and clock > 0 and -_REACH < math.log(clock) < _REACH):
        raise ValueError(f"clock: expected 0 or a number between e^-128 and e^128, got {clock}")
    return math.floor((math.log(clock) + _REACH) / _WIDTH)
