"""From words on the command line to the objects of the library."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from diffspace._shapes import Int, Tensor
from diffspace.checks import check_integer, nearest

if TYPE_CHECKING:
    from diffspace.model import Model


def check_positive(option: str, value: int | None) -> None:
    """ValueError for a number below 1."""
    if value is not None:
        check_integer(option, value, 1)


def parse_seeds(text: str) -> list[int]:
    """`0-63,100` as the seeds 0 to 63 and 100."""
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        if match is None:
            raise ValueError(f"--seeds: expected numbers and ranges such as 0-63,100, got {text!r}")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError(f"--seeds: the range {part.strip()!r} runs backward")
        seeds.extend(range(first, last + 1))
    return seeds


def parse_classes(text: str, names: tuple[str, ...], count: int) -> Int[Tensor, "batch"]:
    """A class, or several that are dealt round in turn, as `count` indices; by name or by index."""
    if not names:
        raise ValueError("--class: the model was trained without classes")
    indices = []
    for word in (part.strip() for part in text.split(",")):
        if word in names:
            indices.append(names.index(word))
        elif word.isdecimal() and int(word) < len(names):
            indices.append(int(word))
        else:
            raise ValueError(f"--class: {word!r} is unknown; {nearest(word, names)}")
    return torch.tensor(indices).repeat(-(-count // len(indices)))[:count]


def choose_labels(model: Model, classes: str | None, seeds: Sequence[int]) -> Int[Tensor, "batch"] | None:
    """The classes that were named, else random ones by seed; None for a model without classes."""
    from diffspace.sampling import random_labels

    if classes is not None:
        return parse_classes(classes, model.class_names, len(seeds))
    return random_labels(seeds, model.sample_shape, len(model.class_names)) if model.class_names else None


def parse_budgets(text: str) -> list[int]:
    """`5,8,10` as numbers of evaluations, rising, each once."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise ValueError(f"--nfe: expected numbers of evaluations such as 5,8,10, got {text!r}")
    return sorted({int(word) for word in words})
