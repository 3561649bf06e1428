"""Scores of the samples of models, or of samples from anywhere, beside those of real data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import torch

from diffspace._shapes import Tensor
from diffspace.cli.console import Stages
from diffspace.cli.drawing import Drawing
from diffspace.cli.options import MOST_SAMPLES
from diffspace.cli.sample_files import SampleWriter
from diffspace.cli.taking import Items, Taken, data_items, drawn_items, take_features
from diffspace.data import DataSet
from diffspace.metrics import Classifier, FeatureExtractor, Scores, default_extractor, evaluate, train_classifier
from diffspace.model import Model
from diffspace.protocols import Denoiser
from diffspace.sampling import EDMSteps, Sampler
from diffspace.train import Processes

_MOST = 50_000  # items of large data that are read to score
_Made = TypeVar("_Made")


@dataclass(frozen=True, eq=False)
class _Stored:
    """Stands for an extractor whose features of these items have been taken."""

    name: str
    dim: int
    taken: Sequence[Taken]

    def __call__(self, x: Tensor) -> Tensor:
        return next(each.features(self.name) for each in self.taken if each.x is x)


class Scoring:
    """`sets` sets of n samples, with seeds from `first_seed` on, scored against real data.

    Several models are scored with the same seeds and the same features of real data, which are taken once. Several
    processes share the work: all call the same methods, and the first has the results.

    Args:
        data: the training part and the held-out part; of large data, some items.
        n: samples in a set; default: the number of held-out data, up to 10,000.
        sets: the number of sets.
        steps: of the sampler, where none is given.
        first_seed: the seed of the first sample.
        batch: items in a batch.
        group: the processes.
        folder: where features are kept, so that a killed command goes on; default, and for one batch: in memory.
    """

    def __init__(
        self,
        data: tuple[DataSet, DataSet],
        n: int | None = None,
        sets: int = 1,
        steps: int = 18,
        first_seed: int = 0,
        batch: int = 256,
        *,
        group: Processes | None = None,
        folder: Path | None = None,
    ) -> None:
        self.training, self.held_out = data
        self.n = min(*map(len, data), 10_000) if n is None else n
        self.sets, self.steps, self.batch = sets, steps, batch
        self.group = Processes(torch.device("cpu")) if group is None else group
        self._folder = folder if self.n * sets > batch else None
        self._real: list[Taken | None] = []  # of the training part and of the held-out part
        if self.n * sets > MOST_SAMPLES:
            raise ValueError(f"--n, --sets: expected at most {MOST_SAMPLES} samples in all, got {self.n * sets}")
        self.seeds = range(first_seed, first_seed + self.n * sets)

    def __call__(
        self, model: Model, stage: Stages, *, sampler: Sampler | None = None, denoiser: Denoiser | None = None
    ) -> Scores:
        """Sample with the conditions of held-out data in turn, and measure, with one process."""
        taken = self.take(drawn_items(self.drawing(model, sampler, denoiser), {}), stage)
        if taken is None:
            raise ValueError("group: the scores are on the first process")
        return self.measure(model, taken, stage)

    def drawing(self, model: Model, sampler: Sampler | None = None, denoiser: Denoiser | None = None) -> Drawing:
        """The samples of a model, with the conditions of held-out data in turn."""
        names = [name for name in model.condition_names if name != "labels" or self.held_out.class_names]
        cond = self.held_out.cond(self._numbers[1][self._turns], names)
        sampler = Sampler(EDMSteps(self.steps)) if sampler is None else sampler
        return Drawing(model, denoiser or model, sampler, self.seeds, cond, self.batch)

    def take(self, items: Items, stage: Stages, writer: SampleWriter | None = None) -> Taken | None:
        """Features of real data, once, and of samples; None on all processes but the first."""
        self._take_real(stage)
        stage("sampling" if items.steps > 1 else "reading samples")
        return take_features(items, self._extractors, self.group, stage, self._folder, writer)

    def measure(self, model: Model, taken: Taken, stage: Stages) -> Scores:
        """Scores of samples of a model, on the first process."""
        stage("scoring")
        real, new = (each for each in self._real if each is not None)
        classes = None
        if taken.labels is not None and real.labels is not None and new.labels is not None:
            classes = (taken.labels, real.labels, new.labels)
        known, own = (
            part.cond(numbers, list(model.conditioning)) or {}
            for part, numbers in zip((self.training, self.held_out), self._numbers, strict=True)
        )
        conditions = {
            name: tuple(each.standardise(values) for values in (own[name][self._turns], known[name], own[name]))
            for name, each in model.conditioning.items()
        }
        return evaluate(
            *(taken.x, real.x, new.x),
            seeds=self.seeds,
            labels=classes,
            conditions=conditions,  # type: ignore[arg-type]
            n=self.n,
            classifier=self._classifier if classes is not None else None,
            extractors=[_Stored(each.name, each.dim, (taken, real, new)) for each in self._extractors],
        )

    @cached_property
    def _numbers(self) -> list[Tensor]:
        """The numbers of the items in each part; of large data, some."""
        return [part.sample_numbers(_MOST).sort().values for part in (self.training, self.held_out)]

    @property
    def _turns(self) -> Tensor:
        """The held-out item, among those that are used, whose conditions each sample has."""
        held_out = len(self._numbers[1])
        return torch.arange(self.n, dtype=torch.int64, device="cpu").remainder(held_out).repeat(self.sets)

    def _made_once(self, make: Callable[[], _Made]) -> _Made:
        """What the first process makes, on all of them."""
        found: _Made = self.group.broadcast(make() if self.group.first else None)
        return found

    @cached_property
    def _classifier(self) -> Classifier | None:
        """A classifier of the training part, where that has classes."""
        part, numbers = self.training, self._numbers[0]
        labels = part.classes(numbers)
        if labels is None:
            return None
        return self._made_once(lambda: train_classifier(part.batch(numbers), labels, len(part.class_names)))

    @cached_property
    def _extractors(self) -> list[FeatureExtractor]:
        default = self._made_once(lambda: default_extractor(self.training.batch(self._numbers[0])))
        return [each for each in (self._classifier, default) if each is not None]

    def _take_real(self, stage: Stages) -> None:
        """Features of the training part and of the held-out part."""
        if self._real:
            return
        stage("training the classifier of real data")
        extractors = self._extractors
        stage("features of real data")
        parts = (self.training, self.held_out)
        for name, part, numbers in zip(("real", "reference"), parts, self._numbers, strict=True):
            items = data_items(name, part, numbers, self.batch)
            self._real.append(take_features(items, extractors, self.group, stage, self._folder))
