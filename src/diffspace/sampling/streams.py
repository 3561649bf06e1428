"""One random stream for each sample, so that a sample does not depend on its batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from diffspace._shapes import Float, Int, Tensor
from diffspace.checks import check_integer, check_seeds

_MASK = 0xFFFFFFFF


def _normal(seeds: Iterable[int], shape: Sequence[int]) -> Tensor:
    """The first normal draw of each seed's stream, in float32 on the CPU."""
    generator = torch.Generator()
    return torch.stack([_first_draw(generator.manual_seed(seed), shape) for seed in seeds])


def _first_draw(generator: torch.Generator, shape: Sequence[int]) -> Tensor:
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float32, device="cpu")


def _mix(value: int) -> int:
    """A bijection of 32-bit integers that scatters neighbours (xor-shift and odd multipliers)."""
    value &= _MASK
    value = ((value ^ (value >> 16)) * 0x7FEB352D) & _MASK
    value = ((value ^ (value >> 15)) * 0x846CA68B) & _MASK
    return value ^ (value >> 16)


def initial_latents(seeds: Sequence[int], shape: Sequence[int]) -> Float[Tensor, "batch *dims"]:
    """Unit-variance float32 latents on the CPU, each the first draw of its seed's generator."""
    if not (numbers := check_seeds(seeds)):
        raise ValueError("seeds: expected at least one, got none")
    return _normal(numbers, shape)


def random_labels(
    seeds: Sequence[int], shape: Sequence[int], num_classes: int, counts: Sequence[int] | None = None
) -> Int[Tensor, "batch"]:
    """A class for each seed: the draw that follows its latents of the given shape.

    All classes are equally likely, or class k with probability counts_k/Σ counts.
    """
    check_integer("num_classes", num_classes, 1)
    if counts is not None and (len(counts) != num_classes or min(counts) < 0 or not sum(counts)):
        raise ValueError(f"counts: expected {num_classes} numbers of at least 0, not all 0, got {tuple(counts)}")
    generator, labels = torch.Generator(), []
    below = num_classes if counts is None else sum(counts)
    for seed in check_seeds(seeds):
        _first_draw(generator.manual_seed(seed), shape)
        labels.append(torch.randint(below, (), generator=generator, dtype=torch.int64, device="cpu"))
    drawn = torch.stack(labels)
    if counts is None:
        return drawn
    ends = torch.tensor(counts, dtype=torch.int64, device="cpu").cumsum(0)  # of the classes among all items in a row
    return torch.bucketize(drawn, ends, right=True)


def substreams(seeds: Sequence[int], index: int) -> tuple[int, ...]:
    """For each seed the seed of its stream number `index`, which may be negative.

    A hash that is one-to-one in the seed at a given index and in the index for a given seed: the streams of one index
    never meet, nor do those of one seed.
    """
    salt = _mix(index + 0x9E3779B9)
    return tuple(_mix(seed ^ salt) for seed in check_seeds(seeds))


def step_noise(seeds: Sequence[int], step: int, shape: Sequence[int]) -> Float[Tensor, "batch *dims"]:
    """Unit-variance float32 noise on the CPU for one step of a run: the first draw of each seed's stream `step`."""
    return _normal(substreams(seeds, step), shape)
