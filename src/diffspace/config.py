"""The one way between an object, a mapping with a "kind", and a word such as `heun:alpha=0.5`.

Recipes, model folders, sampler files and the command line name the library's own classes: `{"kind": "heun", "alpha":
0.5}` takes the parameters of `Heun` and no others, with the types of its signature. An argument that is named like a
family (`solver`, `schedule`, …) is such a mapping or word itself; one whose type is another dataclass is a mapping.
Which kinds there are, `diffspace.parts` knows.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import math
import re
import sys
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, is_dataclass
from numbers import Number
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from diffspace.checks import nearest
from diffspace.parts import DEFAULT_KINDS, FAMILIES, Part, find, import_typed, kinds, load_path, path_of


def from_config(family: str, config: Any, where: str = "") -> Any:
    """The object that a mapping or a word describes.

    ValueError names an unknown kind or option with the nearest valid one, a value of the wrong type, or a missing
    option; its message begins with `where` (by default the family).
    """
    where = where or family
    kind, options, make = _parse(family, config, where)
    return build(make, options, where, repr(kind))


def from_text(family: str, text: str, options: Mapping[str, Any] | None = None) -> Any:
    """The object of a word that the user has typed, with the options that are not None added.

    A kind `module:Class` is imported. An option in both places is an error.
    """
    config = parse_word(text, family)
    given = {name: value for name, value in (options or {}).items() if value is not None}
    if twice := sorted(config.keys() & given):
        raise ValueError(f"{family}: {text!r} has {', '.join(twice)}, which is also given as an option; give it once")
    import_typed(config)
    return from_config(family, config | given)


def complete(family: str, config: Any, omit: Collection[str] = ()) -> dict[str, Any]:
    """A config with every option checked and every default filled in, except the options in `omit`."""
    kind, options, make = _parse(family, config, family)
    if early := sorted(set(omit) & set(options)):
        raise ValueError(f"{family}.{early[0]}: follows from the data; leave it out")
    arguments = _arguments(make, options, family, repr(kind), omit)
    values = {name: arguments.get(name, p.default) for name, p in _signature(make)[0].items() if name not in omit}
    return _names(family, make) | {name: _plain(value, name) for name, value in values.items()}


def build(make: Part, options: Mapping[str, Any], where: str = "", kind: str = "") -> Any:
    """Call `make` with options whose types are checked; error messages begin with `where`."""
    if inspect.isabstract(make):
        raise ValueError(f"{where or kind}: {path_of(make)} is abstract; use a subclass that defines its methods")
    arguments = _arguments(make, options, where, kind)
    try:
        return make(**arguments)
    except ValueError as error:
        named = re.split(r"\W", str(error), maxsplit=1)[0] in _signature(make)[0]
        prefix = "" if not where or str(error).startswith(where) else where + ("." if named else ": ")
        raise ValueError(f"{prefix}{error}") from None


def _parse(family: str, config: Any, where: str) -> tuple[str, dict[str, Any], Part]:
    """The kind, the options, and what makes the object."""
    if isinstance(config, str):
        config = parse_word(config, where)
    if not isinstance(config, Mapping):
        raise ValueError(f"{where}: expected a kind or a mapping of options, got {config!r}")
    options = dict(config)
    kind, written = options.pop("kind", DEFAULT_KINDS.get(family)), options.pop("class", "")
    if kind is None:
        raise ValueError(f"{where}.kind: is missing; {nearest('', kinds(family))}")
    return str(kind), options, find(family, str(kind), str(written), where)


def _signature(make: Part) -> tuple[dict[str, inspect.Parameter], dict[str, Any]]:
    """Parameters and their types.

    A function's `**options` are the parameters of the dataclass that it returns, those of a class of its base's.
    """
    parameters = dict(inspect.signature(make).parameters)
    try:
        hints = typing.get_type_hints(getattr(make, "__init__") if isinstance(make, type) else make)  # noqa: B009
    except (NameError, TypeError):  # of names that only type checkers import, and of a functools.partial
        hints = {}
    for name in [name for name, p in parameters.items() if p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]:
        keywords, returned = parameters.pop(name).kind is inspect.Parameter.VAR_KEYWORD, hints.get("return")
        source = _base(make) if isinstance(make, type) else returned if is_dataclass(returned) else None
        if keywords and source is not None:
            more = _signature(typing.cast(Part, source))
            parameters, hints = more[0] | parameters, more[1] | hints
    return parameters, hints


def _base(cls: type) -> type | None:
    """The class whose constructor the constructor of `cls` extends."""
    own = [base for base in cls.__mro__ if "__init__" in vars(base)]
    return own[1] if len(own) > 1 and own[1] is not object and own[1].__module__.partition(".")[0] != "torch" else None


def _arguments(
    make: Part, options: Mapping[str, Any], where: str, kind: str, omit: Collection[str] = ()
) -> dict[str, Any]:
    """The options converted to the types of their parameters; ValueError where one outside `omit` is missing."""
    parameters, hints = _signature(make)
    start = f"{where}." if where else ""
    for name in options:
        if name not in parameters:
            what = f"{kind} has no such option" if kind else "there is no such key"
            raise ValueError(f"{start}{name}: {what}; {nearest(name, parameters.keys() - set(omit))}")
    arguments = {}
    for name, parameter in parameters.items():
        hint = hints.get(name, Any)
        if name in options:
            value, is_part = options[name], _is_part(name, hint)
            try:
                if is_part and isinstance(value, str | Mapping) and not is_none(value, hint, FAMILIES[name]):
                    value = from_config(name, value, start + name)
                arguments[name] = _convert(value, hint, start + name)
            except _Misfit:
                expected = f"a {name}" if is_part else _phrase(hint)
                remedy = f"; write [{value}]" if isinstance(value, str) and "," in value and "list" in expected else ""
                raise ValueError(f"{start}{name}: expected {expected}, got {value!r}{remedy}") from None
        elif name not in omit and parameter.default is parameter.empty:
            raise ValueError(f"{start}{name}: is missing; expected {_phrase(hint)}")
    return arguments


def _is_part(name: str, hint: Any) -> bool:
    """Whether an argument takes a part of the family of its name instead of a plain value."""
    types_ = {get_origin(each) or each for each in (hint, *get_args(hint))}
    return name in FAMILIES and not types_ & {int, float, bool, str, tuple, Sequence, Mapping, Literal}


class _Misfit(Exception):
    """A value is not of the type of its parameter."""


def is_none(value: Any, hint: Any = types.NoneType, besides: Collection[str] = ()) -> bool:
    """Whether a value is None, "none" or "null" where the type allows None; `besides` lists kinds of these names."""
    word = isinstance(value, str) and value.lower() in ("none", "null") and value not in besides
    return (value is None or word) and types.NoneType in (hint, *get_args(hint))


def _convert(value: Any, hint: Any, where: str) -> Any:
    """The value converted to a type: lists to tuples, 1 to 1.0, 1e6 to 1000000, "inf" to a number, "none" to None."""
    origin, choices = get_origin(hint), get_args(hint)
    if is_none(value, hint):
        return None
    if origin in (Union, types.UnionType):
        for choice in sorted(choices, key=lambda choice: type(value) is not choice):
            with contextlib.suppress(_Misfit):
                return _convert(value, choice, where)
    elif origin is Literal:
        for choice in choices:
            if value == choice and type(value) is type(choice):
                return value
    elif origin in (tuple, Sequence):
        if isinstance(value, list | tuple):
            each = choices[:1] * len(value) if origin is Sequence or choices[-1] is ... else choices
            if len(each) == len(value):
                return tuple(_convert(item, choice, where) for item, choice in zip(value, each, strict=True))
    elif hint in (int, float):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        infinite = isinstance(value, str) and value in ("inf", "-inf", "nan")
        with contextlib.suppress(OverflowError):  # of float(10**400)
            if (number or infinite) if hint is float else (number and value % 1 == 0):
                return hint(value)
    elif is_dataclass(hint) and isinstance(value, Mapping):
        return build(typing.cast(Part, hint), value, where)
    elif not isinstance(kind := origin or hint, type) or _is_instance(value, kind):
        return tuple(_convert(item, Any, where) for item in value) if isinstance(value, list) else value
    raise _Misfit


def _is_instance(value: Any, kind: type) -> bool:
    try:
        return isinstance(value, kind)
    except TypeError:  # a protocol that is not checkable at run time
        return True


def _phrase(hint: Any) -> str:
    """A type in words, for an error message."""
    words = {int: "an integer", float: "a number", bool: "true or false", str: "text", types.NoneType: "none"}
    choices = [choice for choice in get_args(hint) if choice is not ...]
    if get_origin(hint) is Literal:
        return " or ".join(map(repr, choices))
    if get_origin(hint) in (tuple, Sequence):
        size = f" of {len(choices)}" if len(choices) > 1 else ""
        return f"a list{size} ({_phrase(choices[0])} each)"
    return " or ".join(map(_phrase, choices)) if choices else words.get(hint, getattr(hint, "__name__", str(hint)))


def option_names(family: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a config's kind, with their defaults."""
    parameters, _ = _signature(find(family, str(config.get("kind")), str(config.get("class", ""))))
    return {name: parameter.default for name, parameter in parameters.items()}


