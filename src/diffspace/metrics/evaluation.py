"""Score a set of samples, each score beside what real data reach in the same place: as a table and as JSON."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any

import torch

from diffspace._shapes import Float, Int, Tensor
from diffspace.checks import check_integer, check_seed
from diffspace.metrics.features import FeatureExtractor, FeatureStatistics, default_extractor, frechet_distance
from diffspace.metrics.followed import ConditionScore, condition_scores
from diffspace.metrics.neighbours import Memorisation, memorisation
from diffspace.metrics.recognition import Classifier
from diffspace.notebook import Shown


@dataclass(frozen=True)
class Row:
    """One line of a score table."""

    name: str
    value: str
    reference: str
    note: str


@dataclass(frozen=True)
class FrechetScore:
    """The Fréchet distance of n samples to the held-out data, beside that of n real training items.

    `value` is the mean over `sets` disjoint sets of n samples, `real` that over `subsets` random subsets of
    the training part. `value_std` and `real_std` are the standard deviations of one such distance, None for
    a single one. If `by_class`, each subset has as many items of each class as a set of samples.
    """

    extractor: str
    dim: int
    n: int
    held_out_n: int
    value: float
    value_std: float | None
    sets: int
    real: float
    real_std: float | None
    subsets: int
    by_class: bool

    @property
    def standard_error(self) -> float:
        """That of `value`, 0 where there is only one set."""
        return 0.0 if self.value_std is None else self.value_std / math.sqrt(self.sets)

    @property
    def ratio(self) -> float:
        """The distance in units of the real one: 1 is as good as real data."""
        return self.value / self.real if self.real > 0 else math.inf


@dataclass(frozen=True)
class Share:
    """`count` of `n` items."""

    count: int
    n: int

    @property
    def value(self) -> float:
        return self.count / self.n

    @property
    def standard_error(self) -> float:
        """The standard deviation of the binomial probability given the count, under a uniform prior.

        Near √(p(1 − p)/n), but not 0 where all or none of the items count.
        """
        p = (self.count + 1) / (self.n + 2)
        return math.sqrt(p * (1 - p) / (self.n + 3))

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} ± {100 * self.standard_error:.1f} %"


@dataclass(frozen=True)
class RecognisedScore:
    """Shares of class-conditional samples, and of held-out data, that a classifier takes for their class."""

    classifier: str
    samples: Share
    held_out: Share


@dataclass(frozen=True)
class Scores(Shown):
    """The results of `evaluate`, with what is needed to measure them again."""

    samples_n: int
    train_n: int
    held_out_n: int
    seeds: str
    subset_seed: int
    frechet: tuple[FrechetScore, ...]
    recognised: RecognisedScore | None
    memorisation: Memorisation
    notes: tuple[str, ...]
    conditions: tuple[ConditionScore, ...] = ()

    def rows(self) -> list[Row]:
        """The table: what is measured, its value for the samples, for real data, and how it was taken."""
        seeds = f"seeds {self.seeds}; {self.train_n} training items"
        rows = [Row("data", f"{self.samples_n} samples", f"{self.held_out_n} held out", seeds)]
        rows += [self._frechet_row(f) for f in self.frechet]
        if self.recognised is not None:
            r = self.recognised
            rows.append(Row("recognised as their class", str(r.samples), str(r.held_out), r.classifier))
        for c in self.conditions:
            note = f"RMS difference from what was asked for; {c.unrelated:.3g} between unrelated items"
            rows.append(Row(f"{c.name} of the nearest training item", f"{c.value:.3g}", f"{c.real:.3g}", note))
        m = self.memorisation
        name = "distance to the nearest training item"
        rows.append(Row(name, f"{m.median:.4g}", f"{m.held_out_median:.4g}", "median"))
        for near in m.closeness:
            expected = f"{100 * near.expected:.1f} ± {100 * near.standard_error:.1f} %"
            note = f"the held-out data's {100 * near.quantile:g} % quantile; p = {near.p_value:.2g}"
            rows.append(Row(f"nearer than {near.threshold:.4g}", f"{100 * near.observed:.1f} %", expected, note))
        rows.append(Row("copies of training items", str(len(m.copies)), str(m.held_out_copies), m.verdict))
        return rows

    def _frechet_row(self, f: FrechetScore) -> Row:
        classes = ", in the samples' classes" if f.by_class else ""
        return Row(
            f"Fréchet distance, {f.extractor}",
            _with_spread(f.value, f.value_std),
            _with_spread(f.real, f.real_std),
            f"{f.ratio:.2f} of real; {f.sets} × n = {f.n} against {f.held_out_n} held out, {f.dim} features; "
            f"real: {f.subsets} training subsets{classes}, seed {self.subset_seed}",
        )

    def as_dict(self) -> dict[str, Any]:
        """The scores as JSON values."""
        scores = asdict(self)
        for entry, f in zip(scores["frechet"], self.frechet, strict=True):
            entry["ratio"] = f.ratio if math.isfinite(f.ratio) else None
        if self.recognised is not None:
            for part in ("samples", "held_out"):
                share: Share = getattr(self.recognised, part)
                scores["recognised"][part] |= {"value": share.value, "standard_error": share.standard_error}
        scores["memorisation"] |= {"clean": self.memorisation.clean, "verdict": self.memorisation.verdict}
        return scores


def _with_spread(mean: float, std: float | None) -> str:
    return f"{mean:.4g}" if std is None else f"{mean:.4g} ± {std:.2g}"


def evaluate(
    samples: Float[Tensor, "n *dims"],
    train: Float[Tensor, "m *dims"],
    held_out: Float[Tensor, "k *dims"],
    *,
    seeds: Sequence[int],
    labels: tuple[Int[Tensor, "n"], Int[Tensor, "m"], Int[Tensor, "k"]] | None = None,
    conditions: Mapping[str, tuple[Tensor, Tensor, Tensor]] | None = None,
    classifier: Classifier | None = None,
    extractors: Sequence[FeatureExtractor] = (),
    n: int | None = None,
    subsets: int = 10,
    subset_seed: int = 0,
) -> Scores:
    """Fréchet distances, the share that a classifier recognises, and memorisation; data in the model's space.

    The Fréchet distance of n samples to the held-out data stands beside that of n training items. It depends on n:
    compare distances at equal n only. A smaller n gives several sets of samples, whose mean varies less.

    Args:
        samples: the samples to score.
        train: data that the model was trained on.
        held_out: data that it was not trained on.
        seeds: the seeds of the samples, in order; they are only recorded.
        labels: the classes of the samples, of the training items and of the held-out items. With them the training
            subsets have as many items of each class as the samples, where the training data have enough.
        conditions: of the same three, other conditions by name, standardised; measured is that of the nearest training
            item.
        classifier: a classifier trained on `train` alone, which measures the share of samples that it takes for
            their class; needs labels.
        extractors: give the features; default: the classifier, if there is one, and `default_extractor(train)`.
        n: size of a set; default: the number of samples, or of training items if those are fewer.
        subsets: the number of random training subsets.
        subset_seed: the seed of these subsets.
    """
    data = {"samples": samples, "train": train, "held_out": held_out}
    classes = {} if labels is None else {name: y.cpu() for name, y in zip(data, labels, strict=True)}
    _check(data, classes)
    if len(seeds) != len(samples):
        raise ValueError(f"seeds: expected one for each of {len(samples)} samples, got {len(seeds)}")
    check_integer("subsets", subsets, 2)
    largest = min(len(samples), len(train))
    n = largest if n is None else n
    check_integer("n", n, 2, largest)

    notes = []
    sets = [
        torch.arange(start, start + n, dtype=torch.int64, device="cpu") for start in range(0, len(samples) - n + 1, n)
    ]
    if len(samples) % n:
        notes.append(f"The last {len(samples) % n} of {len(samples)} samples are not in the Fréchet distances.")
    counts = [torch.bincount(classes["samples"][part]) for part in sets] if classes else []
    if not all(_has_enough(classes["train"], each) for each in counts):
        counts = []
        notes.append("Training subsets ignore the classes: one has fewer training items than samples.")
    if n == len(train):
        real_sets = [torch.arange(n, dtype=torch.int64, device="cpu")]
        notes.append("The only training subset is the whole training part, so its spread is not known.")
    else:
        check_seed("subset_seed", subset_seed)
        generator = torch.Generator().manual_seed(subset_seed)
        shuffles = [
            torch.randperm(len(train), generator=generator, dtype=torch.int64, device="cpu") for _ in range(subsets)
        ]
        pairs = zip(shuffles, itertools.cycle(counts or [None]))
        real_sets = [order[:n] if c is None else _first_of_classes(order, c, classes["train"]) for order, c in pairs]
    frechet = [
        _frechet_score(extractor, samples, sets, train, real_sets, held_out, by_class=bool(counts))
        for extractor in extractors or [e for e in (classifier, default_extractor(train)) if e is not None]
    ]
    smallest = min(n, len(held_out))
    notes += [
        f"{smallest} items do not span the {score.dim} features of {score.extractor}: covariances are singular, and "
        "most of the distance is due to the small n."
        for score in frechet
        if smallest <= score.dim
    ]
    return Scores(
        samples_n=len(samples),
        train_n=len(train),
        held_out_n=len(held_out),
        seeds=as_ranges(seeds),
        subset_seed=subset_seed,
        frechet=tuple(frechet),
        recognised=_recognised(classifier, data, classes) if classifier is not None and classes else None,
        memorisation=memorisation(samples, train, held_out),
        notes=tuple(notes),
        conditions=condition_scores(samples, train, held_out, dict(conditions or {})),
    )


def _check(data: Mapping[str, Tensor], labels: Mapping[str, Tensor]) -> None:
    dims = tuple(data["train"].shape[1:])
    for name, x in data.items():
        if len(x) < 2:
            raise ValueError(f"{name}: expected at least 2 items, got {len(x)}")
        if x.shape[1:] != dims:
            raise ValueError(f"{name}: expected items of shape {dims} as in train, got shape {tuple(x.shape)}")
        if bad := int((~torch.isfinite(x)).flatten(1).any(1).sum()):
            raise ValueError(f"{name}: {bad} of {len(x)} items have values that are not finite")
        y = labels.get(name)
        if y is not None and (y.shape != (len(x),) or int(y.min()) < 0):
            got = f"shape {tuple(y.shape)}, lowest {int(y.min())}"
            raise ValueError(f"labels of {name}: expected ({len(x)},) indices of classes, got {got}")


def _frechet_score(
    extractor: FeatureExtractor,
    samples: Tensor,
    sets: Sequence[Tensor],
    train: Tensor,
    real_sets: Sequence[Tensor],
    held_out: Tensor,
    by_class: bool,
) -> FrechetScore:
    target = FeatureStatistics.of(extractor(held_out))

    def distances(x: Tensor, parts: Sequence[Tensor]) -> list[float]:
        features = extractor(x)
        return [frechet_distance(FeatureStatistics.of(features[part]), target) for part in parts]

    values, real, n = distances(samples, sets), distances(train, real_sets), len(sets[0])
    return FrechetScore(
        extractor=extractor.name,
        dim=extractor.dim,
        n=n,
        held_out_n=len(held_out),
        value=fmean(values),
        value_std=stdev(values) if len(values) > 1 else None,
        sets=len(values),
        real=fmean(real),
        # subsets of a finite part share items: they vary less than fresh data would, by this factor
        real_std=stdev(real) / math.sqrt(1 - n / len(train)) if len(real) > 1 else None,
        subsets=len(real),
        by_class=by_class,
    )


def _recognised(classifier: Classifier, data: Mapping[str, Tensor], classes: Mapping[str, Tensor]) -> RecognisedScore:
    def share(name: str) -> Share:
        return Share(int((classifier.predict(data[name]) == classes[name]).sum()), len(data[name]))

    return RecognisedScore(classifier.name, share("samples"), share("held_out"))


def _has_enough(labels: Tensor, counts: Tensor) -> bool:
    """Whether there are at least `counts` labels of each class."""
    return bool((counts <= torch.bincount(labels, minlength=len(counts))[: len(counts)]).all())


def _first_of_classes(order: Tensor, counts: Tensor, labels: Tensor) -> Tensor:
    """The first of `order` that have as many items of each class as `counts` says."""
    return torch.cat([order[labels[order] == c][:count] for c, count in enumerate(counts.tolist())])


def as_ranges(seeds: Sequence[int]) -> str:
    """Seeds as ranges: "0-63, 70"."""
    breaks = [i for i, (a, b) in enumerate(itertools.pairwise(seeds), 1) if b != a + 1]
    runs = [(seeds[start], seeds[stop - 1]) for start, stop in itertools.pairwise([0, *breaks, len(seeds)])]
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
