"""What the names in pickles of networks stand for: containers, tensors, numbers of NumPy, foreign objects."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from diffspace._shapes import Tensor
from diffspace.interop.pickles import Budget, Inert, Refusal, StandIn, shown, unpickle

__all__ = ["stand_ins"]

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
"""How torch.save begins, in the format before zip files, which tensors in a pickle still have."""

_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_NUMBERS = {
    "f2": "e",
    "f4": "f",
    "f8": "d",
    "i1": "b",
    "i2": "h",
    "i4": "i",
    "i8": "q",
    "u1": "B",
    "u2": "H",
    "u4": "I",
    "u8": "Q",
    "b1": "?",
}
"""The types of NumPy that hold plain numbers, as `struct` calls them."""


@dataclass(frozen=True)
class _Storage:
    """The elements of tensors, as one flat tensor."""

    elements: Tensor


class _DType(Inert):
    """A type of NumPy's, of plain numbers only."""

    def build(self, state: Any) -> None:
        if type(state) is not tuple or len(state) < 5 or state[1] not in ("<", ">", "|", "="):
            raise Refusal("has a numpy.dtype of an unknown form")
        if any(part is not None for part in state[2:5]):
            raise Refusal("has a numpy.dtype with fields")
        self.state["order"] = {"|": "<", "=": "<"}.get(state[1], state[1])

    def number(self, data: Any) -> Any:
        """The one number in some bytes."""
        return struct.unpack(self.state.get("order", "<") + _NUMBERS[self.class_name], data)[0]


class _Array(Inert):
    """An array of NumPy's, whose values no network needs."""

    def build(self, state: Any) -> None:
        if type(state) is not tuple or len(state) != 5:
            raise Refusal("has a numpy.ndarray of an unknown form")
        self.fill(state[4], state[2])

    def fill(self, data: Any, dtype: Any) -> None:
        """Check what it would be made of."""
        if not isinstance(dtype, _DType) or not isinstance(data, memoryview | bytes):
            raise Refusal("has a numpy.ndarray of something else than plain numbers")


def _dtype(name: Any = None, *_: Any) -> _DType:
    if type(name) is not str or name not in _NUMBERS:  # a nested tuple has no bounded hash
        raise Refusal(f"has a numpy.dtype {shown(name)}; want one of {', '.join(_NUMBERS)}")
    return _DType(name)


def _scalar(dtype: Any = None, data: Any = None) -> Any:
    if not isinstance(dtype, _DType):
        raise Refusal("has a number of NumPy without its type")
    return dtype.number(data)


def _from_buffer(data: Any = None, dtype: Any = None, *_: Any) -> _Array:
    array = _Array("ndarray")
    array.fill(data, dtype)
    return array


def _persistent_object(meta: Any = None) -> Inert:
    """An object that was pickled with the source of its class. The source is left alone."""
    if type(meta) is not dict or meta.get("type") != "class" or meta.get("version") != 6:
        raise Refusal("has a persistent object of an unknown version; want version 6")
    class_name, state = meta.get("class_name"), meta.get("state")
    if type(class_name) is not str or type(state) is not dict:
        raise Refusal("has a persistent object without class_name and state")
    return Inert(class_name, state)


def _rebuild_parameter(data: Any = None, *_: Any) -> Tensor:
    if not isinstance(data, Tensor):
        raise Refusal("has a parameter that is no tensor")
    return data


def _constructor(make: Callable[[], Any], what: str) -> StandIn:
    """Makes an empty thing: what is in it comes after."""

    def call(*arguments: Any) -> Any:
        if arguments:
            raise Refusal(f"makes {what} of arguments")
        return make()

    return StandIn(call)


def _set(items: Any = ()) -> set[str]:
    if type(items) not in (list, tuple) or not all(type(item) is str for item in items):
        raise Refusal("has a set of something else than texts")
    return set(items)


def _inert(class_name: str) -> StandIn:
    return _constructor(lambda: Inert(class_name), class_name)


