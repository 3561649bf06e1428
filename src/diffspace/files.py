"""Reading files, writing them so that a crash leaves either the old file or the complete new one, and manifests."""

from __future__ import annotations

import contextlib
import difflib
import errno
import hashlib
import io
import itertools
import json
import math
import os
import re
import secrets
import stat
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffspace.checks import first_line, one_line

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

LARGEST_TEXT = 2**22
"""Bytes of a file of JSON: as values of Python they take some twenty times as much."""
_BOMB_BYTES, _BOMB_RATIO = 2**28, 100  # of an array in a .npz file, which may well be mostly zeros
_DEEPEST = 64  # lists and mappings within each other
_SPECIAL = (
    (stat.S_ISFIFO, "named pipe"),
    (stat.S_ISCHR, "device"),
    (stat.S_ISBLK, "device"),
    (stat.S_ISSOCK, "socket"),
)
_FORMER_NAME = "edmkit"  # the name of the project in version 0.1, which files of that version contain


def on_hub(source: str | Path) -> str | None:
    """The name of a repository of the Hugging Face Hub, given as hf:owner/name; None for a path."""
    return str(source).removeprefix("hf:") if str(source).startswith("hf:") else None


def missing_path(source: str | Path) -> str:
    """A path that does not exist, for an error message: with the most similar one, or the spelling of a Hub id."""
    path = Path(source).expanduser()
    if path.is_dir():
        return f"{source} (it is a folder)"
    beside = itertools.islice(path.parent.iterdir(), 1000) if path.parent.is_dir() else ()
    if close := difflib.get_close_matches(path.name, [other.name for other in beside], n=1):
        return f"{source}; did you mean {path.with_name(close[0])}?"
    is_id = isinstance(source, str) and re.fullmatch(r"[\w.-]+/[\w.-]+", source) and not path.parent.exists()
    return f"{source}; a repository of the Hugging Face Hub is hf:{source}" if is_id else str(source)


def has_format(found: object, expected: str) -> bool:
    """Whether the "format" entry of a file is the expected one, under the present or the former project name."""
    return found in (expected, expected.replace("diffspace", _FORMER_NAME))


def check_file(path: Path) -> None:
    """ValueError for what is there and neither a file nor a folder: a reader of a named pipe or a device may wait."""
    with contextlib.suppress(OSError):  # which reading it will report
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            what = next((name for test, name in _SPECIAL if test(mode)), "special")
            raise ValueError(f"{path}: is a {what}; expected a file")


