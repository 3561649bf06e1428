"""A training run as a folder: recipe, log, checkpoint, previews and the model."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from edmkit._shapes import Tensor
from edmkit.data import Batch, DataSet, InMemory, batches
from edmkit.files import write_text
from edmkit.model import Model
from edmkit.networks import use_winograd
from edmkit.objective import DenoisingLoss
from edmkit.preconditioning import Preconditioned
from edmkit.registry import from_config
from edmkit.sampling.run import is_finite
from edmkit.train.checkpoint import read_checkpoint, write_checkpoint
from edmkit.train.ema import EMA
from edmkit.train.engine import Progress, Schedule, Trainer
from edmkit.train.recipe import Recipe

__all__ = ["CHECKPOINT", "LOG", "RECIPE", "Report", "Run", "choose_device"]

RECIPE, LOG, CHECKPOINT, PREVIEWS = "recipe.yaml", "log.jsonl", "checkpoint.pt", "previews"
_REPORT_SECONDS = 1.0
_AHEAD = 4  # batches decoded while one is trained on, where samples are not in memory

Preview = Callable[[Model, Path], None]


@dataclass(frozen=True)
class Report:
    """Where a run stands: means over the steps since the last report."""

    step: int
    images: int
    loss: float
    learning_rate: float
    images_per_second: float
    seconds_left: float


def choose_device(name: str | None = None) -> torch.device:
    """The device asked for, or the best that is there."""
    if name is not None:
        try:
            device = torch.device(name)
            torch.zeros(1, device=device).item()
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise ValueError(f"device: {name!r} is not to be had here: {str(error).splitlines()[0]}") from None
        return device
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def make_folder(folder: Path) -> None:
    """A new empty folder for a run; ValueError where something is there already."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"out: {folder} exists already; choose another folder with --out, or go on with --resume")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"out: {folder} cannot be made: {error.strerror}") from None


