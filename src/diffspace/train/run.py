"""A training run as a folder: recipe, log, checkpoints, previews and the model."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from diffspace.averages.ema import PowerFunction
from diffspace.averages.snapshots import Snapshots
from diffspace.data import DataSet, InMemory, batches
from diffspace.files import atomic_path, write_text
from diffspace.model import Model
from diffspace.sampling.start import is_finite
from diffspace.sharding import whole
from diffspace.train.build import make_denoiser, make_trainer
from diffspace.train.checkpoint import Checkpoint, Checkpoints
from diffspace.train.engine import NonFinite, Progress
from diffspace.train.held_out import HeldOut
from diffspace.train.lock import LOCK, RunLock
from diffspace.train.loggers import JSONLines, Logger, TensorBoard, WandB
from diffspace.train.parallel import Processes, choose_device
from diffspace.train.recipe import Recipe, changes
from diffspace.train.report import Meter, Report

__all__ = ["BEST", "LOG", "RECIPE", "Preview", "Run", "Score"]

RECIPE, LOG, PREVIEWS, BEST = "recipe.yaml", "log.jsonl", "previews", "best"
_AHEAD = 4  # batches decoded while one is trained on, where samples are not in memory
_HELD_OUT = 128  # samples at 8 levels: a measurement costs as much as training on about 350 images
_LEVELS = 8
_RESIDENT = 0.25  # the share of an accelerator's memory that data may take

Preview = Callable[[Model, Path], None]
Score = Callable[[Model], Mapping[str, float]]
"""Numbers of which the first is the one that counts; less is better."""


class _GivenUp(KeyboardInterrupt):
    """A measurement was interrupted, since the run is to stop."""


def _score_of(measured: Mapping[str, Any]) -> float | None:
    """The number that counts of a score, where one was taken."""
    return next(iter(measured.get("score", {}).values()), None)


def make_folder(folder: Path) -> None:
    """A new empty folder for a run; ValueError where something is there already."""
    if folder.exists() and (not folder.is_dir() or any(path.name != LOCK for path in folder.iterdir())):
        raise ValueError(f"out: {folder} exists already; choose another folder with --out, or go on with --resume")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"out: {folder} cannot be made: {error.strerror}") from None


class Run:
    """The training of one model on one data set, as the recipe says, by one process or several.

    `begin()` makes the folder or `resume()` takes up what is there, and no other run may write there until `train()`, a
    generator of reports that saves however it ends, has ended. `preview(model, path)` draws samples of the averaged
    model, and `score(model)` measures them; both are handed in from above. `warn` is told what a person should know.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: DataSet,
        folder: Path,
        *,
        held_out: DataSet | None = None,
        processes: Processes | None = None,
        preview: Preview | None = None,
        score: Score | None = None,
        warn: Callable[[str], None] = lambda text: None,
        report_seconds: float = 1.0,
    ) -> None:
        for name, handed in (("preview_images", preview), ("held_out_images", held_out), ("score_images", score)):
            if getattr(recipe, name) and handed is None:
                raise ValueError(f"{name}: {getattr(recipe, name)}, but nothing to do it with was handed in")
        for name in ("tensorboard", "wandb"):
            if getattr(recipe, name) and importlib.util.find_spec(name) is None:
                raise ValueError(f"{name}: is not installed; pip install {name}")
        if not recipe.conditional:
            data = dataclasses.replace(data, labels=None, class_names=())
            held_out = held_out and dataclasses.replace(held_out, labels=None, class_names=())
        if recipe.augment is not None:
            recipe.augment.check_shape(data.sample_shape)
        self.processes = processes or Processes(choose_device())
        if recipe.batch_size < self.processes.count:
            raise ValueError(
                f"batch_size: {recipe.batch_size}; want at least {self.processes.count}, one sample for each process"
            )
        self.recipe, self.data, self.folder = recipe, data, folder
        self.held_out, self.preview, self.score, self.warn = held_out, preview, score, warn
        self.trainer = make_trainer(recipe, make_denoiser(recipe, data), self.processes)
        self.stopped_early = False
        self._report_seconds = report_seconds
        self._stopping = self._measuring = self._transferred = False
        self._owned = contextlib.ExitStack()
        self._checkpoints = Checkpoints(folder, recipe.keep_last, recipe.keep_every_images)
        self._saved = -1
        self._best: dict[str, Any] = {"score": math.inf, "held_out": math.inf, "held_out_images": 0}

    def transfer(self, network: torch.nn.Module) -> tuple[str, ...]:
        """Begin with the weights of another network; the names of those that it does not have are returned.

        ValueError where a weight has another shape, or none has the same name.
        """
        own, given = self.trainer.denoiser.network, network.state_dict()
        state = {name: whole(value) for name, value in own.state_dict().items()}
        for name in given.keys() & state.keys():
            if given[name].shape != state[name].shape:
                raise ValueError(
                    f"transfer: {name} has shape {tuple(given[name].shape)} there and {tuple(state[name].shape)} here"
                )
        fresh = tuple(name for name in state if name not in given)
        if len(fresh) == len(state):
            raise ValueError(f"transfer: a {type(network).__name__} has no weight of a {type(own).__name__}")
        self.trainer.load_weights(state | {name: given[name] for name in given.keys() & state.keys()})
        self._transferred = True
        return fresh

    def model(self) -> Model:
        """The averaged model as it stands; of a model in shares, a copy on the CPU, for which all processes ask."""
        notes = {"data": self.data.name, "images": self.trainer.images, "steps": self.trainer.step}
        denoiser = self.trainer.averages[0].module
        if self.processes.sharded:
            state = {name: whole(value).cpu() for name, value in denoiser.state_dict().items()}
            denoiser = make_denoiser(self.recipe, self.data).eval().requires_grad_(False)
            denoiser.load_state_dict(state)
        return Model(denoiser, self.data.transform, self.data.class_names, notes)

    def begin(self) -> None:
        """Make the folder and write the recipe in full; ValueError where something is there already."""
        if self.processes.first:
            make_folder(self.folder)
            with contextlib.ExitStack() as owned:
                owned.enter_context(RunLock(self.folder))
                write_text(self.folder / RECIPE, self.recipe.to_yaml())
                self._owned = owned.pop_all()
        self.processes.wait()
        if self._transferred:  # the recipe alone would not lead back here
            self.save()

    def resume(self) -> None:
        """Take up the run from the newest whole checkpoint in its folder, or from its beginning if it has none yet.

        ValueError where no checkpoint is whole, and where the recipe has changed in what one depends on.
        """
        with contextlib.ExitStack() as owned:
            if self.processes.first:
                owned.enter_context(RunLock(self.folder))
            # one decides for all: file systems that they share may not show all of them the same
            found = None
            if self.processes.first and not self._checkpoints.empty:
                found = self._checkpoints.newest(self.warn)
            found = self.processes.agree(found)
            if found is None:
                self.warn(f"{self.folder} has no checkpoint yet; beginning anew")
            else:
                self._take_up(found)
            self._owned = owned.pop_all()

    def _take_up(self, found: Checkpoint) -> None:
        state = found.read()
        own = state["trainer"]
        for line in changes(own["recipe"], self.recipe):
            self.warn(line)
        try:
            self.trainer.load_state_dict(state)
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"resume: {found.path} does not fit {RECIPE}: {reason}") from None
        self._best, self._saved = own["best"], self.trainer.images
        if self.processes.first:
            Snapshots(self.folder).forget(after=self.trainer.images)
            write_text(self.folder / RECIPE, self.recipe.to_yaml())
        self.processes.wait()

    def stop(self) -> None:
        """Ask `train` to end after the step under way (of several processes: by the next report); it saves then.

        A measurement that is under way is given up: called by the handler of a signal, `stop` interrupts it.
        """
        self._stopping = True
        if self._measuring:
            raise _GivenUp

    def close(self) -> None:
        """Finish writing, and give the folder free, as `train` does at its end."""
        try:
            self._checkpoints.wait()
        finally:
            self._owned.close()

    def save(self, score: float | None = None) -> None:
        """Write the model and a checkpoint; all processes ask for it, and the first one writes."""
        state = self.trainer.state_dict()
        state["trainer"] |= {"recipe": self.recipe.to_yaml(), "best": self._best}
        model = self.model()
        if self.processes.first:
            self._checkpoints.save(self.trainer.images, state, score=score)
            model.save(self.folder)
        self._saved = self.trainer.images

    def train(self) -> Iterator[Report]:
        """Train to the end, logging, previewing, measuring and saving on the way; a report every second or so.

        However it ends (finished, stopped, closed or thrown out of), the state is saved, unless a weight has become not
        finite: then the last checkpoint stays as it is. An error in one of several processes ends the run with what was
        saved before, for the others cannot be asked. FloatingPointError after `max_skipped` steps in a row whose
        gradients were not finite; the last batch is then in `nonfinite-<process>.pt`.
        """
        loggers: list[Logger] = []
        whole_run = False
        try:
            loggers = self._loggers()
            for report in self._reports():
                for logger in loggers:
                    logger.log(report.record())
                yield report
            whole_run = True
        except NonFinite as error:
            self._keep(error)
            raise
        finally:
            with contextlib.ExitStack() as last:
                for logger in loggers:
                    last.callback(logger.close)
                last.callback(self.close)
                together = whole_run or (self.processes.count == 1 and self.trainer.between_steps)
                if together and self._saved != self.trainer.images and self._is_finite():
                    self.save()
            if whole_run:
                self.processes.wait()

    def _loggers(self) -> list[Logger]:
        if not self.processes.first:
            return []
        images = self.trainer.images
        loggers: list[Logger] = [JSONLines(self.folder / LOG, images)]
        if self.recipe.tensorboard:
            loggers.append(TensorBoard(self.folder, images))
        if self.recipe.wandb is not None:
            config = self.recipe.model_dump(mode="json")
            loggers.append(WandB(self.folder, project=self.recipe.wandb, config=config))
        return loggers

    def _keep(self, error: NonFinite) -> None:
        """What the last step was made of, for a person to look at."""
        path = self.folder / f"nonfinite-{self.processes.rank}.pt"
        weights = {} if self.processes.sharded else self.trainer.denoiser.state_dict()
        with atomic_path(path) as temporary:
            torch.save({**error.part._asdict(), "denoiser": weights}, temporary)
        self.warn(f"the batch and the weights of step {self.trainer.step} are in {path}")

    def _is_finite(self) -> bool:
        return all(is_finite(whole(p)) for p in self.trainer.denoiser.parameters())

    def _data(self) -> DataSet:
        """The data, on an accelerator where they are small beside its memory."""
        rows, device = self.data.rows, self.processes.device
        if not isinstance(rows, InMemory) or device.type != "cuda":
            return self.data
        free, _ = torch.cuda.mem_get_info(device)
        if rows.values.nbytes > _RESIDENT * free:
            return self.data
        return dataclasses.replace(self.data, rows=InMemory(rows.values.to(device)))

    def _reports(self) -> Iterator[Report]:
        recipe, trainer = self.recipe, self.trainer
        size = recipe.batch_size
        begin, end = self.processes.share(size)
        ahead = 0 if isinstance(self.data.rows, InMemory) else _AHEAD
        data = batches(self._data(), size, recipe.seed, trainer.step, prefetch=ahead, part=(begin, end))
        dimensions = math.prod(self.data.sample_shape)
        held_out = self._measure()
        meter = Meter(trainer.loss.noise, recipe.images, self.processes, self._report_seconds)
        saved_at = time.monotonic()
        for progress in trainer.run(data, begin, size):
            due = meter.add(progress, dimensions, size)
            measured = self._at_marks(progress, held_out)
            alone = self.processes.count == 1 and self._stopping
            ending = alone or self.stopped_early or progress.images >= recipe.images
            if due or measured or ending:
                yield meter.report(progress, trainer.skipped, measured)
            self._save_at_marks(progress, measured)
            if not (due or measured or ending):
                continue
            for note in trainer.notes:
                self.warn(note)
            trainer.notes.clear()
            late = 0 < recipe.checkpoint_minutes <= (time.monotonic() - saved_at) / 60
            late = self.processes.agree(late)
            if ending or self.processes.most(int(self._stopping)):
                return
            if self._saved == progress.images:
                saved_at = time.monotonic()
            elif late and self._is_finite():
                self.save()
                saved_at = time.monotonic()

    def _measure(self) -> HeldOut | None:
        if not self.recipe.held_out_images or self.held_out is None or not self.processes.first:
            return None
        return HeldOut(
            self.held_out,
            self.trainer.loss.noise.target,
            count=_HELD_OUT,
            levels=_LEVELS,
            reduction=self.recipe.reduction,
            device="cpu" if self.processes.sharded else self.processes.device,
        )

    def _at_marks(self, progress: Progress, held_out: HeldOut | None) -> dict[str, Any]:
        """What is measured each time that the images seen pass a multiple of its interval."""
        recipe = self.recipe
        measured: dict[str, Any] = {}
        intervals = (recipe.held_out_images, recipe.preview_images, recipe.score_images)
        wanted = [self._passed(interval, progress) for interval in intervals]
        if any(wanted):
            model = self.model()
            if self.processes.first:
                with contextlib.suppress(_GivenUp):
                    try:
                        for name, value in self._measurements(model, held_out, *wanted):
                            measured[name] = value
                    finally:
                        self._measuring = False
            measured = self.processes.agree(measured)
            self._judge(measured, progress, model)
        return measured

    def _passed(self, interval: int, progress: Progress) -> bool:
        at_end = progress.images >= self.recipe.images
        return interval > 0 and (progress.images % interval < self.recipe.batch_size or at_end)

    def _save_at_marks(self, progress: Progress, measured: Mapping[str, Any]) -> None:
        """Snapshots and checkpoints, after what was measured is in the log: it will not be measured again."""
        recipe = self.recipe
        if self._passed(recipe.snapshot_images, progress):
            self._snapshot()
        score = _score_of(measured)
        due = any(self._passed(n, progress) for n in (recipe.checkpoint_images, recipe.keep_every_images))
        if (due or score is not None) and self._is_finite():
            self.save(score)

    def _measurements(
        self, model: Model, held_out: HeldOut | None, loss: bool, preview: bool, score: bool
    ) -> Iterator[tuple[str, Any]]:
        self._measuring = True
        if loss and held_out is not None:
            yield "held_out", held_out.measure(model).record()
        if preview and self.preview is not None:
            path = self.folder / PREVIEWS / f"{self.trainer.images:012d}.png"
            path.parent.mkdir(exist_ok=True)
            self.preview(model, path)
            yield "preview", str(path.relative_to(self.folder))
        if score and self.score is not None:
            yield "score", dict(self.score(model))

    def _judge(self, measured: Mapping[str, Any], progress: Progress, model: Model) -> None:
        """Keep the best model, and stop where the held-out loss has long not fallen."""
        best = self._best
        score = _score_of(measured)
        if score is not None and score < best["score"]:
            best["score"] = score
            if self.processes.first:
                model.save(self.folder / BEST)
        if "held_out" in measured:
            if measured["held_out"]["loss"] < best["held_out"]:
                best["held_out"], best["held_out_images"] = measured["held_out"]["loss"], progress.images
            patience = self.recipe.patience_images
            self.stopped_early = 0 < patience <= progress.images - best["held_out_images"]

    def _snapshot(self) -> None:
        """The power-function averages as they stand, for `diffspace ema`."""
        for average in self.trainer.averages:
            if isinstance(average.profile, PowerFunction):
                Snapshots(self.folder).write(average, self.trainer.images, writer=self.processes.first)
