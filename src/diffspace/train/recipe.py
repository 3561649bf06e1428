"""The recipe of a training run: every choice with its value, from YAML and `key=value`, checked and written in full."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import pydantic
import yaml

from diffspace.averages.ema import PowerFunction
from diffspace.checks import nearest
from diffspace.config import FAMILIES, find
from diffspace.data import DataSet, make_source
from diffspace.data.augmentation import Augmentation
from diffspace.train.accumulate import Precision
from diffspace.train.parallel import Strategy

__all__ = [
    "FROM_DATA",
    "DataRecipe",
    "Recipe",
    "apply_overrides",
    "changes",
    "make_data_recipe",
    "make_recipe",
    "parse_override",
    "read_recipe",
]

# what a network is told by the data, and no recipe may contradict
FROM_DATA = {"shape", "label_dim", "augment_dim", "image_channels"}
_STRICT = pydantic.ConfigDict(extra="forbid", frozen=True)


def complete(family: str, config: Any) -> dict[str, Any]:
    """A config of a family with every option checked and every default filled in."""
    known = FAMILIES[family]
    if isinstance(config, str):
        config = {"kind": config}
    if not isinstance(config, Mapping):
        raise ValueError(f"want a kind or a mapping with one, not {config!r}")
    given = dict(config)
    kind = given.pop("kind", None)
    if kind not in known:
        raise ValueError(f"kind {kind!r} is unknown; {nearest(str(kind), known)}")
    make: Any = find(family, kind)
    hints = typing.get_type_hints(make.__init__)
    options: dict[str, Any] = {}
    for name, parameter in inspect.signature(make).parameters.items():
        if name in FROM_DATA:
            continue
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        if name in FAMILIES:
            default = pydantic.Field(default_factory=lambda: None)
            options[name] = (
                Annotated[Any, pydantic.BeforeValidator(lambda v, name=name: v and complete(name, v))],
                default,
            )
        else:
            options[name] = (hints[name], default)
    unknown = [name for name in given if name not in options]
    if unknown:
        raise ValueError(f"{kind!r} has no option {unknown[0]!r}; {nearest(unknown[0], options)}")
    model = pydantic.create_model(f"{family} {kind}", __config__=pydantic.ConfigDict(extra="forbid"), **options)
    values = _plain(model(**given).model_dump())
    return {"kind": kind, **{name: value for name, value in values.items() if name not in FAMILIES or value}}


def _plain(value: Any) -> Any:
    """Tuples as lists, at any depth, for YAML."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def _of(family: str) -> pydantic.BeforeValidator:
    return pydantic.BeforeValidator(lambda config: complete(family, config))


def _augmentation(config: Any) -> Any:
    """The fields of an `Augmentation`: as they are given, or those of its kind "edm" with others put in their place."""
    if config is None or isinstance(config, Augmentation):
        return config
    if isinstance(config, str):
        config = {"kind": config}
    if not isinstance(config, Mapping):
        raise ValueError(f"want edm or a mapping of options, not {config!r}")
    given = dict(config)
    kind = given.pop("kind", None)
    kinds: dict[Any, dict[str, Any]] = {None: {}, "edm": asdict(Augmentation.edm())}
    if kind not in kinds:
        raise ValueError(f"kind {kind!r} is unknown; want edm, or options without a kind")
    known = [field.name for field in fields(Augmentation)]
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ValueError(f"there is no option {unknown[0]!r}; {nearest(unknown[0], known)}")
    return kinds[kind] | given


Config: TypeAlias = dict[str, Any]
# what decides which weights there are, which data come when, and what is drawn for them
_FIXED = {"data", "network", "preconditioning", "conditional", "augment", "seed", "batch_size"}
_FIXED |= {"ema_widths", "uncertainty", "adaptive_noise"}
# options that mean something only beside another one
_NEEDS = {"ema_widths": "snapshot_images", "snapshot_images": "ema_widths", "patience_images": "held_out_images"}


