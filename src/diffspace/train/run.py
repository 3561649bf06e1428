"""A training run as a folder: recipe, log, checkpoints, previews and the model."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch

from diffspace.averages.posthoc import Snapshots
from diffspace.checks import require_package
from diffspace.config import from_config
from diffspace.data import Batch, DataSet, InMemory, batches, differences, fingerprints
from diffspace.files import write_text
from diffspace.locking import FolderLock
from diffspace.model import Model
from diffspace.sampling.start import is_finite
from diffspace.sharding import load_whole, whole, whole_state
from diffspace.train import hooks
from diffspace.train.build import make_denoiser, make_trainer
from diffspace.train.checkpoint import Checkpoints
from diffspace.train.loggers import JSONLines, Logger, TensorBoard, WandB
from diffspace.train.loop import NonFinite, TrainingStep
from diffspace.train.parallel import Processes, choose_device
from diffspace.train.recipe import Recipe, changes
from diffspace.train.report import Meter, TrainingReport
from diffspace.train.run_folder import BEST, LOG, RECIPE, check_links, fitting, keep_batch, make_folder
from diffspace.train.validation import Validation

_AHEAD = 4  # batches decoded while one is trained on, where samples are not in memory
_HELD_OUT, _LEVELS = 128, 8  # samples and levels: a measurement costs as much as training on about 350 images
_RESIDENT = 0.25  # the share of an accelerator's memory that data may take


_Owed: TypeAlias = tuple[tuple[str, ...], TrainingReport]  # measurements that were given up, and their report


class _GivenUp(KeyboardInterrupt):
    """A measurement was interrupted, because the run has to stop."""


class Run:
    """The training of one model on one data set by a recipe, by one process or several.

    `begin()` makes the folder or `resume()` goes on with what is there, and no other run may write there until
    `train()`, a generator of reports that saves however it ends, has ended.

    Args:
        recipe: every choice.
        data: the training data.
        folder: where everything is written.
        held_out: the data of the held-out loss, which `held_out_images` asks for.
        processes: those that train together; None: this one alone, on the best device.
        preview: draws samples of the averaged model to a path, for `preview_images` and `preview_minutes`.
        score: numbers of the averaged model, the first of which counts, less being better; for `score_images`.
        measurements: more to measure, of your own, besides those of `recipe.measure`.
        warn: called with what the user should know.
        report_seconds: the time between two reports, about.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: DataSet,
        folder: Path,
        *,
        held_out: DataSet | None = None,
        processes: Processes | None = None,
        preview: Callable[[Model, Path], None] | None = None,
        score: Callable[[Model], Mapping[str, float]] | None = None,
        measurements: Sequence[hooks.Measurement] = (),
        warn: Callable[[str], None] = lambda text: None,
        report_seconds: float = 1.0,
    ) -> None:
        for name, given in (("preview_images", preview), ("held_out_images", held_out), ("score_images", score)):
            if getattr(recipe, name) and given is None:
                raise ValueError(f"{name}: has no effect without {name.removesuffix('_images')}=…")
        for name in ("tensorboard", "wandb"):
            if getattr(recipe, name):
                require_package(name, f"{name}={getattr(recipe, name)}")
        self._fingerprint = fingerprints(data, held_out)
        if not recipe.conditional:
            data, held_out = data.unconditional(), held_out and held_out.unconditional()
        if recipe.augment is not None:
            recipe.augment.check_shape(data.sample_shape)
        self.processes = processes or Processes(choose_device())
        if recipe.batch_size < self.processes.count:
            raise ValueError(f"batch_size: expected at least one sample for each process, got {recipe.batch_size}")
        self.recipe, self.data, self.folder, self.warn = recipe, data, folder, warn
        self.trainer = make_trainer(recipe, make_denoiser(recipe, data), self.processes, warn)
        self._report_seconds = report_seconds
        self._stopping = self._measuring = self._transferred = False
        self._owned = contextlib.ExitStack()
        self._checkpoints = Checkpoints(folder, recipe.keep_last, recipe.keep_every_images)
        self._saved = -1
        self._owed: _Owed | None = None

        measured: dict[str, Callable[[Model], Any]] = {}
        if recipe.held_out_images and held_out is not None:
            noise, device = self.trainer.loss.noise.target, "cpu" if self.processes.sharded else self.processes.device
            fixed = Validation(
                held_out, noise, count=_HELD_OUT, levels=_LEVELS, reduction=recipe.reduction, device=device
            )
            measured[hooks.HELD_OUT] = lambda model: fixed.measure(model).record()
        if recipe.score_images and score is not None:
            measured[hooks.SCORE] = score
        users = [*(from_config("measurement", word) for word in recipe.measure), *measurements]
        hooks.check_measurements(users)
        self.measurements: list[hooks.Measurement] = [
            *(hooks.Measured(name, getattr(recipe, f"{name}_images"), each) for name, each in measured.items()),
            *users,
        ]
        early: list[hooks.Hook] = []
        if preview is not None:
            shown = hooks.Preview(recipe.preview_images, functools.partial(hooks.save_preview, preview, folder))
            self.measurements.insert(0, shown)
            early.append(hooks.EarlyPreviews(recipe.preview_minutes, shown, self.processes))
        periods = (recipe.checkpoint_images, recipe.keep_every_images)
        self.early_stop = hooks.EarlyStop(recipe.patience_images)
        self.hooks: list[hooks.Hook] = [
            *early,
            hooks.BestModel(self._save_best),
            self.early_stop,
            hooks.SaveSnapshots(recipe.snapshot_images, self.trainer.averages, folder, self.processes),
            hooks.SaveCheckpoints(periods, recipe.checkpoint_minutes, self._save_if_finite, self.processes),
        ]

    def transfer(self, network: torch.nn.Module) -> tuple[str, ...]:
        """Begin with the weights of another network; returns the names of those that it does not have.

        ValueError where a weight has another shape, or none has the same name.
        """
        own, given = self.trainer.denoiser.network, network.state_dict()
        state = {name: whole(value) for name, value in own.state_dict().items()}
        common = given.keys() & state.keys()
        for name in common:
            if given[name].shape != state[name].shape:
                there, here = tuple(given[name].shape), tuple(state[name].shape)
                raise ValueError(f"transfer: {name} has shape {there} there and {here} here")
        if not common:
            raise ValueError(f"transfer: a {type(network).__name__} has no weight of a {type(own).__name__}")
        load_whole(own, state | {name: given[name] for name in common})
        for average in self.trainer.averages:
            average.update(self.trainer.denoiser, 0.0)
        self._transferred = True
        return tuple(name for name in state if name not in given)

    def model(self) -> Model:
        """The averaged model of this moment; all processes have to call if each has a share of it."""
        images, steps = self.trainer.images, self.trainer.step
        notes = {"data": self.data.name, "images": images, "steps": steps, "fingerprint": self._fingerprint}
        denoiser = self.trainer.averages[0].module
        if self.processes.sharded:
            state = whole_state(denoiser.state_dict())
            denoiser = make_denoiser(self.recipe, self.data).eval().requires_grad_(False)
            denoiser.load_state_dict(state)
        return Model(denoiser, self.data.transform, self.data.class_names, notes, self.data.class_counts)

    def begin(self) -> None:
        """Make the folder and write the recipe in full; ValueError where something is there already."""
        if self.processes.first:
            make_folder(self.folder)
            self._owned.enter_context(FolderLock(self.folder))
            write_text(self.folder / RECIPE, self.recipe.to_yaml())
        self.processes.barrier()
        if self._transferred:  # the recipe alone would not lead back here
            self.save()

    def resume(self) -> None:
        """Go on from the newest whole checkpoint in the folder, or from the beginning if it has none yet.

        ValueError where no checkpoint is whole, and where the data or the recipe have changed in what one depends on.
        """
        with contextlib.ExitStack() as owned:
            found = None
            if self.processes.first:
                owned.enter_context(FolderLock(self.folder))
                check_links(self.folder)
                if not self._checkpoints.empty:
                    found = self._checkpoints.newest(self.warn)
            # one decides for all, since a shared file system may show each something else
            found = self.processes.broadcast(found)
            if found is None:
                self.warn(f"{self.folder} has no checkpoint yet; beginning anew")
                if self.processes.first:
                    Snapshots(self.folder).forget(after=0)
            else:
                self._restore(found.path, found.read())
            if self.processes.first:
                write_text(self.folder / RECIPE, self.recipe.to_yaml())
            self.processes.barrier()
            self._owned = owned.pop_all()

    def _restore(self, path: Path, state: dict[str, Any]) -> None:
        with fitting(path):
            own, recipe = state["trainer"], state["trainer"]["recipe"]
            if not isinstance(recipe, str):
                raise TypeError(f"recipe is a {type(recipe).__name__}")
        for line in changes(recipe, self.recipe):
            self.warn(line)
        if "data" not in own:
            self.warn(f"{path} is of a version that kept no fingerprint of the data; if they changed, nobody noticed")
        with fitting(path):
            found = differences(own.get("data", {}), self._fingerprint)
        if found:
            raise ValueError(
                f"data: have changed since this run began: {found}; restore them, or begin a new run with --transfer"
            )
        with fitting(path):
            self.trainer.load_state_dict(state)
            kept = own["hooks"] if "hooks" in own else own["best"]  # of version 0.1
            for hook in self.hooks:
                for name in hook.state.keys() & kept.keys():
                    if isinstance(hook.state[name], int | float) and not isinstance(kept[name], int | float):
                        raise TypeError(f"{name} is a {type(kept[name]).__name__}")
                    hook.state[name] = kept[name]
            if owed := own.get("owed"):
                self._owed = tuple(owed["names"]), TrainingReport(**owed["report"])
        self._saved = self.trainer.images
        if self.processes.first:
            Snapshots(self.folder).forget(after=self.trainer.images)

    def stop(self) -> None:
        """Ask `train` to end after the step under way (of several processes: by the next report); it saves then.

        A measurement under way is given up until `resume`: called by the handler of a signal, `stop` interrupts it.
        """
        self._stopping = True
        if self._measuring:
            raise _GivenUp

    def close(self) -> None:
        """Finish writing, and let go of the folder; `train` does so at its end."""
        try:
            self._checkpoints.wait()
        finally:
            self._owned.close()

    def save(self, score: float | None = None) -> None:
        """Write the model and a checkpoint; all processes have to call, and the first one writes."""
        state = self.trainer.state_dict()
        hooks = {name: value for hook in self.hooks for name, value in hook.state.items()}
        state["trainer"] |= {"recipe": self.recipe.to_yaml(), "hooks": hooks, "data": self._fingerprint}
        if self._owed is not None:
            names, report = self._owed
            state["trainer"]["owed"] = {"names": list(names), "report": dataclasses.asdict(report)}
        model = self.model()
        if self.processes.first:
            self._checkpoints.save(self.trainer.images, state, score=score)
        self._saved = self.trainer.images  # whatever becomes of the model, the checkpoint is there
        if self.processes.first:
            model.save(self.folder)

    def _save_if_finite(self, score: float | None = None) -> bool:
        finite = all(is_finite(whole(p)) for p in self.trainer.denoiser.parameters())
        if finite:
            self.save(score)
        return finite

    def _save_best(self) -> None:
        model = self.model()
        if self.processes.first:
            model.save(self.folder / BEST)

    def train(self) -> Iterator[TrainingReport]:
        """Train to the end, logging, measuring and saving on the way; a report every second or so.

        However it ends (finished, stopped, closed or thrown out of), the state is saved, unless a weight is not finite:
        then the last checkpoint stays. An error in one of several processes ends the run with what was saved before,
        since the others cannot be asked. FloatingPointError where the run has diverged: the loss, the held-out loss or
        a score is not finite, and nothing more is saved; or the gradients of `max_skipped` steps in a row were not, and
        the last batch is then in `nonfinite-<process>.pt`.
        """
        trainer, processes, size = self.trainer, self.processes, self.recipe.batch_size
        part = processes.share(size)
        loggers: list[Logger] = []
        complete = diverged = False
        try:
            loggers = self._loggers()
            dimensions = math.prod(self.data.sample_shape)
            meter = Meter(trainer.loss.noise, dimensions, self.recipe.images, processes, self._report_seconds)
            ending = False
            if self._owed is not None:
                ending = yield from self._settle_owed(self._owed, loggers)
            for step in () if ending else trainer.run(self._batches(part), part[0], size):
                due = [each.name for each in self.measurements if each.due(step)]
                measured = self._measure(due)
                ending = step.last or (self._stopping and processes.count == 1)
                if meter.add(step) or due or ending:
                    report = meter.report(step, trainer.skipped, measured)
                    ending = yield from self._settle(step, report, due, loggers, ending)
                else:
                    ending = self._run_hooks(step, None)
                if ending:
                    break
            complete = True
        except NonFinite as error:
            self._keep_batch(error)
            raise
        except hooks.Diverged:
            diverged = True
            raise
        finally:
            with contextlib.ExitStack() as last:
                for logger in loggers:
                    last.callback(logger.close)
                last.callback(self.close)
                consistent = complete or (processes.count == 1 and trainer.between_steps and not diverged)
                if consistent and self._saved != trainer.images:
                    self._save_if_finite()
            if complete:
                processes.barrier()

    def _settle(
        self, step: TrainingStep, report: TrainingReport, due: Sequence[str], loggers: Sequence[Logger], ending: bool
    ) -> Generator[TrainingReport, None, bool]:
        """Log a report, and hand it to the hooks and to the caller; whether training ends with it.

        The hooks come first, since the caller may end the run there.
        """
        missing = tuple(name for name in due if name not in report.measured)
        self._owed = (missing, report) if missing else None
        for logger in loggers:
            logger.log(report.record())
        failure = hooks.divergence(report, ending)
        if failure is None:
            ending |= self._run_hooks(step, report)
        yield report
        if failure is not None:
            raise failure
        return bool(self.processes.max(int(ending or self._stopping)))

    def _settle_owed(self, owed: _Owed, loggers: Sequence[Logger]) -> Generator[TrainingReport, None, bool]:
        """Measure what was given up when the run was stopped, as if it had not been."""
        self._saved, report = -1, owed[1]  # what was saved still owes it
        names = [each.name for each in self.measurements if each.name in owed[0]]
        report = dataclasses.replace(report, measured={**report.measured, **self._measure(names)})
        step = report.as_step(self.recipe.batch_size, self.recipe.images)
        return (yield from self._settle(step, report, names, loggers, step.last))

    def _run_hooks(self, step: TrainingStep, report: TrainingReport | None) -> bool:
        """Whether one of them ends the training."""
        ending = False
        for hook in self.hooks:
            ending |= bool(hook.after_step(step, report))
        return ending

    def _measure(self, names: Sequence[str]) -> dict[str, Any]:
        """The results of measurements by name, the same on all processes; without those that `stop` interrupts."""
        if not names:
            return {}
        model, measured = self.model(), {}
        if self.processes.first:
            with contextlib.suppress(_GivenUp):
                try:
                    self._measuring = True
                    for measurement in self.measurements:
                        if measurement.name in names:
                            with hooks.advising(measurement.name):
                                found = measurement.measure(model)
                            measured[measurement.name] = hooks.as_record(measurement.name, found)
                finally:
                    self._measuring = False
        return dict(self.processes.broadcast(measured))

    def _batches(self, part: tuple[int, int]) -> Iterator[Batch]:
        """The batches from here on, of data on an accelerator where they are small beside its memory."""
        data, device = self.data, self.processes.device
        stored = [data.rows, *(given.rows for given in data.conditions.values())]
        ahead = 0 if all(isinstance(rows, InMemory) for rows in stored) else _AHEAD
        if isinstance(data.rows, InMemory):
            free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
            if data.rows.values.nbytes <= _RESIDENT * free:
                data = dataclasses.replace(data, rows=InMemory(data.rows.values.to(device)))
        return batches(data, self.recipe.batch_size, self.recipe.seed, self.trainer.step, prefetch=ahead, part=part)

    def _loggers(self) -> list[Logger]:
        if not self.processes.first:
            return []
        # the record whose measurements are owed is written again
        images = self.trainer.images - (self._owed is not None)
        loggers: list[Logger] = [JSONLines(self.folder / LOG, images)]
        if self.recipe.tensorboard:
            loggers.append(TensorBoard(self.folder, images))
        if self.recipe.wandb is not None:
            loggers.append(WandB(self.folder, project=self.recipe.wandb, config=self.recipe.as_dict()))
        return loggers

    def _keep_batch(self, error: NonFinite) -> None:
        """Write down what the last step was made of, for the user to look at."""
        path = self.folder / f"nonfinite-{self.processes.rank}.pt"
        weights = {} if self.processes.sharded else self.trainer.denoiser.state_dict()
        with contextlib.suppress(OSError):  # the error under way says more than that of a full disk
            keep_batch(path, {**error.batch._asdict(), "denoiser": weights})
            self.warn(f"the batch and the weights of step {self.trainer.step} are in {path}")
