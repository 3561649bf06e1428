"""Scores of the samples of models, or of samples from anywhere, beside those of real data."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from diffspace._shapes import Tensor
from diffspace.cli.conditions import choose_cond
from diffspace.cli.console import Stages
from diffspace.cli.drawing import Drawing
from diffspace.cli.options import MOST_SAMPLES
from diffspace.cli.sample_files import SampleWriter
from diffspace.cli.scores.real import MOST, RealData
from diffspace.cli.scores.taking import Items, Taken, data_items, drawn_items, take_features
from diffspace.data import DataSet
from diffspace.metrics import (
    Classifier,
    FeatureExtractor,
    FeatureStatistics,
    Row,
    ScoreRow,
    Scores,
    compare,
    evaluate,
    make_extractor,
    memorisation,
)
from diffspace.metrics.evaluation import score_row, singular_note
from diffspace.metrics.extractors import WORDS
from diffspace.model import Model
from diffspace.protocols import Cond
from diffspace.sampling import EDMSteps, Sampler
from diffspace.train import Processes

_MOST_DRAWN = 10_000  # samples in a set by default
_PUBLISHED = ("inception", "dinov2", "efficientnet")
_PARTS = ("real", "reference")  # folders of features


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
        data: the training part and the held-out part. None: `statistics` are enough.
        n: samples in a set; default: `default_size`.
        sets: the number of sets.
        steps: of the sampler, where none is given.
        first_seed: the seed of the first sample.
        batch: items in a batch.
        features: the words of extractors (`metrics.make_extractor`); default: what the data suggest.
        weights: the file of the published weights of one of them.
        statistics: of features of real data, to compare with in the place of the held-out part.
        known: what the model was trained on, in which copies are looked for; default: the training part of `data`.
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
        known: DataSet | None = None,
        scores: Sequence[str] | None = None,
        group: Processes | None = None,
        folder: Path | None = None,
    ) -> None:
        self.real = None if data is None else RealData(*data)
        self.n = default_size(data) if n is None else n
        self.sets, self.steps, self.batch = sets, steps, batch
        self.features, self.weights, self.statistics = tuple(dict.fromkeys(features)), weights, statistics
        self._known, self._scores = known, scores
        self.group = Processes(torch.device("cpu")) if group is None else group
        self._folder = folder if self.n * sets > batch else None
        self._taken: dict[str, Taken] | None = None  # of real data, by what they are
        if self.n * sets > MOST_SAMPLES:
            raise ValueError(f"--n, --sets: expected at most {MOST_SAMPLES} samples in all, got {self.n * sets}")
        if self.real is not None and self.n > (most := len(self.real.numbers[0])):
            more = "use --sets for more samples"
            raise ValueError(f"--n: {self.n}, but there are {most} real items to compare with; {more}")
        self.seeds = range(first_seed, first_seed + self.n * sets)

    def __call__(self, model: Model, stage: Stages) -> Scores:
        """Sample with the conditions of held-out data in turn, and measure, with one process."""
        taken = self.take(drawn_items(self.drawing(model), {}), stage)
        if taken is None:
            raise ValueError("group: the scores are on the first process")
        found = self.measure(taken, stage, model)
        if not isinstance(found, Scores):
            raise ValueError("statistics: are for `measure` alone")
        return found

    def drawing(self, model: Model, sampler: Sampler | None = None) -> Drawing:
        """The samples of a model, with the conditions of held-out data in turn; without data, with random ones."""
        sampler = Sampler(EDMSteps(self.steps)) if sampler is None else sampler
        cond: Cond | None = choose_cond(model, None, None, self.seeds) if self.real is None else None
        if self.real is not None:
            cond = self.real.cond(model, self.n, self.sets)
        return Drawing(model, model, sampler, self.seeds, cond, self.batch)

    def take(self, items: Items, stage: Stages, writer: SampleWriter | None = None) -> Taken | None:
        """Features of real data, once, and of samples; None on all processes but the first."""
        if self._taken is None:
            stage("preparing features")
            self._extractors = self._make_extractors(items)
            stage("features of real data")
            found = {}
            for name, part, numbers, extractors in self._parts():
                real = data_items(name, part, numbers, self.batch)
                found[name] = take_features(real, extractors, self.group, stage, self._folder)
            self._taken = {name: each for name, each in found.items() if each is not None}
        stage("sampling" if items.steps > 1 else "features of samples")
        return take_features(items, self._extractors, self.group, stage, self._folder, writer)

    def _parts(self) -> Iterator[tuple[str, DataSet, Tensor, Sequence[FeatureExtractor]]]:
        """The parts of real data: their names, the numbers of the items that are used, and what is taken of them."""
        if self.real is not None:
            for name, part, numbers in zip(_PARTS, self.real.parts, self.real.numbers, strict=True):
                yield name, part, numbers, self._extractors
            if self._known is not None:
                yield "known", self._known, self._known.sample_numbers(MOST).sort().values, ()

    def measure(self, taken: Taken, stage: Stages, model: Model | None = None) -> Scores | Compared:
        """Scores of samples, on the first process; those of a model were asked to follow its conditions."""
        stage("scoring")
        if self.statistics is not None:
            return self._against_statistics(taken, self.statistics)
        if self.real is None or self._taken is None:
            raise ValueError("data: are missing")
        real, new = (self._taken[name] for name in _PARTS)
        classes = None
        if taken.labels is not None and real.labels is not None and new.labels is not None:
            classes = (taken.labels[: self.n * self.sets], real.labels, new.labels)
        classifier = next((each for each in self._extractors if isinstance(each, Classifier)), None)
        found = evaluate(
            *(taken.x, real.x, new.x),
            seeds=self.seeds,
            labels=classes,
            conditions={} if model is None else self._conditions(model, self.real, (taken, real, new)),
            n=self.n,
            classifier=classifier if classes is not None else None,
            features=[(taken.of(each), real.of(each), new.of(each)) for each in self._extractors],
            scores=self._scores,
        )
        if (known := self._taken.get("known")) is not None:
            note = "Copies and nearest items: of the data that the model was trained on, not of --against."
            copied = memorisation(taken.x, known.x, new.x)
            found = dataclasses.replace(found, memorisation=copied, notes=(*found.notes, note))
        return found if model is not None else dataclasses.replace(found, seeds="unknown")

    def _conditions(
        self, model: Model, data: RealData, taken: tuple[Taken, Taken, Taken]
    ) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
        """By name, the standardised conditions of samples, of training items and of held-out items."""
        names = list(model.conditioning)
        asked = data.held_out.cond(data.turns(self.n, self.sets), names) or {}
        known, new = (part.cond(at, names) or {} for part, at in zip(data.parts, data.numbers, strict=True))
        return {
            name: (
                each.standardise(asked[name][: len(taken[0].x)]),
                each.standardise(known[name][: len(taken[1].x)]),
                each.standardise(new[name][: len(taken[2].x)]),
            )
            for name, each in model.conditioning.items()
        }

    def _against_statistics(self, taken: Taken, statistics: FeatureStatistics) -> Compared:
        """Scores that statistics of features allow, beside those of other real data if there are any."""
        rows, notes = [], ["Statistics have no items: copies, recall and the like were not measured."]
        for each in self._extractors:
            real = self._taken[_PARTS[0]].of(each) if self._taken else None
            rows += compare(taken.of(each), real, statistics, n=self.n)
        fewest = min(self.n, statistics.n or self.n)
        if fewest <= statistics.dim:
            notes.append(singular_note(fewest, statistics.dim, self._extractors[0].name))
        if statistics.n is None:
            notes.append("The number of items behind the statistics is not known.")
        return Compared(rows, statistics.n, tuple(notes))

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
            return () if self.real is None else self.real.words
        named = (self.statistics.extractor or "").partition("-")[0]
        by_dim = {2048: "inception", 1024: "dinov2", math.prod(items.shape): "identity"}
        word = named if named in WORDS else by_dim.get(self.statistics.dim)
        if word is None:
            raise ValueError(f"--features: is missing; name what made the {self.statistics.dim} features of --against")
        return (word,)

    def _make(self, word: str, items: Items, weights: str | Path | None) -> FeatureExtractor:
        """One extractor, of real data or for items like these."""
        if self.real is not None:
            return self.real.extractor(word, weights, self.group)
        if word in ("classifier", "pca"):
            raise ValueError(f"--features: {word} comes from real data; --against has statistics alone")
        like = torch.zeros(2, *items.shape, dtype=torch.float32, device="cpu")
        return make_extractor(word, transform=items.transform, train=like, weights=weights, device=self.group.device)


def default_size(data: tuple[DataSet, DataSet] | None) -> int:
    """The number of samples in a set: that of the smaller part of the data, up to 10,000."""
    return _MOST_DRAWN if data is None else min(*map(len, data), _MOST_DRAWN)


def _check_made_by(statistics: FeatureStatistics, extractors: Sequence[FeatureExtractor]) -> None:
    """ValueError where the features of statistics are not those of the extractors."""
    for each in extractors:
        if each.dim != statistics.dim:
            raise ValueError(f"--against: has statistics of {statistics.dim} features; {each.name} makes {each.dim}")
        if statistics.extractor not in (None, each.name):
            raise ValueError(f"--against: has statistics of {statistics.extractor}; the features here are {each.name}")
