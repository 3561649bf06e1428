"""The log of a training run as curves over the images seen."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# what a record holds beside measurements, and the held-out loss, which has curves of its own
_ELSEWHERE = {"step", "images", "loss", "learning_rate", "grad_norm", "images_per_second", "seconds_left", "skipped"}
_ELSEWHERE |= {"loss_by_sigma", "held_out", "more"}  # which version 0.1 wrote with what stands beside it


@dataclass(frozen=True)
class Curve:
    """Numbers over the images seen."""

    images: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.images)


@dataclass(frozen=True)
class Levels:
    """The squared error per dimension by σ after `images` images, None for levels that were not drawn."""

    images: float
    sigma: list[float]
    mse: list[float | None]

    def points(self) -> tuple[list[float], list[float]]:
        """σ and the error, of the levels that have a positive one."""
        pairs = [(s, v) for s, v in zip(self.sigma, self.mse, strict=True) if v is not None and v > 0]
        return [s for s, _ in pairs], [v for _, v in pairs]


@dataclass(frozen=True)
class Curves:
    """The records of one run as curves; values that are not numbers are left out.

    `training` has "loss", "learning_rate", "grad_norm" and "images_per_second". `measured` has every other measurement
    by its name, one curve for each of its numbers: {"score": {"frechet": …}}, or {"": …} for a single one. `trivial` is
    the error of the denoiser that returns the mean of the data. `total` is the run's length in images.
    """

    name: str
    total: int | None
    training: Mapping[str, Curve]
    held_out: Curve
    measured: Mapping[str, Mapping[str, Curve]]
    by_sigma: Sequence[Mapping[str, Any]]
    held_out_by_sigma: Sequence[Levels]
    trivial: float | None
    last: Mapping[str, Any]

    @classmethod
    def of(cls, name: str, records: Sequence[Mapping[str, Any]], total: int | None = None) -> Curves:
        """The curves of a log."""
        records = [r for r in records if _is_number(r.get("images"))]
        held = [(r["images"], r["held_out"]) for r in records if isinstance(r.get("held_out"), Mapping)]
        binned = [r for r in records if _has_levels(r.get("loss_by_sigma"), "loss", "count")]
        known = [h["trivial"] for _, h in held if isinstance(h.get("trivial"), list) and h["trivial"]]
        training = [r for r in records if "loss" in r]
        return cls(
            name=name,
            total=total,
            training={
                key: _curve((r["images"], r.get(key)) for r in training)
                for key in ("loss", "learning_rate", "grad_norm", "images_per_second")
            },
            held_out=_curve((images, h.get("loss")) for images, h in held),
            measured=_measured(records),
            by_sigma=[{"images": r["images"], **r["loss_by_sigma"]} for r in binned],
            held_out_by_sigma=[Levels(images, h["sigma"], h["mse"]) for images, h in held if _has_levels(h, "mse")],
            trivial=float(known[-1][-1]) if known and _is_number(known[-1][-1]) else None,
            last=training[-1] if training else {},
        )

    @property
    def images(self) -> float:
        """The images seen so far."""
        return float(self.last.get("images", 0))

    @property
    def finished(self) -> bool:
        """Whether the run is complete according to its log."""
        return self.total is not None and self.images >= self.total

    def slices(self, count: int) -> list[Levels]:
        """The error by σ in the training batches, means over `count` equal parts of the images seen so far.

        Bins are those of the last record; parts without a record are left out.
        """
        if not self.by_sigma:
            return []
        sigma = self.by_sigma[-1]["sigma"]
        end = self.by_sigma[-1]["images"]
        total = [[0.0] * len(sigma) for _ in range(count)]
        draws = [[0.0] * len(sigma) for _ in range(count)]
        for row in self.by_sigma:
            if row["sigma"] != sigma:
                continue
            part = min(count - 1, int(count * row["images"] / end)) if end else 0
            for k, (value, n) in enumerate(zip(row["loss"], row["count"], strict=True)):
                if value is not None and n:
                    total[part][k] += value * n
                    draws[part][k] += n
        return [
            Levels(end * (i + 0.5) / count, sigma, [t / n if n else None for t, n in zip(sums, counts, strict=True)])
            for i, (sums, counts) in enumerate(zip(total, draws, strict=True))
            if any(counts)
        ]


def smooth(values: Sequence[float], width: int) -> list[float]:
    """Means over up to `width` values on either side, as many on both sides, so that ends do not bend."""
    sums = [0.0, *itertools.accumulate(values)]
    last = len(values) - 1
    result = []
    for i in range(len(values)):
        w = min(i, last - i, width)
        result.append((sums[i + w + 1] - sums[i - w]) / (2 * w + 1))
    return result


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def _curve(pairs: Any) -> Curve:
    kept = [(float(x), float(y)) for x, y in pairs if _is_number(y)]
    return Curve([x for x, _ in kept], [y for _, y in kept])


def _has_levels(value: Any, *names: str) -> bool:
    """Whether a mapping has lists of numbers (or None) of one length by "sigma" and by each name."""
    if not isinstance(value, Mapping) or not all(isinstance(value.get(name), list) for name in ("sigma", *names)):
        return False
    lists = [value[name] for name in ("sigma", *names)]
    return (
        len({len(items) for items in lists}) == 1
        and all(_is_number(s) and s > 0 for s in value["sigma"])
        and all(item is None or _is_number(item) for items in lists for item in items)
    )


def _measured(records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Curve]]:
    points: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for record in records:
        for name in record.keys() - _ELSEWHERE:
            value = record[name]
            for label, number in value.items() if isinstance(value, Mapping) else [("", value)]:
                if _is_number(number):
                    points.setdefault(name, {}).setdefault(label, []).append((record["images"], number))
    return {name: {label: _curve(pairs) for label, pairs in lines.items()} for name, lines in sorted(points.items())}
