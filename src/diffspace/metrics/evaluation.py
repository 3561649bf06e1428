"""Score a set of samples, each score beside what real data reach in the same place: as a table and as JSON."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import stdev
from typing import Any

import torch
from scipy import stats

from diffspace._shapes import Float, Int, Tensor
from diffspace.checks import check_integer
from diffspace.metrics.comparison import LEAST, ScoreRow, compare
from diffspace.metrics.extractors import default_extractor
from diffspace.metrics.features import FeatureExtractor
from diffspace.metrics.followed import ConditionScore, condition_scores
from diffspace.metrics.judgement import LEVEL
from diffspace.metrics.neighbourhoods import share_error
from diffspace.metrics.neighbours import Memorisation, memorisation
from diffspace.metrics.recognition import Classifier
from diffspace.metrics.scores import Features
from diffspace.notebook import Shown

_LEAST_RECOGNISED = 0.8  # of real data, by a classifier that measures anything
_SHARE_TOLERANCE = 0.05


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

    `value` is the mean over `sets` disjoint sets of n samples, `real` that over `subsets` disjoint sets of training
    items. `value_std` and `real_std` are the standard deviations of one such distance, None for a single one. If
    `by_class`, each set of training items has as many items of each class as a set of samples.
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
        """That of `share_error`."""
        return share_error(self.count, self.n)

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} ± {100 * self.standard_error:.1f} %"


@dataclass(frozen=True)
class RecognisedScore:
    """Shares of class-conditional samples, and of held-out data, that a classifier takes for their class."""

    classifier: str
    samples: Share
    held_out: Share

    @property
    def measures(self) -> bool:
        """Whether the classifier recognises enough of real data, 80 %, for its answers about samples to mean much."""
        return self.held_out.value >= _LEAST_RECOGNISED

    @property
    def p_value(self) -> float:
        """Fisher's exact probability of such a low share of samples, if they were recognised as held-out data are."""
        a, b = self.samples, self.held_out
        # given the number of both that are recognised, that of the samples is hypergeometric
        return float(stats.hypergeom.cdf(a.count, a.n + b.n, a.count + b.count, a.n))

    @property
    def verdict(self) -> str:
        """The result as a sentence."""
        if not self.measures:
            return f"the classifier recognises {100 * self.held_out.value:.0f} % of real data: not a measure here"
        lack = self.held_out.value - self.samples.value
        error = math.hypot(self.samples.standard_error, self.held_out.standard_error)
        if self.p_value <= LEVEL:
            return f"worse than real by {lack / error:.1f} standard errors"
        limit = max(lack, 0.0) + float(stats.norm.isf(LEVEL)) * error
        if limit <= _SHARE_TOLERANCE:
            return f"not worse than real by more than {100 * limit:.1f} %"
        return f"n is too small to tell: may be worse by {100 * limit:.1f} %"


