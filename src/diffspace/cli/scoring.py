"""Scoring a model against the data of its run, for the commands that do so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import diffspace as ds

if TYPE_CHECKING:
    from rich.progress import Progress

    from diffspace._shapes import Tensor
    from diffspace.data import DataSet
    from diffspace.metrics import Classifier, Scores
    from diffspace.train import Recipe

_MOST = 50_000  # samples of large data that are read


@dataclass(frozen=True, eq=False)
class Scoring:
    """`sets` sets of n samples, with seeds from `first_seed` on, scored against the data of a run.

    Several models are scored with the same seeds and the same classifier of real data, trained once.
    """

    training: DataSet
    held_out: DataSet
    n: int
    sets: int
    steps: int
    first_seed: int
    batch: int

    @classmethod
    def of(cls, recipe: Recipe, n: int | None, sets: int, steps: int, first_seed: int, batch: int) -> Scoring:
        """With the data of a recipe; by default sets of as many samples as there are held-out data, up to 10,000."""
        training, held_out = recipe.data.load()
        size = min(len(held_out), len(training), 10_000) if n is None else n
        return cls(training, held_out, size, sets, steps, first_seed, batch)

    @property
    def seeds(self) -> range:
        return range(self.first_seed, self.first_seed + self.n * self.sets)

    @cached_property
    def _real(self) -> tuple[Tensor, Tensor | None]:
        return _read(self.training)

    @cached_property
    def _new(self) -> tuple[Tensor, Tensor | None]:
        return _read(self.held_out)

    @cached_property
    def _classifier(self) -> Classifier | None:
        from diffspace.metrics import train_classifier

        real, labels = self._real
        return None if labels is None else train_classifier(real, labels, len(self.training.class_names))

    def watch(self, bar: Progress, prefix: str = "") -> tuple[Callable[[str], None], Callable[[int, Any], None]]:
        """A line on a bar: two functions, which show the current part and the steps of sampling."""
        task = bar.add_task(prefix, total=None, info="")

        def tell(part: str) -> None:
            bar.update(task, description=prefix + part, completed=0, total=None, info="")

        def show(first: int, state: Any) -> None:
            done = first // self.batch * self.steps + state.step
            total = -(-len(self.seeds) // self.batch) * self.steps
            bar.update(task, completed=done, total=total, info=f"σ = {state.sigma:.3g}")

        return tell, show

    def __call__(self, model: ds.Model, tell: Callable[[str], None], show: Callable[[int, Any], None]) -> Scores:
        """Sample, the classes of the held-out data in turn, train the classifier where there are some, and measure."""
        import torch

        from diffspace.metrics import evaluate

        tell("sampling")
        real, real_labels = self._real
        new, new_labels = self._new
        labels = classes = None
        if model.class_names and real_labels is not None and new_labels is not None:
            labels = new_labels[torch.arange(self.n) % len(new)].repeat(self.sets)
            classes = (labels, real_labels, new_labels)
        samples = ds.sample(
            model,
            seeds=self.seeds,
            sampler=ds.Sampler(ds.EDMSteps(self.steps)),
            cond=None if labels is None else {"labels": labels},
            execution=ds.Execution(batch_size=self.batch, progress=show),
        ).x.to(torch.float32)
        # clipped and rounded like the data, as samples are stored
        samples = model.transform.forward(model.decode(samples))
        classifier = None
        if labels is not None:
            tell("training the classifier of real data")
            classifier = self._classifier
        tell("scoring")
        return evaluate(samples, real, new, seeds=self.seeds, labels=classes, n=self.n, classifier=classifier)


def _read(data: DataSet) -> tuple[Tensor, Tensor | None]:
    """The samples in order and their classes; of large data, some."""
    places = data.sample_numbers(_MOST).sort().values
    return data.batch(places), data.classes(places)
