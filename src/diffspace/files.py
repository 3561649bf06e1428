"""Reading files, writing them so that a crash leaves either the old file or the complete new one, and manifests."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import itertools
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_FORMER_NAME = "edmkit"  # the name of the project in version 0.1, which files of that version contain


def on_hub(source: str | Path) -> str | None:
    """The name of a repository of the Hugging Face Hub, given as hf:owner/name; None for a path."""
    return str(source).removeprefix("hf:") if str(source).startswith("hf:") else None


def missing_path(source: str | Path) -> str:
    """A path that does not exist, for an error message: with the most similar one, or the spelling of a Hub id."""
    path = Path(source).expanduser()
    beside = itertools.islice(path.parent.iterdir(), 1000) if path.parent.is_dir() else ()
    if close := difflib.get_close_matches(path.name, [other.name for other in beside], n=1):
        return f"{source}; did you mean {path.with_name(close[0])}?"
    is_id = isinstance(source, str) and re.fullmatch(r"[\w.-]+/[\w.-]+", source) and not path.parent.exists()
    return f"{source}; a repository of the Hugging Face Hub is hf:{source}" if is_id else str(source)


def has_format(found: object, expected: str) -> bool:
    """Whether the "format" entry of a file is the expected one, under the present or the former project name."""
    return found in (expected, expected.replace("diffspace", _FORMER_NAME))


@contextlib.contextmanager
def reading(path: Path, kind: str = "") -> Iterator[None]:
    """Raise any error in reading the file `path` as a ValueError of one line that names it.

    A ValueError that begins with the path is not changed. `kind` says what the file was read as.
    """
    try:
        yield
    except Exception as error:  # a damaged file leads libraries to raise errors of all types
        if isinstance(error, ValueError) and str(error).startswith(str(path)):
            raise
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        what = f" as {kind}" if kind and not isinstance(error, OSError) else ""
        raise ValueError(f"{path}: cannot be read{what}: {reason}") from None


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


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` for the caller to write: renamed to `path` on success, removed on failure."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{path.suffix}")
    with writing(path, temporary):
        temporary.touch(exist_ok=False)
        try:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


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


def write_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file, atomically; OSError if the disk is full or the file cannot be written."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with atomic_path(path) as temporary:
        try:
            save_file(dict(tensors), temporary, None if facts is None else dict(facts))
        except SafetensorError as error:
            raise OSError(f"{path}: cannot be written: {error}") from None


def manifest_text(content: Mapping[str, Any]) -> bytes:
    """A manifest for storage: JSON with the SHA-256 of its other entries."""
    return _canonical({**content, "sha256": hashlib.sha256(_canonical(content)).hexdigest()})


def read_manifest(text: bytes) -> dict[str, Any]:
    """The content of a manifest; ValueError if the text is not exactly what `manifest_text` returned."""
    try:
        content: dict[str, Any] = json.loads(text)
        complete = text == manifest_text({name: value for name, value in content.items() if name != "sha256"})
    except (ValueError, AttributeError, RecursionError):
        complete = False
    if not complete:
        raise ValueError("is not what was written")
    return content


def _canonical(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()
