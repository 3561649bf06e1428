"""Runs on disk: planned from the command line, started, opened again."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from diffspace._shapes import Tensor
from diffspace.checks import check_number, nearest
from diffspace.cli.scores.quality import LEAST, Measure
from diffspace.cli.scores.real import RealData
from diffspace.config import option_names, to_config
from diffspace.data import DataSet, differences, fingerprints
from diffspace.figures import save_samples
from diffspace.files import atomic_path, missing_path, reading
from diffspace.inspection import Inspection, inspect
from diffspace.loading import load
from diffspace.model import Model
from diffspace.parts import import_typed, kinds
from diffspace.presets import IDDPM, VE, VP
from diffspace.protocols import Cond
from diffspace.sampling import Execution, sample
from diffspace.train import (
    FROM_DATA,
    RECIPE,
    Processes,
    Recipe,
    Run,
    apply_overrides,
    check_data,
    default_config,
    default_noise,
    make_data_recipe,
    make_recipe,
    of_run,
    read_recipe,
)

_SCORED = 1000  # samples of a score during training
_COMPARED = 256  # items that are compared at a time

# the parts of a proposed recipe that decide which keys have an effect, to check them before the data are read
_EXAMPLE: dict[str, Any] = {"network": "ddpmpp", "preconditioning": "edm", "noise": "lognormal", "augment": "edm"}
_EXAMPLE |= {"images": 10**12, "held_out_images": 1, "sigma_min": 1e-30, "sigma_max": 1e30}


@dataclass(frozen=True)
class Plan:
    """A checked recipe with its data, ready to start."""

    recipe: Recipe
    data: tuple[DataSet, DataSet]
    inspection: Inspection
    transfer: Model | None = None

    def start(self, out: Path | None, processes: Processes, warn: Callable[[str], None]) -> Run:
        """Make the folder of the run (default: runs/ and the name of the data) and write the recipe into it.

        Warnings say what is odd in the data, where the recipe is far from what they suggest, and which weights the
        model of `transfer` lacks.
        """
        name = re.sub(r"[^\w.-]+", "-", Path(self.recipe.data.source).stem).strip("-") or "run"
        folder = Path("runs") / name if out is None else out
        run = _make_run(self.recipe, self.data, folder, processes, warn)
        if self.transfer is not None and (fresh := run.transfer(self.transfer.denoiser.network)):
            warn(f"--transfer: the model lacks the weights {', '.join(fresh)}, which are initialised at random")
        notes = {} if self.transfer is None else self.transfer.notes
        known = notes.get("fingerprint")
        same = isinstance(known, Mapping) and known.get("held-out") == self.data[1].fingerprint()
        if notes.get("data") == run.data.name and not same:
            warn("--transfer: the model was trained on another part of these data, and may know what is held out now")
        here, there = run.data.class_names, () if self.transfer is None else self.transfer.class_names
        if here and there and here != there and there != tuple(map(str, range(len(there)))):
            first = " and ".join(f"{', '.join(names[:3])}, …" for names in (there, here))
            warn(f"--transfer: the classes of the model and of the data differ, and go by their numbers: {first}")
        run.begin()
        proposals, usual = (
            self.inspection.proposals,
            default_noise(self.data[0].sample_shape, self.inspection.proposals),
        )
        noise = {name: getattr(self.recipe.noise, name, None) for name in ("P_mean", "P_std")}
        used = {name: None if value == usual[name] else value for name, value in noise.items()}
        used |= {"sigma_data": getattr(self.recipe.preconditioning, "sigma_data", None)}
        used |= {name: getattr(self.recipe, name) for name in ("sigma_min", "sigma_max")}
        for text in (*self.inspection.warnings, *proposals.disagreements(**used)):
            warn(text)
        return run


def _make_run(
    recipe: Recipe, data: tuple[DataSet, DataSet], folder: Path, processes: Processes, warn: Callable[[str], None]
) -> Run:
    if recipe.score_images and min(map(len, data)) < LEAST:
        raise ValueError(f"score_images: expected at least {LEAST} samples in either part, got {min(map(len, data))}")
    measure = Measure(RealData(*data), recipe.score, recipe.score_features, device=processes.device)
    n = recipe.score_samples or min(*map(len, data), _SCORED)
    real = functools.cache(measure.of_training)

    def score(model: Model) -> dict[str, float]:
        found = {recipe.score: measure.measure(model, n), "real": real(n)}
        errors = {f"{name}_error": quality.standard_error for name, quality in found.items()}
        return {name: quality.value for name, quality in found.items()} | errors

    return Run(
        recipe,
        data[0],
        folder,
        held_out=data[1],
        preview=functools.partial(_draw_preview, data[1]),
        score=score,
        processes=processes,
        warn=warn,
    )


def _draw_preview(held_out: DataSet, model: Model, path: Path) -> None:
    """Eight columns of samples from the seeds 0, 1, …, with a row for each of up to ten classes that had data.

    Where there are other conditions than the class, they are those of held-out data.
    """
    classes = () if model.conditioning else model.sampled_classes
    count = 2000 if len(model.sample_shape) == 1 else 8 * min(len(classes), 10) or 64
    labels = [classes[k // 8 % len(classes)] for k in range(count)] if classes else None
    cond: Cond | None = None if labels is None else {"labels": torch.tensor(labels, dtype=torch.int64, device="cpu")}
    if model.conditioning:
        chosen = torch.arange(count, dtype=torch.int64, device="cpu") % len(held_out)
        cond = held_out.cond(chosen, model.condition_names)
    samples = sample(model, seeds=range(count), cond=cond, execution=Execution(batch_size=256))
    with atomic_path(path) as temporary:
        save_samples(temporary, model.decode(samples.x), model.transform, 8, classes_of(cond), model.class_names)


def classes_of(cond: Cond | None) -> Tensor | None:
    """The class numbers among conditions; None where there are none."""
    labels = (cond or {}).get("labels")
    return labels if labels is not None and labels.ndim == 1 else None


def _of_model(model: Model) -> dict[str, Any]:
    """The parts of a recipe that continues the training of a model."""
    network, preconditioning = model.denoiser.network, model.denoiser.preconditioning
    fixed = {name: value for name, value in to_config("network", network).items() if name not in FROM_DATA}
    parts = {"network": fixed, "preconditioning": to_config("preconditioning", preconditioning)}
    for column in (VP, VE, IDDPM):  # EDM's is moved to the data
        if isinstance(preconditioning, type(column.preconditioning)):
            parts["noise"] = to_config("noise", column.noise)
    return parts


def _check_transfer(model: Model, training: DataSet, conditional: bool) -> None:
    """ValueError where the samples or classes of a model differ from those of the data."""
    if model.sample_shape != training.sample_shape:
        there, here = ("×".join(map(str, shape)) for shape in (model.sample_shape, training.sample_shape))
        raise ValueError(f"--transfer: the model makes samples of {there}, the data are of {here}")
    classes = len(training.class_names) if conditional else 0
    if model.class_names and classes not in (0, len(model.class_names)):
        raise ValueError(
            f"--transfer: the model has {len(model.class_names)} classes, the data have {classes}; "
            "conditional=false trains without"
        )


def plan_run(
    data: str | None,
    overrides: Sequence[str],
    recipe: Path | None,
    transfer: str | None = None,
    device: torch.device | None = None,
) -> Plan:
    """The recipe in full: of a file or proposed from the data, with the overrides; `epochs` becomes `images`.

    It is checked as far as possible before the data are read.

    Args:
        data: the source, in the place of the recipe's.
        overrides: `key=value`, in any order.
        recipe: a YAML file that the user trusts: it may name parts as module:Class, which are imported.
        transfer: the model whose weights the training starts from, by default with its network, preconditioning, noise.
        device: where it will be trained; the proposed precision depends on it.
    """
    typed = apply_overrides({}, overrides)
    given = {} if recipe is None else read_recipe(recipe)
    merged = apply_overrides(given, overrides).get("data") or {}
    if not isinstance(merged, Mapping):
        raise ValueError(f"data: expected a mapping with a source, got {merged!r}")
    if data is not None:
        if "source" in (typed.get("data") or {}):
            raise ValueError("data.source: is given twice")
        merged = {**merged, "source": data}
    if "source" not in merged:
        raise ValueError("data: is missing; name it (digits, a folder, …) or give a recipe with data.source")
    for config in (given, typed, {"data": merged}):
        import_typed(config)
    read_as = make_data_recipe(merged)
    images, epochs = _length(typed) or _length(given) or (None, None)
    model = None if transfer is None else load(transfer)
    parts = {} if model is None else _of_model(model)

    def make(config: Mapping[str, Any], words: Sequence[str], images: int | None) -> Recipe:
        changed = apply_overrides(config, words) | {"data": read_as}
        changed.pop("epochs", None)
        return make_recipe(changed if images is None else changed | {"images": images})

    words = overrides
    if recipe is None and not parts and "kind" not in (apply_overrides({"network": {}}, overrides)["network"] or {}):
        words = [word for word in overrides if not word.startswith("network.")]  # the kind depends on the data
        _check_some_network(overrides)
    make(given if recipe else _EXAMPLE | parts, words, 10**12 if epochs else images)

    training, held_out = read_as.load()
    inspection = inspect(training)
    if epochs is not None:
        images = max(1, round(epochs * len(training)))
    if recipe is None:
        given = default_config(training, read_as, inspection, images, device)
        if len(held_out) < 2:  # the error of one sample says nothing
            given |= {"held_out_images": 0, "patience_images": 0}
        given |= parts
        if typed.get("held_out_images") == 0:
            given["patience_images"] = 0
    planned = make(given, overrides, images)
    if model is not None:
        _check_transfer(model, training, planned.conditional)
    check_data(planned, training)
    return Plan(planned, (training, held_out), inspection, model)


def _check_some_network(overrides: Sequence[str]) -> None:
    """ValueError for a key network.NAME that is an option of no network, whichever the data will propose."""
    names = [
        word.partition("=")[0].strip().removeprefix("network.") for word in overrides if word.startswith("network.")
    ]
    known = {name for kind in kinds("network") for name in option_names("network", {"kind": kind})} - set(FROM_DATA)
    for name in names:
        if "." not in name and name not in known:
            raise ValueError(f"network.{name}: no network has such an option; {nearest(name, known)}")


def _length(config: Mapping[str, Any]) -> tuple[int | None, float | None] | None:
    """The length of training that a config asks for, in images or in epochs."""
    images, epochs = config.get("images"), config.get("epochs")
    if epochs is not None:
        if images is not None:
            raise ValueError("epochs, images: set the same thing; give one of them")
        check_number("epochs", epochs, "(0, inf)")
    elif images is None:
        return None
    return images, epochs


def trained_on(known: DataSet, data: DataSet) -> list[bool]:
    """Which items of `data` are among the training data `known`: of the same name, where they have some, and values."""
    found = [False] * len(data)
    if known.sample_shape != data.sample_shape:
        return found
    places = {hash(key): place for place, key in enumerate(known.keys() or ())}
    alike = [(i, places[hash(key)]) for i, key in enumerate(data.keys() or ()) if hash(key) in places]
    for start in range(0, len(alike), _COMPARED):
        pairs = torch.tensor(alike[start : start + _COMPARED], dtype=torch.int64, device="cpu").T
        same = (data.raw(pairs[0]) == known.raw(pairs[1])).flatten(1).all(1)
        for place, equal in zip(pairs[0].tolist(), same.tolist(), strict=True):
            found[place] = equal
    return found


def open_recipe(folder: Path) -> Recipe:
    """The recipe that a run wrote; ValueError where the folder is not that of a run."""
    if not folder.exists():
        raise ValueError(f"there is no folder {missing_path(folder)}")
    if not (folder / RECIPE).is_file():
        raise ValueError(f"{folder}: is not the folder of a training run: it has no {RECIPE}")
    config = of_run(read_recipe(folder / RECIPE))
    with reading(folder / RECIPE, "a recipe"):
        return make_recipe(config)


def load_data_of(folder: Path, recipe: Recipe, model: Model, warn: Callable[[str], None]) -> tuple[DataSet, DataSet]:
    """The data of a run, in its model's class numbers; a warning where they are not those that it was trained with."""
    data = recipe.data.load()
    if found := differences(model.notes.get("fingerprint"), fingerprints(*data)):
        warn(
            f"{folder}: the data have changed since the training: {found}; what is held out now may have been "
            "trained on, so that scores and likelihoods may be too good"
        )
    return with_classes_of(model, data[0]), with_classes_of(model, data[1])


