"""What a run says of itself at intervals: means over the steps since it last did, and over all processes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from diffspace.objective import NoiseDistribution, SigmaBins
from diffspace.train.engine import Progress
from diffspace.train.parallel import Processes

__all__ = ["Meter", "Report"]


@dataclass(frozen=True)
class Report:
    """Where a run stands: means over the steps since the last report, and what was measured on the way.

    `grad_norm` is the mean over the steps that were not skipped, None where all were. `loss_by_sigma` holds centres of
    bins, the mean squared error per dimension, and the number of draws. `more` holds what is not there in every report:
    "held_out", "score", "preview".
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
    more: Mapping[str, Any] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """A line of the log."""
        values = asdict(self)
        return {name: _rounded(value) for name, value in {**values, **values.pop("more")}.items()}


def _rounded(value: Any) -> Any:
    """Numbers as they are written: losses are not known to more figures, and logs grow long."""
    if isinstance(value, Mapping):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


class Meter:
    """Gathers the progress of steps on the device, and makes a report of it every `seconds` or so.

    When that is, the first process decides by its clock, some steps ahead, so that all report after the same step. In
    long runs reports become rarer, up to ten times.
    """

    def __init__(self, noise: NoiseDistribution, total: int, processes: Processes, seconds: float = 1.0) -> None:
        self._bins = SigmaBins(noise.target, device=processes.device)
        self._total, self._processes, self._seconds = total, processes, seconds
        self._interval, self._begun = 1, time.perf_counter()
        self._clear()

    def _clear(self) -> None:
        self._bins.reset()
        self._sums = torch.zeros(3, device=self._processes.device)  # loss, norm, steps that were not skipped
        self._steps, self._images, self._since = 0, 0, time.perf_counter()

    def add(self, progress: Progress, dimensions: int, batch_size: int) -> bool:
        """Take note of a step; whether a report is due."""
        finite = progress.grad_norm.isfinite()
        norm = torch.where(finite, progress.grad_norm, 0)
        self._sums += torch.stack([progress.loss, norm, finite.to(norm)])
        self._bins.add(progress.sigma.to(self._sums.device), progress.terms.error / dimensions)
        self._steps += 1
        self._images += batch_size
        return self._steps >= self._interval

    def report(self, progress: Progress, skipped: int, more: Mapping[str, Any]) -> Report:
        """The report after a step; all processes ask for it, and all get the same."""
        sums = torch.cat([self._sums[:1].to(self._bins.sums), self._bins.sums.flatten()])
        loss = float(self._processes.sum(sums)[0]) / self._steps
        self._bins.sums.copy_(sums[1:].reshape(self._bins.sums.shape))
        norm, steps = self._sums[1:].tolist()
        now = time.perf_counter()
        elapsed = now - self._since
        speed = self._images / elapsed
        seconds = self._seconds * min(max(1.0, (now - self._begun) / 1000), 10.0)
        wanted = max(1, round(self._steps * seconds / elapsed))
        speed, self._interval = self._processes.agree((speed, min(wanted, 4 * self._interval)))
        made = Report(
            progress.step,
            progress.images,
            loss,
            progress.learning_rate,
            norm / steps if steps else None,
            speed,
            max(self._total - progress.images, 0) / speed,
            skipped,
            self._bins.read(),
            more,
        )
        self._clear()
        return made
