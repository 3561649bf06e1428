"""The conditions of samples on the command line: classes by name, vectors in words, anything from a file."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import diffspace as ds
from diffspace.checks import nearest
from diffspace.cli.options import choose_labels
from diffspace.conditions import Condition, as_conditions

if TYPE_CHECKING:
    import numpy as np

    from diffspace._shapes import Tensor

_BESIDE = ("x", "images", "arr_0", "seeds", "class_names")  # of a data file, which are no conditions
_LABELS = ("labels", "y")
_CHANNELS = {1: "grayscale", 3: "RGB", 4: "RGBA"}


def choose_cond(
    model: ds.Model,
    words: Sequence[str] | None,
    classes: Sequence[str] | None,
    seeds: Sequence[int],
    proportional: bool = False,
    warn: Callable[[str], None] = lambda text: None,
) -> dict[str, Tensor] | None:
    """The conditions of a sample for each seed, by name; None for a model without any.

    Rows of values are taken in turn. A class that is not given is random; another condition that is not given is the
    null condition if the model was trained with it, and a ValueError otherwise.

    Args:
        model: the model, which says what its conditions are.
        words: NAME=VALUE, or the path of an .npz file.
        classes: the words of --class.
        seeds: those of the samples.
        proportional: random classes in the proportions of the training data.
        warn: told of values that no training sample had.
    """
    given: dict[str, Tensor] = {}
    for word in words or ():
        name, equals, value = word.partition("=")
        found = {name.strip(): _value(model, name.strip(), value.strip())} if equals else _of_file(model, Path(word))
        if twice := sorted(given.keys() & found.keys()):
            raise ValueError(f"--cond: {twice[0]!r} is given twice")
        given |= found
    if "labels" in given and model.class_names and (classes or proportional):
        raise ValueError("--class: the classes are given by --cond too; use one of the two")
    for name, condition in required_conditions(model.denoiser.network).items():
        if name not in given:
            words = example_words(model.denoiser.network).strip()
            raise ValueError(f"--cond: the model requires {name!r}, {condition}; such as {words}, or --cond FILE.npz")
    _warn_outside(model.conditioning, given, warn)
    if (most := max(map(len, given.values()), default=0)) > len(seeds):
        warn(f"--cond: of {most} rows the first {len(seeds)} are used; --seeds 0-{most - 1} makes a sample for each")
    cond = {name: _in_turn(value, len(seeds)) for name, value in given.items()}
    if "labels" not in cond and (labels := choose_labels(model, classes, seeds, proportional)) is not None:
        cond["labels"] = labels
    return cond or None


def example_words(network: object) -> str:
    """The options of `diffspace sample` for the conditions that a network requires, with the means of the data."""
    words = []
    for name, condition in required_conditions(network).items():
        means = [f"{mean:.3g}" for mean in condition.shift] * (condition.channels if len(condition.shift) == 1 else 1)
        value = "FILE" if condition.is_image else condition.names[0] if condition.names else ",".join(means)
        words.append(f" --cond {shlex.quote(f'{name}={value}')}")
    return "".join(words)


def required_conditions(network: object) -> dict[str, Condition]:
    """The conditions without which a network is not evaluated; of one that does not say, all that it has."""
    stated = getattr(network, "conditioning", None)
    known = as_conditions(stated) if isinstance(stated, Mapping) else {}
    required = getattr(network, "required", known)
    return {name: condition for name, condition in known.items() if name in required}


def _in_turn(values: Tensor, count: int) -> Tensor:
    import torch

    return values[torch.arange(count, dtype=torch.int64, device="cpu") % len(values)]


def _condition(model: ds.Model, name: str) -> Condition:
    known = model.conditioning
    if name not in known:
        if name in _LABELS and model.class_names:
            raise ValueError("--cond: classes are chosen by name with --class")
        raise ValueError(f"--cond: the model has no condition {name!r}; {nearest(name, known)}")
    return known[name]


def _value(model: ds.Model, name: str, text: str) -> Tensor:
    """The rows that a word says, or those of a file."""
    import torch

    condition = _condition(model, name)
    path = Path(text).expanduser()
    if condition.is_image or path.suffix.lower() in (".npy", ".npz"):
        return _read(name, condition, path)
    rows = [_components(name, condition, row) for row in text.split(";") if row.strip()]
    if not rows:
        raise ValueError(f"--cond: {name}: expected {condition}, got {text!r}")
    return torch.tensor(rows, dtype=torch.float32, device="cpu")


def _components(name: str, condition: Condition, text: str) -> list[float]:
    """`0.3,1.2`, or of components with names `cat,dog` for those that are 1."""
    words = [word.strip() for word in text.split(",")]
    if condition.names and all(word in condition.names for word in words):
        return [float(other in words) for other in condition.names]
    try:
        values = [float(word) for word in words]
    except ValueError:
        values = []
    if len(values) != condition.channels or any(value - value != 0 for value in values):
        raise ValueError(f"--cond: {name}: expected {condition}; got {text!r}")
    return values


def _read(name: str, condition: Condition, path: Path) -> Tensor:
    """The rows of a condition in an array of its own, an image or a folder of images."""
    from diffspace.data import ImageFile, ImageFolder, ImageZip, read_arrays
    from diffspace.files import missing_path

    if not path.exists():
        raise ValueError(f"--cond: {name}: there is no file {missing_path(path)}; expected {condition}")
    if path.suffix.lower() in (".npy", ".npz"):
        arrays = read_arrays(path)
        key = next((key for key in (name, "x", "images", "arr_0") if key in arrays), None)
        if key is None:
            raise ValueError(f"--cond: {path} has no array {name!r}; {nearest(name, arrays)}")
        return _rows(path, name, condition, arrays[key])
    if condition.channels not in _CHANNELS or len(condition.shape) != 3:
        raise ValueError(f"--cond: {name}: expected {condition} in an .npy or .npz file, got {path}")
    kind = ImageFolder if path.is_dir() else ImageZip if path.suffix.lower() == ".zip" else ImageFile
    channels: Any = _CHANNELS[condition.channels]
    images = kind(path, channels=channels, classes="none").load().raw()
    return _rows(path, name, condition, images.numpy())


def _of_file(model: ds.Model, path: Path) -> dict[str, Tensor]:
    """The conditions in the arrays of an .npz file, such as the data or samples."""
    import torch

    from diffspace.data import read_arrays
    from diffspace.files import missing_path

    if path.suffix.lower() != ".npz":
        raise ValueError(f"--cond: expected NAME=VALUE or the name of an .npz file, got {str(path)!r}")
    if not path.expanduser().exists():
        raise ValueError(f"--cond: there is no file {missing_path(path)}")
    arrays = read_arrays(path.expanduser())
    found: dict[str, Tensor] = {}
    for name, values in arrays.items():
        if name in _LABELS and name not in model.conditioning and model.class_names:
            numbers = _class_numbers(path, model, values, arrays.get("class_names"))
            found["labels"] = torch.tensor(numbers, dtype=torch.int64, device="cpu")
        elif name in model.conditioning or name not in (*_BESIDE, *_LABELS):
            found[name] = _rows(path, name, _condition(model, name), values)
    if not found:
        raise ValueError(f"--cond: {path} has no condition of the model, {', '.join(map(repr, model.condition_names))}")
    return found


def _class_numbers(path: Path, model: ds.Model, labels: np.ndarray, names: np.ndarray | None) -> list[int]:
    """The model's numbers of classes that a file has by name, or by number where it has no names."""
    import torch

    if labels.ndim != 1:
        raise ValueError(f"--cond: {path}: labels: expected numbers or names of shape (n,), got {labels.shape}")
    words: list[Any] = labels.tolist()
    if names is not None and all(type(word) is int and 0 <= word < len(names) for word in words):
        words = [str(names[word]) for word in words]
    known: dict[Any, int] = {name: k for k, name in enumerate(model.class_names)}
    known |= {k: k for k in range(len(model.class_names))}
    for word in words:
        if isinstance(word, bool) or word not in known:
            raise ValueError(f"--cond: {path}: labels: {word!r} is no class; {nearest(str(word), model.class_names)}")
    numbers = [known[word] for word in words]
    model.check_labels(torch.tensor(numbers, dtype=torch.int64, device="cpu"))
    return numbers