class DataRecipe(pydantic.BaseModel):
    """Which data, with the options of their source (`diffspace.data.make_source`), and how many are held out.

    `mirror` adds the mirror image of every image to the training part.
    """

    model_config = pydantic.ConfigDict(extra="allow", frozen=True)

    source: str
    holdout: float | int | None = None
    mirror: bool = False

    @pydantic.model_validator(mode="after")
    def _check_options(self) -> DataRecipe:
        make_source(self.source, **self.options)
        return self

    @property
    def options(self) -> dict[str, Any]:
        """The options of the source, as they were given."""
        return {name: tuple(v) if isinstance(v, list) else v for name, v in (self.model_extra or {}).items()}

    def load(self) -> tuple[DataSet, DataSet]:
        """(training part, held-out part)."""
        training, held_out = make_source(self.source, **self.options).load().split(self.holdout)
        return training.mirrored() if self.mirror else training, held_out


class Recipe(pydantic.BaseModel):
    """A training run in full. Lengths are in images seen, as in the paper (Appendix F.2)."""

    model_config = _STRICT

    data: DataRecipe
    network: Annotated[Config, _of("network")]
    preconditioning: Annotated[Config, _of("preconditioning")]
    noise: Annotated[Config, _of("noise")]
    reduction: Literal["sum", "mean"] = "sum"
    conditional: bool = True
    augment: Annotated[Augmentation | None, pydantic.BeforeValidator(_augmentation)] = None
    precision: Precision = "float32"
    compile: bool = False
    strategy: Strategy = "ddp"
    images: int = pydantic.Field(gt=0)
    batch_size: int = pydantic.Field(256, gt=0)
    micro_batch: int | None = pydantic.Field(None, gt=0)
    learning_rate: float = pydantic.Field(1e-3, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = pydantic.Field(1e-8, gt=0)
    ramp_images: int = pydantic.Field(10_000_000, ge=0)
    decay_images: int = pydantic.Field(0, ge=0)
    max_grad_norm: float | None = pydantic.Field(None, gt=0)
    max_skipped: int = pydantic.Field(20, gt=0)
    uncertainty: bool = False
    adaptive_noise: bool = False
    ema_halflife_images: float = pydantic.Field(500_000, ge=0)
    ema_ramp_ratio: float | None = pydantic.Field(0.05, ge=0)
    ema_widths: tuple[float, ...] = ()
    snapshot_images: int = pydantic.Field(0, ge=0)
    seed: int = pydantic.Field(0, ge=0)
    preview_images: int = pydantic.Field(0, ge=0)
    held_out_images: int = pydantic.Field(0, ge=0)
    score_images: int = pydantic.Field(0, ge=0)
    patience_images: int = pydantic.Field(0, ge=0)
    checkpoint_images: int = pydantic.Field(0, ge=0)
    checkpoint_minutes: float = pydantic.Field(5.0, ge=0)
    keep_last: int = pydantic.Field(2, gt=0)
    keep_every_images: int = pydantic.Field(0, ge=0)
    tensorboard: bool = False
    wandb: str | None = None

    @pydantic.model_validator(mode="after")
    def _check_company(self) -> Recipe:
        for width in self.ema_widths:
            PowerFunction(width)
        for name, needs in _NEEDS.items():
            if getattr(self, name) and not getattr(self, needs):
                raise ValueError(f"{name}: {getattr(self, name)} has no effect without {needs}")
        return self

    def to_yaml(self) -> str:
        """The recipe with every value, in YAML that `read_recipe` reads."""
        text: str = yaml.safe_dump(_plain(self.model_dump()), sort_keys=False, allow_unicode=True)
        return text


def parse_override(text: str) -> tuple[list[str], Any]:
    """`network.dropout=0.1` as (["network", "dropout"], 0.1); values are read as YAML."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ValueError(f"{text!r}: want key=value, such as batch_size=64")
    try:
        return key.strip().split("."), _read_yaml(value)
    except yaml.YAMLError:
        raise ValueError(f"{text!r}: the value is not valid YAML") from None


class _Loader(yaml.SafeLoader):
    """YAML without aliases, by which a few lines can stand for gigabytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.YAMLError("it has an alias, which is not read")
        return super().compose_node(parent, index)


# what people mean: 1e-3 is a number, which YAML 1.1 reads as a string, and 64x48 is a size; in quotes both are strings
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|inf|nan)$"),
    list("-+.0123456789in"),
)
_Loader.add_implicit_resolver("!size", re.compile(r"\d+x\d+$"), list("0123456789"))
_Loader.add_constructor("!size", lambda loader, node: [int(part) for part in str(node.value).split("x")])


