"""Score a set of samples, each score beside what real data reach in the same place."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

import torch

from diffspace._shapes import Float, Int, Tensor
from diffspace.checks import check_integer
from diffspace.metrics.features import FeatureExtractor, default_extractor
from diffspace.metrics.frechet import FeatureStatistics, frechet_distance
from diffspace.metrics.neighbours import memorisation
from diffspace.metrics.recognition import Classifier
from diffspace.metrics.scores import FrechetScore, RecognisedScore, Scores, Share


def evaluate(
    samples: Float[Tensor, "n *dims"],
    train: Float[Tensor, "m *dims"],
    held_out: Float[Tensor, "k *dims"],
    *,
    seeds: Sequence[int],
    sample_labels: Int[Tensor, "n"] | None = None,
    train_labels: Int[Tensor, "m"] | None = None,
    held_out_labels: Int[Tensor, "k"] | None = None,
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
        sample_labels: the class of each sample; labels are given for all three sets or for none. With labels the
            training subsets have as many items of each class as the samples, where the training data have enough.
        train_labels: the class of each training item.
        held_out_labels: the class of each held-out item.
        classifier: a classifier trained on `train` alone, which measures the share of samples that it takes for
            their class; needs labels.
        extractors: give the features; default: the classifier, if there is one, and `default_extractor(train)`.
        n: size of a set; default: the number of samples, or of training items if those are fewer.
        subsets: the number of random training subsets.
        subset_seed: the seed of these subsets.
    """
    data = {"samples": samples, "train": train, "held_out": held_out}
    given = {"samples": sample_labels, "train": train_labels, "held_out": held_out_labels}
    labels = {name: y.cpu() for name, y in given.items() if y is not None}
    _check(data, labels)
    if len(seeds) != len(samples):
        raise ValueError(f"seeds: expected one for each of {len(samples)} samples, got {len(seeds)}")
    check_integer("subsets", subsets, 2)
    largest = min(len(samples), len(train))
    n = largest if n is None else n
    check_integer("n", n, 2, largest)

    notes = []
    sets = [torch.arange(start, start + n) for start in range(0, len(samples) - n + 1, n)]
    if len(samples) % n:
        notes.append(f"The last {len(samples) % n} of {len(samples)} samples are not in the Fréchet distances.")
    class_counts = [torch.bincount(labels["samples"][part]) for part in sets] if labels else []
    if not all(_has_enough(labels["train"], counts) for counts in class_counts):
        class_counts = []
        notes.append("Training subsets ignore the classes: one has fewer training items than samples.")
    if n == len(train):
        real_sets = [torch.arange(n)]
        notes.append("The only training subset is the whole training part, so its spread is not known.")
    else:
        generator = torch.Generator().manual_seed(subset_seed)
        shuffles = [torch.randperm(len(train), generator=generator) for _ in range(subsets)]
        real_sets = [order[:n] for order in shuffles]
        if class_counts:
            pairs = zip(shuffles, itertools.cycle(class_counts))
            real_sets = [_first_of_classes(order, counts, labels["train"]) for order, counts in pairs]

    frechet = [
        _frechet_score(extractor, samples, sets, train, real_sets, held_out, by_class=bool(class_counts))
        for extractor in extractors or [e for e in (classifier, default_extractor(train)) if e is not None]
    ]
    smallest = min(n, len(held_out))
    notes += [
        f"{smallest} items do not span the {score.dim} features of {score.extractor}: covariances are singular, and "
        "most of the distance is due to the small n."
        for score in frechet
        if smallest <= score.dim
    ]
    recognised = None
    if classifier is not None and labels:
        right = {name: int((classifier.predict(data[name]) == labels[name]).sum()) for name in ("samples", "held_out")}
        shares = (Share(count, len(data[name])) for name, count in right.items())
        recognised = RecognisedScore(classifier.name, *shares)
    return Scores(
        samples_n=len(samples),
        train_n=len(train),
        held_out_n=len(held_out),
        seeds=_as_ranges(seeds),
        subset_seed=subset_seed,
        frechet=tuple(frechet),
        recognised=recognised,
        memorisation=memorisation(samples, train, held_out),
        notes=tuple(notes),
    )


def _check(data: Mapping[str, Tensor], labels: Mapping[str, Tensor]) -> None:
    dims = tuple(data["train"].shape[1:])
    if labels and len(labels) < len(data):
        raise ValueError("labels: expected sample_labels, train_labels and held_out_labels, or none; some are missing")
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


def _has_enough(labels: Tensor, counts: Tensor) -> bool:
    """Whether there are at least `counts` labels of each class."""
    return bool((counts <= torch.bincount(labels, minlength=len(counts))[: len(counts)]).all())


def _first_of_classes(order: Tensor, counts: Tensor, labels: Tensor) -> Tensor:
    """The first of `order` that have as many items of each class as `counts` says."""
    return torch.cat([order[labels[order] == c][:count] for c, count in enumerate(counts.tolist())])


def _as_ranges(seeds: Sequence[int]) -> str:
    """Seeds as ranges: "0-63, 70"."""
    breaks = [i for i, (a, b) in enumerate(itertools.pairwise(seeds), 1) if b != a + 1]
    runs = [(seeds[start], seeds[stop - 1]) for start, stop in itertools.pairwise([0, *breaks, len(seeds)])]
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