@contextlib.contextmanager
def reading(path: Path, kind: str = "") -> Iterator[None]:
    """Raise any error in reading the file `path` as a ValueError of one line that names it.

    A ValueError that begins with the path is not changed. `kind` says what the file was read as. Every file that is
    not ours is read within it or by `read_bytes`, so that no named pipe or device is opened.
    """
    try:
        check_file(path)
        yield
    except Exception as error:  # a damaged file leads libraries to raise errors of all types
        if isinstance(error, ValueError) and str(error).startswith(str(path)):
            raise
        what = f" as {kind}" if kind and not isinstance(error, OSError) else ""
        text = getattr(error, "strerror", None) or first_line(error)
        if not getattr(error, "strerror", None) and not isinstance(error, RuntimeError | KeyError | MemoryError):
            text = one_line(error)  # in full; after the first line torch names its own functions
        raise ValueError(f"{path}: cannot be read{what}: {text}") from None


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with reading(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_bytes(path: Path, most: int = LARGEST_TEXT) -> bytes:
    """The content of a file; ValueError where it cannot be read or has more than `most` bytes."""
    with reading(path):
        with path.open("rb") as file:
            content = file.read(most + 1)
        if len(content) > most:
            raise ValueError(f"it has more than {most} bytes")
    return content


def read_json(path: Path, **entries: type) -> Any:
    """The value in a file of JSON; ValueError, which names the file, as of `parse_json` and `check_entries`."""
    content = read_bytes(path)
    with reading(path, "JSON"):
        value = parse_json(content)
    with reading(path):
        return check_entries(value, **entries) if entries else value


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text; ValueError where it is none, or nested so deeply that it would stop who works on it."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    level = [value]
    for _ in range(_DEEPEST):
        outer = [item for item in level if isinstance(item, dict | list)]
        level = [inner for item in outer for inner in (item.values() if isinstance(item, dict) else item)]
        if not level:
            return value
    raise ValueError("it is nested too deeply")


def check_entries(content: Any, **entries: type) -> dict[str, Any]:
    """The mapping `content`, which has at least these entries, of these types; ValueError says what is wrong."""
    if not isinstance(content, dict):
        raise ValueError(f"expected a mapping of names to values, got a {type(content).__name__}")
    if missing := [name for name in entries if name not in content]:
        raise ValueError(f"it lacks {', '.join(missing)}")
    for name, kind in entries.items():
        if not isinstance(content[name], kind) or (kind is int and isinstance(content[name], bool)):
            got = type(content[name]).__name__
            raise ValueError(f"{name}: expected a {kind.__name__}, got a {got}")
    return content


@contextlib.contextmanager
def writing(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Raise an OSError in writing `path` with its name, which a full disk does not give, or `temporary`'s in its place.

    An error that names another file is not changed.
    """
    try:
        yield
    except OSError as error:
        if str(error).startswith(str(path)) or error.filename not in (None, str(temporary), temporary):
            raise
        if error.errno is None:
            raise OSError(f"{path}: cannot be written: {error}") from None
        raise OSError(error.errno, error.strerror, str(path)) from None


def check_writable(path: Path) -> None:
    """OSError, before any work is done, where the file or folder `path` could not be written."""
    place = path.absolute()
    folder = place if place.is_dir() else next(above for above in place.parents if os.path.lexists(above))
    temporary = _beside(folder / place.name)
    with writing(path, temporary):
        temporary.touch(exist_ok=False)
        temporary.unlink()


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{path.suffix}")


@contextlib.contextmanager
def atomic_paths(*paths: Path) -> Iterator[list[Path]]:
    """Temporary paths beside `paths` for the caller to write: renamed to them on success, removed on failure.

    OSError names the file that could not be written. Nothing is renamed before all of them are whole on disk.
    """
    temporaries = [_beside(path) for path in paths]
    with contextlib.ExitStack() as failing, contextlib.ExitStack() as named:
        for path, temporary in zip(paths, temporaries, strict=True):
            named.enter_context(writing(path, temporary))
            temporary.touch(exist_ok=False)
            failing.callback(temporary.unlink, missing_ok=True)
        yield temporaries
        for temporary in temporaries:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        for path, temporary in zip(paths, temporaries, strict=True):
            temporary.replace(path)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """`atomic_paths` of one file."""
    with atomic_paths(path) as (temporary,):
        yield temporary


def open_in_place(path: Path) -> int:
    """A descriptor to read and write the file `path`, which is made if it is missing.

    ValueError for a link, a second name of a file, a pipe or a device: what is written would change something else.
    """
    plain = not path.is_symlink()
    if plain:
        flags = ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY", "O_CLOEXEC")  # those that the system has
        descriptor = os.open(path, sum(getattr(os, name, 0) for name in flags) | os.O_RDWR | os.O_CREAT, 0o666)
        found = os.fstat(descriptor)
        plain = stat.S_ISREG(found.st_mode) and found.st_nlink < 2
        if plain:
            return descriptor
        os.close(descriptor)
    raise ValueError(f"{path}: is a link, a pipe or a device, and what it leads to is not overwritten; remove it")


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_arrays(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of a .npz file by name, or that of a .npy file under the name "x"."""
    import numpy as np

    with reading(path):
        with path.open("rb") as file:
            if file.read(2) == b"PK":
                with zipfile.ZipFile(file) as archive:
                    return {
                        info.filename.removesuffix(".npy"): npz_member(archive, info) for info in archive.infolist()
                    }
        return {"x": np.lib.format.open_memmap(path, mode="r")}


def npz_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray[Any, Any]:
    """An array in a .npz file; ValueError for what is none, or takes far more memory than its part of the file."""
    import numpy as np

    if info.file_size > max(_BOMB_BYTES, _BOMB_RATIO * info.compress_size):
        raise ValueError(
            f"{info.filename}: claims {info.file_size} bytes out of {info.compress_size}, a decompression bomb; "
            "if it is none, store it as .npy"
        )
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(file)
        count = math.prod(int(length) for length in shape)
        if count * dtype.itemsize > info.file_size or (dtype.itemsize == 0 and count):
            raise ValueError(f"{info.filename}: claims shape {shape} in {info.file_size} bytes")
    with archive.open(info) as file:
        array: np.ndarray[Any, Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array


def write_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file, atomically; OSError if the disk is full or the file cannot be written."""
    with atomic_path(path) as temporary:
        save_tensors(temporary, tensors, facts)


def save_array(path: Path, array: Any) -> None:
    """Write a .npy file, in place. `numpy.save` to a file does not notice that the disk is full."""
    import numpy as np

    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    path.write_bytes(content.getbuffer())


def save_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file, in place; of tensors that share memory, such as tied weights, each is written."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    own, seen = {}, set()
    for name, value in tensors.items():
        memory = value.untyped_storage().data_ptr()
        own[name] = value.clone() if memory in seen else value
        seen.add(memory)
    try:
        save_file(own, path, None if facts is None else dict(facts))
    except SafetensorError as error:
        raise OSError(errno.EIO, str(error), str(path)) from None


def manifest_text(content: Mapping[str, Any]) -> bytes:
    """A manifest for storage: JSON with the SHA-256 of its other entries."""
    return _canonical({**content, "sha256": hashlib.sha256(_canonical(content)).hexdigest()})


def read_manifest(text: bytes) -> dict[str, Any]:
    """The content of a manifest; ValueError if the text is not exactly what `manifest_text` returned."""
    try:
        content: dict[str, Any] = parse_json(text)
        complete = text == manifest_text({name: value for name, value in content.items() if name != "sha256"})
    except (ValueError, AttributeError):
        complete = False
    if not complete:
        raise ValueError("is not what was written")
    return content


def _canonical(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()
