"""The training loop: denoising score matching with Adam, a learning-rate ramp and averages of the weights."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

import torch

from diffspace._shapes import Tensor
from diffspace.averages.ema import EMA
from diffspace.data.augmentation import Augmentation
from diffspace.objective import AdaptiveNoise, DenoisingLoss, Terms
from diffspace.preconditioning import Preconditioned
from diffspace.protocols import Cond
from diffspace.sharding import spread_like, whole
from diffspace.train.draws import Draws
from diffspace.train.parallel import Processes

__all__ = ["NonFinite", "Part", "Precision", "Progress", "Schedule", "Trainer"]

Precision: TypeAlias = Literal["float32", "tf32", "bfloat16", "float16"]
_ADAPT_STEPS, _LOOK_STEPS = 64, 16
# CUDA and MPS; torch's allocator on a CPU; oneDNN, which does not say what it lacked
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "could not create a primitive", "could not create a memory")
_AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class NonFinite(FloatingPointError):
    """Gradients were not finite in too many steps in a row; `part` is what the last of them was made of."""

    def __init__(self, message: str, part: Part) -> None:
        super().__init__(message)
        self.part = part


class Part(NamedTuple):
    """What a process trains on in one step: samples, unit-variance noise and σ (in float64) for each, conditions."""

    x: Tensor
    noise: Tensor
    sigma: Tensor
    cond: Cond | None


class Progress(NamedTuple):
    """One step done.

    `loss` is the sum of the losses of this process's samples over the size of the global batch, so that its sum over
    the processes is the mean; `terms` says more of each of them, beside its `sigma`. `grad_norm` is the 2-norm of the
    gradient, which is not finite where the step was skipped. All are detached tensors; reading one waits for the
    device.
    """

    step: int
    images: int
    learning_rate: float
    loss: Tensor
    grad_norm: Tensor
    sigma: Tensor
    terms: Terms


@dataclass(frozen=True)
class Schedule:
    """The learning rate, which changes with the images seen.

    It rises linearly over `ramp_images`, and falls to 0 by a half cosine over the last `decay_images` before
    `total_images` (0: it stays, as in the paper).
    """

    total_images: int
    learning_rate: float = 1e-3
    ramp_images: int = 10_000_000
    decay_images: int = 0

    def __post_init__(self) -> None:
        for name in ("total_images", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: {getattr(self, name)}; want a positive number")
        for name in ("ramp_images", "decay_images"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}: {getattr(self, name)}; want a number that is not negative")
        if self.decay_images > self.total_images:
            raise ValueError(f"decay_images: {self.decay_images}; want at most total_images = {self.total_images}")

    def rate(self, images: int) -> float:
        """The learning rate of the step that begins after `images` images."""
        rate = self.learning_rate
        if images < self.ramp_images:
            rate *= images / self.ramp_images
        left = self.total_images - images
        if left < self.decay_images:
            rate *= 0.5 - 0.5 * math.cos(math.pi * left / self.decay_images)
        return rate


@dataclass
class Trainer:
    """The state of a training run, and the loop that advances it.

    σ, noise and augmentation of a sample depend on (seed, step, position in the global batch) alone: on one process or
    several, in one pass or in micro-batches, without interruption or after one, the losses are the same. (Dropout is
    drawn by the process for its part of the batch, from torch's own streams, which are seeded at each step; it is the
    same after an interruption.) With `augment`, the denoiser is told the labels of the augmentation as the condition
    "augment".

    - `averages`: the averages of the weights; the first is the model that the run makes.
    - `precision`: "bfloat16" and "float16" are torch.autocast, the latter with scaled losses; "tf32" multiplies so
      where the device can. Weights, loss, averages and state of the optimizer are float32.
    - `micro_batch`: the most samples of a pass; gradients add up over the passes of a step. None: all, or, if that does
      not fit the memory, half as many, and so on.
    - `max_grad_norm`: gradients are scaled down to this norm.
    - A step whose gradient is not finite changes nothing; after `max_skipped` of them in a row `NonFinite` is raised.
    """

    denoiser: Preconditioned
    loss: DenoisingLoss
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    averages: Sequence[EMA[Preconditioned]] = ()
    seed: int = 0
    augment: Augmentation | None = None
    precision: Precision = "float32"
    micro_batch: int | None = None
    max_grad_norm: float | None = None
    max_skipped: int = 20
    processes: Processes | None = None
    step: int = 0
    images: int = 0
    notes: list[str] = field(default_factory=list)
    """Sentences on what was decided on the way, for the caller to show and to clear."""

    def __post_init__(self) -> None:
        self._parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.device = self._parameters[0].device
        self._group = self.processes or Processes(self.device)
        self._module = self._group.replicate(self.denoiser)
        if self.loss.weight is None:  # what is called may hide what the denoiser knows
            self.loss = dataclasses.replace(self.loss, weight=self.denoiser.weight)
        self._rounds = self.precision in _AUTOCAST
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "float16")
        self._skipped = torch.zeros(2, device=self.device)  # in all, and in a row
        self.between_steps = True
        """False while weights, averages and counters do not belong to the same step."""
        self._fused = all(group.get("fused") for group in self.optimizer.param_groups)

    @property
    def skipped(self) -> int:
        """The steps whose gradient was not finite."""
        return int(self._skipped[0])

    def part(self, x: Tensor, given: Tensor | Cond | None, begin: int = 0, size: int | None = None) -> Part:
        """What this step is made of, for samples that stand at `begin` and after in a global batch of `size`."""
        draws, end = Draws(self.seed, self.step), begin + len(x)
        size = end if size is None else size
        x = x.to(self.device, non_blocking=True)
        given = {"labels": given} if isinstance(given, Tensor) else given or {}
        cond = {name: value.to(self.device, non_blocking=True) for name, value in given.items()}
        if self.augment is not None:
            generator = torch.Generator().manual_seed(draws.torch_seed())
            parameters = {name: w[begin:end] for name, w in self.augment.draw(size, generator).items()}
            x, cond["augment"] = self.augment.apply(x, parameters)
        u = draws.strata(begin, end, size) if self.loss.stratified else draws.uniform(begin, end)
        sigma = self.loss.noise.from_uniform(u)
        if self.device.type == "mps":
            sigma = sigma.float()
        noise = draws.normal(begin, end, x.shape[1:])
        return Part(x, self._moved(noise), self._moved(sigma), cond or None)

    def _moved(self, value: Tensor) -> Tensor:
        """A value on the device, which need not wait for it."""
        if self.device.type == "cuda":
            value = value.pin_memory()
        return value.to(self.device, non_blocking=True)

    def run(
        self, batches: Iterable[tuple[Tensor, Tensor | Cond | None]], begin: int = 0, size: int | None = None
    ) -> Iterator[Progress]:
        """Train on (x, labels or conditions) until the schedule's images are seen; yield after every step.

        Each is the part of a global batch of `size` samples (None: all of it) whose positions start at `begin`.
        """
        self.denoiser.train()
        for x, given in batches:
            if self.images >= self.schedule.total_images:
                return
            count = len(x) if size is None else size
            part = self.part(x, given, begin, count)
            rate = self.schedule.rate(self.images)
            terms = self._accumulate(part, count)
            self.between_steps = False
            norm = self._apply(rate)
            self._adapt(part, terms)
            for average in self.averages:
                average.follow(self.denoiser, self.images, count)
            self.step, self.images = self.step + 1, self.images + count
            self.between_steps = True
            # to look waits for the step, which costs an accelerator its lead
            if self.device.type == "cpu" or self.step % _LOOK_STEPS == 0:
                self._check(part)
            yield Progress(self.step, self.images, rate, terms.loss.sum() / count, norm, part.sigma, terms)

    def _accumulate(self, part: Part, size: int) -> Terms:
        """Gradients of the mean loss of the global batch; what they say of the samples of this part."""
        group = self._group
        if group.count > 1 and self.micro_batch is None:
            # one process alone cannot halve and try again where the others wait for its gradients
            self.micro_batch = -(-size // group.count)
            if not group.sharded:
                self._halving_until_it_fits(lambda: self._passes(part, size, exchange=False))
                self.micro_batch = -group.most(-self.micro_batch)
        self.micro_batch = self.micro_batch or size
        return self._halving_until_it_fits(lambda: self._passes(part, size), alone=group.count == 1)

    def _halving_until_it_fits(self, passes: Callable[[], Terms], alone: bool = True) -> Terms:
        while True:
            try:
                return passes()
            except (RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error):
                    raise
            limit = self.micro_batch or 1
            if limit == 1:
                raise MemoryError(f"micro_batch: not even 1 sample fits the memory of {self.device}")
            if not alone:
                raise MemoryError(f"micro_batch: {limit} samples do not fit the memory of {self.device}; want fewer")
            self.micro_batch = -(-limit // 2)
            self.notes.append(
                f"{limit} samples do not fit the memory of {self.device}; going on with {self.micro_batch}"
            )
            self.optimizer.zero_grad(set_to_none=True)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _passes(self, part: Part, size: int, exchange: bool = True) -> Terms:
        self.optimizer.zero_grad(set_to_none=True)
        # dropout of networks reads torch's own streams
        torch.manual_seed(Draws(self.seed, self.step).torch_seed(1 + self._group.rank))
        # all processes take as many passes, whatever their share of the batch
        largest, least = -(-size // self._group.count), size // self._group.count
        count = min(-(-largest // (self.micro_batch or largest)), least)
        ends = [len(part.x) * k // count for k in range(count + 1)]
        terms = []
        for k, piece in enumerate(map(slice, ends, ends[1:])):
            x, noise, sigma = (t[piece] for t in part[:3])
            cond = part.cond and {name: c[piece] for name, c in part.cond.items()}
            with self._group.accumulating(self._module, exchange and k == count - 1):
                with torch.autocast(self.device.type, _AUTOCAST.get(self.precision), enabled=self._rounds):
                    found = self.loss.terms(self._module, x, sigma, cond, noise=noise)
                # processes average their gradients, and what is wanted is the sum over all samples by their number
                total = found.objective.sum() * (self._group.count / size)
                self._scaler.scale(total).backward()  # type: ignore[no-untyped-call]
            terms.append(found._replace(objective=found.objective.detach()))
        return Terms(*map(torch.cat, zip(*terms, strict=True)))

    def _apply(self, rate: float) -> Tensor:
        """A step of the optimizer, unless the gradient is not finite; its norm."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if self.loss.uncertainty is not None:
            for p in self.loss.uncertainty.parameters():
                if p.grad is not None:
                    self._group.sum(p.grad).div_(self._group.count)
        self._scaler.unscale_(self.optimizer)
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        norm = whole(torch.nn.utils.get_total_norm(gradients)).detach()
        if self.max_grad_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self._parameters, self.max_grad_norm, norm)
        bad = (~norm.isfinite()).float()
        self._skipped = torch.stack([self._skipped[0] + bad, (self._skipped[1] + 1) * bad])
        if self._scaler.is_enabled():
            self._scaler.step(self.optimizer)
            self._scaler.update()
        elif self._fused and self.device.type != "mps":  # whose kernel does not listen
            # what a scaler says to the optimizer, and what it then decides on the device
            self.optimizer.found_inf = bad  # type: ignore[attr-defined]
            self.optimizer.step()
            del self.optimizer.found_inf  # type: ignore[attr-defined]
        elif not bad:
            self.optimizer.step()
        return norm

    def _adapt(self, part: Part, terms: Terms) -> None:
        """Let the noise learn where the gradients are large, at steps that all processes know."""
        noise = self.loss.noise
        if isinstance(noise, AdaptiveNoise):
            noise.add(part.sigma, terms.gradient)
            if (self.step + 1) % _ADAPT_STEPS == 0:
                self._group.sum(noise.statistics.sums)
                noise.update()

    def _check(self, part: Part) -> None:
        row = int(self._skipped[1])
        if row >= self.max_skipped:
            raise NonFinite(
                f"loss: the gradients of {row} steps in a row, up to step {self.step}, are not finite. "
                f"A learning_rate below {self.schedule.learning_rate:g}, or max_grad_norm=1, may help",
                part,
            )

    def _named_parameters(self) -> dict[str, torch.nn.Parameter]:
        named = dict(self.denoiser.named_parameters())
        if self.loss.uncertainty is not None:
            named |= {f"uncertainty.{name}": p for name, p in self.loss.uncertainty.named_parameters()}
        return named

    def load_weights(self, state: Mapping[str, Tensor]) -> None:
        """Begin with these weights of the network, averages too."""
        _load(self.denoiser.network, state)
        for average in self.averages:
            average.update(self.denoiser, 0.0)

    def state_dict(self) -> dict[str, Any]:
        """Everything that goes on changing, the same for any number of processes, all of whom have to ask."""
        names: dict[Tensor, str] = {p: name for name, p in self._named_parameters().items()}
        own: dict[str, Any] = {
            "step": self.step,
            "images": self.images,
            "skipped": self._skipped.tolist(),
            "scaler": self._scaler.state_dict(),
        }
        if self.loss.uncertainty is not None:
            own["uncertainty"] = self.loss.uncertainty.state_dict()
        if isinstance(self.loss.noise, AdaptiveNoise):
            own["noise"] = self.loss.noise.state_dict()
            self._group.sum(own["noise"]["sums"])
        return {
            "denoiser": _whole(self.denoiser.state_dict()),
            "averages": {str(k): _whole(average.state_dict()) for k, average in enumerate(self.averages)},
            "optimizer": {names[p]: _whole(values) for p, values in self.optimizer.state.items()},
            "trainer": own,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the run where `state_dict` left it."""
        own = state["trainer"]
        _load(self.denoiser, state["denoiser"])
        if len(state["averages"]) != len(self.averages):
            raise ValueError(f"averages: {len(state['averages'])} in the state, {len(self.averages)} here")
        for k, average in enumerate(self.averages):
            _load(average.module, state["averages"][str(k)])
        if self.loss.uncertainty is not None:
            self.loss.uncertainty.load_state_dict(own["uncertainty"])
        if isinstance(self.loss.noise, AdaptiveNoise):
            self.loss.noise.load_state_dict(own["noise"])
            if not self._group.first:  # the sums are those of all
                self.loss.noise.statistics.reset()
        parameters = self._named_parameters()
        self.optimizer.state.clear()
        for name, values in state["optimizer"].items():
            p = parameters[name]
            self.optimizer.state[p] = {
                # what has not the shape of the parameter is the number of steps
                key: spread_like(value, p) if value.shape == p.shape else value.to(p.device if self._fused else "cpu")
                for key, value in values.items()
            }
        self.step, self.images = int(own["step"]), int(own["images"])
        self._skipped = torch.tensor(own["skipped"], device=self.device)
        if self._scaler.is_enabled() and own["scaler"]:
            self._scaler.load_state_dict(own["scaler"])


def _whole(values: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors that are spread over processes, gathered on the CPU one after another."""
    return {name: whole(v).cpu() if hasattr(v, "full_tensor") else v for name, v in values.items()}


@torch.no_grad()
def _load(module: torch.nn.Module, state: Mapping[str, Tensor]) -> None:
    own = module.state_dict()
    module.load_state_dict({name: spread_like(v, own[name]) if name in own else v for name, v in state.items()})


def _is_out_of_memory(error: Exception) -> bool:
    """Whether memory, of whatever device, is what was missing."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return any(words in text for words in _OUT_OF_MEMORY)
