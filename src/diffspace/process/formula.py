"""σ(t) and s(t) typed as formulas of t: a small arithmetic grammar with exact derivatives, which executes nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from diffspace._shapes import Tensor
from diffspace.process.schedules import CallableScaling, CallableSchedule, NoScaling
from diffspace.protocols import Real

_LONGEST, _DEEPEST = 500, 40
_TOKEN = re.compile(
    r"(?P<number>(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)|(?P<name>[a-zπ]+)|(?P<sign>\*\*|[-+*/^()√])|(?P<end>$)"
)
_SPELLINGS = str.maketrans({"−": "-", "×": "*", "·": "*", "÷": "/", "²": "^2", "³": "^3"})
_CONSTANTS = {"pi": math.pi, "π": math.pi, "e": math.e}
_GRAMMAR = "numbers, t, pi, e, + - * / ^, parentheses, exp, log, sqrt, sin, cos, tan and tanh"

Evaluation = Callable[[Any, Any], Any]  # of the module with the functions, torch or math, and t


class _Node(NamedTuple):
    """A part of a formula: its value and its derivative, and whether t has no effect on it."""

    value: Evaluation
    slope: Evaluation
    constant: bool = False


# the functions, and the derivative of each by its argument
_FUNCTIONS: dict[str, tuple[Evaluation, Evaluation]] = {
    "exp": (lambda m, a: m.exp(a), lambda m, a: m.exp(a)),
    "log": (lambda m, a: m.log(a), lambda m, a: 1 / a),
    "sqrt": (lambda m, a: m.sqrt(a), lambda m, a: 0.5 / m.sqrt(a)),
    "sin": (lambda m, a: m.sin(a), lambda m, a: m.cos(a)),
    "cos": (lambda m, a: m.cos(a), lambda m, a: -m.sin(a)),
    "tan": (lambda m, a: m.tan(a), lambda m, a: 1 + m.tan(a) ** 2),
    "tanh": (lambda m, a: m.tanh(a), lambda m, a: 1 - m.tanh(a) ** 2),
}
_FUNCTIONS["ln"] = _FUNCTIONS["log"]


def _constant(number: float) -> _Node:
    return _Node(lambda m, t: 0 * t + number, lambda m, t: 0 * t, True)


def _sum(a: _Node, b: _Node, sign: int) -> _Node:
    return _Node(
        lambda m, t: a.value(m, t) + sign * b.value(m, t),
        lambda m, t: a.slope(m, t) + sign * b.slope(m, t),
        a.constant and b.constant,
    )


def _product(a: _Node, b: _Node) -> _Node:
    return _Node(
        lambda m, t: a.value(m, t) * b.value(m, t),
        lambda m, t: a.slope(m, t) * b.value(m, t) + a.value(m, t) * b.slope(m, t),
        a.constant and b.constant,
    )


def _quotient(a: _Node, b: _Node) -> _Node:
    return _Node(
        lambda m, t: a.value(m, t) / b.value(m, t),
        lambda m, t: (a.slope(m, t) - a.value(m, t) / b.value(m, t) * b.slope(m, t)) / b.value(m, t),
        a.constant and b.constant,
    )


def _power(a: _Node, b: _Node) -> _Node:
    def value(m: Any, t: Any) -> Any:
        return a.value(m, t) ** b.value(m, t)

    def slope(m: Any, t: Any) -> Any:
        base, exponent = a.value(m, t), b.value(m, t)
        by_base = exponent * base ** (exponent - 1) * a.slope(m, t)
        if b.constant:
            return by_base
        return by_base + base**exponent * m.log(base) * b.slope(m, t)

    return _Node(value, slope, a.constant and b.constant)


def _applied(name: str, a: _Node) -> _Node:
    function, derivative = _FUNCTIONS[name]
    return _Node(
        lambda m, t: function(m, a.value(m, t)), lambda m, t: derivative(m, a.value(m, t)) * a.slope(m, t), a.constant
    )


class _Parser:
    """sum: product (± product)*; product: factor ((* | /)? factor)*; factor: ± factor, or √* atom (^ factor)?."""

    def __init__(self, name: str, text: str) -> None:
        self.name, self.text = name, text.translate(_SPELLINGS)
        self.place = self.depth = 0
        self.kind = self.token = ""
        self.advance()

    def fail(self, what: str) -> ValueError:
        shown = self.text if len(self.text) <= 60 else self.text[:57] + "..."
        return ValueError(f"{self.name}: {what} in the formula {shown!r}; it may have {_GRAMMAR}")

    def advance(self) -> str:
        """Go to the next token, and return the one that was left."""
        left = self.token
        self.place += len(self.text[self.place :]) - len(self.text[self.place :].lstrip())
        found = _TOKEN.match(self.text, self.place)
        if found is None:
            raise self.fail(f"unexpected {self.text[self.place]!r} at character {self.place + 1}")
        self.kind, self.token, self.place = str(found.lastgroup), found[0], found.end()
        return left

    def parse(self) -> _Node:
        node = self.sum()
        if self.kind != "end":
            raise self.fail(f"unexpected {self.token!r} before character {self.place + 1}")
        return node

    def sum(self) -> _Node:
        node = self.product()
        while self.token in ("+", "-"):
            sign = 1 if self.advance() == "+" else -1
            node = _sum(node, self.product(), sign)
        return node

    def product(self) -> _Node:
        node = self.factor()
        while self.token in ("*", "/", "(", "√") or self.kind in ("number", "name"):
            if self.token == "/":
                self.advance()
                node = _quotient(node, self.factor())
                continue
            if self.token == "*":
                self.advance()
            node = _product(node, self.factor())
        return node

    def factor(self) -> _Node:
        self.deeper()
        if self.token in ("+", "-"):
            sign = -1.0 if self.advance() == "-" else 1.0
            node = _product(_constant(sign), self.factor())
        else:
            node = self.atom()
            if self.token in ("^", "**"):
                self.advance()
                node = _power(node, self.factor())
        self.depth -= 1
        return node

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise self.fail(f"more than {_DEEPEST} levels of nesting")

    def atom(self) -> _Node:
        kind, token = self.kind, self.token
        if token == "√":
            self.advance()
            self.deeper()
            node = _applied("sqrt", self.atom())
            self.depth -= 1
            return node
        if kind == "number":
            return _constant(float(self.advance()))
        if token == "(" or token in _FUNCTIONS:
            if token != "(":
                self.advance()
                if self.token != "(":
                    raise self.fail(f"expected '(' after {token!r}")
            self.advance()
            inside = self.sum()
            if self.token != ")":
                raise self.fail("a '(' that is not closed")
            self.advance()
            return inside if token == "(" else _applied(token, inside)
        if token == "t":
            self.advance()
            return _Node(lambda m, t: t, lambda m, t: 0 * t + 1.0)
        if token in _CONSTANTS:
            return _constant(_CONSTANTS[self.advance()])
        if kind == "end":
            raise self.fail("something is missing at the end")
        raise self.fail(f"unexpected {token!r}")


@dataclass(frozen=True)
class Formula:
    """A function of t typed as text, such as `t^2`, `1/(1 + t)` or `sqrt(exp(10 t^2) - 1)`.

    It may have numbers, t, pi, e, + − × ÷ ^ (also * / **), parentheses, exp, log, sqrt, sin, cos, tan and tanh; a sign
    of multiplication may be left out. Values and derivatives are exact, on floats and tensors; where there is none, as
    of log(t) at 0, they are not finite. `name` begins the messages of its ValueErrors.
    """

    text: str
    name: str = field(default="formula", compare=False)
    _node: _Node = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise ValueError(f"{self.name}: expected a formula as text, got {self.text!r}")
        if len(self.text) > _LONGEST:
            raise ValueError(f"{self.name}: expected at most {_LONGEST} characters, got {len(self.text)}")
        object.__setattr__(self, "_node", _Parser(self.name, self.text).parse())

    def __call__(self, t: Real) -> Real:
        return _finish(self._node.value, t)

    def derivative(self, t: Real) -> Real:
        """The derivative by t."""
        return _finish(self._node.slope, t)

    def __reduce__(self) -> tuple[Any, ...]:
        return Formula, (self.text, self.name)


def _finish(evaluation: Evaluation, t: Real) -> Real:
    """The value at t; NaN where Python would raise an error or leave the real numbers."""
    if isinstance(t, Tensor):
        result: Tensor = evaluation(torch, t)
        return result
    try:
        value = evaluation(math, float(t))
        return value if isinstance(value, float) else math.nan
    except (ArithmeticError, ValueError):
        return math.nan


@dataclass(frozen=True)
class FormulaSchedule:
    """σ(t) as the text of a `Formula`, increasing from σ(0) = 0, for times up to `t_max` if it is given.

    Unlike `CallableSchedule` it has a place in recipes, model folders and on the command line:
    `--schedule formula:text=t^2`.
    """

    text: str
    t_max: float | None = None
    scaling = NoScaling()
    _schedule: CallableSchedule = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_schedule", CallableSchedule(Formula(self.text, "sigma"), self.t_max))

    def sigma(self, t: Real) -> Real:
        return self._schedule.sigma(t)

    def sigma_dot(self, t: Real) -> Real:
        return self._schedule.sigma_dot(t)

    def sigma_inv(self, sigma: Real) -> Real:
        return self._schedule.sigma_inv(sigma)


@dataclass(frozen=True)
class FormulaScaling:
    """s(t) as the text of a `Formula`, positive everywhere: `--scaling formula:text=1/(1+t)`."""

    text: str
    _scaling: CallableScaling = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_scaling", CallableScaling(Formula(self.text, "s")))

    def s(self, t: Real, sigma: Real) -> Real:
        return self._scaling.s(t, sigma)

    def s_dot(self, t: Real, sigma: Real, sigma_dot: Real) -> Real:
        return self._scaling.s_dot(t, sigma, sigma_dot)
