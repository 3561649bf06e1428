"""Samplers that were found for a model, as small files beside it: `samplers/NAME.json` in its folder."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffspace.checks import check_type, first_line, nearest
from diffspace.config import build, to_options
from diffspace.files import has_format, read_json, write_text
from diffspace.parts import allow_parts
from diffspace.sampling import Sampler

FORMAT, FORMER = "diffspace sampler 2", "diffspace sampler 1"
FOLDER = "samplers"


def save_sampler(
    sampler: Sampler, model: str | Path, name: str, *, notes: Mapping[str, Any] | None = None, overwrite: bool = False
) -> Path:
    """Write `samplers/NAME.json` into the folder of a model; returns the path.

    Args:
        sampler: what to write; each part is one that `config` can name.
        model: the folder of a model, or a checkpoint file, beside which a folder is made.
        name: letters, digits, "-", "_" and "."; it must not end in ".json", which marks a path.
        notes: anything that JSON can hold, for those who read the file.
        overwrite: replace a sampler of that name, which is an error otherwise.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*(?<!\.json)", name):
        raise ValueError(f"name: expected letters, digits, '-', '_' and '.', without .json at the end, got {name!r}")
    check_type("sampler", sampler, Sampler)
    path = _folder(model) / f"{name}.json"
    if path.exists() and not overwrite:
        raise ValueError(f"name: {path} exists already; overwrite=True replaces it")
    config = {"format": FORMAT, **to_options(sampler), "notes": dict(notes or {})}
    _check_config(config, sampler)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(config, ensure_ascii=False, allow_nan=False) + "\n")
    return path


def _check_config(config: Mapping[str, Any], sampler: Sampler) -> None:
    """ValueError where the file would not give the sampler again."""
    parts = (sampler.steps, sampler.solver, sampler.process.schedule, sampler.process.scaling)
    theirs = [type(part) for part in parts if not type(part).__module__.startswith("diffspace.")]
    try:
        with allow_parts(theirs):  # for which who reads it has to ask
            again = to_options(_build(json.loads(json.dumps(config))))
    except Exception as error:  # solvers of other packages
        raise ValueError(f"sampler: it cannot be saved: {first_line(error)}") from None
    if again != to_options(sampler):
        raise ValueError(f"sampler: it cannot be saved, since its file would give another one than {sampler!r:.200}")


def _build(config: Mapping[str, Any]) -> Sampler:
    made: Sampler = build(Sampler, {name: config[name] for name in ("steps", "solver", "process", "churn")})
    return made


def _folder(model: str | Path) -> Path:
    """Beside the model: in its folder, or for a checkpoint of others in one that has its name."""
    path = Path(model)
    file = path.is_file() or (path.suffix and not path.is_dir())
    return path.with_name(f"{path.name}.{FOLDER}") if file else path / FOLDER


def _read(path: Path) -> Sampler:
    try:
        config = read_json(path, format=str)
        if not any(has_format(config["format"], known) for known in (FORMAT, FORMER)):
            raise ValueError(f"expected the format {FORMAT!r}, got {config['format']!r}")
        if not has_format(config["format"], FORMER):
            return _build(config)
        parts = {name: dict(config[name]) for name in ("steps", "solver")}
        if parts["steps"]["kind"] == "optimized":  # levels with the solver that they were found for
            parts["steps"] = {"kind": "given", "levels": parts["steps"]["levels"]}
        sampler: Sampler = build(Sampler, parts)
        return sampler
    except Exception as error:  # solvers of other packages take what the file says
        raise ValueError(f"sampler: {path} does not describe a sampler: {first_line(error)}") from None


def load_samplers(model: str | Path) -> dict[str, Sampler]:
    """Every sampler beside a model, by name; empty where there is no such folder."""
    return {path.stem: _read(path) for path in sorted(_folder(model).glob("*.json"))}


def find_sampler(model: str | Path, name: str) -> Sampler:
    """The sampler of that name beside a model, or in the file that `name` is the path of."""
    if name.endswith(".json"):
        return _read(Path(name))
    path = _folder(model) / f"{name}.json"
    if not path.is_file():
        known = [p.stem for p in _folder(model).glob("*.json")]
        raise ValueError(f"sampler: {model} has no sampler {name!r}; {nearest(name, known)}")
    return _read(path)
