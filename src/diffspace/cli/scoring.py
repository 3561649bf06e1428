"""Scores of the samples of models, or of samples from anywhere, beside those of real data."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from diffspace._shapes import Tensor
from diffspace.cli.conditions import choose_cond
from diffspace.cli.console import Stages
from diffspace.cli.drawing import Drawing
from diffspace.cli.options import MOST_SAMPLES
from diffspace.cli.sample_files import SampleWriter
from diffspace.cli.taking import Items, Taken, data_items, drawn_items, take_features
from diffspace.data import DataSet
from diffspace.metrics import (
    PCA,
    Classifier,
    FeatureExtractor,
    FeatureStatistics,
    Identity,
    Row,
    ScoreRow,
    Scores,
    compare,
    default_extractor,
    evaluate,
    make_extractor,
)
from diffspace.metrics.evaluation import score_row
from diffspace.metrics.extractors import WORDS
from diffspace.model import Model
from diffspace.protocols import Denoiser
from diffspace.sampling import EDMSteps, Sampler
from diffspace.train import Processes

_MOST = 50_000  # items of large data that are read to score
_MOST_DRAWN = 10_000  # samples in a set by default
_DEFAULT = "default"  # the word for what `default_extractor` chooses
_OF_DATA = ("classifier", "pca", _DEFAULT)
_PUBLISHED = ("inception", "dinov2", "efficientnet")


@dataclass(frozen=True)
class Compared:
    """Scores against statistics of features alone."""

    scores: Sequence[ScoreRow]
    statistics_n: int | None
    notes: tuple[str, ...]

    def rows(self) -> list[Row]:
        """The table: what is measured, its value for the samples, for real data, and what that says."""
        rows = []
        for extractor, group in itertools.groupby(self.scores, key=lambda row: row.extractor):
            found = list(group)
            sets, real_sets = (f"{len(each)} × {found[0].n}" for each in (found[0].sets, found[0].real_sets))
            of = "an unknown number of" if self.statistics_n is None else f"{self.statistics_n}"
            note = f"{extractor}, {found[0].dim} numbers; against the statistics of {of} items"
            rows += [Row("features", sets, real_sets if found[0].real_sets else "-", note), *map(score_row, found)]
        return rows

    def as_dict(self) -> dict[str, Any]:
        """The scores as JSON values."""
        return {
            "scores": [{**dataclasses.asdict(row), "best": row.best, "verdict": row.verdict} for row in self.scores],
            "statistics_n": self.statistics_n,
            "notes": list(self.notes),
        }


class Scoring:
    """`sets` sets of n samples, with seeds from `first_seed` on, scored against real data.

    Several models are scored with the same seeds and the same features of real data, which are taken once. Several
    processes share the work: all call the same methods, and the first has the results.

    Args:
        data: the training part and the held-out part; of large data, some items. None: `statistics` are enough.
        n: samples in a set; default: the number of held-out data, up to 10,000.
        sets: the number of sets.
        steps: of the sampler, where none is given.
        first_seed: the seed of the first sample.
        batch: items in a batch.
        features: the words of extractors (`metrics.make_extractor`); default: what the data suggest.
        weights: the file of the published weights of one of them.
        statistics: of features of real data, to compare with in the place of the held-out part.
        scores: which of `metrics.comparison.SCORES`; default: all.
        group: the processes.
        folder: where features are kept, so that a killed command goes on; default, and for one batch: in memory.
    """

    def __init__(
        self,
        data: tuple[DataSet, DataSet] | None,
        n: int | None = None,
        sets: int = 1,
        steps: int = 18,
        first_seed: int = 0,
        batch: int = 256,
        *,
        features: Sequence[str] = (),
        weights: str | Path | None = None,
        statistics: FeatureStatistics | None = None,
        scores: Sequence[str] | None = None,
        group: Processes | None = None,
        folder: Path | None = None,
    ) -> None:
        self.parts: tuple[DataSet, ...] = () if data is None else data
        self.n = min(*map(len, self.parts), _MOST_DRAWN) if n is None else n
        self.sets, self.steps, self.batch = sets, steps, batch
        self.features, self.weights, self.statistics = tuple(dict.fromkeys(features)), weights, statistics
        self._scores = scores
        self.group = Processes(torch.device("cpu")) if group is None else group
        self._folder = folder if self.n * sets > batch else None
        self._real: list[Taken] | None = None
        if self.n * sets > MOST_SAMPLES:
            raise ValueError(f"--n, --sets: expected at most {MOST_SAMPLES} samples in all, got {self.n * sets}")
        if self.parts and self.n > (most := min(len(self.parts[0]), _MOST)):
            more = "use --sets for more samples"
            raise ValueError(f"--n: {self.n}, but there are {most} real items to compare with; {more}")
        self.seeds = range(first_seed, first_seed + self.n * sets)

    def __call__(
        self, model: Model, stage: Stages, *, sampler: Sampler | None = None, denoiser: Denoiser | None = None
    ) -> Scores:
        """Sample with the conditions of held-out data in turn, and measure, with one process."""
        taken = self.take(drawn_items(self.drawing(model, sampler, denoiser), {}), stage)
        if taken is None:
            raise ValueError("group: the scores are on the first process")
        found = self.measure(taken, stage, model)
        if not isinstance(found, Scores):
            raise ValueError("statistics: are for `measure` alone")
        return found

    def drawing(self, model: Model, sampler: Sampler | None = None, denoiser: Denoiser | None = None) -> Drawing:
        """The samples of a model, with the conditions of held-out data in turn; without data, with random ones."""
        sampler = Sampler(EDMSteps(self.steps)) if sampler is None else sampler
        if self.parts:
            held_out = self.parts[1]
            names = [name for name in model.condition_names if name != "labels" or held_out.class_names]
            cond = held_out.cond(self._numbers[1][self._turns], names)
        else:
            cond = choose_cond(model, None, None, self.seeds)
        return Drawing(model, denoiser or model, sampler, self.seeds, cond, self.batch)

    def take(self, items: Items, stage: Stages, writer: SampleWriter | None = None) -> Taken | None:
        """Features of real data, once, and of samples; None on all processes but the first."""
        if self._real is None:
            stage("preparing features")
            self._extractors = self._make_extractors(items)
            stage("features of real data")
            found = []
            for name, part, numbers in zip(("real", "reference"), self.parts, self._numbers, strict=False):
                real = data_items(name, part, numbers, self.batch)
                found.append(take_features(real, self._extractors, self.group, stage, self._folder))
            self._real = [each for each in found if each is not None]
        stage("sampling" if items.steps > 1 else "features of samples")
        return take_features(items, self._extractors, self.group, stage, self._folder, writer)

    def measure(self, taken: Taken, stage: Stages, model: Model | None = None) -> Scores | Compared:
        """Scores of samples, on the first process; those of a model were asked to follow its conditions."""
        stage("scoring")
        if self.statistics is not None:
            return self._against_statistics(taken, self.statistics)
        real, new = self._real or []
        classes = None
        if taken.labels is not None and real.labels is not None and new.labels is not None:
            classes = (taken.labels[: self.n * self.sets], real.labels, new.labels)
        names = [] if model is None else list(model.conditioning)
        known, own = (part.cond(numbers, names) or {} for part, numbers in zip(self.parts, self._numbers, strict=True))
        conditions = {
            name: (
                each.standardise(own[name][self._turns][: len(taken.x)]),
                each.standardise(known[name][: len(real.x)]),
                each.standardise(own[name][: len(new.x)]),
            )
            for name, each in ({} if model is None else model.conditioning).items()
        }
        classifier = next((each for each in self._extractors if isinstance(each, Classifier)), None)
        found = evaluate(
            *(taken.x, real.x, new.x),
            seeds=self.seeds,
            labels=classes,
            conditions=conditions,
            n=self.n,
            classifier=classifier if classes is not None else None,
            features=[(taken.of(each), real.of(each), new.of(each)) for each in self._extractors],
            scores=self._scores,
        )
        return found if model is not None else dataclasses.replace(found, seeds="unknown")

    def _against_statistics(self, taken: Taken, statistics: FeatureStatistics) -> Compared:
        """Scores that statistics of features allow, beside those of other real data if there are any."""
        rows, notes = [], ["Statistics have no items: copies, recall and the like were not measured."]
        for each in self._extractors:
            real = self._real[0].of(each) if self._real else None
            rows += compare(taken.of(each), real, statistics, n=self.n)
        if statistics.n is None:
            notes.append("The number of items behind the statistics is not known.")
        return Compared(rows, statistics.n, tuple(notes))

    @cached_property
    def _numbers(self) -> list[Tensor]:
        """The numbers of the items in each part; of large data, some."""
        return [part.sample_numbers(_MOST).sort().values for part in self.parts]

    @property
    def _turns(self) -> Tensor:
        """The held-out item, among those that are used, whose conditions each sample has."""
        held_out = len(self._numbers[1])
        return torch.arange(self.n, dtype=torch.int64, device="cpu").remainder(held_out).repeat(self.sets)

    def _make_extractors(self, items: Items) -> list[FeatureExtractor]:
        """The extractors that were named, or a classifier, where there are classes, and the default of the data."""
        words = self.features or self._default_words(items)
        weighted = [word for word in words if word in _PUBLISHED]
        if self.weights is not None and len(weighted) != 1:
            raise ValueError(f"--weights: expected exactly one of --features {', '.join(_PUBLISHED)}")
        made = [self._make(word, items, self.weights if word in weighted else None) for word in words]
        if self.statistics is not None:
            _check_made_by(self.statistics, made)
        return made

    def _default_words(self, items: Items) -> tuple[str, ...]:
        if self.statistics is None:
            return ("classifier", _DEFAULT) if self.parts[0].class_names else (_DEFAULT,)
        named = (self.statistics.extractor or "").partition("-")[0]
        by_dim = {2048: "inception", 1024: "dinov2", math.prod(items.shape): "identity"}
        word = named if named in WORDS else by_dim.get(self.statistics.dim)
        if word is None:
            raise ValueError(f"--features: is missing; name what made the {self.statistics.dim} features of --against")
        return (word,)

    def _make(self, word: str, items: Items, weights: str | Path | None) -> FeatureExtractor:
        """One extractor; what is made from data is made by the first process, and sent to the others."""
        common: dict[str, Any] = {"transform": items.transform, "device": self.group.device}
        shaped = torch.zeros(2, *items.shape, dtype=torch.float32, device="cpu")  # in the place of data
        if word not in _OF_DATA:
            return make_extractor(word, train=shaped, weights=weights, **common)
        if not self.parts:
            raise ValueError(f"--features: {word} comes from real data; --against has statistics alone")
        made = None
        if self.group.first:
            part, numbers = self.parts[0], self._numbers[0]
            train, labels = part.batch(numbers), part.classes(numbers)
            if word == _DEFAULT:
                made = default_extractor(train, **common)
            else:  # on the CPU: with other devices it would come out differently
                made = make_extractor(word, train=train, labels=labels)
        sent = self.group.broadcast(made if isinstance(made, Classifier | PCA | Identity) else None)
        # a network of pictures is read by each process itself
        found: FeatureExtractor = sent or made or default_extractor(shaped, **common)
        return found


def _check_made_by(statistics: FeatureStatistics, extractors: Sequence[FeatureExtractor]) -> None:
    """ValueError where the features of statistics are not those of the extractors."""
    for each in extractors:
        if each.dim != statistics.dim:
            raise ValueError(f"--against: has statistics of {statistics.dim} features; {each.name} makes {each.dim}")
        if statistics.extractor not in (None, each.name):
            raise ValueError(f"--against: has statistics of {statistics.extractor}; the features here are {each.name}")
