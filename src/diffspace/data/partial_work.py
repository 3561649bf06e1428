"""Long work that can be interrupted: what is done lies beside the destination, which appears when it is whole."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffspace.data.files import MANIFEST
from diffspace.files import write_text

__all__ = ["PartialWork", "check_destination", "versions"]

_STATE = "state.json"


def check_destination(target: Path, source: Path, overwrite: bool) -> None:
    """ValueError for a destination that cannot be written, or exists and is not to be replaced."""
    if not target.parent.is_dir():
        raise ValueError(f"destination: there is no folder {target.parent}")
    whence, where = source.resolve(), target.resolve()
    if source.exists() and (where.is_relative_to(whence) or whence.is_relative_to(where)):
        raise ValueError(f"destination: {target} and the source {source} lie one in the other")
    if not target.exists():
        return
    if target.is_dir() != (target.suffix == ""):
        raise ValueError(f"destination: {target} is a {'folder' if target.is_dir() else 'file'}; choose another name")
    if target.is_dir() and not any(target.iterdir()):
        return
    if not overwrite:
        raise ValueError(f"destination: {target} exists already; choose another name, or overwrite it")
    if target.is_dir() and not (target / MANIFEST).is_file():
        raise ValueError(f"destination: {target} is no folder that was prepared, and is not overwritten")


@dataclass(frozen=True)
class PartialWork:
    """Work under way on `target`, in the folder `target`.partial."""

    target: Path

    @property
    def folder(self) -> Path:
        return self.target.with_name(self.target.name + ".partial")

    def begin(self, now: Mapping[str, Any]) -> None:
        """Make the folder, or make sure that the one that is there was begun with the same, in JSON's types."""
        state = self.folder / _STATE
        if not state.exists():
            self.folder.mkdir(exist_ok=True)
            if any(not name.startswith(".") for name in os.listdir(self.folder)):
                raise ValueError(f"{self.folder}: is there, and is no work of this command; remove it")
            write_text(state, json.dumps(now, indent=1) + "\n")
            return
        try:
            then = dict(json.loads(state.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            raise ValueError(f"{state}: is damaged; remove {self.folder} to begin anew") from None
        for name, value in now.items():
            if then.get(name) != value:
                raise ValueError(
                    f"{name}: {value!r}, but {self.folder} was begun with {then.get(name)!r}; "
                    "go on with that, or remove it to begin anew"
                )

    def abandon(self) -> None:
        """Leave nothing behind of work that has not written anything: a mistake shall not bind its correction."""
        if all(name == _STATE or name.startswith(".") for name in os.listdir(self.folder)):
            shutil.rmtree(self.folder)

    def finish(self, whole: Path) -> None:
        """Put what is whole in the place of the target, and remove the folder."""
        if self.target.is_dir():
            shutil.rmtree(self.target)
        whole.replace(self.target)
        shutil.rmtree(self.folder)


def versions(*packages: str) -> dict[str, str]:
    """Of what decides the bytes."""
    return {name: importlib.metadata.version(name) for name in ("diffspace", *packages)}
