"""What a run reports at intervals: means over the steps since the last report, and over all processes."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from diffspace.objective import NoiseDistribution, SigmaBins, Terms
from diffspace.train.loop import TrainingStep
from diffspace.train.parallel import Processes


@dataclass(frozen=True)
class TrainingReport:
    """Where a run stands: means over the steps since the last report, and what was measured after the last step.

    `loss` and `grad_norm` are means over the steps that were not left out, NaN and None where all were. `loss_by_sigma`
    holds centres of bins, the mean squared error per dimension, and the number of draws. `measured` has the result of
    each measurement that was due, by its name.
    """

    step: int
    images: int
    loss: float
    learning_rate: float
    grad_norm: float | None
    images_per_second: float
    seconds_left: float
    skipped: int
    loss_by_sigma: Mapping[str, Any] = field(default_factory=dict)
    measured: Mapping[str, Any] = field(default_factory=dict)

    def as_step(self, batch_size: int, total: int) -> TrainingStep:
        """The step that it was made after, without what was drawn and computed in it."""
        nothing = torch.zeros(0, dtype=torch.float32, device="cpu")
        terms, last = Terms(nothing, nothing, nothing, nothing), self.images >= total
        place = (self.step, self.images, batch_size, last, self.learning_rate)
        return TrainingStep(*place, nothing, nothing, nothing, terms)

    def record(self) -> dict[str, Any]:
        """A line of the log."""
        values = asdict(self)
        measured = values.pop("measured")
        return {name: _rounded(value) for name, value in (values | measured).items()}


def _rounded(value: Any) -> Any:
    """Numbers with six figures: losses are not known to more, and logs grow long."""
    if isinstance(value, Mapping):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


class Meter:
    """Gathers the steps on the device, and makes a report of them every `seconds` or so.

    The first process decides by its clock, some steps ahead, when that is, so that all report after the same step. In
    long runs reports become rarer, up to ten times.
    """

    def __init__(
        self, noise: NoiseDistribution, dimensions: int, total: int, processes: Processes, seconds: float = 1.0
    ) -> None:
        self._bins = SigmaBins(noise.target)
        self._dimensions, self._total, self._processes, self._seconds = dimensions, total, processes, seconds
        self._interval, self._begun = 1, time.perf_counter()
        self._clear()

    def _clear(self) -> None:
        self._bins.reset()
        self._sums = torch.zeros(
            3, device=self._processes.device, dtype=torch.float32
        )  # loss, norm, steps that were not left out
        self._steps, self._images, self._since = 0, 0, time.perf_counter()

    def add(self, step: TrainingStep) -> bool:
        """Take note of a step; whether a report is due."""
        finite = step.grad_norm.isfinite()
        loss, norm = (torch.where(finite, value, 0) for value in (step.loss, step.grad_norm))
        self._sums += torch.stack([loss, norm, finite.to(norm)])
        self._bins.add(step.sigma, step.terms.error / self._dimensions)
        self._steps += 1
        self._images += step.batch_size
        return self._steps >= self._interval

    def report(self, step: TrainingStep, skipped: int, measured: Mapping[str, Any]) -> TrainingReport:
        """The report after a step; all processes have to call, and all get the same."""
        sums = torch.cat([self._sums[:1].to(self._bins.sums), self._bins.sums.flatten()])
        total = float(self._processes.sum(sums)[0])
        self._bins.sums.copy_(sums[1:].reshape(self._bins.sums.shape))
        norm, steps = self._sums[1:].tolist()
        now = time.perf_counter()
        elapsed = now - self._since
        seconds = self._seconds * min(max(1.0, (now - self._begun) / 1000), 10.0)
        interval = min(max(1, round(self._steps * seconds / elapsed)), 4 * self._interval)
        speed, self._interval = self._processes.broadcast((self._images / elapsed, interval))
        report = TrainingReport(
            step.step,
            step.images,
            total / steps if steps else math.nan,
            step.learning_rate,
            norm / steps if steps else None,
            speed,
            max(self._total - step.images, 0) / speed,
            skipped,
            self._bins.read(),
            measured,
        )
        self._clear()
        return report
