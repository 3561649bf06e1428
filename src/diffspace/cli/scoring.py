"""Scoring a model against the data of its run, for the commands that do so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.progress import Progress

    from diffspace._shapes import Tensor
    from diffspace.data import DataSet
    from diffspace.metrics import Classifier, Scores
    from diffspace.model import Model
    from diffspace.train import Recipe

_MOST = 50_000

Size = Annotated[
    int | None, typer.Option("--n", help="Samples in a set. Default: the number of held-out data, at most 10,000.")
]
Sets = Annotated[int | None, typer.Option(help="Sets of n samples; distances are their mean. Default: 4.")]
Steps = Annotated[int | None, typer.Option(help="Steps of the Heun sampler. Default: 18.")]
FirstSeed = Annotated[int | None, typer.Option(help="Seed of the first sample; the others follow. Default: 0.")]
Batch = Annotated[int | None, typer.Option(help="Samples made at a time. Default: 256.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps. Default: the best available.")]


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
    def of(
        cls,
        recipe: Recipe,
        n: int | None,
        sets: int | None,
        steps: int | None,
        first_seed: int | None,
        batch: int | None,
    ) -> Scoring:
        """With the data of a recipe, and defaults for the options that are None; ValueError names a wrong option."""
        from diffspace.checks import check_integer
        from diffspace.sampling import EDMSteps

        sets = 4 if sets is None else sets
        steps = 18 if steps is None else steps
        first_seed = 0 if first_seed is None else first_seed
        batch = 256 if batch is None else batch
        if n is not None:
            check_integer("--n", n, 2)
        check_integer("--first-seed", first_seed, 0)
        check_integer("--sets", sets, 1)
        check_integer("--batch", batch, 1)
        EDMSteps(steps)  # checks the number before the data are read
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

    def __call__(self, model: Model, tell: Callable[[str], None], show: Callable[[int, Any], None]) -> Scores:
        """Sample, the classes of the held-out data in turn, train the classifier where there are some, and measure."""
        import torch

        from diffspace.metrics import evaluate
        from diffspace.sampling import EDMSteps, Execution, Sampler, sample

        tell("sampling")
        real, real_labels = self._real
        new, new_labels = self._new
        labels = None
        if model.class_names and new_labels is not None:
            labels = new_labels[torch.arange(self.n) % len(new)].repeat(self.sets)
        samples = sample(
            model,
            seeds=self.seeds,
            sampler=Sampler(EDMSteps(self.steps)),
            cond=None if labels is None else {"labels": labels},
            execution=Execution(batch_size=self.batch, progress=show),
        ).x.to(torch.float32)
        # samples are scored as they are stored: clipped and rounded like the data
        samples = model.transform.forward(model.decode(samples))
        classifier = None
        if labels is not None:
            tell("training the classifier of real data")
            classifier = self._classifier
        tell("scoring")
        return evaluate(
            samples,
            real,
            new,
            seeds=self.seeds,
            sample_labels=labels,
            train_labels=None if labels is None else real_labels,
            held_out_labels=None if labels is None else new_labels,
            n=self.n,
            classifier=classifier,
        )


def _read(data: DataSet) -> tuple[Tensor, Tensor | None]:
    """The samples in order and their classes; of large data, some."""
    places = data.sample_numbers(_MOST).sort().values
    return data.batch(places), data.classes(places)
