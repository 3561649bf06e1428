"""A stack machine that reads pickles and executes nothing in them.

A pickle is a program, and Python's own machine calls any function that it names. This one has only the instructions
that build data, and looks names up in a table of our functions. The restricted machines of Python and torch crash or
hang on keys that an attacker chooses (nested tuples overflow the C stack, numbers have hashes that collide); here keys
are texts. Work and memory are proportional to the size of the file: what an instruction reads ends where the file does,
the memo is a dictionary, and a budget limits what functions and states copy.
"""

from __future__ import annotations

import io
import mmap
import pickletools
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any, no_type_check

_MAX_INSTRUCTIONS = 1_000_000
"""Several times the number in CIFAR-100 or the paper's largest network; one or two seconds. Large files may have more:
one for each `_BYTES_EACH` bytes."""
_BYTES_EACH = 256
_MAX_INTEGER_KEY = 2**31
_MAX_INTEGER_BITS = 256


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
        self.most = self.instructions = max(_MAX_INSTRUCTIONS, size // _BYTES_EACH)
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
            raise PickleError(f"has more than {self.most} instructions")


@no_type_check  # type checks of calls under test would take fifty times as long as the machine itself
class Machine:
    """Reads the pickles in a file one by one.

    The file must be in memory or mapped: such files do not reserve memory for bytes that they do not have. `names` maps
    (module, name) to a function or a value; `persistent` turns persistent ids into objects. With `integer_keys` small
    integers stay what they are as keys: below 2³¹ they are their own hashes, too short to collide in large numbers.
    """

    def __init__(
        self,
        file: io.BytesIO | mmap.mmap,
        names: Mapping[tuple[str, str], Any],
        budget: Budget,
        persistent: Callable[[Any], Any] | None = None,
        integer_keys: bool = False,
    ) -> None:
        self.file, self.names, self.budget, self.persistent = file, names, budget, persistent
        self.integer_keys = integer_keys

    def run(self) -> Any:
        """The object of the next pickle; PickleError if reading fails."""
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under each mark
        self.memo: dict[int, Any] = {}
        try:
            while (code := self.file.read(1)) != b".":
                self.budget.step()
                if not code:
                    raise PickleError("is cut short")
                if code not in _INSTRUCTIONS:
                    where = self.file.tell() - 1
                    raise PickleError(f"has the instruction {code[0]:#04x} at byte {where}, not allowed here")
                read, execute = _INSTRUCTIONS[code]
                execute(self, read(self.file))
            if self.below or len(self.stack) != 1:
                raise PickleError("leaves something on its stack")
            return self.stack.pop()
        except PickleError:
            raise
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError, struct.error) as error:
            raise PickleError(f"is damaged near byte {self.file.tell()}: {type(error).__name__}") from None

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def integer(self, value: int) -> None:
        if value.bit_length() > _MAX_INTEGER_BITS:
            raise PickleError(f"has an integer of {value.bit_length()} bits")
        self.push(value)

    def mark(self, _: None) -> None:
        self.below.append(self.stack)
        self.stack = []

    def to_mark(self, _: None = None) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def top(self, kind: type) -> Any:
        if type(self.stack[-1]) is not kind:
            raise PickleError(f"fills something that is not a {kind.__name__}")
        return self.stack[-1]

    def append(self, items: Sequence[Any]) -> None:
        self.top(list).extend(items)

    def add(self, items: list[Any]) -> None:
        self.top(set).update(map(self.key, items))

    def set_items(self, items: Sequence[Any]) -> None:
        self.top(dict).update(zip(map(self.key, items[::2]), items[1::2], strict=True))

    def key(self, value: Any) -> str | int:
        """A key as text: hashes of texts are random, those of numbers can collide, those of tuples recurse."""
        if type(value) is int:
            return value if self.integer_keys and 0 <= value < _MAX_INTEGER_KEY else str(value)
        if type(value) is not str:
            raise PickleError(f"has a {type(value).__name__} as a key")
        return value

    def pop(self, count: int) -> tuple[Any, ...]:
        """The last `count` values, in the order in which they were pushed."""
        return tuple([self.stack.pop() for _ in range(count)][::-1])

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def name(self, module: Any, name: Any) -> None:
        known = type(module) is type(name) is str
        if not known or (module, name) not in self.names:
            what = short_repr(f"{module}.{name}") if known else "something without a name"
            raise PickleError(f"asks for {what}, which is not allowed")
        self.push(self.names[module, name])

    def call(self, _: None) -> None:
        function, arguments = self.pop(2)
        # functions on the stack come only from the table of names
        if type(function) is not FunctionType or type(arguments) is not tuple:
            raise PickleError("calls something that is not a function")
        self.budget.copy(len(arguments))
        self.push(function(*arguments))

    def build(self, _: None) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Record):
            self.budget.copy(len(state))
            target.build(state)
        elif type(target) is not dict:  # the state of a dictionary, `_metadata` of a state dict, is dropped
            raise PickleError(f"sets the state of a {type(target).__name__}")

    def persistent_id(self, _: None) -> None:
        if self.persistent is None:
            raise PickleError("has a persistent id")
        self.push(self.persistent(self.stack.pop()))


