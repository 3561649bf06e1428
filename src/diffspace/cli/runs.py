"""Runs on disk: planned from the command line, started, opened again."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from diffspace.cli.previews import draw_preview
from diffspace.cli.scoring import Scoring
from diffspace.config import to_config
from diffspace.data import DataSet
from diffspace.inspection import Inspection, inspect
from diffspace.loading import load
from diffspace.model import Model
from diffspace.presets import IDDPM, VE, VP
from diffspace.train import (
    FROM_DATA,
    RECIPE,
    DataRecipe,
    Processes,
    Recipe,
    Run,
    apply_overrides,
    default_config,
    make_data_recipe,
    make_recipe,
    read_recipe,
)

__all__ = ["Plan", "open_recipe", "open_run", "plan_run", "read_run"]

_SCORED, _STEPS = 1000, 18  # samples and steps of a score during training


@dataclass(frozen=True)
class Plan:
    """A checked recipe with its data, ready to start."""

    recipe: Recipe
    training: DataSet
    held_out: DataSet
    inspection: Inspection
    transfer: Model | None = None

    def warnings(self) -> tuple[str, ...]:
        """Where the recipe is far from what the data propose, and what inspection found odd in them."""
        noise, preconditioning = self.recipe.noise, self.recipe.preconditioning
        used = {name: noise.get(name) for name in ("P_mean", "P_std")}
        disagreements = self.inspection.proposals.disagreements(sigma_data=preconditioning.get("sigma_data"), **used)
        return (*self.inspection.warnings, *disagreements)

    def start(self, out: Path | None, processes: Processes, warn: Callable[[str], None]) -> tuple[Run, tuple[str, ...]]:
        """Make the folder of the run (default: runs/ and the name of the data) and write the recipe into it.

        With the run come the names of weights that the model to begin with does not have.
        """
        name = re.sub(r"[^\w.-]+", "-", Path(self.recipe.data.source).stem).strip("-") or "run"
        folder = Path("runs") / name if out is None else out
        run = _make_run(self.recipe, self.training, self.held_out, folder, processes, warn)
        fresh = () if self.transfer is None else run.transfer(self.transfer.denoiser.network)
        run.begin()
        return run, fresh


def _make_run(
    recipe: Recipe,
    training: DataSet,
    held_out: DataSet,
    folder: Path,
    processes: Processes,
    warn: Callable[[str], None],
) -> Run:
    scoring = Scoring(training, held_out, min(len(held_out), len(training), _SCORED), 1, _STEPS, 0, 256)

    def score(model: Model) -> dict[str, float]:
        found = scoring(model, lambda part: None, lambda first, state: None).frechet[0]
        return {"frechet": found.value, "real": found.real}

    return Run(
        recipe,
        training,
        folder,
        held_out=held_out,
        processes=processes,
        preview=draw_preview,
        score=score,
        warn=warn,
    )


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


def plan_run(
    data: str | None,
    overrides: Sequence[str],
    recipe: Path | None,
    transfer: str | None = None,
    device: torch.device | None = None,
) -> Plan:
    """The recipe in full: of a file or proposed from the data, with the overrides; `epochs` becomes `images`.

    Without a recipe, network, preconditioning and the noise that goes with it are those of the model to begin with,
    where there is one.
    """
    model = None if transfer is None else load(transfer)
    given = {} if recipe is None else read_recipe(recipe)
    read_as = _read_source(data, given, overrides)
    training, held_out = read_as.load()
    inspection = inspect(training)
    images = _images(apply_overrides({}, overrides), training)
    if recipe is None:
        if images is not None and not (isinstance(images, int) and images > 0):
            raise ValueError(f"images: {images!r}; want a positive whole number")
        given = default_config(training, read_as, inspection, images, device)
        if len(held_out) < 2:  # one sample has no error that could be told
            given |= {"held_out_images": 0, "patience_images": 0}
        if model is not None:
            given |= _of_model(model)
    elif images is None:
        images = _images(given, training)
    config = apply_overrides(given, overrides) | {"data": read_as.model_dump(mode="json")}
    config.pop("epochs", None)
    if (
        recipe is None
        and config["held_out_images"] == 0
        and not any(o.startswith("patience_images") for o in overrides)
    ):
        config["patience_images"] = 0  # what was proposed goes with what was not wanted
    if model is not None:
        _check_transfer(model, training, config.get("conditional", True) is not False)
    if images is not None:
        config["images"] = images
    return Plan(make_recipe(config), training, held_out, inspection, model)


def open_recipe(folder: Path) -> Recipe:
    """The recipe that a run wrote; ValueError where the folder is not that of a run."""
    if not (folder / RECIPE).is_file():
        raise ValueError(f"{folder}: is not the folder of a training run: it has no {RECIPE}")
    config = read_recipe(folder / RECIPE)
    config.pop("winograd", None)  # a key of version 0.1
    return make_recipe(config)


def read_run(folder: Path, overrides: Sequence[str]) -> Recipe:
    """The recipe of a run to go on with, with what has changed since."""
    recipe = open_recipe(folder)
    if not overrides:
        return recipe
    config = apply_overrides(recipe.model_dump(), overrides)
    if "epochs" in config:
        raise ValueError("epochs: of a run that goes on, the length is said in images, such as images=400000")
    return make_recipe(config)


def open_run(recipe: Recipe, folder: Path, processes: Processes, warn: Callable[[str], None]) -> Run:
    """A run taken up from its newest whole checkpoint."""
    training, held_out = recipe.data.load()
    run = _make_run(recipe, training, held_out, folder, processes, warn)
    run.resume()
    return run
