"""The score of a model's samples against held-out data, with its error: in a sweep, and while a model is trained."""

from __future__ import annotations

from functools import cached_property

import torch

from diffspace._shapes import Tensor
from diffspace.cli.scores.real import MOST, RealData
from diffspace.data import DataSet
from diffspace.metrics import FeatureExtractor
from diffspace.metrics.scores import Features
from diffspace.metrics.sweep import Quality, Score
from diffspace.model import Model
from diffspace.sampling import Execution, Sampler, sample
from diffspace.train import Processes

LEAST = 4  # items of either part


class Measure:
    """A score against the held-out part of data, by features that were made of the training part alone.

    Args:
        real: the data.
        score: "frechet" or "kid".
        features: as `make_extractor` reads it; None: the first that the data suggest (`RealData.words`).
        weights: the path of the published weights of a network.
        device: of a network.
    """

    def __init__(
        self,
        real: RealData,
        score: Score = "frechet",
        features: str | None = None,
        weights: str | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        self.real, self.score = real, score
        self._words, self._device = (features or real.words[0], weights), device

    @cached_property
    def extractor(self) -> FeatureExtractor:
        """What makes features."""
        return self.real.extractor(*self._words, Processes(torch.device(self._device or "cpu")))

    @cached_property
    def _target(self) -> Features:
        return self._of_data(self.real.held_out, MOST)

    def _of_data(self, data: DataSet, count: int) -> Features:
        return Features(self.extractor(data.batch(data.sample_numbers(count))), self.extractor.name)

    def features(self, model: Model, x: Tensor) -> Tensor:
        """The features of samples, after clipping and rounding as for storage."""
        return self.extractor(model.transform.forward(model.decode(x.to(torch.float32))))

    def quality(self, features: Tensor) -> Quality:
        """The score of samples with these features."""
        return Quality.of(self.score, Features(features, self.extractor.name), self._target)

    def of_training(self, n: int) -> Quality:
        """The score of n training items, or of all where there are fewer."""
        return Quality.of(self.score, self._of_data(self.real.training, n), self._target)

    def measure(self, model: Model, n: int, batch: int = 256) -> Quality:
        """The score of n samples of the paper's sampler, with the seeds from 0 on."""
        cond = self.real.cond(model, n)
        found = sample(model, seeds=range(n), cond=cond, sampler=Sampler(), execution=Execution(batch))
        return self.quality(self.features(model, found.x))
