"""Scoring a model against the data of its run, for the commands that do so."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import diffspace as ds

if TYPE_CHECKING:
    from diffspace._shapes import Tensor
    from diffspace.cli.console import Stages
    from diffspace.data import DataSet
    from diffspace.metrics import Classifier, Scores

_MOST = 50_000  # samples of large data that are read


class Scoring:
    """`sets` sets of n samples, with seeds from `first_seed` on, scored against the data of a run.

    Several models are scored with the same seeds and the same classifier of real data, trained once. By default n is
    the number of held-out data, up to 10,000.
    """

    def __init__(
        self,
        data: tuple[DataSet, DataSet],
        n: int | None = None,
        sets: int = 1,
        steps: int = 18,
        first_seed: int = 0,
        batch: int = 256,
    ) -> None:
        self.training, self.held_out = data
        self.n = min(*map(len, data), 10_000) if n is None else n
        self.sets, self.steps, self.batch = sets, steps, batch
        self.seeds = range(first_seed, first_seed + self.n * sets)

    @cached_property
    def _data(self) -> list[tuple[Tensor, Tensor | None]]:
        """The samples of both parts, in order, and their classes; of large data, some."""
        chosen = [(part, part.sample_numbers(_MOST).sort().values) for part in (self.training, self.held_out)]
        return [(part.batch(numbers), part.classes(numbers)) for part, numbers in chosen]

    @cached_property
    def _classifier(self) -> Classifier | None:
        from diffspace.metrics import train_classifier

        real, labels = self._data[0]
        return None if labels is None else train_classifier(real, labels, len(self.training.class_names))

    def __call__(self, model: ds.Model, stage: Stages) -> Scores:
        """Sample, the classes of the held-out data in turn, train the classifier where there are some, and measure."""
        import torch

        from diffspace.metrics import evaluate

        stage("sampling")
        (real, real_labels), (new, new_labels) = self._data
        labels = classes = None
        if model.class_names and real_labels is not None and new_labels is not None:
            labels = new_labels[torch.arange(self.n) % len(new)].repeat(self.sets)
            classes = (labels, real_labels, new_labels)
        samples = ds.sample(
            model,
            seeds=self.seeds,
            sampler=ds.Sampler(ds.EDMSteps(self.steps)),
            cond=None if labels is None else {"labels": labels},
            execution=ds.Execution(self.batch, progress=stage.steps(len(self.seeds), self.batch)),
        ).x.to(torch.float32)
        # clipped and rounded like the data, as samples are stored
        samples = model.transform.forward(model.decode(samples))
        classifier = None
        if labels is not None:
            stage("training the classifier of real data")
            classifier = self._classifier
        stage("scoring")
        return evaluate(samples, real, new, seeds=self.seeds, labels=classes, n=self.n, classifier=classifier)
