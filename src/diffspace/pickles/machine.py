"""A stack machine that reads pickles and executes nothing in them.

A pickle is a program, and Python's own machine calls any function that it names. This one has only the instructions
that build data, and looks names up in a table of our functions. The restricted machines of Python and torch crash or
hang on keys that an attacker chooses (nested tuples overflow the C stack, numbers have hashes that collide); here keys
are texts. Work and memory are proportional to the size of the file: lengths are checked against the file, the memo is a
dictionary, and a budget limits what functions copy.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any, no_type_check

_MAX_INSTRUCTIONS = 1_000_000
"""Several times the number in CIFAR-100 or the paper's largest network; one or two seconds."""
_MAX_INTEGER_BYTES = 32


class PickleError(ValueError):
    """A pickle is damaged or requires something that is not allowed."""


def short_repr(value: object) -> str:
    """A value from a file on one short line, without its nested parts."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_repr, value[:6]))}{', ...' if len(value) > 6 else ''}]"
    return _repr(value)


def _repr(value: object) -> str:
    if not isinstance(value, str | int | float | None):
        return f"a {type(value).__name__}"
    return ascii(value if not isinstance(value, str) or len(value) <= 80 else value[:77] + "...")


@dataclass(eq=False)
class Record:
    """An object of a class that is not loaded: the name of the class, and the object's `__dict__`."""

    class_name: str
    state: dict[str, Any] = field(default_factory=dict)

    def build(self, state: Any) -> None:
        """Set the state, as the instruction BUILD does."""
        if type(state) is not dict:
            raise PickleError(f"gives {short_repr(self.class_name)} a state that is not a dictionary")
        self.state.update(state)


@no_type_check
class Budget:
    """The limit on the work for a file of `size` bytes, shared by all machines that read it."""

    def __init__(self, size: int) -> None:
        self.instructions = _MAX_INSTRUCTIONS
        self.bytes = 4 * size + 1024

    def copy(self, count: int) -> None:
        """Charge the copying of `count` bytes."""
        self.bytes -= count
        if self.bytes < 0:
            raise PickleError("copies the same bytes again and again")

    def step(self) -> None:
        """Charge one instruction."""
        self.instructions -= 1
        if self.instructions < 0:
            raise PickleError(f"has more than {_MAX_INSTRUCTIONS} instructions")


@no_type_check  # type checks of calls under test would take fifty times as long as the machine itself
class Machine:
    """Reads the pickles in a buffer one by one; bytes become views of the buffer.

    `names` maps (module, name) to a function or a value; `persistent` turns persistent ids into objects.
    """

    def __init__(
        self,
        buffer: memoryview,
        names: Mapping[tuple[str, str], Any],
        budget: Budget,
        persistent: Callable[[Any], Any] | None = None,
    ) -> None:
        self.buffer, self.names, self.budget, self.persistent = buffer, names, budget, persistent
        self.position = 0

    def run(self) -> Any:
        """The object of the next pickle; PickleError if reading fails."""
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under each mark
        self.memo: dict[int, Any] = {}
        try:
            while (code := self.unsigned(1)) != _STOP:
                self.budget.step()
                instruction = _INSTRUCTIONS.get(code)
                if instruction is None:
                    raise PickleError(f"has the instruction {code:#04x} at byte {self.position - 1}, not allowed here")
                instruction(self)
            if self.below or len(self.stack) != 1:
                raise PickleError("leaves something on its stack")
            return self.stack.pop()
        except PickleError:
            raise
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError, struct.error) as error:
            raise PickleError(f"is damaged near byte {self.position}: {type(error).__name__}") from None

    # reading

    def take(self, count: int) -> memoryview:
        """The next bytes, as a view."""
        end = self.position + count
        if end > len(self.buffer):
            raise PickleError(f"is cut short: expected {count} bytes at byte {self.position} of {len(self.buffer)}")
        view = self.buffer[self.position : end]
        self.position = end
        return view

    def unsigned(self, width: int) -> int:
        return int.from_bytes(self.take(width), "little")

    def signed(self, width: int) -> int:
        if width > _MAX_INTEGER_BYTES:
            raise PickleError(f"has an integer of {width} bytes")
        return int.from_bytes(self.take(width), "little", signed=True)

    def text(self, count: int) -> str:
        return str(self.take(count), "utf-8", "surrogatepass")

    def line(self) -> str:
        window = bytes(self.buffer[self.position : self.position + 256])
        length = window.index(b"\n")
        self.position += length + 1
        return window[:length].decode()

    # instructions

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def to_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def top(self, kind: type) -> Any:
        if type(self.stack[-1]) is not kind:
            raise PickleError(f"fills something that is not a {kind.__name__}")
        return self.stack[-1]

    def append(self, items: list[Any]) -> None:
        self.top(list).extend(items)

    def add(self, items: list[Any]) -> None:
        self.top(set).update(map(_key, items))

    def set_items(self, items: list[Any]) -> None:
        self.top(dict).update(zip(map(_key, items[::2]), items[1::2], strict=True))

    def tuple(self, count: int) -> None:
        items = [self.stack.pop() for _ in range(count)]
        self.push(tuple(reversed(items)))

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def name(self, module: Any, name: Any) -> None:
        known = type(module) is type(name) is str
        if not known or (module, name) not in self.names:
            what = short_repr(f"{module}.{name}") if known else "something without a name"
            raise PickleError(f"asks for {what}, which is not allowed")
        self.push(self.names[module, name])

    def call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        # functions on the stack come only from the table of names
        if type(function) is not FunctionType or type(arguments) is not tuple:
            raise PickleError("calls something that is not a function")
        self.push(function(*arguments))

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Record):
            target.build(state)
        elif type(target) is not dict:  # the state of a dictionary, `_metadata` of a state dict, is dropped
            raise PickleError(f"sets the state of a {type(target).__name__}")

    def persistent_id(self) -> None:
        if self.persistent is None:
            raise PickleError("has a persistent id")
        self.push(self.persistent(self.stack.pop()))


