"""The type checker that jaxtyping's import hook applies to diffspace in tests: an int passes for a float (PEP 484).

The checks cost more than what they check, and long loops repeat the same few calls: each test has its first calls
checked.
"""

import functools
from collections.abc import Callable
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype

CALLS = 500  # in one test

_left = CALLS


def restart() -> None:
    """Check the next `CALLS` calls."""
    global _left
    _left = CALLS
    jaxtyping.config.update("jaxtyping_disable", False)


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    checked = beartype(conf=BeartypeConf(is_pep484_tower=True))(function)

    @functools.wraps(function)
    def counted(*args: Any, **kwargs: Any) -> Any:
        global _left
        _left -= 1
        if _left < 0:
            jaxtyping.config.update("jaxtyping_disable", True)
        return checked(*args, **kwargs)

    return counted
