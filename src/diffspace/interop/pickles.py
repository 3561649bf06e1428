"""A machine that reads pickles and executes nothing out of them.

A pickle is a program for a stack machine, and Python's own machine lets it call whatever it names. This one knows only
the instructions that build data. A name stands for a `StandIn` of ours or is refused; to call it, or to set a state,
reaches no other code. Work and memory are in proportion to the size of the file, whatever its bytes say: lengths are
checked against what is there, the memo is a dictionary, and what stand-ins decode is charged to a budget.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, no_type_check

__all__ = ["Budget", "Inert", "Refusal", "StandIn", "shown", "unpickle"]

_MOST_INSTRUCTIONS = 1_000_000
"""Many times what the largest network of the paper takes; a second or two."""
_LONGEST_INTEGER = 32


class Refusal(ValueError):
    """A pickle asks for what is not allowed, or is damaged."""


def shown(value: object) -> str:
    """A value out of a file, on one line and short: whoever wrote it may have nested it without end."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_shown, value[:6]))}{', ...' if len(value) > 6 else ''}]"
    return _shown(value)


def _shown(value: object) -> str:
    if not isinstance(value, str | int | float | None):
        return f"a {type(value).__name__}"
    return ascii(value if not isinstance(value, str) or len(value) <= 80 else value[:77] + "...")


@no_type_check
class Budget:
    """How much a file may make us do."""

    def __init__(self, size: int) -> None:
        self.instructions = _MOST_INSTRUCTIONS
        self.decoded = 4 * size + 1024

    def decode(self, count: int) -> None:
        """Charge the copying of so many bytes."""
        self.decoded -= count
        if self.decoded < 0:
            raise Refusal("decodes the same bytes again and again")

    def step(self) -> None:
        """Charge one instruction."""
        self.instructions -= 1
        if self.instructions < 0:
            raise Refusal(f"has more than {_MOST_INSTRUCTIONS} instructions")


@dataclass(frozen=True)
class StandIn:
    """What a name in a pickle stands for: a function of ours, called in place of the one that was meant."""

    call: Callable[..., Any]


@dataclass(eq=False)
class Inert:
    """An object of a foreign class: its name and what was its `__dict__`."""

    class_name: str
    state: dict[str, Any] = field(default_factory=dict)

    def build(self, state: Any) -> None:
        """Take over a state."""
        if type(state) is not dict:
            raise Refusal(f"gives {shown(self.class_name)} a state that is no dictionary")
        self.state.update(state)


def unpickle(
    buffer: memoryview,
    names: Mapping[tuple[str, str], StandIn],
    budget: Budget,
    *,
    start: int = 0,
    persistent: Callable[[Any], Any] | None = None,
) -> tuple[Any, int]:
    """The object that a pickle describes, and where the pickle ends in the buffer.

    `names` holds the names that may occur, as (module, name); `persistent` reads persistent ids, where there may be
    any. Bytes are given as views of the buffer. Refusal for anything else.
    """
    machine = _Machine(buffer, names, budget, start, persistent)
    try:
        return machine.run(), machine.position
    except Refusal:
        raise
    except (ArithmeticError, LookupError, TypeError, ValueError, struct.error) as error:
        raise Refusal(f"is damaged near byte {machine.position}: {type(error).__name__}") from None


