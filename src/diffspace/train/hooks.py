"""What a run does beside training, each with a period in images: measurements for the log, saving, ending early."""

from __future__ import annotations

import contextlib
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from diffspace.averages.ema import EMA, PowerFunction
from diffspace.averages.posthoc import Snapshots
from diffspace.checks import check_integer
from diffspace.model import Model
from diffspace.train.loggers import scalars
from diffspace.train.loop import ADVICE, TrainingStep
from diffspace.train.parallel import Processes
from diffspace.train.report import TrainingReport

PREVIEWS = "previews"
HELD_OUT, PREVIEW, SCORE = "held_out", "preview", "score"
"""The names of the run's own measurements in the log."""


class Measurement(ABC):
    """Something to measure of the averaged model, each time the images seen pass a multiple of `every`.

    `measure` is called on the first process, with a model in evaluation mode, and returns a number or a mapping of
    numbers. The log has it under `name`, and `diffspace watch` draws it.
    """

    name: str

    def __init__(self, every: int) -> None:
        check_integer("every", every, 1)
        self.every = every

    def due(self, step: TrainingStep) -> bool:
        """Whether to measure after this step; the same on all processes."""
        return step.due(self.every)

    @abstractmethod
    def measure(self, model: Model) -> Any:
        """What the log shall have; `model.notes["images"]` are the images seen."""


def as_record(name: str, value: Any) -> Any:
    """What a measurement returned, as the log holds it: numbers of any kind become int or float.

    ValueError names a value that is neither a number nor text nor a mapping or list of them.
    """
    if isinstance(value, Mapping):
        return {str(key): as_record(f"{name}.{key}", item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_record(name, item) for item in value]
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int | float):  # NumPy's float64 is a float too
        return int(value) if isinstance(value, int) else float(value)
    try:
        return float(value)  # of tensors and arrays with one element
    except (TypeError, ValueError, RuntimeError):
        kind = type(value).__name__
        raise ValueError(
            f"measurement: {name!r} returned a {kind}; expected a number or a mapping of numbers"
        ) from None


def check_measurements(measurements: Sequence[Measurement]) -> None:
    """ValueError where a user's measurement has no name, or one that the log uses already."""
    taken = {field.name for field in fields(TrainingReport)} | {HELD_OUT, PREVIEW, SCORE}
    for measurement in measurements:
        name, kind = getattr(measurement, "name", None), type(measurement).__name__
        if not isinstance(name, str) or not name:
            raise ValueError(f"measurement: {kind} has no name; set `name` in the class")
        if name in taken:
            raise ValueError(f"measurement: the name {name!r} of {kind} is taken; choose another")
        taken.add(name)


class Measured(Measurement):
    """What a function of the model returns: the run's own measurements."""

    def __init__(self, name: str, every: int, function: Callable[[Model], Any]) -> None:
        super().__init__(every)
        self.name, self.function = name, function

    def measure(self, model: Model) -> Any:
        return self.function(model)


class Preview(Measured):
    """Pictures of samples: every `every` images (0: never), and after the next step when `asked`."""

    asked = False

    def __init__(self, every: int, function: Callable[[Model], Any]) -> None:
        super().__init__(PREVIEW, max(every, 1), function)
        self.every = every

    def due(self, step: TrainingStep) -> bool:
        return self.asked or super().due(step)


class Diverged(FloatingPointError):
    """The model of a run is worth nothing."""


@contextlib.contextmanager
def advising(name: str) -> Iterator[None]:
    """Raise a FloatingPointError in what is done with the model as `Diverged`, with advice."""
    try:
        yield
    except FloatingPointError as error:
        raise Diverged(f"{name}: {error}; {ADVICE}") from None


def divergence(report: TrainingReport, last: bool) -> FloatingPointError | None:
    """Of a run that has diverged, or ends with steps that were left out."""
    own = {name: report.measured[name] for name in (HELD_OUT, SCORE) if name in report.measured}
    if report.grad_norm is not None:
        own["loss"] = report.loss
    for name, value in scalars(own).items():
        if not math.isfinite(value):
            return Diverged(f"{name}: is {value} after {report.images} images; {ADVICE}")
    if last and report.grad_norm is None:
        reason = f"the gradients of the last steps, up to {report.step}, are not finite"
        return FloatingPointError(f"loss: {reason}; {ADVICE}")
    return None


