"""The meaning of the names in pickles, and the three file formats: a plain pickle, torch's zip, torch's older one."""

from __future__ import annotations

import io
import math
import mmap
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from diffspace._shapes import Tensor
from diffspace.pickles.machine import Budget, Machine, PickleError, Record, short_repr

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_LEGACY = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""The first two pickles of torch.save's older format, which tensors inside a pickle still have."""

_STORAGES = {"Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16}
_STORAGES |= {"Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8}
_STORAGES |= {
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
}
_STRUCT_CODES = dict(
    zip(["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"], "efdbhiqBHIQ?", strict=True)
)
"""NumPy's types of plain numbers, and their codes in `struct`."""
_Names = dict[tuple[str, str], Any]


def read_pickle(source: Path | bytes, *, integer_keys: bool = False) -> Any:
    """The object in a file that `pickle.dump` or `torch.save` wrote, given by its path or its content.

    Nothing in the file is executed or imported. Numbers, texts, bytes, lists, tuples and tensors come unchanged,
    dictionaries of any class as dict with texts as keys (numbers become texts, except with `integer_keys` those from 0
    to 2³¹ − 1), sets of texts as set. Persistent objects of NVIDIA's and arrays of NumPy's plain numbers become a
    `Record`; the state of an array ("ndarray") has NumPy's "dtype", byte "order", "shape", "by_columns" and "data".
    PickleError for anything else.
    """
    file: io.BytesIO | mmap.mmap
    if isinstance(source, bytes):
        file, size = io.BytesIO(source), len(source)
    else:
        with source.open("rb") as opened:
            if not os.fstat(opened.fileno()).st_size:
                raise PickleError("is empty")
            file = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
            size = len(file)
    head = file.read(16)
    file.seek(0)
    budget = Budget(size)
    names = _names(budget)
    if head.startswith(b"PK"):
        return _read_zip(source if isinstance(source, Path) else io.BytesIO(source), names, budget, integer_keys)
    if head[2:].startswith(_LEGACY):
        return _read_legacy(file, names, budget)

    def load_from_bytes(data: Any = None) -> Any:
        budget.copy(len(data))
        return _read_legacy(io.BytesIO(data), names, budget)

    return Machine(file, names | {("torch.storage", "_load_from_bytes"): load_from_bytes}, budget).run()


def _names(budget: Budget) -> _Names:
    """The allowed names, with the functions and values that replace them."""

    def encode(text: Any = None, encoding: Any = None) -> bytes:
        """Bytes in the form of protocol 2."""
        if type(text) is not str or encoding != "latin1":
            raise PickleError("encodes something that is not bytes")
        budget.copy(len(text))
        return text.encode("latin1")

    def rebuild_tensor(*arguments: Any) -> Tensor:
        """A tensor from its storage, offset, size and stride."""
        storage, offset, size, stride = arguments[:4]
        size, stride, (offset,) = _lengths(size), _lengths(stride), _lengths((offset,))
        if type(storage) is not Tensor or len(size) != len(stride):
            raise PickleError("has a tensor of an unknown form")
        count, held = math.prod(size), storage.numel()
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        # a stride of 0 would make a tensor of any size from a small storage
        if count > held or (count and last >= held):
            raise PickleError(f"has a tensor of size {short_repr(size)} in a storage of {held} elements")
        budget.copy(count * storage.itemsize)  # many tensors may share a storage
        return storage.as_strided(size, stride, offset)

    def text_set(items: Any = ()) -> set[str]:
        budget.copy(len(items))
        if type(items) not in (list, tuple) or not all(type(item) is str for item in items):
            raise PickleError("has a set of something that is not text")
        return set(items)

    def dictionary() -> dict[str, Any]:
        return {}

    def ndarray() -> _Array:
        return _Array("ndarray")

    def reconstruct(cls: Any = None, *_: Any) -> _Array:
        if cls is not ndarray:
            raise PickleError("makes an array of a class that is not numpy.ndarray")
        return _Array("ndarray")

    names: _Names = {("torch", f"{name}Storage"): dtype for name, dtype in _STORAGES.items()} | {
        ("torch_utils.persistence", "_reconstruct_persistent_obj"): _persistent_object,
        ("torch._utils", "_rebuild_parameter"): lambda data=None, *_: data,
        ("torch._utils", "_rebuild_parameter_with_state"): lambda data=None, *_: data,
        ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
        ("torch.nn.modules.container", "ModuleDict"): lambda: Record("ModuleDict"),
        ("collections", "OrderedDict"): dictionary,
        ("dnnlib.util", "EasyDict"): dictionary,
        ("_codecs", "encode"): encode,
        ("numpy", "dtype"): _dtype,
        ("numpy", "ndarray"): ndarray,
    }
    for builtins in ("builtins", "__builtin__"):
        names[builtins, "set"] = text_set
        names[builtins, "bytes"] = lambda: b""
    for core in ("numpy.core", "numpy._core"):
        names[f"{core}.multiarray", "scalar"] = _scalar
        names[f"{core}.multiarray", "_reconstruct"] = reconstruct
        names[f"{core}.numeric", "_frombuffer"] = lambda data, dtype, shape, order=None: ndarray().fill(
            data, dtype, shape, order == "F"
        )
    return names


def _lengths(value: Any) -> tuple[int, ...]:
    """The lengths of the axes of a tensor or an array."""
    if type(value) not in (tuple, list) or len(value) > 64 or not all(type(n) is int and n >= 0 for n in value):
        raise PickleError("has a tensor or an array of an unknown form")
    return tuple(value)


def _persistent_object(meta: Any = None) -> Record:
    """An object that was pickled with the source of its class, which is ignored."""
    if type(meta) is not dict or meta.get("type") != "class" or meta.get("version") != 6:
        raise PickleError("has a persistent object of an unknown version; expected version 6")
    class_name, state = meta.get("class_name"), meta.get("state")
    if type(class_name) is not str or type(state) is not dict:
        raise PickleError("has a persistent object without class_name and state")
    return Record(class_name, state)


# NumPy's numbers and arrays


class _DType(Record):
    """One of NumPy's types of plain numbers."""

    def build(self, state: Any) -> None:
        plain = type(state) is tuple and len(state) >= 5 and all(part is None for part in state[2:5])
        if not plain or state[1] not in ("<", ">", "|", "="):
            raise PickleError("has a numpy.dtype with fields, or of an unknown form")
        self.state["order"] = state[1].replace("|", "<").replace("=", "<")

    @property
    def format(self) -> str:
        """The type as a format of `struct`."""
        return f"{self.state.get('order', '<')}{_STRUCT_CODES[self.class_name]}"


class _Array(Record):
    """An array of NumPy's."""

    def build(self, state: Any) -> None:
        _, shape, dtype, by_columns, data = state
        self.fill(data, dtype, shape, by_columns)

    def fill(self, data: Any, dtype: Any, shape: Any, by_columns: Any) -> _Array:
        """Set the values."""
        if type(data) is str and len(data) < 256:  # bytes of Python 2
            data = data.encode("latin1")
        if not isinstance(dtype, _DType) or type(data) is not bytes:
            raise PickleError("has a numpy.ndarray of something that is not plain numbers")
        if math.prod(_lengths(shape)) * struct.calcsize(dtype.format) != len(data):
            raise PickleError(f"has a numpy.ndarray of shape {short_repr(shape)} in {len(data)} bytes")
        self.state |= {"dtype": dtype.class_name, "order": dtype.format[0], "shape": shape}
        self.state |= {"by_columns": by_columns is True, "data": data}
        return self


def _dtype(name: Any = None, *_: Any) -> _DType:
    if type(name) is not str or name not in _STRUCT_CODES:  # a nested tuple has no bounded hash
        raise PickleError(f"has a numpy.dtype {short_repr(name)}; expected one of {', '.join(_STRUCT_CODES)}")
    return _DType(name)


def _scalar(dtype: Any = None, data: Any = None) -> Any:
    if not isinstance(dtype, _DType):
        raise PickleError("has a number of NumPy's without its type")
    return struct.unpack(dtype.format, data)[0]


# torch's tensors and files


class _Storages(dict[str, Tensor]):
    """The storages of a file by key, as vectors, created when a persistent id names them, and filled by `read`."""

    def __init__(self, budget: Budget, read: Callable[[str], bytes] | None = None) -> None:
        super().__init__()
        self.budget, self.read = budget, read

    def persistent(self, identity: Any) -> Tensor:
        """The storage of ("storage", type, key, location, count, ...)."""
        if type(identity) is not tuple or len(identity) < 5 or identity[0] != "storage":
            raise PickleError("has a storage of an unknown form")
        dtype, key, count = identity[1], identity[2], identity[4]
        if type(dtype) is not torch.dtype or type(key) is not str or type(count) is not int or count < 0:
            raise PickleError("has a storage of an unknown type")
        if key not in self:
            self.budget.copy(count * dtype.itemsize)
            self[key] = torch.zeros(count, dtype=dtype, device="cpu")
            if self.read is not None:
                self.fill(key, self.read(key))
        return self[key]

    def fill(self, key: str, data: bytes) -> None:
        elements = self[key]
        if len(data) != elements.nbytes:
            raise PickleError(f"has a storage of {elements.numel()} elements in {len(data)} bytes")
        if data:
            elements.view(torch.uint8).copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))