def _key(value: Any) -> str:
    """A key as text: hashes of texts are random, those of numbers can be made to collide, those of tuples recurse."""
    if type(value) is int:
        return str(value)
    if type(value) is not str:
        raise PickleError(f"has a {type(value).__name__} as a key")
    return value


_STOP = ord(".")
_INSTRUCTIONS: Mapping[int, Callable[[Machine], object]] = {
    ord(code): instruction
    for code, instruction in {
        "\x80": lambda m: m.take(1),  # PROTO
        "\x95": lambda m: m.take(8),  # FRAME
        "(": Machine.mark,
        "0": lambda m: m.stack.pop(),
        "1": Machine.to_mark,
        "N": lambda m: m.push(None),
        "\x88": lambda m: m.push(True),
        "\x89": lambda m: m.push(False),
        "J": lambda m: m.push(m.signed(4)),
        "K": lambda m: m.push(m.unsigned(1)),
        "M": lambda m: m.push(m.unsigned(2)),
        "\x8a": lambda m: m.push(m.signed(m.unsigned(1))),
        "\x8b": lambda m: m.push(m.signed(m.unsigned(4))),
        "G": lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
        "U": lambda m: m.push(str(m.take(m.unsigned(1)), "latin1")),  # str of Python 2: short ones are texts,
        "T": lambda m: m.push(m.take(m.unsigned(4))),  # those of more than 255 characters are data
        "X": lambda m: m.push(m.text(m.unsigned(4))),
        "\x8c": lambda m: m.push(m.text(m.unsigned(1))),
        "\x8d": lambda m: m.push(m.text(m.unsigned(8))),
        "B": lambda m: m.push(m.take(m.unsigned(4))),
        "C": lambda m: m.push(m.take(m.unsigned(1))),
        "\x8e": lambda m: m.push(m.take(m.unsigned(8))),
        "\x96": lambda m: m.push(m.take(m.unsigned(8))),
        "]": lambda m: m.push([]),
        "a": lambda m: m.append([m.stack.pop()]),
        "e": lambda m: m.append(m.to_mark()),
        ")": lambda m: m.tuple(0),
        "\x85": lambda m: m.tuple(1),
        "\x86": lambda m: m.tuple(2),
        "\x87": lambda m: m.tuple(3),
        "t": lambda m: m.push(tuple(m.to_mark())),
        "}": lambda m: m.push({}),
        "s": lambda m: m.set_items([m.stack.pop(), m.stack.pop()][::-1]),
        "u": lambda m: m.set_items(m.to_mark()),
        "\x8f": lambda m: m.push(set()),
        "\x90": lambda m: m.add(m.to_mark()),
        "q": lambda m: m.put(m.unsigned(1)),
        "r": lambda m: m.put(m.unsigned(4)),
        "\x94": lambda m: m.put(len(m.memo)),
        "h": lambda m: m.push(m.memo[m.unsigned(1)]),
        "j": lambda m: m.push(m.memo[m.unsigned(4)]),
        "c": lambda m: m.name(m.line(), m.line()),
        "\x93": lambda m: m.name(*[m.stack.pop(), m.stack.pop()][::-1]),
        "R": Machine.call,
        "\x81": Machine.call,  # NEWOBJ, whose class is a function in the table of names
        "b": Machine.build,
        "Q": Machine.persistent_id,
    }.items()
}
