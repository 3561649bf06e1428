"""Samplers that were found for a model, as small files beside it: `samplers/NAME.json` in its folder."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffspace.checks import nearest
from diffspace.config import from_config, to_config
from diffspace.files import has_format, write_text
from diffspace.protocols import Solver, TimeSteps
from diffspace.sampling import FittedSolver, OptimizedSteps

__all__ = ["Sampler", "find_sampler", "load_samplers"]

FORMAT = "diffspace sampler 1"
FOLDER = "samplers"


@dataclass(frozen=True)
class Sampler:
    """A solver with its steps, and notes on what it is worth: what `sample(model, solver=…, steps=…)` wants."""

    solver: Solver
    steps: TimeSteps
    notes: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, found: FittedSolver | OptimizedSteps, notes: Mapping[str, Any] | None = None) -> Sampler:
        """The sampler that a search found."""
        if isinstance(found, FittedSolver):
            return cls(found, found.steps, notes or {})
        return cls(found.solver, found, notes or {})

    def save(self, model: str | Path, name: str, *, overwrite: bool = False) -> Path:
        """Write `samplers/NAME.json` into the folder of a model; returns the path. ValueError where it is there."""
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
            raise ValueError(f"name: {name!r}; want letters, digits, '-', '_' and '.'")
        path = _folder(model) / f"{name}.json"
        if path.exists() and not overwrite:
            raise ValueError(f"name: {path} is there already; overwrite=True replaces it")
        config = {
            "format": FORMAT,
            "solver": to_config("solver", self.solver),
            "steps": to_config("steps", self.steps),
            "notes": dict(self.notes),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(config, ensure_ascii=False, allow_nan=False) + "\n")
        return path


def _folder(model: str | Path) -> Path:
    """Beside the model: in its folder, or for a checkpoint of others in one that has its name."""
    path = Path(model)
    return path / FOLDER if path.is_dir() or not path.suffix else path.with_name(f"{path.name}.{FOLDER}")


def _read(path: Path) -> Sampler:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"sampler: {path} is not readable: {error}") from None
    if not isinstance(config, dict) or not has_format(config.get("format"), FORMAT):
        raise ValueError(f"sampler: {path} is not of the format {FORMAT!r}")
    try:
        solver, steps = from_config("solver", config["solver"]), from_config("steps", config["steps"])
        return Sampler(solver, steps, config["notes"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"sampler: {path} makes no sampler: {error}") from None


def load_samplers(model: str | Path) -> dict[str, Sampler]:
    """Every sampler beside a model, by name; none where there is no such folder."""
    return {path.stem: _read(path) for path in sorted(_folder(model).glob("*.json"))}


def find_sampler(model: str | Path, name: str) -> Sampler:
    """The sampler of that name beside a model, or in the file that `name` is the path of."""
    if name.endswith(".json"):
        return _read(Path(name))
    path = _folder(model) / f"{name}.json"
    if not path.is_file():
        known = sorted(p.stem for p in _folder(model).glob("*.json"))
        raise ValueError(f"sampler: {model} has no {name!r}; {nearest(name, known)}")
    return _read(path)
