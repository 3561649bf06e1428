"""The log of a training run as curves over the images seen, and the panels of lines that show them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeGuard

# what a record holds beside measurements, and the held-out loss, which has curves of its own
_ELSEWHERE = {"step", "images", "loss", "learning_rate", "grad_norm", "images_per_second", "seconds_left", "skipped"}
_ELSEWHERE |= {"loss_by_sigma", "held_out", "more"}  # which version 0.1 wrote with what stands beside it
_ERROR = "_error"  # ends the name of a standard error
_TRAINING = {"grad_norm": "gradient norm", "learning_rate": "learning rate", "images_per_second": "images/s"}


@dataclass(frozen=True)
class Curve:
    """Numbers over the images seen, with their standard errors; none, or one for each."""

    images: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)

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
    by its name, one curve for each of its numbers: {"score": {"frechet": …}}, or {"": …} for a single one; a number
    "frechet_error" beside "frechet" is its standard error. `trivial` is
    the error of the denoiser that returns the mean of the data. `total` is the run's length in images, `patience` the
    images after which it ends if the held-out loss has not fallen, 0 for never.
    """

    name: str
    total: int | None
    patience: int
    training: Mapping[str, Curve]
    held_out: Curve
    measured: Mapping[str, Mapping[str, Curve]]
    by_sigma: Sequence[Mapping[str, Any]]
    held_out_by_sigma: Sequence[Levels]
    trivial: float | None
    last: Mapping[str, Any]

    @classmethod
    def of(cls, name: str, records: Sequence[Mapping[str, Any]], total: int | None = None, patience: int = 0) -> Curves:
        """The curves of a log."""
        records = [r for r in records if _is_number(r.get("images"))]
        held = [(r["images"], r["held_out"]) for r in records if isinstance(r.get("held_out"), Mapping)]
        binned = [r for r in records if _has_levels(r.get("loss_by_sigma"), "loss", "count")]
        known = [h["trivial"] for _, h in held if isinstance(h.get("trivial"), list) and h["trivial"]]
        training = [r for r in records if "loss" in r]
        return cls(
            name=name,
            total=total,
            patience=patience,
            training={key: _curve((r["images"], r.get(key)) for r in training) for key in ("loss", *_TRAINING)},
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
    def progress(self) -> str:
        """How far the run is: `1,280 of 2,560 images, stopped early`."""
        of = f" of {self.total:,}" if self.total else ""
        end = ", stopped early" if self.stopped_early else ", done" if self.finished else ""
        return f"{int(self.images):,}{of} images{end}"

    @property
    def stopped_early(self) -> bool:
        """Whether the run ended because its held-out loss had not fallen for `patience` images."""
        images, losses = self.held_out.images, self.held_out.values
        if not self.patience or not losses or images[-1] < self.images:
            return False
        return images[-1] - images[losses.index(min(losses))] >= self.patience

    @property
    def finished(self) -> bool:
        """Whether the run has ended according to its log."""
        return self.stopped_early or (self.total is not None and self.images >= self.total)

    def slices(self, count: int) -> list[Levels]:
        """The error by σ in the training batches, means over `count` equal parts of the images seen so far.

        Bins are those of the last record; parts without a record are left out.
        """
        if not self.by_sigma:
            return []
        sigma, end = self.by_sigma[-1]["sigma"], self.by_sigma[-1]["images"]
        sums, draws = ([[0.0] * len(sigma) for _ in range(count)] for _ in range(2))
        for row in self.by_sigma:
            if row["sigma"] != sigma:
                continue
            part = min(count - 1, int(count * row["images"] / end)) if end else 0
            for k, (value, n) in enumerate(zip(row["loss"], row["count"], strict=True)):
                if value is not None and n:
                    sums[part][k] += value * n
                    draws[part][k] += n
        means = [[s / n if n else None for s, n in zip(*pair, strict=True)] for pair in zip(sums, draws, strict=True)]
        return [Levels(end * (i + 0.5) / count, sigma, means[i]) for i in range(count) if any(draws[i])]


@dataclass(frozen=True)
class Line:
    """Points in rising order of x.

    `colour` is a place in the palette, None for what others are compared with; `age` runs from 0 for the beginning of
    a run to 1 for now. A faint line is one that stands smoothed beside it. `errors` are the lengths of bars.
    """

    x: Sequence[float]
    y: Sequence[float]
    label: str = ""
    colour: int | None = 0
    style: Literal["line", "faint", "points", "dotted", "dashed"] = "line"
    age: float = 1.0
    errors: Sequence[float] = ()

    @property
    def ends(self) -> list[float]:
        """The values, and the ends of the bars, of which those below 0 count where a value is."""
        low, high = ([y + sign * e for y, e in zip(self.y, self.errors, strict=False)] for sign in (-1, 1))
        return [*self.y, *high, *(y for y in low if y > 0 or min(self.y) <= 0)]


@dataclass(frozen=True)
class Panel:
    """Lines over the images seen, from 0 on, or over σ; the vertical axis of `linear` ones begins at 0."""

    title: str
    lines: Sequence[Line]
    by_sigma: bool = False
    linear: bool = False

    @property
    def logarithmic(self) -> bool:
        """Whether the vertical axis is."""
        return not self.linear and all(y > 0 for line in self.lines for y in line.y)


def loss_panel(runs: Sequence[Curves]) -> Panel:
    """The training loss, as logged and smoothed, with the held-out loss as points."""
    lines: list[Line] = []
    for i, run in enumerate(runs):
        name, held_out = ("training", "held-out") if len(runs) == 1 else (run.name, f"{run.name}, held-out")
        lines += _smoothed(run.training["loss"], i, name)
        if run.held_out:
            colour = 1 if len(runs) == 1 else i
            lines.append(Line(run.held_out.images, run.held_out.values, held_out, colour, "points"))
    return Panel("loss", lines)


def levels_panel(runs: Sequence[Curves], count: int = 8, between: bool = False) -> Panel:
    """The squared error per dimension over σ: of one run in its first and last 1/count, of several in the last.

    With `between` also in the second, fourth, eighth and so on.
    """
    lines: list[Line] = []
    for i, run in enumerate(runs):
        slices = run.slices(count)
        if len(runs) > 1:
            lines += [Line(*levels.points(), run.name, i) for levels in slices[-1:]]
            continue
        last = len(slices) - 1
        chosen = [k for k in range(last + 1) if k in (0, last) or (between and k & (k + 1) == 0)]
        for n, k in enumerate(chosen):
            age = 1.0 if k == last else n / len(chosen)
            lines.append(Line(*slices[k].points(), short(slices[k].images), age=age))
        if run.held_out_by_sigma:
            lines.append(Line(*run.held_out_by_sigma[-1].points(), "held-out", 1, "points"))
    known = {i: run.trivial for i, run in enumerate(runs) if run.trivial}
    sigma = [x for line in lines for x in line.x]
    if known and sigma:
        low, high = min(sigma), max(sigma)
        levels = [low * (high / low) ** (k / 60) for k in range(61)]
        if max(known.values()) > 1.01 * min(known.values()):  # of different data
            dotted = [Line(levels, [v] * 61, f"{runs[i].name}, trivial", i, "dotted") for i, v in known.items()]
            return Panel("error by σ", [*dotted, *lines], by_sigma=True)
        trivial = next(iter(known.values()))
        best = [shrinking_error(x, trivial) for x in levels]
        lines.insert(0, Line(levels, [trivial] * 61, "trivial", None, "dotted"))
        lines.insert(1, Line(levels, best, "best multiple of x", None, "dashed"))
    return Panel("error by σ", lines, by_sigma=True)


def small_panels(runs: Sequence[Curves]) -> list[Panel]:
    """A panel for each measurement, the gradient norm, the learning rate and the speed, if they were logged."""
    panels = []
    for name in dict.fromkeys(name for run in runs for name in run.measured):
        lines: list[Line] = []
        for i, run in enumerate(runs):
            for k, (label, curve) in enumerate(run.measured.get(name, {}).items()):
                colour = k if len(runs) == 1 else i
                lines.append(Line(curve.images, curve.values, label, colour, errors=curve.errors))
        panels.append(Panel(name, lines))
    for key, title in _TRAINING.items():
        lines = [line for i, run in enumerate(runs) for line in _smoothed(run.training[key], i)]
        if lines:
            panels.append(Panel(title, lines, linear=key != "grad_norm"))
    return panels


def _smoothed(curve: Curve, colour: int, label: str = "") -> list[Line]:
    """A curve as it was logged, and its means over up to a thirtieth of it."""
    if not curve:
        return []
    line = smooth(curve.values, len(curve.values) // 60)
    return [Line(curve.images, curve.values, "", colour, "faint"), Line(curve.images, line, label, colour)]


def shrinking_error(sigma: float, variance: float) -> float:
    """σ²·v/(σ² + v): the error per dimension of the best multiple of x, for data of variance v about 0.

    It is what EDM's preconditioning gives with F = 0: σ² (the answer x) at low noise, v (the mean) at high noise.
    """
    return sigma**2 * variance / (sigma**2 + variance)


def short(value: float) -> str:
    """A number in at most six characters."""
    size = abs(value)
    for unit, sign in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= unit:
            return f"{value / (1e3 if sign == 'k' else unit):.3g}{sign}"
    if 0 < size < 1e-3:
        return f"{value:.0e}".replace("e-0", "e-")
    if size < 0.1:
        return f"{value:.2g}"
    return f"{value:.3g}" if size < 1000 else f"{value:.0f}"


def smooth(values: Sequence[float], width: int) -> list[float]:
    """Means over up to `width` values on either side, as many on both sides, so that ends do not bend."""
    sums = [0.0, *itertools.accumulate(values)]
    last = len(values) - 1
    result = []
    for i in range(len(values)):
        w = min(i, last - i, width)
        result.append((sums[i + w + 1] - sums[i - w]) / (2 * w + 1))
    return result


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def _curve(points: Any) -> Curve:
    """The curve of (images, value) or (images, value, standard error)."""
    kept = [(float(x), float(y), *map(float, error)) for x, y, *error in points if _is_number(y)]
    errors = [point[2] for point in kept if len(point) > 2]
    return Curve([point[0] for point in kept], [point[1] for point in kept], errors if any(errors) else [])


def _drawn(name: str) -> str:
    """A name from a log as fonts have it: matplotlib prints characters that they lack."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)


def _has_levels(value: Any, *names: str) -> bool:
    """Whether a mapping has lists of numbers (or None) of one length by "sigma" and by each name."""
    if not isinstance(value, Mapping):
        return False
    lists: list[Any] = [value.get(name) for name in ("sigma", *names)]
    if not all(isinstance(items, list) and len(items) == len(lists[0]) for items in lists):
        return False
    positive = all(_is_number(s) and s > 0 for s in lists[0])
    return positive and all(item is None or _is_number(item) for items in lists for item in items)


def _measured(records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Curve]]:
    points: dict[str, dict[str, list[tuple[float, float, float]]]] = {}
    for record in records:
        for name in record.keys() - _ELSEWHERE:
            found = record[name] if isinstance(record[name], Mapping) else {"": record[name]}
            for label, number in found.items():
                if not _is_number(number) or (label.endswith(_ERROR) and label.removesuffix(_ERROR) in found):
                    continue
                error = found.get(f"{label}{_ERROR}")
                point = float(record["images"]), float(number), float(error) if _is_number(error) else 0.0
                points.setdefault(_drawn(name), {}).setdefault(_drawn(label), []).append(point)
    return {name: {label: _curve(curve) for label, curve in lines.items()} for name, lines in sorted(points.items())}