def _rows(path: Path, name: str, condition: Condition, values: np.ndarray) -> Tensor:
    """An array as rows of a condition; channels may be missing where there is one, or come last."""
    import numpy as np
    import torch

    shape, own = tuple(values.shape[1:]), condition.shape
    if shape != own and own[0] == 1 and shape == own[1:]:
        values = values[:, None]
    elif shape != own and condition.is_image and shape == (*own[1:], own[0]):
        values = np.moveaxis(values, -1, 1)
    if tuple(values.shape[1:]) != own or values.ndim == 0 or not len(values) or values.dtype.kind not in "biuf":
        got = f"{values.dtype} of shape {values.shape}"
        raise ValueError(f"--cond: {path}: {name}: expected rows of {condition}, shape {('n', *own)}; got {got}")
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values.reshape(len(values), -1))).any(1).argmax())
        raise ValueError(f"--cond: {path}: {name}: row {bad} is not finite")
    narrow = values if values.dtype == np.uint8 else values.astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray(narrow))


def _warn_outside(known: Mapping[str, Condition], given: Mapping[str, Tensor], warn: Callable[[str], None]) -> None:
    """Warn of values beyond those of the training data, of which the model knows nothing."""
    for name, condition in known.items():
        if name not in given or not condition.low:
            continue
        flat = given[name].double().movedim(1, 0).flatten(1)
        for low, high, component in zip(condition.low, condition.high, flat, strict=True):
            slack = 1e-6 * (abs(low) + abs(high))
            least, most = float(component.min()), float(component.max())
            if least < low - slack or most > high + slack:
                span = f"{least:g}" if least == most else f"{least:g} to {most:g}"
                warn(f"--cond: {name}: {span} goes beyond {low:g} to {high:g} of the training data")
                break
