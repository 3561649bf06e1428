"""Work on a file or folder that can be interrupted, and whether the place that it goes to may be taken."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from diffspace.data.archives import MANIFEST
from diffspace.files import check_entries, check_writable, read_json, write_text
from diffspace.locking import SHORT_LOCK, owned

_STATE = "state.json"
_Result = TypeVar("_Result")


def check_destination(target: Path, source: Path, overwrite: bool) -> None:
    """ValueError for a destination that cannot be written, or exists and may not be replaced."""
    if not target.parent.is_dir():
        raise ValueError(f"destination: there is no folder {target.parent}")
    try:
        check_writable(target)
    except OSError as error:
        raise ValueError(f"destination: {target} cannot be written: {error.strerror}") from None
    origin, place = source.resolve(), target.resolve()
    if source.exists() and (place.is_relative_to(origin) or origin.is_relative_to(place)):
        raise ValueError(f"destination: {target} and the source {source} contain one another")
    if not target.exists():
        return
    if target.is_dir() != (target.suffix == ""):
        raise ValueError(f"destination: {target} is a {'folder' if target.is_dir() else 'file'}; choose another name")
    if target.is_dir() and not any(target.iterdir()):
        return
    if not overwrite:
        raise ValueError(f"destination: {target} exists already; choose another name, or overwrite it")
    if target.is_dir() and not (target / MANIFEST).is_file():
        raise ValueError(f"destination: {target} was not prepared by diffspace and is not overwritten")


@dataclass(frozen=True)
class PartialWork:
    """Work on `target` that can be interrupted: it is done in the folder `target`.partial, by one process at a time."""

    target: Path

    @property
    def folder(self) -> Path:
        return self.target.with_name(self.target.name + ".partial")

    def complete(
        self, state: Mapping[str, Any], write: Callable[[], tuple[Path, _Result]], check: Callable[[], None]
    ) -> _Result:
        """Call `write`, which returns a path in the folder and a result, and put what is there in the target's place.

        `check` says whether the target may be written, once nobody else can write it. ValueError if another process
        works there, and if the folder was begun with another state, in JSON's types. Of a call that fails before
        anything is written nothing stays, so that it does not bind the corrected call.
        """
        with self._owned():
            if self._former.exists() and not self.target.exists():  # somebody was killed between two renames
                self._former.rename(self.target)
            check()
            self._begin(state)
            try:
                written, result = write()
            except ValueError:
                if all(name == _STATE or name.startswith(".") for name in os.listdir(self.folder)):
                    self._clear()
                raise
            self._replace(written)
            self._clear()
            return result

    def _clear(self) -> None:
        """Remove what is in the folder except the lock, which others may be waiting for."""
        for path in self.folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != SHORT_LOCK:
                path.unlink()

    @property
    def _former(self) -> Path:
        """Where a folder that is replaced is, until what replaces it is in its place."""
        return self.folder / "replaced"

    @contextlib.contextmanager
    def _owned(self) -> Iterator[None]:
        """The right to work in the folder, which is removed at the end if nothing is in it."""
        try:
            with owned(self.folder, parents=False):
                yield
        finally:
            with contextlib.suppress(OSError):
                self.folder.rmdir()

    def _replace(self, written: Path) -> None:
        """Put `written` in the place of the target, which is there, old or new, whatever happens."""
        if not self.target.is_dir():  # of a file a rename takes the place
            written.replace(self.target)
            return
        if os.path.lexists(self._former):
            shutil.rmtree(self._former)
        self.target.rename(self._former)
        try:
            written.rename(self.target)
        except BaseException:
            self._former.rename(self.target)
            raise

    def _begin(self, now: Mapping[str, Any]) -> None:
        state = self.folder / _STATE
        if not state.exists():
            if any(not name.startswith(".") for name in os.listdir(self.folder)):
                raise ValueError(f"{self.folder}: exists and was not made by this command; remove it")
            write_text(state, json.dumps(now, indent=1) + "\n")
            return
        try:
            then = check_entries(read_json(state))
        except ValueError:
            raise ValueError(f"{state}: is damaged; remove {self.folder} to start over") from None
        for name, value in now.items():
            if then.get(name) != value:
                raise ValueError(
                    f"{name}: {value!r}, but {self.folder} was begun with {then.get(name)!r}; "
                    "continue with that, or remove the folder to start over"
                )
