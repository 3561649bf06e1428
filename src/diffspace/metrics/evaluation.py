"""Score a set of samples, each score beside what real data reach in the same place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean, stdev
from typing import NamedTuple

import torch

from diffspace._shapes import Float, Int, Tensor
from diffspace.metrics.classifier import Classifier
from diffspace.metrics.features import FeatureExtractor, default_extractor
from diffspace.metrics.frechet import FeatureStatistics, frechet_distance
from diffspace.metrics.memorisation import memorisation
from diffspace.metrics.scores import FrechetScore, RecognisedScore, Scores, Share

__all__ = ["evaluate"]


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

    The Fréchet distance is that of n samples to the held-out data, beside that of n training items: it
    depends on n, and distances can be compared at equal n only. By default n is the number of samples, or of
    training items where those are fewer. With a smaller n the samples make several sets, taken in order, and
    the mean over them is less a matter of chance; the training part gives `subsets` random sets. `extractors`
    give the features: by default the classifier, where there is one, and `default_extractor(train)`.

    Labels come for all three sets or for none. With them the training subsets have as many items of each
    class as the samples, and the classifier, which has to be one trained on `train` alone, tells the share of
    samples that it takes for their class. `seeds` are those of the samples, in order; only recorded.
    """
    _check_data(samples=samples, train=train, held_out=held_out)
    if len(seeds) != len(samples):
        raise ValueError(f"seeds: {len(seeds)} for {len(samples)} samples; want one for each")
    if subsets < 2:
        raise ValueError(f"subsets: {subsets}; want at least 2, to tell their spread")
    labels = _labels(samples, train, held_out, sample_labels, train_labels, held_out_labels)

    most = min(len(samples), len(train))
    n = most if n is None else n
    if not 2 <= n <= most:
        raise ValueError(f"n: {n}; want 2 to {most}, as {len(samples)} samples and {len(train)} training items allow")
    notes = []
    sets = [torch.arange(start, start + n) for start in range(0, len(samples) - n + 1, n)]
    if len(samples) % n:
        notes.append(f"The last {len(samples) % n} of {len(samples)} samples are not in the Fréchet distances.")
    counts = [] if labels is None else [torch.bincount(labels.samples[part]) for part in sets]
    if labels is not None and not all(_available(c, labels.train) for c in counts):
        counts = []
        notes.append("Training subsets ignore the classes: one has fewer training items than samples.")
    if n == len(train):
        notes.append("There is one training subset only, the whole of it, so that its spread is not known.")
        draws = [torch.arange(n)]
    else:
        generator = torch.Generator().manual_seed(subset_seed)
        wanted = [counts[i % len(counts)] if counts else None for i in range(subsets)]
        draws = [_draw(n, len(train), generator, labels, each) for each in wanted]

    frechet = []
    for extractor in extractors or [e for e in (classifier, default_extractor(train)) if e is not None]:
        frechet.append(_frechet(extractor, samples, train, held_out, sets, draws, bool(counts)))
        smallest = min(n, len(held_out))
        if smallest <= extractor.dim:
            notes.append(
                f"{smallest} items do not span the {extractor.dim} features of {extractor.name}: covariances "
                "are singular, and most of the distance is due to the small n."
            )
    recognised = None
    if classifier is not None and labels is not None:
        recognised = RecognisedScore(
            classifier.name,
            _recognised(classifier, samples, labels.samples),
            _recognised(classifier, held_out, labels.held_out),
        )
    return Scores(
        samples_n=len(samples),
        train_n=len(train),
        held_out_n=len(held_out),
        seeds=_runs(seeds),
        subset_seed=subset_seed,
        frechet=tuple(frechet),
        recognised=recognised,
        memorisation=memorisation(samples, train, held_out),
        notes=tuple(notes),
    )


class _Labels(NamedTuple):
    samples: Tensor
    train: Tensor
    held_out: Tensor


def _check_data(**sets: Tensor) -> None:
    dims = tuple(sets["train"].shape[1:])
    for name, x in sets.items():
        if len(x) < 2:
            raise ValueError(f"{name}: {len(x)} items; want at least 2")
        if x.shape[1:] != dims:
            raise ValueError(f"{name}: shape {tuple(x.shape)}; want (n, …) with items of shape {dims}, as in train")
        bad = int((~torch.isfinite(x)).flatten(1).any(1).sum())
        if bad:
            raise ValueError(f"{name}: {bad} of {len(x)} items hold values that are not finite")


def _labels(
    samples: Tensor,
    train: Tensor,
    held_out: Tensor,
    sample_labels: Tensor | None,
    train_labels: Tensor | None,
    held_out_labels: Tensor | None,
) -> _Labels | None:
    if sample_labels is None and train_labels is None and held_out_labels is None:
        return None
    if sample_labels is None or train_labels is None or held_out_labels is None:
        raise ValueError("labels: some are missing; want sample_labels, train_labels and held_out_labels, or none")
    labels = _Labels(sample_labels.cpu(), train_labels.cpu(), held_out_labels.cpu())
    for name, y, x in zip(_Labels._fields, labels, (samples, train, held_out), strict=True):
        if y.shape != (len(x),) or int(y.min()) < 0:
            raise ValueError(
                f"labels of {name}: shape {tuple(y.shape)}, lowest {int(y.min())}; want ({len(x)},) indices"
            )
    return labels


def _available(counts: Tensor, labels: Tensor) -> bool:
    return bool((counts <= torch.bincount(labels, minlength=len(counts))[: len(counts)]).all())


def _draw(n: int, total: int, generator: torch.Generator, labels: _Labels | None, counts: Tensor | None) -> Tensor:
    """Indices of n of `total` training items, none twice; with `counts` of each class where given."""
    order = torch.randperm(total, generator=generator)
    if labels is None or counts is None:
        return order[:n]
    y = labels.train[order]
    return torch.cat([order[y == c][:count] for c, count in enumerate(counts.tolist())])


def _frechet(
    extractor: FeatureExtractor,
    samples: Tensor,
    train: Tensor,
    held_out: Tensor,
    sets: list[Tensor],
    draws: list[Tensor],
    by_class: bool,
) -> FrechetScore:
    target = FeatureStatistics.of(extractor(held_out))

    def distances(x: Tensor, parts: list[Tensor]) -> list[float]:
        features = extractor(x)
        return [frechet_distance(FeatureStatistics.of(features[part]), target) for part in parts]

    values, real = distances(samples, sets), distances(train, draws)
    n = len(sets[0])
    return FrechetScore(
        extractor=extractor.name,
        dim=extractor.dim,
        n=n,
        held_out_n=len(held_out),
        value=fmean(values),
        value_std=stdev(values) if len(sets) > 1 else None,
        sets=len(sets),
        real=fmean(real),
        # subsets of a finite part share items: they vary less than fresh data would, by this factor
        real_std=stdev(real) / math.sqrt(1 - n / len(train)) if len(draws) > 1 else None,
        subsets=len(draws),
        by_class=by_class,
    )


def _recognised(classifier: Classifier, x: Tensor, y: Tensor) -> Share:
    return Share(int((classifier.predict(x) == y).sum()), len(x))


def _runs(seeds: Sequence[int]) -> str:
    """Seeds in few words: 0-63, 70."""
    breaks = [i for i, (a, b) in enumerate(pairwise(seeds), 1) if b != a + 1]
    runs = [(seeds[start], seeds[stop - 1]) for start, stop in pairwise([0, *breaks, len(seeds)])]
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
