"""Images in an LMDB data base."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffspace.data._options import package
from diffspace.data.files import Files, version
from diffspace.data.folder import ImageSource
from diffspace.data.numbered import NumberedFiles

__all__ = ["LmdbImages"]


@dataclass(frozen=True)
class LmdbImages(ImageSource):
    """Encoded images in an LMDB folder, as LSUN is distributed, in the order of their keys; needs `lmdb`."""

    @property
    def name(self) -> str:
        return Path(self.path).expanduser().resolve().name

    def files(self) -> Files:
        return _LmdbFiles(Path(self.path).expanduser())


class _LmdbFiles(NumberedFiles):
    def __init__(self, path: Path) -> None:
        self.path = path
        self._environments: dict[int, Any] = {}
        self._lock = threading.Lock()
        with self._environment().begin() as transaction:
            self._keys = [bytes(key) for key in transaction.cursor().iternext(keys=True, values=False)]
        super().__init__(path, len(self._keys), str(version(path / "data.mdb")))

    def read(self, number: int) -> bytes:
        with self._environment().begin() as transaction:
            value = transaction.get(self._keys[number])
        return bytes(value)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_environments", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _environments={}, _lock=threading.Lock())

    def _environment(self) -> Any:
        """The open data base of this process; LMDB does not survive a fork."""
        with self._lock:
            if os.getpid() not in self._environments:
                lmdb = package("lmdb", "an LMDB folder")
                try:
                    opened = lmdb.open(str(self.path), readonly=True, lock=False, create=False)
                except lmdb.Error as error:
                    raise ValueError(f"{self.path}: cannot be read: {error}") from None
                self._environments[os.getpid()] = opened
            return self._environments[os.getpid()]
