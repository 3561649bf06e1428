"""What a run has measured and trained, in its folder, so that a run that was killed goes on."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

import diffspace
from diffspace.files import read_json, write_text, writing
from diffspace.loading import load
from diffspace.model import Model
from diffspace.reproduction.scale import Scale

FORMAT, FILE = "diffspace reproduce 1", "measurements.json"
_WITHOUT = ("cli", "figures", "explorer")  # of the package: what shows numbers but makes none


def facts_of(scale: Scale) -> dict[str, Any]:
    """What every number depends on, as JSON: the scale, the code, the versions of libraries, the threads."""
    root, digest = Path(diffspace.__file__).parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        place = path.relative_to(root)
        if place.parts[0] not in _WITHOUT and place.stem not in ("report", "pictures", "statements", "claims"):
            digest.update(f"{place.as_posix()}\0".encode() + path.read_bytes())
    try:
        optuna: str | None = importlib.metadata.version("optuna")
    except importlib.metadata.PackageNotFoundError:
        optuna = None
    numbers = {name: dict(value) if isinstance(value, Mapping) else value for name, value in vars(scale).items()}
    return {
        "scale": json.loads(json.dumps(numbers)),
        "code": digest.hexdigest()[:16],
        "torch": torch.__version__,
        "optuna": optuna,
        "threads": torch.get_num_threads(),
    }


class Store:
    """Measurements by key in one file of JSON, and trained models in folders beside it.

    `seconds` is the time of all sessions up to the last measurement, `cpu_seconds` that of the processor.

    Args:
        folder: where; it exists.
        facts: what every number depends on (`facts_of`).
        overwrite: begin anew.

    ValueError where the folder has the numbers of other facts, or a damaged file.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any], overwrite: bool = False) -> None:
        self.folder, self.facts = folder, dict(facts)
        self.measured: dict[str, Any] = {}
        self._now = time.perf_counter(), time.process_time()
        self.seconds = self.cpu_seconds = 0.0
        path = folder / FILE
        if overwrite:
            with writing(folder):
                shutil.rmtree(folder / "models", ignore_errors=True)
                path.unlink(missing_ok=True)
        elif path.is_file():
            record = read_json(path, format=str, facts=dict, seconds=list, measured=dict)
            if record["format"] != FORMAT:
                raise ValueError(f"--out: {path} is of another version, {record['format']!r:.60}; add --overwrite")
            there = record["facts"]
            if different := [name for name in self.facts if there.get(name) != self.facts[name]]:
                pair = "; ".join(
                    f"{name} {there.get(name)!r:.40} there, {facts[name]!r:.40} here" for name in different
                )
                raise ValueError(
                    f"--out: {folder} has a run of another kind: {pair}; add --overwrite, or choose another"
                )
            self.measured, (self.seconds, self.cpu_seconds) = record["measured"], record["seconds"]

    def once(self, key: str, compute: Callable[[], Any]) -> Any:
        """The measurement of this key, in JSON types: the kept one, else computed now and kept."""
        if key not in self.measured:
            self.measured[key] = json.loads(json.dumps(compute(), allow_nan=False))
            before, self._now = self._now, (time.perf_counter(), time.process_time())
            self.seconds += self._now[0] - before[0]
            self.cpu_seconds += self._now[1] - before[1]
            spent = [self.seconds, self.cpu_seconds]
            record = {"format": FORMAT, "facts": self.facts, "seconds": spent, "measured": self.measured}
            write_text(self.folder / FILE, json.dumps(record, ensure_ascii=False) + "\n")
        return self.measured[key]

    def model(self, key: str, train: Callable[[], tuple[Model, dict[str, Any]]]) -> Model:
        """The trained model of this key, kept like a measurement; `train` returns it with notes on the training."""
        folder, name = self.folder / "models" / key.replace("/", "-"), f"training/{key}"
        if name not in self.measured or not folder.is_dir():

            def kept() -> dict[str, Any]:
                model, notes = train()
                with writing(folder):
                    model.save(folder)
                return notes

            self.measured.pop(name, None)
            self.once(name, kept)
        return load(folder)