def stand_ins(budget: Budget) -> Mapping[tuple[str, str], StandIn]:
    """The names that pickles of networks may have, and what they stand for here."""

    def encode(text: Any = None, encoding: Any = None) -> memoryview:
        """Bytes, as protocol 2 writes them."""
        if type(text) is not str or encoding != "latin1":
            raise Refusal("encodes something else than bytes")
        budget.decode(len(text))
        return memoryview(text.encode("latin1"))

    def load_storage(data: Any = None) -> _Storage:
        """A storage out of what torch.save wrote."""
        if not isinstance(data, memoryview):
            raise Refusal("has a storage that is not made of bytes")
        budget.decode(len(data))
        return _read_storage(data, budget)

    def rebuild_tensor(*arguments: Any) -> Tensor:
        """A tensor from its storage, offset, size and stride."""
        storage, offset, size, stride = arguments[:4]
        numbers = (offset, *size, *stride)
        if (
            type(storage) is not _Storage
            or not all(type(n) is int and n >= 0 for n in numbers)
            or len(size) != len(stride)
        ):
            raise Refusal("has a tensor of an unknown form")
        count, held = math.prod(size), storage.elements.numel()
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        # a stride of 0 would make a small storage a tensor without end
        if count > held or (count and last >= held):
            raise Refusal(f"has a tensor of size {shown(size)} in a storage of {held} elements")
        budget.decode(count * storage.elements.itemsize)  # for many tensors may share a storage
        return storage.elements.as_strided(size, stride, offset)

    def reconstruct(cls: Any = None, *_: Any) -> _Array:
        if cls is not names["numpy", "ndarray"]:
            raise Refusal("makes an array of a class that is not numpy.ndarray")
        return _Array("ndarray")

    names = {
        ("torch_utils.persistence", "_reconstruct_persistent_obj"): StandIn(_persistent_object),
        ("torch._utils", "_rebuild_parameter"): StandIn(_rebuild_parameter),
        ("torch._utils", "_rebuild_tensor_v2"): StandIn(rebuild_tensor),
        ("torch.storage", "_load_from_bytes"): StandIn(load_storage),
        ("torch.nn.modules.container", "ModuleDict"): _inert("ModuleDict"),
        ("collections", "OrderedDict"): _constructor(dict, "an OrderedDict"),
        ("dnnlib.util", "EasyDict"): _constructor(dict, "an EasyDict"),
        ("_codecs", "encode"): StandIn(encode),
        ("numpy", "dtype"): StandIn(_dtype),
        ("numpy", "ndarray"): _inert("ndarray"),
    }
    for builtins in ("builtins", "__builtin__"):
        names[builtins, "set"] = StandIn(_set)
        names[builtins, "bytes"] = _constructor(lambda: memoryview(b""), "bytes")
    for core in ("numpy.core", "numpy._core"):
        names[f"{core}.multiarray", "scalar"] = StandIn(_scalar)
        names[f"{core}.multiarray", "_reconstruct"] = StandIn(reconstruct)
        names[f"{core}.numeric", "_frombuffer"] = StandIn(_from_buffer)
    return names


_STORAGE_NAMES = {("torch", name): StandIn(lambda dtype=dtype: dtype) for name, dtype in _STORAGES.items()}


def _read_storage(data: memoryview, budget: Budget) -> _Storage:
    """A storage as torch.save writes it: five pickles, then the count of elements and the elements."""
    wanted: list[tuple[torch.dtype, int]] = []

    def persistent(identity: Any) -> None:
        if type(identity) is not tuple or len(identity) < 5 or identity[0] != "storage" or wanted:
            raise Refusal("has a storage of an unknown form")
        cls, count = identity[1], identity[4]
        if type(cls) is not StandIn or type(count) is not int:
            raise Refusal("has a storage of an unknown type")
        wanted.append((cls.call(), count))

    position, parts = 0, []
    for _ in range(5):
        part, position = unpickle(data, _STORAGE_NAMES, budget, start=position, persistent=persistent)
        parts.append(part)
    magic, protocol, system, _, _ = parts
    if magic != _MAGIC or protocol != _PROTOCOL or len(wanted) != 1:
        raise Refusal("has a storage that torch.save did not write")
    if type(system) is not dict or system.get("little_endian") is not True:
        raise Refusal("has a storage of a big-endian machine")
    (dtype, count), elements = wanted[0], data[position + 8 :]
    if count != int.from_bytes(data[position : position + 8], "little") or count * dtype.itemsize != len(elements):
        raise Refusal(f"has a storage of {count} elements in {len(elements)} bytes")
    if not count:
        return _Storage(torch.empty(0, dtype=dtype))
    # copied: the file has them at any address, and torch wants to own what it may write to
    return _Storage(torch.frombuffer(bytearray(elements), dtype=dtype))
