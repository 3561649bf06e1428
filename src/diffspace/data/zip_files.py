"""A ZIP archive that is read like a folder, by any number of threads and processes."""

from __future__ import annotations

import collections
import hashlib
import io
import os
import stat
import struct
import sys
import threading
import weakref
import zipfile
import zlib
from array import array
from collections.abc import Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

from diffspace.data.files import INDEX, ByteFile, images_among, parse_index, version
from diffspace.data.names import Names

__all__ = ["ZipFiles", "check_member_name"]

_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_ENCRYPTED = 1
# deflate packs 1032 : 1 at best; what is both large and packed tighter than photographs or drawings ever are is a bomb
_BOMB_BYTES, _BOMB_RATIO = 2**24, 100
_LARGEST = 2**30


def check_member_name(archive: Path, name: str) -> None:
    """ValueError for a name in an archive that leads out of the folder into which it would be unpacked."""
    if name and not name.startswith("/") and not any(sign in name for sign in ("..", ":", "\\")):
        return  # as nearly all are, and the rest is slow
    windows = PureWindowsPath(name)
    if not name or name.startswith("/") or windows.drive or ".." in windows.parts or "\\" in name:
        raise ValueError(f"{archive}: member {name!r}: want a name inside the archive, with parts joined by /")


class ZipFiles:
    """The files in a ZIP archive, stored or deflated.

    Members are read at their own offset, so that threads and forked processes share the open file without
    moving each other's position in it; an unpickled copy opens the archive for itself.

    Errors: ValueError names an archive that cannot be read or has changed since it was opened, and a member that
    is encrypted, named twice, a link, overlaps another, leads out of the archive, or is a decompression bomb.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._version = version(path)
        infos = _members(path)
        names = [info.filename for info in infos]
        images, self.others = images_among(names)
        self._index = names.index(INDEX) if INDEX in names else None
        self.members = Names(names)
        """Every file, in the order of the archive."""
        self.names = self.members.take(images)
        self._images = array("q", images)
        self._offsets = array("q", (info.header_offset for info in infos))
        self._packed = array("q", (info.compress_size for info in infos))
        self._sizes = array("q", (info.file_size for info in infos))
        self._crcs = array("q", (info.CRC for info in infos))
        self._deflated = bytes(info.compress_type == zipfile.ZIP_DEFLATED for info in infos)
        self._open_file()

    def _open_file(self) -> None:
        self._descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self._lock = threading.Lock()
        weakref.finalize(self, os.close, self._descriptor)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_descriptor", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if version(self.path) != self._version:
            raise ValueError(f"{self.path}: has changed since it was opened")
        self._open_file()

    def index(self) -> Mapping[str, Any] | None:
        return None if self._index is None else parse_index(self.path / INDEX, self.read(self._index))

    def open(self, number: int) -> ByteFile:
        return io.BytesIO(self.image(number))

    def image(self, number: int) -> bytes:
        """The bytes of an image."""
        return self.read(self._images[number])

    def read(self, number: int) -> bytes:
        """The bytes of a member, numbered as in `members`, checked against its length and CRC-32."""
        offset, packed, size = self._offsets[number], self._packed[number], self._sizes[number]
        header = self._at(offset, _LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size or header[:4] != b"PK\x03\x04":
            raise self._damaged(number)
        *_, name_length, extra_length = _LOCAL_HEADER.unpack(header)
        content = self._at(offset + _LOCAL_HEADER.size + name_length + extra_length, packed)
        if self._deflated[number]:
            try:
                content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, size + 1)
            except zlib.error:
                raise self._damaged(number) from None
        if len(content) != size or zlib.crc32(content) != self._crcs[number]:
            raise self._damaged(number)
        return content

    def fingerprint(self) -> str:
        return hashlib.sha256(repr(self._version).encode()).hexdigest()

    def _at(self, offset: int, count: int) -> bytes:
        if sys.platform != "win32":
            return os.pread(self._descriptor, count, offset)
        else:
            with self._lock:
                os.lseek(self._descriptor, offset, os.SEEK_SET)
                return os.read(self._descriptor, count)

    def _damaged(self, number: int) -> ValueError:
        return ValueError(f"{self.path}: member {self.members[number]!r} is damaged or cut short")


def _members(path: Path) -> list[zipfile.ZipInfo]:
    """What the directory of an archive says of its files, all of it checked."""
    try:
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
            end = archive.start_dir
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # zipfile raises whatever a broken directory leads it to
        raise ValueError(f"{path}: cannot be read as a ZIP archive: {' '.join(str(error).split())}") from None
    for info in infos:
        check_member_name(path, info.filename)
        if problem := _problem(info):
            raise ValueError(f"{path}: member {info.filename!r} {problem}")
    if len({info.filename for info in infos}) < len(infos):
        counts = collections.Counter(info.filename for info in infos)
        twice = [name for name, count in counts.items() if count > 1]
        raise ValueError(f"{path}: holds {len(twice)} names more than once, {twice[0]!r} among them")
    by_place = sorted(infos, key=lambda info: info.header_offset)
    ends = [*(info.header_offset for info in by_place[1:]), end]
    for info, after in zip(by_place, ends, strict=False):
        if info.header_offset + _LOCAL_HEADER.size + info.compress_size > after:
            raise ValueError(f"{path}: member {info.filename!r} runs into what follows it")
    return infos


def _problem(info: zipfile.ZipInfo) -> str | None:
    if info.header_offset < 0:
        return "lies outside the archive"
    if info.flag_bits & _ENCRYPTED:
        return "is encrypted"
    if stat.S_ISLNK(info.external_attr >> 16):
        return "is a link"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"is compressed by method {info.compress_type}; want it stored or deflated"
    if info.file_size > _LARGEST or (info.file_size > max(_BOMB_BYTES, _BOMB_RATIO * info.compress_size)):
        return f"claims {info.file_size} bytes out of {info.compress_size}: a decompression bomb, or no image"
    return None