def save_preview(draw: Callable[[Model, Path], None], folder: Path, model: Model) -> str:
    """Draw a picture into `folder`/previews; returns its path within `folder`."""
    path = folder / PREVIEWS / f"{model.notes['images']:012d}.png"
    path.parent.mkdir(exist_ok=True)
    draw(model, path)
    return str(path.relative_to(folder))


def _score_of(report: TrainingReport | None) -> float | None:
    """The first number of a score, where one was measured: the one that counts, and less is better."""
    return None if report is None else next(iter(report.measured.get(SCORE, {}).values()), None)


class Hook(ABC):
    """Something that a run does after a step, when what was measured is in the log.

    All processes of the run call it after every step, with a report after the same steps.
    """

    state: dict[str, Any]
    """What a checkpoint has to keep, numbers by names that no other hook uses."""

    @abstractmethod
    def after_step(self, step: TrainingStep, report: TrainingReport | None) -> bool | None:
        """Act, if something is due; True ends the training. `report` is None after most steps."""


class BestModel(Hook):
    """Calls `keep` when the score is the lowest so far."""

    def __init__(self, keep: Callable[[], None]) -> None:
        self.keep, self.state = keep, {"score": float("inf")}

    def after_step(self, step: TrainingStep, report: TrainingReport | None) -> None:
        score = _score_of(report)
        if score is not None and score < self.state["score"]:
            self.state["score"] = score
            self.keep()


class EarlyPreviews(Hook):
    """Asks for a preview after `minutes`, after twice as many, four times as many, and so on; 0: never."""

    def __init__(self, minutes: float, preview: Preview, processes: Processes) -> None:
        self.preview, self.processes, self.state = preview, processes, {}
        self._begun, self._next = time.monotonic(), 60 * minutes

    def after_step(self, step: TrainingStep, report: TrainingReport | None) -> None:
        if self.preview.asked:  # it has been drawn: the next one is due after twice the time
            self.preview.asked = False
            self._next = 2 * max(self._next, self._elapsed())
        elif report is not None and self._next > 0:  # clocks differ, and the first process decides
            self.preview.asked = self.processes.broadcast(self._elapsed() >= self._next)

    def _elapsed(self) -> float:
        return time.monotonic() - self._begun


class EarlyStop(Hook):
    """Ends the training when the held-out loss has not fallen for `patience` images; 0: never."""

    def __init__(self, patience: int) -> None:
        self.patience, self.stopped = patience, False
        self.state = {"held_out": float("inf"), "held_out_images": 0}

    def after_step(self, step: TrainingStep, report: TrainingReport | None) -> bool:
        if report is None or HELD_OUT not in report.measured:
            return False
        loss = report.measured[HELD_OUT]["loss"]
        if loss < self.state["held_out"]:
            self.state |= {"held_out": loss, "held_out_images": step.images}
        self.stopped = 0 < self.patience <= step.images - self.state["held_out_images"]
        return self.stopped


class SaveSnapshots(Hook):
    """Writes the power-function averages, for `diffspace ema`, every `every` images."""

    def __init__(self, every: int, averages: Sequence[EMA[Any]], folder: Path, processes: Processes) -> None:
        self.every, self.folder, self.processes, self.state = every, folder, processes, {}
        self.averages = [average for average in averages if isinstance(average.profile, PowerFunction)]

    def after_step(self, step: TrainingStep, report: TrainingReport | None) -> None:
        if step.due(self.every):
            for average in self.averages:
                with advising("snapshot"):
                    Snapshots(self.folder).write(average, step.images, writer=self.processes.first)


class SaveCheckpoints(Hook):
    """Calls `save(score)` at multiples of each of `periods` in images, with each score, and every `minutes`."""

    def __init__(
        self, periods: Sequence[int], minutes: float, save: Callable[[float | None], bool], processes: Processes
    ) -> None:
        self.periods, self.minutes, self.save, self.processes, self.state = periods, minutes, save, processes, {}
        self._saved_at = time.monotonic()

    def after_step(self, step: TrainingStep, report: TrainingReport | None) -> None:
        score = _score_of(report)
        due = score is not None or any(step.due(every) for every in self.periods)
        if report is not None:  # clocks differ, and the first process decides
            late = 0 < self.minutes <= (time.monotonic() - self._saved_at) / 60
            due |= self.processes.broadcast(late)
        if due and self.save(score):
            self._saved_at = time.monotonic()
