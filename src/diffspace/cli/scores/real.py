"""The real data that samples are compared with, in every command that scores."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from diffspace._shapes import Int, Tensor
from diffspace.data import DataSet
from diffspace.metrics import PCA, Classifier, FeatureExtractor, Identity, default_word, make_extractor
from diffspace.metrics.extractors import OF_DATA
from diffspace.model import Model
from diffspace.protocols import Cond
from diffspace.train import Processes

MOST = 50_000  # items of large data that are read to score


@dataclass(frozen=True, eq=False)
class RealData:
    """The part that features come from, which a model may have been trained on, and the part that was held out."""

    training: DataSet
    held_out: DataSet

    @property
    def parts(self) -> tuple[DataSet, DataSet]:
        """Both."""
        return self.training, self.held_out

    @cached_property
    def numbers(self) -> tuple[Int[Tensor, "n"], Int[Tensor, "m"]]:
        """The numbers of the items of either part that are read; of large data, some."""
        known, new = (part.sample_numbers(MOST).sort().values for part in self.parts)
        return known, new

    def turns(self, n: int, sets: int = 1) -> Int[Tensor, "k"]:
        """The held-out items whose conditions the samples of `sets` sets of n take.

        In turn, and in random order: data may be sorted by class, and every part of the samples is to be like all.
        """
        numbers = self.held_out.sample_numbers(MOST)
        return numbers[torch.arange(n, dtype=torch.int64, device="cpu") % len(numbers)].repeat(sets)

    def cond(self, model: Model, n: int, sets: int = 1) -> Cond | None:
        """The conditions of the samples of a model: those of `turns`."""
        names = [name for name in model.condition_names if name != "labels" or self.held_out.class_names]
        return self.held_out.cond(self.turns(n, sets), names)

    @property
    def words(self) -> tuple[str, ...]:
        """The extractors that the data suggest, the first of which is the one where there can be only one.

        EfficientNet-Lite0 for colour images where it is installed; a classifier where there are classes; else the
        elements or their principal components, which stand beside a classifier too.
        """
        default = default_word(self.training.sample_shape, self.training.transform)
        if self._classes < 2:
            return (default,)
        return ("classifier", default) if default in OF_DATA else (default, "classifier")

    @property
    def _classes(self) -> int:
        """How many classes the training part has."""
        labels = self.training.labels if self.training.class_names else None
        return 0 if labels is None else int(torch.bincount(labels).count_nonzero())

    def extractor(
        self, word: str, weights: str | Path | None = None, group: Processes | None = None
    ) -> FeatureExtractor:
        """The extractor of a word (`metrics.make_extractor`), made of the training part where it comes from data.

        Of several processes the first makes those, and sends them to the others; a network each process reads itself.
        """
        group = Processes(torch.device("cpu")) if group is None else group
        given: dict[str, Any] = {"transform": self.training.transform, "weights": weights}
        if word not in OF_DATA:
            one = self.training.batch(self.numbers[0][:1])  # which tells the shape
            return make_extractor(word, train=one, device=group.device, **given)
        if word == "classifier" and self._classes < 2:
            raise ValueError(f"features: a classifier needs at least 2 classes, the training data have {self._classes}")
        made = None
        if group.first:
            train, labels = self.training.batch(self.numbers[0]), self.training.classes(self.numbers[0])
            made = make_extractor(word, train=train, labels=labels, **given)  # on the CPU: the same on every machine
        sent: FeatureExtractor | None = group.broadcast(made if isinstance(made, Classifier | PCA | Identity) else None)
        if sent is None:
            raise ValueError(f"features: {word} was not made")
        return sent
