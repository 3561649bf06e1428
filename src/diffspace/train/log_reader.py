"""Reading the log of a run, also while it is being written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["LogReader", "parse_line"]


def parse_line(line: bytes) -> dict[str, Any] | None:
    """The record in a line that ends in a newline; None where the line is incomplete or no record."""
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


class LogReader:
    """The records of a file of JSON lines that may still grow.

    Lines that are no records are passed over, and an incomplete one is read when it ends. Where a resumed run has cut
    off what lay beyond its checkpoint, the file is read anew.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: list[dict[str, Any]] = []
        self._position, self._last = 0, b""

    def read(self) -> list[dict[str, Any]]:
        """All records so far; none where there is no file yet."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            self.records, self._position, self._last = [], 0, b""
            return self.records
        with file:
            # whatever was cut off may have grown beyond this place since
            file.seek(max(0, self._position - len(self._last)))
            if file.read(len(self._last)) != self._last:
                self.records, self._position, self._last = [], 0, b""
                file.seek(0)
            whole = [line for line in file if line.endswith(b"\n")]
        self._position += sum(map(len, whole))
        self._last = whole[-1] if whole else self._last
        self.records += [record for record in map(parse_line, whole) if record is not None]
        return self.records