@dataclass(frozen=True)
class Scores(Shown):
    """The results of `evaluate`, with what is needed to measure them again."""

    samples_n: int
    train_n: int
    held_out_n: int
    seeds: str
    subset_seed: int
    scores: tuple[ScoreRow, ...]
    by_class: bool
    recognised: RecognisedScore | None
    memorisation: Memorisation
    notes: tuple[str, ...]
    conditions: tuple[ConditionScore, ...] = ()

    @property
    def frechet(self) -> tuple[FrechetScore, ...]:
        """The Fréchet distance in the features of each extractor."""
        return tuple(
            FrechetScore(
                extractor=row.extractor,
                dim=row.dim,
                n=row.n,
                held_out_n=self.held_out_n,
                value=row.samples.value,
                value_std=_spread(row.sets),
                sets=len(row.sets),
                real=math.nan if row.real is None else row.real.value,
                real_std=_spread(row.real_sets),
                subsets=len(row.real_sets),
                by_class=self.by_class,
            )
            for row in self.scores
            if row.score == "frechet"
        )

    @property
    def verdict(self) -> str:
        """The result of all scores together, at a level of 5 %: each is taken at 5 % divided by their number."""
        found = {(row.extractor.split()[0], row.name): row.p_value for row in self.scores if row.p_value is not None}
        if self.recognised is not None and self.recognised.measures:
            found["classifier", "recognition"] = self.recognised.p_value
        worse: dict[str, list[str]] = {}
        for (extractor, name), p in found.items():
            if p <= LEVEL / len(found):
                worse.setdefault(extractor, []).append(name)
        if worse:
            return "worse than real by " + "; ".join(f"{', '.join(names)} ({by})" for by, names in worse.items())
        small = {row.name for row in self.scores if row.outcome == "too small"}
        if small:
            return f"not told apart from real; n = {self.scores[0].n} is too small for {', '.join(sorted(small))}"
        return "not told apart from real"

    def rows(self) -> list[Row]:
        """The table: what is measured, its value for the samples, for real data, and what that says."""
        seeds = f"seeds {self.seeds}; {self.train_n} training items"
        rows = [Row("data", f"{self.samples_n} samples", f"{self.held_out_n} held out", seeds)]
        for extractor, group in itertools.groupby(self.scores, key=lambda row: row.extractor):
            found = list(group)
            sets, real_sets = len(found[0].sets), len(found[0].real_sets)
            classes = ", in the samples' classes" if self.by_class else ""
            note = f"{extractor}, {found[0].dim} numbers; against held-out data; real: training items{classes}"
            rows.append(Row("features", f"{sets} × {found[0].n}", f"{real_sets} × {found[0].n}", note))
            rows += [score_row(row) for row in found]
        if self.recognised is not None:
            r = self.recognised
            rows.append(Row("recognised", str(r.samples), str(r.held_out), f"{r.verdict}; {r.classifier}"))
        for c in self.conditions:
            note = f"RMS difference from the nearest training item's; {c.unrelated:.3g} between unrelated items"
            rows.append(Row(c.name, f"{c.value:.3g}", f"{c.real:.3g}", note))
        m = self.memorisation
        note = "distance to the nearest training item, median"
        rows.append(Row("nearest", f"{m.median:.4g}", f"{m.held_out_median:.4g}", note))
        for near in m.closeness:
            expected = f"{100 * near.expected:.1f} ± {100 * near.standard_error:.1f} %"
            quantile = f"the held-out data's {100 * near.quantile:g} % quantile"
            note = f"nearer than {near.threshold:.4g}, {quantile}; p = {near.p_value:.2g}"
            rows.append(Row("nearer", f"{100 * near.observed:.1f} %", expected, note))
        rows.append(Row("copies", str(len(m.copies)), str(m.held_out_copies), m.verdict))
        rows.append(Row("all scores", "", "", self.verdict))
        return rows

    def as_dict(self) -> dict[str, Any]:
        """The scores as JSON values."""
        scores = asdict(self)
        for entry, row in zip(scores["scores"], self.scores, strict=True):
            entry |= {"name": row.name, "best": row.best, "verdict": row.verdict}
        scores["frechet"] = [asdict(f) for f in self.frechet]
        if self.recognised is not None:
            for part in ("samples", "held_out"):
                share: Share = getattr(self.recognised, part)
                scores["recognised"][part] |= {"value": share.value, "standard_error": share.standard_error}
            scores["recognised"] |= {"p_value": self.recognised.p_value, "verdict": self.recognised.verdict}
        scores["memorisation"] |= {"clean": self.memorisation.clean, "verdict": self.memorisation.verdict}
        return scores | {"verdict": self.verdict}


def _spread(values: Sequence[float]) -> float | None:
    return stdev(values) if len(values) > 1 else None


def score_row(row: ScoreRow) -> Row:
    """Values with two digits of their standard errors; those of KID in thousandths."""
    scale, name = (1000.0, "1000 × KID") if row.score == "kid" else (1.0, row.name)
    value, real = (
        "-" if each is None else in_digits_of_error(scale * each.value, scale * (each.standard_error or 0.0))
        for each in (row.samples, row.real)
    )
    note = row.verdict_in(scale)
    if row.floor is not None:
        note += f"; floor {scale * row.floor:.3g}"
    if len(row.sets) > 1:
        note += f"; best {scale * row.best:.4g}"
    return Row(name, value, real, note)