def explanations(make: Part) -> dict[str, str]:
    """What the docstrings of a part and of its bases say of each option in their sections `Args:`, in one line each."""
    found: dict[str, str] = {}
    for documented in reversed(inspect.getmro(make) if isinstance(make, type) else (make,)):
        names: list[str] = []
        for line in inspect.cleandoc(documented.__doc__ or "").partition("Args:\n")[2].splitlines():
            if start := re.match(r"    (\w[\w, ]*): (.*)", line):
                names = [name.strip() for name in start[1].split(",")]
                found |= dict.fromkeys(names, start[2].strip())
            elif line.startswith("        "):
                found |= {name: f"{found[name]} {line.strip()}" for name in names}
            elif line.strip():
                break
    return found


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with names such as steps.num_steps."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def to_config(family: str, thing: Any) -> dict[str, Any]:
    """The mapping of an object, with every option, in JSON types."""
    return _names(family, type(thing)) | to_options(thing)


def to_options(thing: Any) -> dict[str, Any]:
    """The options of an object without its kind: its `config`, or the fields of a dataclass."""
    options = getattr(thing, "config", None)
    if options is None and is_dataclass(thing):
        options = {field.name: getattr(thing, field.name) for field in fields(thing) if field.init}
    if options is None and not _signature(type(thing))[0]:
        options = {}
    if not isinstance(options, Mapping):
        what = "cannot be saved; make it a dataclass, or set its attribute `config` to the mapping of the arguments of"
        raise ValueError(f"{type(thing).__name__}: {what} its constructor")
    return {name: _plain(value, name) for name, value in options.items()}


