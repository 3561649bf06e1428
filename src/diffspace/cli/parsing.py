"""From words on the command line to the objects of the library."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

from diffspace._shapes import Int, Tensor
from diffspace.registry import from_config, nearest
from diffspace.spelling import split_text

__all__ = ["parse_budgets", "parse_classes", "parse_seeds", "spec"]


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


def parse_budgets(text: str) -> list[int]:
    """`5,8,10` as numbers of evaluations, rising, each once."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise ValueError(f"--nfe: {text!r}; want numbers of evaluations such as 5,8,10")
    return sorted({int(word) for word in words})


def spec(family: str, text: str, options: Mapping[str, Any]) -> Any:
    """The object of a kind with those options that were given, in the word itself (`heun:alpha=0.5`) or apart.

    An option that the kind does not have is an error, and so is one that is given in both places.
    """
    kind, written = split_text(family, text)
    given = {name: value for name, value in options.items() if value is not None}
    twice = sorted(set(written) & set(given))
    if twice:
        raise ValueError(f"{family}: {text!r} has {', '.join(twice)}, which stands apart too; give it once")
    return from_config(family, {"kind": kind, **written, **given})
