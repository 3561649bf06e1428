"""Solvers and time steps in one word, as command lines have them: a kind, and the options that are not its defaults.

`heun`, `heun:alpha=0.5`, `edm:rho=10,sigma_min=0.01`, `given:levels=[80,1,0]`, `afs:solver=(ab:k=4),mean=0.1`. Kinds
and options are those of the registry, values are JSON, and text that is no JSON stands for itself.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Container
from typing import Any

from diffspace.registry import FAMILIES, from_config, to_config

__all__ = ["from_text", "split_list", "split_text", "to_text"]


def _parts(text: str) -> list[str]:
    """The text between the commas that are outside all brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "[(") - (character in "])")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def split_text(family: str, text: str) -> tuple[str, dict[str, Any]]:
    """The kind and the options of a text; ValueError where an option is not written name=value, or stands twice."""
    kind, _, rest = text.partition(":")
    options: dict[str, Any] = {}
    for part in _parts(rest) if rest else []:
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not (name and equals and value):
            raise ValueError(f"{family}: {text!r}; want kind:option=value,option=value")
        if name in options:
            raise ValueError(f"{family}.{name}: is given twice")
        try:
            options[name] = json.loads(value)
        except json.JSONDecodeError:
            options[name] = value
            if name in FAMILIES:
                inner, nested = split_text(name, value[1:-1] if value[0] + value[-1] == "()" else value)
                options[name] = {"kind": inner, **nested}
    return kind.strip(), options


def from_text(family: str, text: str) -> Any:
    """The object that a text means; ValueError names an unknown kind or option with the nearest valid one."""
    kind, options = split_text(family, text)
    return from_config(family, {"kind": kind, **options})


def to_text(family: str, thing: Any, omit: Container[str] = ()) -> str:
    """The text of an object, without the options in `omit`; ValueError where it has no name in the registry."""
    config = to_config(family, thing)
    kind = config.pop("kind")
    defaults = inspect.signature(FAMILIES[family][kind]).parameters
    parts = []
    for name, value in config.items():
        default = defaults[name].default
        if name in omit or value == (list(default) if isinstance(default, tuple) else default):
            continue
        if isinstance(value, dict):
            text = f"({to_text(name, getattr(thing, name))})"
        else:
            text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
        parts.append(f"{name}={text}")
    return f"{kind}:{','.join(parts)}" if parts else kind


def split_list(text: str) -> list[str]:
    """Several such words from a list with commas: a part that is an option belongs to the word before it."""
    words: list[str] = []
    for part in _parts(text):
        if words and "=" in part and ":" not in part.partition("=")[0]:
            words[-1] += f",{part}"
        else:
            words.append(part)
    return words
