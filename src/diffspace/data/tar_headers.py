"""Where the files in a tar archive lie, from its headers alone (POSIX.1-2001, with the extensions of GNU).

The library's tarfile ends quietly at a header that is damaged, and samples would be missing.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from diffspace.data.zip_files import check_member_name

__all__ = ["TarMember", "opened", "tar_members"]

_BLOCK = 512
_WINDOW = 2**14  # bytes read at a time: headers of small files share them
_LONGEST = 2**20  # bytes of an extended header
_FILES, _FOLDER = (b"0", b"\0", b"7"), b"5"
_NEXT, _ALL, _LONG_NAME, _LONG_LINK = b"x", b"g", b"L", b"K"


class TarMember(NamedTuple):
    name: str
    offset: int
    size: int


def opened(path: Path) -> IO[bytes]:
    """A file of which pieces near one another are read; ValueError names one that cannot be."""
    try:
        return path.open("rb", buffering=_WINDOW)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None


def tar_members(path: Path) -> Iterator[TarMember]:
    """The files in a tar archive that is not compressed, in order.

    ValueError names an archive that cannot be read, is damaged or cut short, and a member that leads out of it, is a
    link, a device or sparse, or runs past the end.
    """
    with opened(path) as file:
        end = os.fstat(file.fileno()).st_size
        place = 0
        name: str | None = None
        size: int | None = None
        while True:
            file.seek(place)
            header = file.read(_BLOCK)
            if len(header) < _BLOCK:
                raise ValueError(f"{path}: is cut short at byte {place}")
            if not any(header):
                return
            if not _is_header(header):
                what = "is no tar archive, or a compressed one" if place == 0 else f"is damaged at byte {place}"
                raise ValueError(f"{path}: {what}")
            kind = header[156:157]
            extended = kind in (_NEXT, _ALL, _LONG_NAME, _LONG_LINK)
            # an extended header says the name and the size of the member that follows
            here = _name(header) if extended or name is None else name
            length = _number(header[124:136]) if extended or size is None else size
            length = 0 if kind == _FOLDER else length
            place += _BLOCK
            if length < 0 or place + length > end:
                raise ValueError(f"{path}: member {here!r} runs past the end of the archive")
            if extended and length > _LONGEST:
                raise ValueError(f"{path}: an extended header claims {length} bytes; want at most {_LONGEST}")
            if kind == _LONG_NAME:
                name = _text(file.read(length).partition(b"\0")[0])
            elif kind == _NEXT:
                name, size = _extended(path, file.read(length))
            elif kind == _ALL:
                if _extended(path, file.read(length)) != (None, None):
                    raise ValueError(f"{path}: a header for all members says the name or the size of all")
            elif kind != _LONG_LINK:
                _check(path, here, kind)
                if kind != _FOLDER and not here.endswith("/"):
                    yield TarMember(here, place, length)
                name = size = None
            place += -(-length // _BLOCK) * _BLOCK


def _check(path: Path, name: str, kind: bytes) -> None:
    if name not in ("", ".") or kind != _FOLDER:
        check_member_name(path, name)
    if kind in (b"1", b"2"):
        raise ValueError(f"{path}: member {name!r} is a link")
    if kind not in (*_FILES, _FOLDER):
        raise ValueError(f"{path}: member {name!r} is of kind {kind!r}; want files and folders")


def _is_header(block: bytes) -> bool:
    """Whether the sum of its bytes, with spaces where the sum stands, is what it says."""
    # Adler-32 holds 1 + the sum of the bytes modulo 65521 in its lower half: of 256 bytes exactly, and quickly
    total = sum((zlib.adler32(half) & 0xFFFF) - 1 for half in (block[:256], block[256:]))
    return _number(block[148:156]) == total - sum(block[148:156]) + 8 * ord(" ")


def _number(field: bytes) -> int:
    """A number in octal digits or, where the first bit is set, in bytes; −1 where it is neither."""
    if field[0] >= 0x80:
        return int.from_bytes(field[1:], "big") if field[0] == 0x80 else -1
    digits = field.strip(b" \0")
    return -1 if digits.strip(b"01234567") else int(digits or b"0", 8)


def _name(header: bytes) -> str:
    name = header[:100].partition(b"\0")[0]
    prefix = header[345:500].partition(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return _text(prefix + b"/" + name if prefix else name)


def _text(name: bytes) -> str:
    return name.decode(errors="surrogateescape").removeprefix("./")


def _extended(path: Path, content: bytes) -> tuple[str | None, int | None]:
    """The name and the size in an extended header, records "length key=value\\n"."""
    name, size = None, None
    while content:
        digits = content.partition(b" ")[0]
        count = int(digits) if digits.isdigit() and len(digits) < 8 else 0
        key, equals, value = content[len(digits) + 1 : max(count - 1, 0)].partition(b"=")
        if not equals or content[count - 1 : count] != b"\n":
            raise ValueError(f"{path}: an extended header is damaged")
        if key.startswith(b"GNU.sparse"):
            raise ValueError(f"{path}: a member is sparse; want whole files")
        if key == b"path":
            name = _text(value)
        elif key == b"size":
            size = int(value) if value.isdigit() and len(value) < 19 else -1
        content = content[count:]
    return name, size
