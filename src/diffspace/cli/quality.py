"""The score of a model's samples against held-out data, with its error: in a sweep, and while a model is trained."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch

from diffspace._shapes import Tensor
from diffspace.data import DataSet
from diffspace.metrics import PCA, FeatureExtractor, Identity, default_extractor, make_extractor, train_classifier
from diffspace.metrics.scores import Features
from diffspace.metrics.sweep import Quality, Score
from diffspace.model import Model
from diffspace.protocols import Cond
from diffspace.sampling import Execution, Sampler, sample

LEAST = 4  # items of either part
_MOST = 50_000  # items of large data that are read to score


class Measure:
    """A score against the held-out part of data, by features that were made of the training part alone.

    Args:
        data: (training part, held-out part).
        score: "frechet" or "kid".
        features: as `make_extractor` reads it; None: EfficientNet-Lite0 for colour images where it is installed, else a
            classifier of the training part where that has classes, else the default of data.
        weights: the path of the published weights of a network.
        device: of a network.
    """

    def __init__(
        self,
        data: tuple[DataSet, DataSet],
        score: Score = "frechet",
        features: str | None = None,
        weights: str | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        self.training, self.held_out = data
        self.score, self._words, self._device = score, (features, weights), device

    @cached_property
    def extractor(self) -> FeatureExtractor:
        """What makes features."""
        numbers = self.training.sample_numbers(_MOST).sort().values
        real, labels = self.training.batch(numbers), self.training.classes(numbers)
        (features, weights), transform, device = self._words, self.training.transform, self._device
        if features is not None:
            given: dict[str, Any] = {"train": real, "labels": labels, "weights": weights}
            return make_extractor(features, transform=transform, device=device, **given)
        default = default_extractor(real, transform=transform, device=device)
        if labels is None or not isinstance(default, Identity | PCA):
            return default
        return train_classifier(real, labels, len(self.training.class_names))

    @cached_property
    def _target(self) -> Features:
        return self._of_data(self.held_out, _MOST)

    def _of_data(self, data: DataSet, count: int) -> Features:
        return Features(self.extractor(data.batch(data.sample_numbers(count))), self.extractor.name)

    def features(self, model: Model, x: Tensor) -> Tensor:
        """Of samples, clipped and rounded as they are stored."""
        return self.extractor(model.transform.forward(model.decode(x.to(torch.float32))))

    def quality(self, features: Tensor) -> Quality:
        """The score of samples with these features."""
        return Quality.of(self.score, Features(features, self.extractor.name), self._target)

    def real(self, n: int) -> Quality:
        """The score of n training items, or of all where there are fewer."""
        return Quality.of(self.score, self._of_data(self.training, n), self._target)

    def cond(self, model: Model, n: int) -> Cond | None:
        """The conditions of held-out data in turn."""
        names = [name for name in model.condition_names if name != "labels" or self.held_out.class_names]
        turns = torch.arange(n, dtype=torch.int64, device="cpu") % len(self.held_out)
        return self.held_out.cond(self.held_out.sample_numbers(len(self.held_out))[turns], names)

    def measure(self, model: Model, n: int, batch: int = 256) -> Quality:
        """The score of n samples of the paper's sampler, with the seeds from 0 on."""
        found = sample(model, seeds=range(n), cond=self.cond(model, n), sampler=Sampler(), execution=Execution(batch))
        return self.quality(self.features(model, found.x))