def in_digits_of_error(value: float, error: float) -> str:
    """`1.234 ± 0.056`: two digits of the standard error, and the value to the same place."""
    if not (math.isfinite(error) and error > 0):
        return f"{value:.4g}"
    places = 1 - math.floor(math.log10(error))
    if places < 0:
        return f"{round(value, places):.0f} ± {round(error, places):.0f}"
    return f"{value:.{places}f} ± {error:.{places}f}"


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
    features: Sequence[tuple[Features, Features, Features]] = (),
    scores: Sequence[str] | None = None,
    n: int | None = None,
    subset_seed: int = 0,
) -> Scores:
    """Scores of features, the share that a classifier recognises, and memorisation; data in the model's space.

    The scores of sets of n samples against the held-out data stand beside those of n training items, which are no part
    of it, and `compare` judges the difference. They depend on n: compare scores at equal n only.

    Args:
        samples: the samples to score.
        train: data that the model was trained on.
        held_out: data that it was not trained on.
        seeds: the seeds of the samples, in order; they are only recorded.
        labels: the classes of the samples, of the training items and of the held-out items. With them the sets of
            training items have as many items of each class as the samples, where the training data have enough.
        conditions: of the same three, other conditions by name, standardised; measured is that of the nearest training
            item.
        classifier: a classifier trained on `train` alone, which measures the share of samples that it takes for
            their class; needs labels.
        extractors: give the features; default: the classifier, if there is one, and `default_extractor(train)`.
        features: of the same three, where they have been taken already, in the place of `extractors`. They may be of
            more items than `samples`, `train` and `held_out`, which are then the first of them.
        scores: which of `comparison.SCORES`; default: all that the features allow.
        n: size of a set; default: the number of samples, or of training items if those are fewer.
        subset_seed: the seed of the choice of training items, and of the exchanges of `compare`.
    """
    data = {"samples": samples, "train": train, "held_out": held_out}
    classes = {} if labels is None else {name: y.cpu() for name, y in zip(data, labels, strict=True)}
    _check(data)
    chosen = extractors or [e for e in (classifier, default_extractor(train)) if e is not None]
    features = features or [
        (features_of(each, samples), features_of(each, train), features_of(each, held_out)) for each in chosen
    ]
    sizes = {name: len(part) for name, part in zip(data, features[0], strict=True)}
    _check_sizes(data, classes, sizes)
    if len(seeds) != sizes["samples"]:
        raise ValueError(f"seeds: expected one for each of {sizes['samples']} samples, got {len(seeds)}")
    largest = min(sizes["samples"], sizes["train"])
    n = largest if n is None else n
    check_integer("n", n, 2, largest)

    notes = []
    if sizes["samples"] % n:
        notes.append(f"The last {sizes['samples'] % n} of {sizes['samples']} samples are not in the scores.")
    for name, x in data.items():
        if len(x) < sizes[name]:
            notes.append(f"Copies, neighbours and classes: of the first {len(x)} of {sizes[name]} items of {name}.")
    if classifier is not None and not classes:
        notes.append("The share that the classifier recognises is not measured: it needs the labels of the samples.")
    by_class = bool(classes) and _has_enough(classes["train"], torch.bincount(classes["samples"][:n]))
    if classes and not by_class:
        notes.append("Training items are chosen without regard to classes: one has fewer of them than samples.")
    found: list[ScoreRow] = []
    fewest = min(n, sizes["held_out"])
    if scores is None and (small := [s for s, least in LEAST.items() if s != "inception" and fewest < least]):
        notes.append(f"n = {fewest} is too small for {', '.join(small)}.")
    for each in features:
        labelled = [replace(x, labels=classes[name]) if by_class else x for name, x in zip(data, each, strict=True)]
        found += compare(*labelled, n=n, scores=scores, seed=subset_seed, disjoint=True)
        if fewest <= each[0].dim:
            notes.append(singular_note(fewest, each[0].dim, each[0].extractor))
    return Scores(
        samples_n=sizes["samples"],
        train_n=sizes["train"],
        held_out_n=sizes["held_out"],
        seeds=as_ranges(seeds),
        subset_seed=subset_seed,
        scores=tuple(found),
        by_class=by_class,
        recognised=_recognised(classifier, data, classes) if classifier is not None and classes else None,
        memorisation=memorisation(samples, train, held_out),
        notes=tuple(notes),
        conditions=condition_scores(samples, train, held_out, dict(conditions or {})),
    )


def singular_note(count: int, dim: int, extractor: str) -> str:
    """What to know of the Fréchet distance of no more items than features."""
    return (
        f"{count} items do not span the {dim} features of {extractor}: covariances are singular, and most of the "
        "Fréchet distance is due to the small n."
    )


def features_of(extractor: FeatureExtractor, x: Tensor) -> Features:
    """The features of data, with the logits of extractors that give both (`features_and_logits`)."""
    both = getattr(extractor, "features_and_logits", None)
    values, logits = (extractor(x), None) if both is None else both(x)
    return Features(values, extractor.name, logits)


def _check(data: Mapping[str, Tensor]) -> None:
    dims = tuple(data["train"].shape[1:])
    for name, x in data.items():
        if len(x) < 2:
            raise ValueError(f"{name}: expected at least 2 items, got {len(x)}")
        if x.shape[1:] != dims:
            raise ValueError(f"{name}: expected items of shape {dims} as in train, got shape {tuple(x.shape)}")
        if bad := int((~torch.isfinite(x)).flatten(1).any(1).sum()):
            raise ValueError(f"{name}: {bad} of {len(x)} items have values that are not finite")


def _check_sizes(data: Mapping[str, Tensor], labels: Mapping[str, Tensor], sizes: Mapping[str, int]) -> None:
    for name, x in data.items():
        if len(x) > sizes[name]:
            raise ValueError(f"features: expected those of {len(x)} items of {name}, got {sizes[name]}")
        y = labels.get(name)
        if y is not None and (y.shape != (sizes[name],) or int(y.min()) < 0):
            got = f"shape {tuple(y.shape)}, lowest {int(y.min())}"
            raise ValueError(f"labels of {name}: expected ({sizes[name]},) indices of classes, got {got}")


def _recognised(classifier: Classifier, data: Mapping[str, Tensor], classes: Mapping[str, Tensor]) -> RecognisedScore:
    def share(name: str) -> Share:
        x = data[name]
        return Share(int((classifier.predict(x) == classes[name][: len(x)]).sum()), len(x))

    return RecognisedScore(classifier.name, share("samples"), share("held_out"))


def _has_enough(labels: Tensor, counts: Tensor) -> bool:
    """Whether there are at least `counts` labels of each class."""
    return bool((counts <= torch.bincount(labels, minlength=len(counts))[: len(counts)]).all())


def as_ranges(seeds: Sequence[int]) -> str:
    """Seeds as ranges: "0-63, 70"."""
    breaks = [i for i, (a, b) in enumerate(itertools.pairwise(seeds), 1) if b != a + 1]
    runs = [(seeds[start], seeds[stop - 1]) for start, stop in itertools.pairwise([0, *breaks, len(seeds)])]
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
