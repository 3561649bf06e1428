"""Runs on disk: planned from the command line, started, opened again."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edmkit.cli.previews import draw_preview
from edmkit.data import DataSet, Inspection, inspect
from edmkit.loading import load
from edmkit.model import Model
from edmkit.presets import IDDPM, VE, VP
from edmkit.registry import to_config
from edmkit.train import (
    FROM_DATA,
    RECIPE,
    DataRecipe,
    Recipe,
    Run,
    apply_overrides,
    choose_device,
    default_config,
    make_data_recipe,
    make_recipe,
    read_recipe,
)

__all__ = ["Plan", "open_recipe", "open_run", "plan_run"]


@dataclass(frozen=True)
class Plan:
    """A checked recipe with its data, ready to start."""

    recipe: Recipe
    training: DataSet
    inspection: Inspection
    transfer: Model | None = None

    def warnings(self) -> tuple[str, ...]:
        """Where the recipe is far from what the data propose, and what inspection found odd in them."""
        noise, preconditioning = self.recipe.noise, self.recipe.preconditioning
        used = {name: noise.get(name) for name in ("P_mean", "P_std")}
        disagreements = self.inspection.proposals.disagreements(sigma_data=preconditioning.get("sigma_data"), **used)
        return (*self.inspection.warnings, *disagreements)

    def start(self, out: Path | None, device: str | None) -> tuple[Run, tuple[str, ...]]:
        """Make the folder of the run (default: runs/ and the name of the data) and write the recipe into it.

        With the run come the names of weights that the model to begin with does not have.
        """
        name = re.sub(r"[^\w.-]+", "-", Path(self.recipe.data.source).stem).strip("-") or "run"
        folder = Path("runs") / name if out is None else out
        run = Run(self.recipe, self.training, folder, device=choose_device(device), preview=draw_preview)
        fresh = () if self.transfer is None else run.transfer(self.transfer.denoiser.network)
        run.begin()
        return run, fresh


def _read_source(data: str | None, config: Mapping[str, Any], overrides: Sequence[str]) -> DataRecipe:
    """The part of a config that says which data, before anything else can be proposed."""
    mine = [text for text in overrides if text.startswith("data.")]
    merged = apply_overrides({"data": config.get("data", {})}, mine)["data"]
    if not isinstance(merged, dict):
        raise ValueError(f"data: {merged!r}; want a mapping with a source")
    if data is not None:
        merged["source"] = data
    if "source" not in merged:
        raise ValueError("data: is missing; name it (digits, a folder, …) or give a recipe with data.source")
    return make_data_recipe(merged)


def _images(config: Mapping[str, Any], training: DataSet) -> int | None:
    """The length of training that a config asks for, in images or in epochs."""
    images, epochs = config.get("images"), config.get("epochs")
    if epochs is None:
        return images
    if images is not None:
        raise ValueError("epochs, images: say the same thing; give one of the two")
    if not isinstance(epochs, int | float) or not epochs > 0:
        raise ValueError(f"epochs: {epochs!r}; want a positive number")
    return max(1, round(epochs * len(training)))


def _of_model(model: Model) -> dict[str, Any]:
    """The parts of a recipe with which a model goes on being trained."""
    network = to_config("network", model.denoiser.network)
    preconditioning = model.denoiser.preconditioning
    parts = {
        "network": {name: value for name, value in network.items() if name not in FROM_DATA},
        "preconditioning": to_config("preconditioning", preconditioning),
    }
    for column in (VP, VE, IDDPM):  # EDM's is moved to the data
        if isinstance(preconditioning, type(column.preconditioning)):
            parts["noise"] = to_config("noise", column.noise)
    return parts


def _check_transfer(model: Model, training: DataSet, conditional: bool) -> None:
    """ValueError where a model makes something else than the data are."""
    if model.sample_shape != training.sample_shape:
        there, here = ("×".join(map(str, shape)) for shape in (model.sample_shape, training.sample_shape))
        raise ValueError(f"--transfer: the model makes samples of {there}, the data are of {here}")
    classes = len(training.class_names) if conditional else 0
    if model.class_names and classes not in (0, len(model.class_names)):
        raise ValueError(
            f"--transfer: the model has {len(model.class_names)} classes, the data have {classes}; "
            "conditional=false trains without"
        )


def plan_run(data: str | None, overrides: Sequence[str], recipe: Path | None, transfer: str | None = None) -> Plan:
    """The recipe in full: of a file or proposed from the data, with the overrides; `epochs` becomes `images`.

    Without a recipe, network, preconditioning and the noise that goes with it are those of the model to begin with,
    where there is one.
    """
    model = None if transfer is None else load(transfer)
    given = {} if recipe is None else read_recipe(recipe)
    read_as = _read_source(data, given, overrides)
    training, _ = read_as.load()
    inspection = inspect(training)
    images = _images(apply_overrides({}, overrides), training)
    if recipe is None:
        if images is not None and not (isinstance(images, int) and images > 0):
            raise ValueError(f"images: {images!r}; want a positive whole number")
        given = default_config(training, read_as, inspection, images)
        if model is not None:
            given |= _of_model(model)
    elif images is None:
        images = _images(given, training)
    config = apply_overrides(given, overrides) | {"data": read_as.model_dump(mode="json")}
    config.pop("epochs", None)
    if model is not None:
        _check_transfer(model, training, config.get("conditional", True) is not False)
    if images is not None:
        config["images"] = images
    return Plan(make_recipe(config), training, inspection, model)


def open_recipe(folder: Path) -> Recipe:
    """The recipe that a run wrote; ValueError where the folder is not that of a run."""
    if not (folder / RECIPE).is_file():
        raise ValueError(f"{folder}: is not the folder of a training run: it has no {RECIPE}")
    return make_recipe(read_recipe(folder / RECIPE))


def open_run(folder: Path, device: str | None) -> Run:
    """A run taken up from its checkpoint."""
    recipe = open_recipe(folder)
    training, _ = recipe.data.load()
    run = Run(recipe, training, folder, device=choose_device(device), preview=draw_preview)
    run.resume()
    return run
