"""The results of `evaluate`, each score beside that of real data, as a table and as JSON."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from diffspace.metrics.neighbours import Memorisation


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
class Scores:
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

    def rows(self) -> list[Row]:
        """The table: what is measured, its value for the samples, for real data, and how it was taken."""
        seeds = f"seeds {self.seeds}; {self.train_n} training items"
        rows = [Row("data", f"{self.samples_n} samples", f"{self.held_out_n} held out", seeds)]
        rows += [self._frechet_row(f) for f in self.frechet]
        if self.recognised is not None:
            r = self.recognised
            rows.append(Row("recognised as their class", str(r.samples), str(r.held_out), r.classifier))
        m = self.memorisation
        name = "distance to the nearest training item"
        rows.append(Row(name, f"{m.median:.4g}", f"{m.held_out_median:.4g}", "median"))
        for c in m.closeness:
            expected = f"{100 * c.expected:.1f} ± {100 * c.standard_error:.1f} %"
            note = f"the held-out data's {100 * c.quantile:g} % quantile; p = {c.p_value:.2g}"
            rows.append(Row(f"nearer than {c.threshold:.4g}", f"{100 * c.observed:.1f} %", expected, note))
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
