"""Brownian paths that do not depend on the steps at which they are looked at."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from edmkit._shapes import Float, Tensor
from edmkit.sampling.streams import step_noise

__all__ = ["BrownianPath"]

# the path is halved in the logarithm of its clock, from e^−128 to e^128, down to intervals of 2^−9
_REACH, _DEPTH = 128.0, 17
_FIRST_ADDRESS = 1 << 31  # far from those of steps, so that churn draws other noise


class BrownianPath:
    """A standard Brownian motion B(τ), τ ≥ 0, B(0) = 0, for each seed: B at any τ is the same however often and in
    whatever order it is asked for.

    The interval of ln τ is halved again and again, the value in the middle drawn from the Brownian bridge between the
    ends with noise addressed by (seed, interval) (Lévy's construction); in the last interval a bridge is drawn at τ
    itself. Values are float64 on the CPU.
    """

    def __init__(self, seeds: Sequence[int], shape: Sequence[int]) -> None:
        self.seeds = tuple(seeds)
        self.shape = tuple(shape)
        self._ends = tuple(math.exp(0.5 * u) * self._noise(i) for i, u in enumerate((-_REACH, _REACH)))
        self._known: dict[int, Tensor] = {}  # the nodes of the last descent, of which the next shares the first

    def _noise(self, node: int) -> Tensor:
        return step_noise(self.seeds, _FIRST_ADDRESS + node, self.shape).to(torch.float64)

    def __call__(self, clock: float) -> Float[Tensor, "batch *dims"]:
        """B at a time of the clock; ValueError for one that is negative, not finite or beyond e^±128."""
        if clock == 0:
            return torch.zeros_like(self._ends[0])
        if not (math.isfinite(clock) and clock > 0 and -_REACH < math.log(clock) < _REACH):
            raise ValueError(f"clock: {clock}; want 0, or a number between e^-128 and e^128")
        target = math.log(clock)
        low, high = -_REACH, _REACH
        at_low, at_high = self._ends
        nodes, node = {}, 1
        for _ in range(_DEPTH):
            middle = 0.5 * (low + high)
            value = self._known.get(node)
            if value is None:
                value = self._bridge(low, high, at_low, at_high, math.exp(middle), 2 * node)
            nodes[node] = value
            if target < middle:
                high, at_high, node = middle, value, 2 * node
            else:
                low, at_low, node = middle, value, 2 * node + 1
        self._known = nodes
        return self._bridge(low, high, at_low, at_high, clock, 2 * node)

    def _bridge(self, low: float, high: float, at_low: Tensor, at_high: Tensor, clock: float, address: int) -> Tensor:
        """A draw at `clock` between two known values: mean on the line between them, variance (τ−a)(b−τ)/(b−a)."""
        a, b = math.exp(low), math.exp(high)
        share = (clock - a) / (b - a)
        std = math.sqrt(max((clock - a) * (b - clock) / (b - a), 0.0))
        return torch.lerp(at_low, at_high, share).add_(self._noise(address), alpha=std)

    def increment(self, start: float, end: float) -> Float[Tensor, "batch *dims"]:
        """B(end) − B(start)."""
        return self(end) - self(start)
