"""Networks without weights, to look at before they are made: what a file or a recipe asks for may be absurd."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from diffspace.checks import first_line
from diffspace.tensors import plain_defaults


@contextlib.contextmanager
def without_weights(tensors: int = 4_000) -> Iterator[None]:
    """Make networks on the meta device, without memory; ValueError for one of far more than this many tensors."""
    with plain_defaults("meta"), _Counting(2 * tensors + 1000):
        yield


def skeleton(make: Callable[[], torch.nn.Module], tensors: int = 4_000) -> torch.nn.Module:
    """The network that `make` makes, without memory for its weights; ValueError for one of far more tensors than these.

    A constructor that reads values of tensors, such as `torch.linspace(0, 1, 3).tolist()`, makes it with weights.
    """
    try:
        with without_weights(tensors):
            return make()
    except (RuntimeError, TypeError) as error:
        if "verflow" in str(error):  # of a size beyond 64 bits
            raise ValueError(f"a size is beyond what a tensor can have: {first_line(error)}") from None
        if "meta" not in str(error):
            raise
    with plain_defaults(), torch.random.fork_rng(devices=[]):
        return make()


class _Counting(TorchFunctionMode):
    """Counts the tensors that are made, and refuses more than `most`."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = self._left = most

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self._left -= not (args and isinstance(args[0], torch.Tensor))  # of none given, one is made
        if self._left < 0:
            raise ValueError(f"it is made of more than {self._most} tensors")
        return func(*args, **(kwargs or {}))
