"""Trainings and scores of one data set, each made once and kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any

import torch

from diffspace._shapes import Tensor
from diffspace.data import DataSet, batches, make_source
from diffspace.metrics import Classifier, Features, train_classifier
from diffspace.metrics.sweep import Quality
from diffspace.model import Model
from diffspace.objective import LogNormal
from diffspace.objective.loss import Weight
from diffspace.protocols import PAPER_RANGE, PAPER_SIGMA_DATA, Cond
from diffspace.reproduction.scale import Scale
from diffspace.reproduction.store import Store
from diffspace.sampling import EDMSteps, Execution, Sampler, sample
from diffspace.solverlab import REFERENCE_SAMPLER, Reference, reference
from diffspace.solverlab.end_points import mean_squares
from diffspace.train import Processes, make_recipe
from diffspace.train.build import make_denoiser, make_trainer

Show = Callable[[str, int, int | None], None]
"""Called with what is being done, how far it is, and of how much."""

_BATCH, _SHOWN = 250, 10
_NETWORKS: Mapping[str, Mapping[str, Any]] = {
    "digits": {"kind": "ddpmpp", "model_channels": 16, "channel_mult": [1, 1], "num_blocks": 1, "attn_resolutions": []},
    "mnist-5k": {
        "kind": "ddpmpp",
        "model_channels": 16,
        "channel_mult": [1, 1, 2],
        "num_blocks": 1,
        "attn_resolutions": [7],
    },
}


class Bench:
    """What parts of the reproduction measure with.

    Args:
        source: the name of the data.
        scale: how much is measured.
        store: keeps what was measured.
        show: shows progress.
    """

    def __init__(self, source: str, scale: Scale, store: Store, show: Show) -> None:
        self.source, self.scale, self.store, self.show = source, scale, store, show
        self.training, self.held_out = make_source(source).load().split()
        self.sigma_data = float(f"{float(self.training.batch().std()):.3g}")
        self.unit = self.sigma_data / PAPER_SIGMA_DATA
        """By which the paper's noise levels move to these data."""

    @property
    def sampler(self) -> Sampler:
        """The paper's own with NFE 35, in the paper's range moved to these data, whatever a model was trained on."""
        low, high = (self.unit * end for end in PAPER_RANGE)
        return Sampler(EDMSteps(18, low, high))

    def config(self, data: DataSet, images: int, seed: int) -> dict[str, Any]:
        """The recipe that all configurations share: the network, its optimizer and its average (B and C of Table 2)."""
        noise = LogNormal.for_data(self.sigma_data)
        return {
            "data": {"source": self.source},
            "network": _NETWORKS[self.source],
            "preconditioning": {"kind": "edm", "sigma_data": self.sigma_data},
            "noise": {"kind": "lognormal", **asdict(noise)},
            "images": images,
            "batch_size": 128,
            "learning_rate": 2e-3,
            "ramp_images": images // 20,
            "decay_images": images // 2,
            "ema_halflife_images": images // 20,
            "seed": seed,
        }

    def train(
        self,
        key: str,
        seed: int,
        changes: Mapping[str, Any] | None = None,
        *,
        weight: Weight | None = None,
        data: DataSet | None = None,
        images: int | None = None,
    ) -> Model:
        """A model in evaluation mode.

        Args:
            key: names it.
            seed: of all that is random.
            changes: keys of the recipe that differ from `config`.
            weight: λ(σ); None: 1/c_out² of the preconditioning.
            data: to train on. Default: the training part.
            images: length. Default: that of the scale.
        """
        data = self.training if data is None else data
        images = self.scale.images[self.source] if images is None else images

        def make() -> tuple[Model, dict[str, Any]]:
            recipe = make_recipe({**self.config(data, images, seed), **(changes or {})})
            trainer = make_trainer(recipe, make_denoiser(recipe, data), Processes(torch.device("cpu")))
            if weight is not None:
                trainer.loss.weight = weight  # a recipe has the weight of its preconditioning
            began, total = time.process_time(), 0.0
            for step in trainer.run(batches(data, recipe.batch_size, seed)):
                total += float(step.loss)
                if step.step % _SHOWN == 0:
                    self.show(f"training {key}", step.images, images)
            notes = {"seconds": time.process_time() - began, "images": trainer.images, "steps": trainer.step}
            notes |= {"mean_loss": total / trainer.step}
            average = trainer.averages[0].module
            return Model(average, data.transform, data.class_names, notes, data.class_counts), notes

        return self.store.model(f"{self.source}/{key}", make)

    @cached_property
    def classifier(self) -> Classifier:
        """Of real training items: its last hidden layer gives the features."""
        self.show(f"a classifier of {self.source}", 0, None)
        labels = self.training.labels
        if labels is None:
            raise ValueError(f"data: {self.source} has no classes")
        return train_classifier(self.training.batch(), labels, len(self.training.class_names))

    @cached_property
    def target(self) -> Features:
        """Of the held-out data, from which Fréchet distances are taken."""
        return Features(self.classifier(self.held_out.batch()), self.classifier.name)

    def real(self) -> dict[str, Any]:
        """The score of as many training items."""

        def take() -> dict[str, Any]:
            chosen = self.training.sample_numbers(min(self.scale.samples, len(self.training)))
            return self._scored(self.training.batch(chosen), self.training.classes(chosen))

        return dict(self.store.once(f"{self.source}/real", take))

    def cond(self, count: int) -> Cond:
        """The classes of the held-out data in turn."""
        turns = torch.arange(count, dtype=torch.int64, device="cpu") % len(self.held_out)
        return dict(self.held_out.cond(turns) or {})

    def draw(self, key: str, model: Model, sampler: Sampler, seeds: Sequence[int]) -> Tensor:
        """Samples (n, *dims) in the model's space."""

        def show(first: int, state: Any) -> None:
            done = first * state.num_steps + min(_BATCH, len(seeds) - first) * state.step
            self.show(f"sampling {key}", done, len(seeds) * state.num_steps)

        execution = Execution(_BATCH, progress=show)
        return sample(model, seeds=seeds, cond=self.cond(len(seeds)), sampler=sampler, execution=execution).x

    def quality(
        self,
        key: str,
        model: Model,
        sampler: Sampler,
        *,
        first_seed: int = 0,
        count: int | None = None,
        truth: Callable[[], Reference] | None = None,
    ) -> dict[str, Any]:
        """Score samples: Fréchet distance, the share that is recognised, squared distances from end points `truth`."""
        count = self.scale.samples if count is None else count

        def take() -> dict[str, Any]:
            x = self.draw(key, model, sampler, range(first_seed, first_seed + count))
            stored = model.transform.forward(model.decode(x.to(torch.float32)))
            found = self._scored(stored, self.cond(count)["labels"])
            if truth is not None:
                ends = truth()
                found["squares"] = mean_squares(x[: len(ends.x)].to(ends.x) - ends.x).tolist()
            return found

        return dict(self.store.once(f"{self.source}/{key}", take))

    def _scored(self, x: Tensor, labels: Tensor | None) -> dict[str, Any]:
        quality = Quality.of("frechet", Features(self.classifier(x), self.classifier.name), self.target)
        right = None if labels is None else (self.classifier.predict(x) == labels).double().mean().item()
        return {"frechet": quality.value, "blocks": quality.blocks, "recognised": right}

    def ends(self, key: str, model: Model, sampler: Sampler) -> Reference:
        """End points of the ODE of the first samples, in the range of a sampler."""
        self.show(f"end points of {key}", 0, None)
        steps: Any = sampler.steps
        wide = EDMSteps(self.scale.reference_steps, steps.sigma_min, steps.sigma_max)
        fine, count = Sampler(wide, REFERENCE_SAMPLER.solver), self.scale.ends
        return reference(model, seeds=range(count), cond=self.cond(count), sampler=fine)
