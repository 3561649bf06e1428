"""Recipes as text: YAML files and `key=value`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from diffspace.checks import one_line
from diffspace.config import is_none, parse_word
from diffspace.files import read_bytes
from diffspace.parts import FAMILIES

_LARGEST = 2**17  # bytes of a recipe, which has two thousand or so; YAML takes a second for a hundred thousand


class _Loader(yaml.SafeLoader):
    """YAML without aliases, which can expand a few lines to gigabytes, and without values on which 1.1 and 1.2 differ.

    1e-3 is a number and 64x48 a size; in quotes both are text.
    """

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.YAMLError("aliases are not supported")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = Counter(str(key.value) for key, _ in node.value)
        if twice := [key for key, count in keys.items() if count > 1]:
            raise yaml.YAMLError(f"the key {twice[0]!r} is given twice")
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        if odd := [key for key in mapping if not isinstance(key, str)]:
            raise yaml.YAMLError(f"the key {odd[0]!r} is no text")
        return mapping


def _refuse(loader: yaml.SafeLoader, node: Any) -> Any:
    raise yaml.YAMLError(
        f"{node.value} means different things in YAML 1.1 and 1.2; write true or false, a decimal number, or 'text'"
    )


for _tag, _pattern in {
    "tag:yaml.org,2002:null": "~|null|Null|NULL|",
    "tag:yaml.org,2002:bool": "true|True|TRUE|false|False|FALSE",
    "tag:yaml.org,2002:int": r"[-+]?(?:0|[1-9][\d_]*)",
    "!ambiguous": r"[-+]?0[\d_]+|[-+]?0[xob][\da-fA-F_]+|[-+]?\d[\d_]*(?::[0-5]?\d)+(?:\.[\d_]*)?|(?i:yes|no|on|off)",
    "tag:yaml.org,2002:float": r"[-+]?(?:(?:\d[\d_]*\.?[\d_]*|\.\d+)(?:[eE][-+]?\d+)?|\.?(?i:inf))|\.?(?i:nan)",
    "!size": r"\d+x\d+",
}.items():
    _Loader.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})$"), None)
_Loader.add_constructor("!ambiguous", _refuse)
_Loader.add_constructor("!size", lambda loader, node: [int(part) for part in str(node.value).split("x")])


def read_yaml(text: str) -> Any:
    """The value of a YAML text; ValueError with a message of one line if it is not valid."""
    try:
        return yaml.load(text, _Loader)
    except RecursionError:
        raise ValueError("it is not valid YAML: nested too deeply") from None
    except Exception as error:  # what its constructors of dates and the like raise
        ours = isinstance(error, yaml.YAMLError) and not isinstance(error, yaml.MarkedYAMLError)
        text = one_line(error)
        raise ValueError(text if ours else f"it is not valid YAML: {text}") from None


def read_recipe(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; ValueError if the file is missing or holds something else."""
    if not path.exists():
        raise ValueError(f"recipe: there is no file {path}")
    try:
        config = read_yaml(read_bytes(path, _LARGEST).decode())
    except ValueError as error:
        text = str(error).removeprefix(f"{path}: cannot be read: ")
        raise ValueError(f"recipe: {path} cannot be read: {text}") from None
    if not isinstance(config, dict):
        raise ValueError(f"recipe: {path} holds no mapping of keys to values")
    return config


def _parse(text: str) -> tuple[tuple[str, ...], Any, bool]:
    """`network.dropout=0.1` as (("network", "dropout"), 0.1, False); the flag is True for a kind. Values are YAML."""
    key, equals, value = text.partition("=")
    path = tuple(key.strip().split("."))
    if not equals or not all(path):
        raise ValueError(f"{text!r}: expected key=value, such as batch_size=64")
    try:
        read = read_yaml(value)
    except ValueError as error:
        raise ValueError(f"{key.strip()}: {value!r} cannot be read: {error}") from None
    return (path[:-1], read, True) if path[-1] == "kind" and len(path) > 1 else (path, read, False)


def apply_overrides(config: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """A copy of a nested config with `key=value` texts applied in any order: kinds come first, then options.

    `noise=vp` is `noise.kind=vp`; a new kind drops the options of the old one. ValueError for a key that is given
    twice, or that belongs to something set to none.
    """
    given: dict[tuple[str, ...], tuple[Any, bool]] = {}
    for text in overrides:
        path, value, is_kind = _parse(text)
        if path in given:
            raise ValueError(f"{'.'.join(path)}: is given twice")
        given[path] = value, is_kind
    result = dict(config)
    for path, (value, is_kind) in sorted(given.items(), key=lambda item: len(item[0])):
        place = result
        for depth, name in enumerate(path[:-1], start=1):
            inner = place.get(name)
            if isinstance(inner, str):
                inner = parse_word(inner, name)
            if (inner is None and path[:depth] in given) or not isinstance(inner, Mapping | None):
                shown = "none" if inner is None else repr(inner)
                raise ValueError(f"{'.'.join(path)}: has no effect where {'.'.join(path[:depth])} is {shown}")
            place[name] = place = dict(inner or {})
        old, name = place.get(path[-1]), path[-1]
        within = any(other != path and other[: len(path)] == path for other in given)
        is_part = within or name in FAMILIES or isinstance(old, Mapping)
        if is_part and is_none(value, besides=FAMILIES.get(name, ())):
            value = None  # other words are read by the type of their key, of which "none" may be a value
        if is_kind or (isinstance(old, Mapping) and isinstance(value, str)):
            word = parse_word(value, name) if isinstance(value, str) else {"kind": value}
            value = {**old, **word} if isinstance(old, Mapping) and old.get("kind") == word["kind"] else word
        place[name] = value
    return result
