"""Where the records of a run go, a file of JSON lines, TensorBoard, Weights & Biases, and how the file is read."""

from __future__ import annotations

import io
import json
import math
import os
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from diffspace.checks import require_package
from diffspace.files import open_in_place, parse_json, write_text, writing


@runtime_checkable
class Logger(Protocol):
    """Takes the records of a run, in order; each has at least "step" and "images"."""

    def log(self, record: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


class JSONLines:
    """A line of JSON for each record, at the end of a file, flushed at once.

    A run that goes on from `images` gives them: lines beyond are removed first, since the run is about to write them
    again. What a killed process left of its last line is removed in any case. Numbers that are not finite become null.
    ValueError where the path is a link or no file.
    """

    def __init__(self, path: Path, images: int | None = None) -> None:
        self._path, self._file = path, os.fdopen(open_in_place(path), "rb+", buffering=0)
        reader = io.BufferedReader(self._file)
        end = _end(reader, math.inf if images is None else images)
        reader.detach()
        self._file.truncate(end)
        self._file.seek(end)

    def log(self, record: Mapping[str, Any]) -> None:
        line = (json.dumps(_finite(record), ensure_ascii=False, allow_nan=False) + "\n").encode()
        with writing(self._path):
            while line:  # of which a disk that is nearly full takes a part
                line = line[self._file.write(line) :]

    def close(self) -> None:
        self._file.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """The records of a file of JSON lines that may still grow; none where there is no file yet.

    Lines that are no records are passed over, and so is an incomplete one at the end.
    """
    if not path.is_file():
        return []
    lines = path.read_bytes().splitlines(keepends=True)
    return [record for record in map(_parse_line, lines) if record is not None]


class TensorBoard:
    """The numbers of each record as scalars over the images seen, and previews as images, in `run`/tensorboard.

    A record's "preview" is a path within `run`. What an earlier process wrote beyond `images` is hidden.
    """

    def __init__(self, run: Path, images: int | None = None) -> None:
        require_package("tensorboard", "TensorBoard")
        from torch.utils.tensorboard import SummaryWriter

        self._run = run
        self._writer: Any = SummaryWriter(str(run / "tensorboard"), purge_step=None if images is None else images + 1)

    def log(self, record: Mapping[str, Any]) -> None:
        images = int(record["images"])
        for name, value in scalars(record).items():
            self._writer.add_scalar(name, value, images)
        if "preview" in record:
            self._writer.add_image("preview", _pixels(self._run / record["preview"]), images, dataformats="HWC")
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class WandB:
    """The same for Weights & Biases, with "images" as the axis, in the project `project` under the folder's name.

    The run's id is kept in `run`/wandb.txt, so that a resumed run goes on there. What it sends a second time is drawn
    twice, since that service deletes nothing.
    """

    def __init__(self, run: Path, *, project: str = "diffspace", config: Mapping[str, Any] | None = None) -> None:
        self._wandb = require_package("wandb", "WandB")
        self._folder, known = run, run / "wandb.txt"
        if not known.exists():
            write_text(known, uuid.uuid4().hex)
        self._run: Any = self._wandb.init(
            project=project,
            name=run.resolve().name,
            id=known.read_text(encoding="utf-8").strip(),
            resume="allow",
            dir=str(run),
            config=dict(config or {}),
        )
        self._run.define_metric("*", step_metric="images")

    def log(self, record: Mapping[str, Any]) -> None:
        values: dict[str, Any] = {"images": int(record["images"]), **scalars(record)}
        if "preview" in record:
            values["preview"] = self._wandb.Image(str(self._folder / record["preview"]))
        self._run.log(values)

    def close(self) -> None:
        self._run.finish()


def scalars(record: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of a record by name, "images" left out: {"held_out": {"loss": 1}} is {"held_out/loss": 1}.

    A mapping with lists over "sigma" gives a number for each level, "loss_by_sigma/loss/σ=0.0123", without "count".
    """
    numbers: dict[str, float] = {}
    levels = record.get("sigma")
    for name, value in record.items():
        if isinstance(value, Mapping):
            numbers |= scalars(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            numbers[f"{prefix}{name}"] = float(value)
        elif isinstance(value, list) and isinstance(levels, list) and name not in ("sigma", "count"):
            pairs = [(sigma, item) for sigma, item in zip(levels, value, strict=False) if item is not None]
            numbers |= {f"{prefix}{name}/σ={sigma:.3g}": float(item) for sigma, item in pairs}
    numbers.pop("images", None)
    return numbers


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _parse_line(line: bytes) -> dict[str, Any] | None:
    """The record in a line that ends in a newline; None where the line is incomplete or no record."""
    if not line.endswith(b"\n"):
        return None
    try:
        record = parse_json(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _end(file: Iterable[bytes], images: float) -> int:
    """Where to cut a file of JSON lines: at the first record beyond `images`, or an incomplete line at its end."""
    end = position = 0
    for line in file:
        position += len(line)
        record = _parse_line(line)
        if record is None:
            continue
        seen = record.get("images", 0)
        if isinstance(seen, int | float) and seen > images:
            break
        end = position
    return end


def _pixels(path: Path) -> Any:
    import numpy as np
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