def read_run(folder: Path, overrides: Sequence[str]) -> Recipe:
    """The recipe of a run that is resumed, with the overrides."""
    typed = apply_overrides({}, overrides)
    if "epochs" in typed:
        raise ValueError("epochs: is not supported with --resume; use images, such as images=400000")
    import_typed(typed)
    return make_recipe(apply_overrides(open_recipe(folder).as_dict(), overrides))


def open_run(recipe: Recipe, folder: Path, processes: Processes, warn: Callable[[str], None]) -> Run:
    """A run that continues from its newest complete checkpoint."""
    run = _make_run(recipe, recipe.data.load(), folder, processes, warn)
    run.resume()
    return run


def with_classes_of(model: Model, data: DataSet) -> DataSet:
    """The data with the class numbers of a model that knows classes, which go by name.

    ValueError for a class that the model does not have, and for a condition that the data do not have. Where the model
    has numbers for names, as converted ones have, the numbers of the data are meant.
    """
    for name, condition in model.conditioning.items():
        found = data.conditioning.get(name)
        if found is None or found.shape != condition.shape:
            has = "have none of this name" if found is None else f"have {found}"
            raise ValueError(f"data: the model has the condition {name!r}, {condition}; the data {has}")
    there, here = model.class_names, data.class_names
    if data.labels is None or not there or here == there:
        return data
    if there == tuple(map(str, range(len(there)))) and len(here) == len(there):
        return dataclasses.replace(data, class_names=there)
    used = {k: here[k] for k in sorted(set(data.labels.tolist()))}
    for name in used.values():
        if name not in there:
            raise ValueError(f"data: the model does not have the class {name!r}; {nearest(name, there)}")
    numbers = [there.index(used[k]) if k in used else 0 for k in range(len(here))]
    labels = torch.tensor(numbers, dtype=torch.int64, device="cpu")[data.labels]
    return dataclasses.replace(data, labels=labels, class_names=there)
