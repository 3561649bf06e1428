"""Checks of options: ValueErrors that name the option, its value and what is allowed."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["one_of", "real_number", "whole_number"]


def one_of(name: str, value: object, allowed: Sequence[object]) -> None:
    if value not in allowed:
        wanted = ", ".join(repr(choice) for choice in allowed if choice is not None)
        raise ValueError(f"{name}: {value!r}; want one of {wanted}")


def whole_number(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}: {value!r}; want a whole number of at least {least}")


def real_number(name: str, value: object, least: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < least:
        raise ValueError(f"{name}: {value!r}; want a finite number of at least {least:g}")
