"""Checks of arguments: what passes, and the words of what does not."""

import math
import re
from typing import Literal

import pytest

from diffspace.checks import check_callable, check_choice, check_integer, check_number, nearest, require_package


@pytest.mark.parametrize(
    ("value", "interval"), [(1, "(0, 1]"), (0.0, "[0, inf)"), (math.inf, "(0, inf]"), (-3, "(-inf, inf)")]
)
def test_numbers_in_an_interval(value, interval):
    check_number("alpha", value, interval)


@pytest.mark.parametrize(
    ("value", "interval"),
    [
        (0, "(0, 1]"),
        (1.5, "(0, 1]"),
        (math.nan, "(-inf, inf)"),
        (math.inf, "[0, inf)"),
        (True, "[0, 1]"),
        ("1", "[0, 2]"),
    ],
)
def test_numbers_outside(value, interval):
    with pytest.raises(ValueError, match=f"^{re.escape(f'alpha: expected a number in {interval}, got {value!r}')}$"):
        check_number("alpha", value, interval)


def test_integers():
    check_integer("k", 3, 1, 6)
    check_integer("n", 10**9, 1)
    for value in (0, 7, 2.0, True, None):
        with pytest.raises(ValueError, match=r"^k: expected an integer from 1 to 6, got "):
            check_integer("k", value, 1, 6)
    with pytest.raises(ValueError, match=r"^n: expected an integer of at least 1, got 0$"):
        check_integer("n", 0, 1)


def test_choices():
    check_choice("kind", "a", Literal["a", "b"])
    with pytest.raises(ValueError, match=r"^kind: expected 'a', 'b' or 'c', got 'd'$"):
        check_choice("kind", "d", ("a", "b", "c"))


def test_callables():
    check_callable("f", len, "f(x)")
    with pytest.raises(ValueError, match=r"^f: expected a callable f\(x\), got int$"):
        check_callable("f", 3, "f(x)")


def test_nearest_names_the_likeliest_and_all():
    assert nearest("huen", ["heun", "euler"]) == "did you mean 'heun'? known: euler, heun"


def test_a_missing_package():
    assert require_package("math", "x") is math
    with pytest.raises(ValueError, match="pip install no_such_package"):
        require_package("no_such_package", "reading it")