def _read_yaml(text: str) -> Any:
    """What a text says; YAMLError for one that is no YAML, has aliases, or is nested too deeply."""
    try:
        return yaml.load(text, _Loader)
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply") from None


def apply_overrides(config: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """A copy of a nested config with `key=value` texts applied; a new `kind` drops the options of the old one."""
    result = {name: dict(value) if isinstance(value, Mapping) else value for name, value in config.items()}
    for text in overrides:
        path, value = parse_override(text)
        place: dict[str, Any] = result
        for name in path[:-1]:
            inner = place.get(name)
            place[name] = dict(inner) if isinstance(inner, Mapping) else {"kind": inner} if inner else {}
            place = place[name]
        if path[-1] == "kind" and place.get("kind") != value:
            place.clear()
        place[path[-1]] = value
    return result


def _explain(error: pydantic.ValidationError, fields: Iterable[str], *within: str) -> str:
    """The first complaint of pydantic on one line, with the nearest valid key for one that is unknown."""
    first = error.errors()[0]
    path = [*within, *(str(part) for part in first["loc"] if not str(part).startswith("function-"))]
    where = ".".join(path)
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        return f"{where}: no such key; {nearest(path[-1], fields)}{more}"
    message = str(first["msg"]).removeprefix("Value error, ").removeprefix(f"{where}: ").splitlines()[0]
    given = "" if first["type"] in ("missing", "value_error") else f", not {first['input']!r}"
    return f"{where}: {message}{given}{more}"


def make_data_recipe(config: Mapping[str, Any]) -> DataRecipe:
    """The checked data part of a recipe; ValueError on one line names the key, the value and what is allowed."""
    try:
        return DataRecipe.model_validate(dict(config))
    except pydantic.ValidationError as error:
        raise ValueError(_explain(error, DataRecipe.model_fields, "data")) from None


def make_recipe(config: Mapping[str, Any]) -> Recipe:
    """A checked recipe; ValueError on one line names the key, the value and what is allowed."""
    data = config.get("data")
    if isinstance(data, Mapping):
        make_data_recipe(data)
    try:
        return Recipe.model_validate(dict(config))
    except pydantic.ValidationError as error:
        raise ValueError(_explain(error, Recipe.model_fields)) from None


def changes(old: str, new: Recipe) -> list[str]:
    """What differs between the recipe of a checkpoint, in YAML, and the one to go on with, a sentence for each key.

    ValueError for what cannot be changed on the way, with both values.
    """
    now = _flatten(_plain(new.model_dump()))
    before = _flatten(_read_yaml(old))  # of this version or of another one, which may have known other keys
    fixed = _FIXED | ({"noise"} if new.adaptive_noise else set())
    lines = []
    for key in sorted(now.keys() | before.keys()):
        matters = key.split(".")[0] in fixed
        # a key on one side alone is one of another version, unless it is an option of something
        if now.get(key) != before.get(key) and (matters or (key in now and key in before)):
            line = f"{key}: {before.get(key)} became {now.get(key)}"
            if matters:
                raise ValueError(f"{line}, with which a run cannot go on; --transfer begins another with its weights")
            lines.append(line)
    return lines


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in config.items():
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def read_recipe(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; ValueError where there is none."""
    try:
        config = _read_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"recipe: there is no file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"recipe: {path} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise ValueError(f"recipe: {path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(config, dict):
        raise ValueError(f"recipe: {path} holds no mapping of keys to values")
    return config