@no_type_check  # of calls under test: they would take fifty times as long as the machine itself
class _Machine:
    def __init__(
        self,
        buffer: memoryview,
        names: Mapping[tuple[str, str], StandIn],
        budget: Budget,
        position: int,
        persistent: Callable[[Any], Any] | None,
    ) -> None:
        self.buffer, self.names, self.budget, self.position = buffer, names, budget, position
        self.persistent = persistent
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under each mark
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        while True:
            self.budget.step()
            code = self.unsigned(1)
            if code == _STOP:
                if self.below or len(self.stack) != 1:
                    raise Refusal("leaves something on its stack")
                return self.stack.pop()
            instruction = _INSTRUCTIONS.get(code)
            if instruction is None:
                raise Refusal(f"has the instruction {code:#04x} at byte {self.position - 1}, which is not allowed")
            instruction(self)

    # reading

    def take(self, count: int) -> memoryview:
        """The next bytes, as a view."""
        end = self.position + count
        if end > len(self.buffer):
            raise Refusal(f"is cut short: {count} bytes are announced at byte {self.position} of {len(self.buffer)}")
        view = self.buffer[self.position : end]
        self.position = end
        return view

    def unsigned(self, width: int) -> int:
        return int.from_bytes(self.take(width), "little")

    def signed(self, width: int) -> int:
        if width > _LONGEST_INTEGER:
            raise Refusal(f"has an integer of {width} bytes")
        return int.from_bytes(self.take(width), "little", signed=True)

    def text(self, count: int) -> str:
        return str(self.take(count), "utf-8", "surrogatepass")

    def line(self) -> str:
        window = bytes(self.buffer[self.position : self.position + 256])
        length = window.index(b"\n")
        self.position += length + 1
        return window[:length].decode()

    # the stack

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def to_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def tuple(self, count: int) -> None:
        items = [self.stack.pop() for _ in range(count)]
        self.push(tuple(reversed(items)))

    # containers

    def append(self, items: list[Any]) -> None:
        self.top(list).extend(items)

    def add(self, items: list[Any]) -> None:
        self.top(set).update(map(_key, items))

    def set_items(self, items: list[Any]) -> None:
        self.top(dict).update(zip(map(_key, items[::2]), items[1::2], strict=True))

    def top(self, kind: type) -> Any:
        target = self.stack[-1]
        if type(target) is not kind:
            raise Refusal(f"fills something that is no {kind.__name__}")
        return target

    # the memo

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    # what Python's machine would execute

    def name(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str or (module, name) not in self.names:
            wanted = f"{module}.{name}" if type(module) is type(name) is str else "something without a name"
            raise Refusal(f"asks for {shown(wanted)}, which is not allowed")
        self.push(self.names[module, name])

    def stack_name(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.name(module, name)

    def call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if type(function) is not StandIn or type(arguments) is not tuple:
            raise Refusal("calls something that is no function")
        self.push(function.call(*arguments))

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if not isinstance(target, Inert):
            raise Refusal(f"sets the state of a {type(target).__name__}")
        target.build(state)

    def persistent_id(self) -> None:
        if self.persistent is None:
            raise Refusal("has a persistent id")
        self.push(self.persistent(self.stack.pop()))


def _key(value: Any) -> str:
    # texts alone: the hashes of numbers can be made to collide, those of nested tuples to overflow the stack
    if type(value) is not str:
        raise Refusal(f"has a key that is no text: {type(value).__name__}")
    return value


_STOP = ord(".")
_INSTRUCTIONS: Mapping[int, Callable[[_Machine], object]] = {
    ord(code): instruction
    for code, instruction in {
        "\x80": lambda m: m.take(1),  # PROTO
        "\x95": lambda m: m.take(8),  # FRAME
        "(": _Machine.mark,
        "0": lambda m: m.stack.pop(),
        "1": _Machine.to_mark,
        "N": lambda m: m.push(None),
        "\x88": lambda m: m.push(True),
        "\x89": lambda m: m.push(False),
        "J": lambda m: m.push(m.signed(4)),
        "K": lambda m: m.push(m.unsigned(1)),
        "M": lambda m: m.push(m.unsigned(2)),
        "\x8a": lambda m: m.push(m.signed(m.unsigned(1))),
        "\x8b": lambda m: m.push(m.signed(m.unsigned(4))),
        "G": lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
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
        "\x93": _Machine.stack_name,
        "R": _Machine.call,
        "\x81": _Machine.call,  # NEWOBJ: of a class, which stands for a function here
        "b": _Machine.build,
        "Q": _Machine.persistent_id,
    }.items()
}