# what each instruction does with its argument, under the names of `pickletools`
_EXECUTE: Mapping[str, Callable[[Machine, Any], object]] = {
    "PROTO FRAME": lambda m, _: None,
    "BININT BININT1 BININT2 BINFLOAT": Machine.push,
    "BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8": Machine.push,
    "LONG1 LONG4": Machine.integer,
    "BYTEARRAY8": lambda m, array: m.push(bytes(array)),
    # str of Python 2: short ones are texts, those of more than 255 characters are data
    "SHORT_BINSTRING": Machine.push,
    "BINSTRING": lambda m, text: m.push(text.encode("latin1")),
    "NONE": lambda m, _: m.push(None),
    "NEWTRUE": lambda m, _: m.push(True),
    "NEWFALSE": lambda m, _: m.push(False),
    "MARK": Machine.mark,
    "POP": lambda m, _: m.stack.pop(),
    "POP_MARK": Machine.to_mark,
    "EMPTY_LIST": lambda m, _: m.push([]),
    "APPEND": lambda m, _: m.append(m.pop(1)),
    "APPENDS": lambda m, _: m.append(m.to_mark()),
    "EMPTY_TUPLE": lambda m, _: m.push(()),
    "TUPLE1": lambda m, _: m.push(m.pop(1)),
    "TUPLE2": lambda m, _: m.push(m.pop(2)),
    "TUPLE3": lambda m, _: m.push(m.pop(3)),
    "TUPLE": lambda m, _: m.push(tuple(m.to_mark())),
    "EMPTY_DICT": lambda m, _: m.push({}),
    "SETITEM": lambda m, _: m.set_items(m.pop(2)),
    "SETITEMS": lambda m, _: m.set_items(m.to_mark()),
    "EMPTY_SET": lambda m, _: m.push(set()),
    "ADDITEMS": lambda m, _: m.add(m.to_mark()),
    "BINPUT LONG_BINPUT": Machine.put,
    "MEMOIZE": lambda m, _: m.put(len(m.memo)),
    "BINGET LONG_BINGET": lambda m, index: m.push(m.memo[index]),
    "GLOBAL": lambda m, names: m.name(*names.split(" ", 1)),
    "STACK_GLOBAL": lambda m, _: m.name(*m.pop(2)),
    "REDUCE NEWOBJ": Machine.call,  # the class of NEWOBJ is a function in the table of names
    "BUILD": Machine.build,
    "BINPERSID": Machine.persistent_id,
}
_BY_NAME = {name: execute for names, execute in _EXECUTE.items() for name in names.split()}
_INSTRUCTIONS: Mapping[bytes, tuple[Callable[[Any], Any], Callable[[Machine, Any], object]]] = {
    opcode.code.encode("latin1"): (opcode.arg.reader if opcode.arg else lambda file: None, _BY_NAME[opcode.name])
    for opcode in pickletools.opcodes
    if opcode.name in _BY_NAME
}
