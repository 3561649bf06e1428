"""Checks of what the user asks for: ValueErrors that name it, and say what is allowed."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from typing import Any

__all__ = ["one_of", "package", "real_number", "whole_number"]


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


def package(name: str, purpose: str) -> Any:
    """A package that is not needed but for this purpose."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise ValueError(f"{purpose}: needs the package {name}, which is not installed: pip install {name}") from None