def _names(family: str, part: Part) -> dict[str, str]:
    """The kind of a class, and "class": "module:Class" for a class from outside."""
    path = path_of(part)
    for kind, known in kinds(family).items():
        loaded = isinstance(known, str) and known.partition(":")[0] in sys.modules
        if known in (part, path) or (loaded and load_path(str(known)) is part):
            outside = {} if path.startswith("diffspace.") else {"class": path}
            return {} if kind == DEFAULT_KINDS.get(family) else {"kind": kind} | outside
    if "<" in path:  # a class within a function
        raise ValueError(f"{family}: {part.__name__} is not registered, so it cannot be saved; use diffspace.register")
    return {"kind": path}


def _plain(value: Any, name: str) -> Any:
    """A value in JSON types: tuples as lists, objects as mappings, infinities and paths as text."""
    if isinstance(value, Path) or (isinstance(value, float) and not math.isfinite(value)):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Number) and hasattr(value, "item"):  # of NumPy
        return _plain(value.item(), name)
    if isinstance(value, tuple | list):
        return [_plain(item, name) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item, name) for key, item in value.items()}
    if name in FAMILIES:
        return to_config(name, value)
    if is_dataclass(value):
        return to_options(value)
    what = f"a {type(value).__name__} cannot be saved to a file"
    raise ValueError(f"{name}: {what}; use a number, a text, or a list or mapping of them")


def _parts(text: str) -> list[str]:
    """The text split at commas outside brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "[({") - (character in "])}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def parse_word(text: str, where: str) -> dict[str, Any]:
    """The mapping of `kind:option=value,option=value`; a value is JSON, text, or a word in parentheses."""
    kind, _, rest = text.partition(":")
    if "=" in kind:
        kind, rest = "", text
    elif name := re.match(r"[A-Za-z_][\w.]*(?=:|$)", rest):  # module:Class, or module:Class:option=value
        kind, rest = f"{kind}:{name[0]}", rest[name.end() + 1 :]
    config: dict[str, Any] = {"kind": kind.strip()} if kind or not rest else {}
    for part in _parts(rest) if rest else []:
        option, equals, value = (piece.strip() for piece in part.partition("="))
        if not (option and equals and value):
            raise ValueError(f"{where}: expected kind:option=value,option=value, got {text!r}")
        if option in config:
            raise ValueError(f"{where}.{option}: is given twice")
        try:
            config[option] = json.loads(value)
        except (json.JSONDecodeError, RecursionError):
            inner = value[0] + value[-1] == "()"
            config[option] = parse_word(value[1:-1], f"{where}.{option}") if inner else value
    return config


def to_text(family: str, thing: Any, omit: Collection[str] = ()) -> str:
    """The word of an object: its kind and the options that differ from the defaults, except those in `omit`."""
    config = to_config(family, thing)
    defaults = {name: parameter.default for name, parameter in _signature(type(thing))[0].items()}
    parts = []
    for name, value in config.items():
        if name in ("kind", "class", *omit) or getattr(thing, name) == defaults[name]:
            continue
        if isinstance(value, dict):
            text = f"({to_text(name, getattr(thing, name))})"
        else:
            text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
        parts.append(f"{name}={text}")
    return ":".join(filter(None, (config.get("kind"), ",".join(parts))))


def split_list(text: str) -> list[str]:
    """The words of a list with commas; a part `option=value` belongs to the word before it."""
    words: list[str] = []
    for part in _parts(text):
        if words and "=" in part and ":" not in part.partition("=")[0]:
            words[-1] += f",{part}"
        else:
            words.append(part)
    return words
