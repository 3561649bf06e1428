"""From words on the command line to the objects of the library."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

from edmkit._shapes import Int, Tensor
from edmkit.registry import from_config, nearest, read_config

__all__ = ["parse_classes", "parse_seeds", "spec"]


def parse_seeds(text: str) -> list[int]:
    """`0-63,100` as the seeds 0 to 63 and 100."""
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        if match is None:
            raise ValueError(f"--seeds: {text!r}; want numbers and ranges such as 0-63,100")
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


def spec(family: str, text: str, options: Mapping[str, Any]) -> Any:
    """The object that `kind` or `kind:option=value,…` names, with those of `options` that were given too.

    An option that the kind does not have is an error, and so is one that is given twice.
    """
    config = read_config(family, text)
    given = {name: value for name, value in options.items() if value is not None}
    twice = sorted(config.keys() & given.keys())
    if twice:
        raise ValueError(f"{family}.{twice[0]}: is given in {text!r} and as an option of its own")
    return from_config(family, config | given)