def _read_legacy(file: io.BytesIO | mmap.mmap, names: _Names, budget: Budget) -> Any:
    """Five pickles (magic, protocol, system, the object, keys of storages), then for each key a count and elements."""
    storages = _Storages(budget)
    machine = Machine(file, names, budget, storages.persistent)
    magic, protocol, system, content, keys = (machine.run() for _ in range(5))
    if magic != _MAGIC or protocol != _PROTOCOL:
        raise PickleError("has a storage that torch.save did not write")
    if type(system) is not dict or system.get("little_endian") is not True:
        raise PickleError("has storages of a big-endian machine")
    if type(keys) is not list or not all(type(key) is str for key in keys) or sorted(keys) != sorted(storages):
        raise PickleError("has other storages than it names")
    for key in keys:
        count = int.from_bytes(file.read(8), "little")
        if count != storages[key].numel():
            raise PickleError(f"has a storage of {count} elements, but its pickle states another number")
        storages.fill(key, file.read(storages[key].nbytes))
    if file.read(1):
        raise PickleError("has bytes after its last storage")
    return content


def _read_zip(file: Path | io.BytesIO, names: _Names, budget: Budget, integer_keys: bool) -> Any:
    """A zip file with the object in NAME/data.pkl and the storages, uncompressed, in NAME/data/KEY."""
    try:
        with zipfile.ZipFile(file) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            prefix = next(name for name in entries if name.endswith("/data.pkl")).removesuffix("data.pkl")

            def read(name: str) -> bytes:
                entry = entries[prefix + name]
                if entry.compress_type != zipfile.ZIP_STORED:
                    raise PickleError(f"has {short_repr(name)} compressed, which torch.save does not do")
                return archive.read(entry)

            if prefix + "byteorder" in entries and read("byteorder") != b"little":
                raise PickleError("has storages of a big-endian machine")
            storages = _Storages(budget, lambda key: read(f"data/{key}"))
            content = io.BytesIO(read("data.pkl"))
            return Machine(content, names, budget, storages.persistent, integer_keys).run()
    except PickleError:
        raise
    except (zipfile.BadZipFile, struct.error, EOFError, LookupError, RuntimeError, OSError, ValueError) as error:
        raise PickleError(f"is not a file of torch.save: {short_repr(str(error))}") from None
    except StopIteration:
        raise PickleError("is not a file of torch.save: has no data.pkl") from None
