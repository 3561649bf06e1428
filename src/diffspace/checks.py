"""Checks of arguments: each raises a ValueError that names the argument, what is expected and what was given."""

from __future__ import annotations

import difflib
import importlib
import math
import operator
import re
from collections.abc import Collection, Iterable, Sequence
from numbers import Real
from typing import Any, get_args

_UNPRINTABLE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

# what people call these keys elsewhere, in one spelling
_ALSO_CALLED = {
    "lr": "learning_rate",
    "batch": "batch_size",
    "bs": "batch_size",
    "epoch": "epochs",
    "ema": "ema_halflife_images",
    "gradclip": "max_grad_norm",
    "gradnorm": "max_grad_norm",
    "clip": "max_grad_norm",
    "warmup": "ramp_images",
    "duration": "images",
    "steps": "images",
    "amp": "precision",
    "fp16": "precision",
    "bf16": "precision",
    "channels": "model_channels",
    "cond": "conditional",
    "pmean": "P_mean",
    "pstd": "P_std",
}


def nearest(name: str, known: Iterable[str]) -> str:
    """A phrase for an error message: the known name that is meant by `name` or most similar, and all known names."""
    names = sorted(known)
    if not names:
        return "there are none"
    also = _ALSO_CALLED.get(re.sub(r"[\W_]", "", name).lower())
    close = [also] if also in names else difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}known: {', '.join(names)}"


def check_number(name: str, value: object, interval: str = "(-inf, inf)") -> None:
    """Check that `value` is a number in `interval`, written as in mathematics: "(0, 1]", "[0, inf)".

    A parenthesis excludes its bound, a bracket includes it; NaN is in no interval, and a bool is not a number.
    """
    low, high = (float(bound) for bound in interval[1:-1].split(","))
    if not isinstance(value, bool) and isinstance(value, Real):
        try:
            x = float(value)
        except OverflowError:  # of an integer beyond 1e308
            x = -math.inf if value < 0 else math.inf
        above = x > low if interval[0] == "(" else x >= low
        below = x < high if interval[-1] == ")" else x <= high
        if above and below:
            return
    raise ValueError(f"{name}: expected a number in {interval}, got {value!r}")


def check_range(name: str, value: Any) -> tuple[float, float] | None:
    """None, or (low, high) with 0 < low < high < ∞."""
    if value is None:
        return None
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError(f"{name}: expected two numbers, got {value!r}")
    check_number(name, value[0], "(0, inf)")
    check_number(name, value[1], f"({value[0]}, inf)")
    return float(value[0]), float(value[1])


def check_integer(name: str, value: object, minimum: int, maximum: int | None = None) -> None:
    """Check that `value` is an int (not a bool) from `minimum` to `maximum`."""
    most = math.inf if maximum is None else maximum
    if isinstance(value, int) and not isinstance(value, bool) and minimum <= value <= most:
        return
    span = f"of at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"
    raise ValueError(f"{name}: expected an integer {span}, got {value!r}")


LAST_SEED = 2**32 - 1
"""torch's generator on a CPU reads 32 bits of a seed: greater and negative seeds would repeat the streams of others."""


def check_seed(name: str, value: object) -> None:
    """Check that `value` is a seed, an int from 0 to 2³² − 1."""
    check_integer(name, value, 0, LAST_SEED)


def check_seeds(values: object, name: str = "seeds") -> tuple[int, ...]:
    """The seeds as a tuple; `values` is a sequence, array or tensor of integers from 0 to 2³² − 1."""
    values = values.tolist() if hasattr(values, "tolist") else values
    if not isinstance(values, Sequence) or isinstance(values, str | bytes):
        raise ValueError(f"{name}: expected a sequence of integers such as range(16), got {type(values).__name__}")
    seeds = []
    for value in values:
        try:
            seed = value if isinstance(value, bool) else operator.index(value)
        except TypeError:
            seed = value
        check_seed(name, seed)
        seeds.append(seed)
    return tuple(seeds)


def as_tuple(name: str, values: Any) -> tuple[Any, ...]:
    """The numbers of a sequence, an array or a tensor; ValueError for a single one, or a text."""
    found = values.tolist() if hasattr(values, "tolist") else values
    if not isinstance(found, Iterable) or isinstance(found, str | bytes):
        raise ValueError(f"{name}: expected a sequence of numbers, got {values!r}")
    return tuple(found)


def check_choice(name: str, value: object, allowed: Any) -> None:
    """Check that `value` is one of `allowed`, a collection or a `Literal`."""
    choices: Collection[object] = get_args(allowed) or allowed
    if value not in choices:
        *others, last = (repr(choice) for choice in choices)
        text = f"{', '.join(others)} or {last}" if others else last
        raise ValueError(f"{name}: expected {text}, got {value!r}")


def check_type(name: str, value: object, kind: type) -> None:
    """Check that `value` is an instance of `kind`."""
    if not isinstance(value, kind):
        got = repr(value)
        raise ValueError(f"{name}: expected {kind.__name__}(…), got {type(value).__name__ if chr(10) in got else got}")


def check_callable(name: str, value: object, form: str) -> None:
    """Check that `value` is callable; `form` shows the call in the message, such as "D(x, sigma, cond)"."""
    if not callable(value):
        raise ValueError(f"{name}: expected a callable {form}, got {type(value).__name__}")


MOST_LEVELS = 100_000
"""Steps, levels, and other things of which a number makes a list: more than any method needs, made in a second."""

_TOO_MUCH = (
    *("out of memory", "can't allocate memory"),  # CUDA and MPS; torch's allocator on a CPU
    *("could not create a primitive", "could not create a memory"),  # oneDNN, which does not say what it lacked
    *("storage size calculation overflowed", "invalid buffer size"),  # more than any memory
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory, of whatever device, is what was missing; of torch's errors most are RuntimeErrors."""
    text = str(error).lower()
    known = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return known or (isinstance(error, RuntimeError) and any(words in text for words in _TOO_MUCH))


def first_line(error: BaseException) -> str:
    """What went wrong, in one line that is never empty: the first of an error's message, or what its type says."""
    text = next(iter(str(error).splitlines()), "")
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if is_out_of_memory(error) and (isinstance(error, RuntimeError) or text in ("", "std::bad_alloc")):
        size = re.search(r"allocate (\d[\d.]* ?\w+)", text)
        return f"out of memory{f', for {size[1]}' if size else ''}"
    if isinstance(error, KeyError):
        return f"there is no {text}"
    return text or f"{type(error).__name__} without a message"


def one_line(error: BaseException) -> str:
    """The whole of an error's message in one line, which is never empty."""
    return " ".join(str(error).split()) or first_line(error)


class MissingPackageError(ValueError):
    """An optional package is not installed."""


def require_package(name: str, purpose: str) -> Any:
    """Import an optional package; the ValueError says how to install it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        text = f"{purpose} requires the package {name}, which is not installed: pip install {name}"
        raise MissingPackageError(text) from None


def printable(text: str) -> str:
    """Text without what a terminal obeys (control characters, changes of direction) or cannot encode: escaped."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)