class Run:
    """The training of one model on one data set, as the recipe says.

    `begin()` makes the folder, `train()` is a generator of reports that saves however it ends.
    `preview(model, path)` draws samples of the averaged model and is handed in from above.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: DataSet,
        folder: Path,
        *,
        device: torch.device | None = None,
        preview: Preview | None = None,
    ) -> None:
        if recipe.preview_images and preview is None:
            raise ValueError("preview_images: no function to draw previews was handed in")
        if not recipe.conditional:
            data = dataclasses.replace(data, labels=None, class_names=())
        if recipe.augment is not None:
            recipe.augment.check_shape(data.sample_shape)
        self.recipe, self.data, self.folder, self.preview = recipe, data, folder, preview
        self.device = device or choose_device()
        self._stopping = False
        self.trainer = self._make_trainer()

    def _make_trainer(self) -> Trainer:
        recipe = self.recipe
        config = {
            **recipe.network,
            "shape": list(self.data.sample_shape),
            "label_dim": len(self.data.class_names),
            "augment_dim": 0 if recipe.augment is None else recipe.augment.label_dim,
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            network = from_config("network", config)
        network = network.to(self.device)
        if recipe.winograd and not (
            self.device.type == "cpu" and recipe.precision == "float32" and use_winograd(network)
        ):
            raise ValueError("winograd: has no effect here; it is for wide U-Nets in float32 on a CPU")
        denoiser = Preconditioned(network, from_config("preconditioning", recipe.preconditioning))
        optimizer = torch.optim.Adam(
            network.parameters(), lr=recipe.learning_rate, betas=recipe.betas, eps=recipe.eps, fused=True
        )
        schedule = Schedule(
            total_images=recipe.images,
            learning_rate=recipe.learning_rate,
            ramp_images=recipe.ramp_images,
            decay_images=recipe.decay_images,
            ema_halflife_images=recipe.ema_halflife_images,
            ema_ramp_ratio=recipe.ema_ramp_ratio,
        )
        loss = DenoisingLoss(from_config("noise", recipe.noise), reduction=recipe.reduction)
        precision = getattr(torch, recipe.precision)
        return Trainer(denoiser, loss, optimizer, schedule, recipe.seed, recipe.augment, precision)

    def transfer(self, network: torch.nn.Module) -> tuple[str, ...]:
        """Begin with the weights of another network; the names of those that it does not have are returned.

        ValueError where a weight has another shape, or none has the same name.
        """
        own, given = self.trainer.denoiser.network, network.state_dict()
        state = own.state_dict()
        for name in given.keys() & state.keys():
            if given[name].shape != state[name].shape:
                raise ValueError(
                    f"transfer: {name} has shape {tuple(given[name].shape)} there and {tuple(state[name].shape)} here"
                )
        fresh = tuple(name for name in state if name not in given)
        if len(fresh) == len(state):
            raise ValueError(f"transfer: a {type(network).__name__} has no weight of a {type(own).__name__}")
        own.load_state_dict(state | {name: given[name] for name in given.keys() & state.keys()})
        self.trainer.ema = EMA(self.trainer.denoiser)
        return fresh

    def model(self) -> Model:
        """The averaged model as it stands."""
        notes = {"data": self.data.name, "images": self.trainer.images, "steps": self.trainer.step}
        return Model(self.trainer.ema.module, self.data.transform, self.data.class_names, notes)

    def save(self) -> None:
        """Write the model and the checkpoint, each file atomically."""
        self.model().save(self.folder)
        write_checkpoint(self.folder / CHECKPOINT, self.trainer.state_dict())

    def resume(self) -> None:
        """Take up the run from the checkpoint in its folder."""
        state = read_checkpoint(self.folder / CHECKPOINT)
        try:
            self.trainer.load_state_dict(state)
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"resume: {self.folder / CHECKPOINT} does not fit {RECIPE}: {reason}") from None

    def begin(self) -> None:
        """Make the folder and write the recipe in full."""
        make_folder(self.folder)
        write_text(self.folder / RECIPE, self.recipe.to_yaml())

    def stop(self) -> None:
        """Ask `train` to end after the step that is under way; it saves as at every end."""
        self._stopping = True

    def train(self) -> Iterator[Report]:
        """Train to the end, logging, previewing and saving on the way; a report every few seconds.

        However it ends (finished, stopped, closed or thrown out of), the state is saved, unless the loss or a weight
        has become not finite: then the last checkpoint stays as it is, and a loss that is reported is a
        FloatingPointError.
        """
        ahead = 0 if isinstance(self.data.rows, InMemory) else _AHEAD
        data = batches(self.data, self.recipe.batch_size, self.recipe.seed, self.trainer.step, prefetch=ahead)
        torch.backends.cudnn.benchmark = True  # batches have one shape
        healthy = True
        try:
            with (self.folder / LOG).open("a", encoding="utf-8") as log:
                for report in self._reports(data):
                    healthy = math.isfinite(report.loss)
                    if not healthy:
                        raise FloatingPointError(
                            f"loss: {report.loss} by step {report.step}; nothing was saved since the last checkpoint. "
                            f"A learning_rate below {self.recipe.learning_rate:g} may help"
                        )
                    log.write(json.dumps(dataclasses.asdict(report)) + "\n")
                    log.flush()
                    yield report
        finally:
            if healthy and self._is_finite():
                self.save()

    def _is_finite(self) -> bool:
        return all(is_finite(p) for p in self.trainer.denoiser.parameters())

    def _reports(self, data: Iterable[Batch]) -> Iterator[Report]:
        losses: list[Tensor] = []
        since, begun = time.perf_counter(), self.trainer.images
        for progress in self.trainer.run(data):
            losses.append(progress.loss)
            self._at_marks(progress)
            now = time.perf_counter()
            ending = self._stopping or progress.images >= self.recipe.images
            if ending or now - since >= _REPORT_SECONDS:
                speed = (progress.images - begun) / (now - since)
                left = max(self.recipe.images - progress.images, 0) / speed
                loss = float(torch.stack(losses).mean())
                yield Report(progress.step, progress.images, loss, progress.learning_rate, speed, left)
                losses, since, begun = [], time.perf_counter(), progress.images
            if ending:
                return

    def _at_marks(self, progress: Progress) -> None:
        """Previews and checkpoints, each time that the images seen pass a multiple of their interval."""
        recipe = self.recipe

        def passed(interval: int) -> bool:
            return interval > 0 and progress.images % interval < recipe.batch_size

        if passed(recipe.preview_images) and self.preview is not None:
            (self.folder / PREVIEWS).mkdir(exist_ok=True)
            self.preview(self.model(), self.folder / PREVIEWS / f"{progress.images:09d}.png")
        if passed(recipe.checkpoint_images) and self._is_finite():
            self.save()
