"""The training loop: draw, accumulate, clip, step, average, yield."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from diffspace._shapes import Tensor
from diffspace.averages.ema import EMA
from diffspace.checks import check_choice, check_integer, check_number, check_seed, check_type
from diffspace.data.augmentation import Augmentation
from diffspace.objective import DenoisingLoss, Terms
from diffspace.preconditioning import Preconditioned
from diffspace.protocols import Cond
from diffspace.sharding import load_whole, spread_like, whole, whole_state
from diffspace.train.accumulate import Accumulator, NoisyBatch, Precision
from diffspace.train.parallel import Processes
from diffspace.train.step_random import StepRandom

ADVICE = "a lower learning_rate or max_grad_norm=1 may help"
_LOOK_STEPS = 16  # each look for steps left out waits for the device, which costs an accelerator its lead


def _pair(batch: Any) -> tuple[Tensor, Tensor | Cond | None]:
    """What a batch should be; a tensor of two rows would be taken apart."""
    if not isinstance(batch, Sequence) or len(batch) != 2:
        got = f"{len(batch)} in a {type(batch).__name__}" if isinstance(batch, Sequence) else type(batch).__name__
        raise ValueError(f"batches: expected pairs (x, labels or conditions, or None), got {got}")
    return batch[0], batch[1]


@dataclass(frozen=True)
class LearningRate:
    """A rate that rises linearly over `ramp_images` and falls to 0 by a half cosine over the last `decay_images`.

    With `decay_images` = 0 it stays constant after the ramp, as in the paper (Appendix F.2).
    """

    total_images: int
    learning_rate: float = 1e-3
    ramp_images: int = 10_000_000
    decay_images: int = 0

    def __post_init__(self) -> None:
        check_number("total_images", self.total_images, "(0, inf)")
        check_number("learning_rate", self.learning_rate, "(0, inf)")
        check_number("ramp_images", self.ramp_images, "[0, inf)")
        check_number("decay_images", self.decay_images, f"[0, {self.total_images}]")

    @property
    def shortfall(self) -> str:
        """A sentence where training ends before the rate has risen to half of `learning_rate`; else nothing."""
        reached, ramp = self.at(int(self.total_images)), f"ramp_images = {self.ramp_images:,}"
        if self.decay_images or self.ramp_images <= 2 * self.total_images:
            return ""
        return (
            f"the learning rate rises to {reached:.2g} of {self.learning_rate:.2g} only, since {ramp} exceed the "
            f"{self.total_images:,} images of training; lower ramp_images"
        )

    def at(self, images: int) -> float:
        """The learning rate of the step that begins after `images` images."""
        rate = self.learning_rate
        if images < self.ramp_images:
            rate *= images / self.ramp_images
        left = self.total_images - images
        if left < self.decay_images:
            rate *= 0.5 - 0.5 * math.cos(math.pi * left / self.decay_images)
        return rate


class NonFinite(FloatingPointError):
    """Gradients were not finite in too many steps in a row; `batch` is that of the last one."""

    def __init__(self, message: str, batch: NoisyBatch) -> None:
        super().__init__(message)
        self.batch = batch


class TrainingStep(NamedTuple):
    """One step of training, done.

    `loss` is the sum of the losses of this process's samples over the size of the global batch, so that its sum over
    the processes is the mean; `terms` says more of each sample, beside its `sigma`. `grad_norm` is the 2-norm of the
    gradient, not finite where the step was left out. All are detached tensors; reading one waits for the device.
    """

    step: int
    images: int
    batch_size: int
    last: bool
    learning_rate: float
    loss: Tensor
    grad_norm: Tensor
    sigma: Tensor
    terms: Terms

    def due(self, every: int) -> bool:
        """Whether the images seen pass a multiple of `every` in this step, or training ends with it; 0: never."""
        return every > 0 and (self.images % every < self.batch_size or self.last)


@dataclass
class Trainer:
    """What is trained, and the loop that advances it.

    σ, noise and augmentation of a sample depend on (seed, step, position in the global batch) alone: on one process or
    several, in one pass or in micro-batches, without interruption or after one, the losses are the same. (Dropout is
    drawn by the process for its part of the batch, from torch's own streams, which are seeded at each step; it is the
    same after an interruption.)

    Args:
        denoiser: the model, on the device of the process; it gets the labels of an augmentation as condition "augment".
        loss: the objective; what it learns is trained along where the optimizer has its parameters.
        optimizer: of the parameters of both.
        learning_rate: by the images seen, which also says when training ends.
        averages: averages of the weights; the first is the model that the run makes.
        seed: of all that is random.
        augment: the augmentation of the samples.
        precision: "bfloat16" and "float16" are torch.autocast, the latter with scaled losses. Weights, loss, averages
            and the state of the optimizer are float32.
        micro_batch: the most samples of a pass; None: all, halved until a pass fits the memory.
        max_grad_norm: gradients are scaled down to this norm.
        max_skipped: a step whose gradient is not finite changes nothing; `NonFinite` after this number in a row.
        processes: those that train together.
        warn: called with sentences on what was decided on the way.
    """

    denoiser: Preconditioned
    loss: DenoisingLoss
    optimizer: torch.optim.Optimizer
    learning_rate: LearningRate
    averages: Sequence[EMA[Preconditioned]] = ()
    seed: int = 0
    augment: Augmentation | None = None
    precision: Precision = "float32"
    micro_batch: int | None = None
    max_grad_norm: float | None = None
    max_skipped: int = 20
    processes: Processes | None = None
    warn: Callable[[str], None] = warnings.warn
    step: int = field(default=0, init=False)
    images: int = field(default=0, init=False)
    between_steps: bool = field(default=True, init=False)
    """False while weights, averages and counters do not belong to the same step."""

    def __post_init__(self) -> None:
        check_seed("seed", self.seed)
        check_type("learning_rate", self.learning_rate, LearningRate)
        check_choice("precision", self.precision, Precision)
        check_integer("max_skipped", self.max_skipped, 1)
        if self.micro_batch is not None:
            check_integer("micro_batch", self.micro_batch, 1)
        if self.max_grad_norm is not None:
            check_number("max_grad_norm", self.max_grad_norm, "(0, inf)")
        if len(rates := {float(group["lr"]) for group in self.optimizer.param_groups}) > 1:
            raise ValueError(f"optimizer: groups have the rates {sorted(rates)}, but learning_rate sets one for all")
        if text := self.learning_rate.shortfall:
            self.warn(text)
        if not isinstance(self.averages, Sequence) or not all(isinstance(each, EMA) for each in self.averages):
            raise ValueError(f"averages: expected a sequence of EMA, got {type(self.averages).__name__}")
        self._parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self._fused = all(group.get("fused") for group in self.optimizer.param_groups)
        self.device = self._parameters[0].device
        self._processes = self.processes or Processes(self.device)
        self.loss.look_at(self.denoiser)
        self._skipped = torch.zeros(2, device=self.device, dtype=torch.float32)  # steps left out: in all, and in a row
        self.accumulate = Accumulator(
            self.denoiser, self.loss, self._processes, self.precision, self.micro_batch, lambda text: self.warn(text)
        )

    def run(
        self, batches: Iterable[tuple[Tensor, Tensor | Cond | None]], begin: int = 0, size: int | None = None
    ) -> Iterator[TrainingStep]:
        """Train on (x, labels or conditions) until the images of the learning rate are seen; yield after every step.

        Each is the part of a global batch of `size` samples (None: all of it) whose positions start at `begin`.
        """
        self.denoiser.train()
        for each in batches:
            x, cond = _pair(each)
            if self.images >= self.learning_rate.total_images:
                return
            if not isinstance(x, Tensor) or len(x) == 0:
                raise ValueError(f"batches: expected x as a tensor of one or more samples, got {x!r:.80}")
            count = len(x) if size is None else size
            rate = self.learning_rate.at(self.images)
            batch = self.draw(x, cond, begin, count)
            terms = self.accumulate(batch, count, StepRandom(self.seed, self.step))
            self.between_steps = False
            norm = self._clip_and_step(rate)
            self.loss.noise.learn(self.step, batch.sigma, terms.gradient, self._processes.sum)
            for average in self.averages:
                average.follow(self.denoiser, self.images, count)
            self.step, self.images = self.step + 1, self.images + count
            self.between_steps = True
            self._check_skipped(batch)
            last = self.images >= self.learning_rate.total_images
            loss = terms.loss.sum() / count
            yield TrainingStep(self.step, self.images, count, last, rate, loss, norm, batch.sigma, terms)
        if self.images < self.learning_rate.total_images:
            self.warn(f"batches: they end after {self.images:,} of {self.learning_rate.total_images:,} images")

    def draw(self, x: Tensor, given: Tensor | Cond | None, begin: int = 0, size: int | None = None) -> NoisyBatch:
        """Augmentation, σ and noise of this step, for samples that start at `begin` in a global batch of `size`."""
        random, end = StepRandom(self.seed, self.step), begin + len(x)
        size = end if size is None else size
        given = {"labels": given} if isinstance(given, Tensor) else given or {}
        x = x.to(self.device, non_blocking=True)
        cond = {name: value.to(self.device, non_blocking=True) for name, value in given.items()}
        if self.augment is not None:
            if moved := [name for name, value in cond.items() if value.ndim == x.ndim]:
                raise ValueError(f"augment: would move the samples but not the condition {moved[0]!r}")
            generator = torch.Generator().manual_seed(random.torch_seed())
            parameters = {name: w[begin:end] for name, w in self.augment.draw(size, generator).items()}
            x, cond["augment"] = self.augment.apply(x, parameters)
        u = random.strata(begin, end, size) if self.loss.stratified else random.uniform(begin, end)
        sigma = self.loss.noise.from_uniform(u)
        if self.device.type == "mps":
            sigma = sigma.float()
        noise = random.normal(begin, end, x.shape[1:])
        if self.device.type == "cuda":  # so that nobody waits for the copies
            noise, sigma = noise.pin_memory(), sigma.pin_memory()
        return NoisyBatch(
            x, noise.to(self.device, non_blocking=True), sigma.to(self.device, non_blocking=True), cond or None
        )

    def _clip_and_step(self, rate: float) -> Tensor:
        """A step of the optimizer, unless the gradient is not finite; its norm."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        scaler = self.accumulate.scaler
        scaler.unscale_(self.optimizer)
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        norm = whole(torch.nn.utils.get_total_norm(gradients)).detach()
        if self.max_grad_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self._parameters, self.max_grad_norm, norm)
        bad = (~norm.isfinite()).float()  # nobody waits for it
        self._skipped = torch.stack([self._skipped[0] + bad, (self._skipped[1] + 1) * bad])
        if scaler.is_enabled():
            scaler.step(self.optimizer)
            scaler.update()
        elif self._fused and self.device.type != "mps":  # whose kernel ignores found_inf
            # what a scaler sets for fused optimizers, which then decide on the device
            self.optimizer.found_inf = bad  # type: ignore[attr-defined]
            self.optimizer.step()
            del self.optimizer.found_inf  # type: ignore[attr-defined]
        elif not bad:
            self.optimizer.step()
        return norm

    @property
    def skipped(self) -> int:
        """The steps whose gradient was not finite."""
        return int(self._skipped[0])

    def _check_skipped(self, batch: NoisyBatch) -> None:
        """`NonFinite` after `max_skipped` in a row, where it is time to look: on a CPU at every step."""
        if self.device.type != "cpu" and self.step % _LOOK_STEPS:
            return
        row = int(self._skipped[1])
        if row >= self.max_skipped:
            raise NonFinite(
                f"loss: the gradients of {row} steps in a row, up to step {self.step}, are not finite; {ADVICE}", batch
            )

    def _named_parameters(self) -> dict[str, torch.nn.Parameter]:
        return {**dict(self.denoiser.named_parameters()), **dict(self.loss.named_parameters())}

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes, the same for any number of processes; all of them have to call."""
        names: dict[Tensor, str] = {p: name for name, p in self._named_parameters().items()}
        return {
            "denoiser": whole_state(self.denoiser.state_dict()),
            "averages": {str(k): whole_state(average.module.state_dict()) for k, average in enumerate(self.averages)},
            "optimizer": {names[p]: whole_state(values) for p, values in self.optimizer.state.items()},
            "trainer": {
                "step": self.step,
                "images": self.images,
                "skipped": self._skipped.tolist(),
                "scaler": self.accumulate.scaler.state_dict(),
                "loss": whole_state(self.loss.state_dict()),
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        own = state["trainer"]
        if len(state["averages"]) != len(self.averages):
            raise ValueError(f"averages: {len(state['averages'])} in the state, {len(self.averages)} here")
        load_whole(self.denoiser, state["denoiser"])
        for k, average in enumerate(self.averages):
            load_whole(average.module, state["averages"][str(k)])
        load_whole(self.loss, own["loss"] if "loss" in own else _former_loss(own))
        parameters = self._named_parameters()
        self.optimizer.state.clear()
        for name, values in state["optimizer"].items():
            p = parameters[name]
            self.optimizer.state[p] = {
                # what has not the shape of the parameter is the number of steps
                key: spread_like(value, p) if value.shape == p.shape else value.to(p.device if self._fused else "cpu")
                for key, value in values.items()
            }
        for name in ("step", "images"):
            check_integer(name, own[name], 0)
        self.step, self.images = own["step"], own["images"]
        self._skipped = torch.tensor(own["skipped"], device=self.device, dtype=torch.float32).reshape(2)
        if self.accumulate.scaler.is_enabled() and own["scaler"]:
            self.accumulate.scaler.load_state_dict(own["scaler"])


def _former_loss(own: Mapping[str, Any]) -> dict[str, Any]:
    """The state of the loss from a checkpoint of version 0.1, which kept its parts apart."""
    state = {f"uncertainty.{name}": value for name, value in own.get("uncertainty", {}).items()}
    return state | ({"noise._extra_state": own["noise"]} if "noise" in own else {})
