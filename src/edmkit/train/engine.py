"""The training loop: denoising score matching with Adam, a learning-rate ramp and an average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from edmkit._shapes import Tensor
from edmkit.data.augmentation import Augmentation
from edmkit.objective import DenoisingLoss
from edmkit.preconditioning import Preconditioned
from edmkit.protocols import Cond
from edmkit.train.ema import EMA, ema_beta

__all__ = ["Progress", "Schedule", "Trainer"]

_SEED_STRIDE = 0x9E3779B97F4A7C15
_NOISE, _AUGMENTATION = 0, 0x80000000  # the streams of random numbers of a step, further apart than any run is long


class Progress(NamedTuple):
    """One step done: its number, the mean loss of its batch (a detached scalar), learning rate, images seen."""

    step: int
    loss: Tensor
    learning_rate: float
    images: int


@dataclass(frozen=True)
class Schedule:
    """What changes during training, in images.

    The learning rate rises linearly over `ramp_images`, and falls to 0 by a half cosine over the last `decay_images`
    before `total_images` (0: it stays, as in the paper). The average of the weights has a half-life of
    `ema_halflife_images`, or of `ema_ramp_ratio` of the images seen, whichever is shorter.
    """

    total_images: int
    learning_rate: float = 1e-3
    ramp_images: int = 10_000_000
    decay_images: int = 0
    ema_halflife_images: float = 500_000
    ema_ramp_ratio: float | None = 0.05

    def __post_init__(self) -> None:
        for name in ("total_images", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: {getattr(self, name)}; want a positive number")
        for name in ("ramp_images", "decay_images", "ema_halflife_images"):
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

    The noise and the augmentation of step k are drawn by (seed, k), so that a run that is taken up again goes on as it
    would have gone. With `augment`, the denoiser is told the labels of the augmentation as the condition "augment".
    The network computes in `precision` (torch.autocast); weights, loss and optimizer are float32.
    """

    denoiser: Preconditioned
    loss: DenoisingLoss
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    seed: int = 0
    augment: Augmentation | None = None
    precision: torch.dtype = torch.float32
    step: int = 0
    images: int = 0
    ema: EMA[Preconditioned] = field(init=False)

    def __post_init__(self) -> None:
        self.ema = EMA(self.denoiser)

    def _generator(self, stream: int, device: torch.device | str) -> torch.Generator:
        seed = (self.seed * _SEED_STRIDE + self.step + stream) & 0xFFFFFFFF
        return torch.Generator(device).manual_seed(seed)

    def _condition(self, x: Tensor, labels: Tensor | None) -> tuple[Tensor, Cond | None]:
        """x augmented, and what the denoiser is told."""
        cond = {} if labels is None else {"labels": labels.to(x.device, non_blocking=True)}
        if self.augment is not None:
            # drawn on the CPU: what an accelerator has to compute is known without waiting for it
            x, cond["augment"] = self.augment(x, self._generator(_AUGMENTATION, "cpu"))
        return x, cond or None

    def run(self, batches: Iterable[tuple[Tensor, Tensor | None]]) -> Iterator[Progress]:
        """Train on (x, labels) batches until the schedule's images are seen; yield after every step."""
        self.denoiser.train()
        device = next(self.denoiser.parameters()).device
        for x, labels in batches:
            if self.images >= self.schedule.total_images:
                return
            x, cond = self._condition(x.to(device, non_blocking=True), labels)

            rate = self.schedule.rate(self.images)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            with torch.autocast(device.type, self.precision, enabled=self.precision != torch.float32):
                loss = self.loss(self.denoiser, x, cond, generator=self._generator(_NOISE, device)).mean()
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()

            s = self.schedule
            beta = ema_beta(len(x), self.images, s.ema_halflife_images, s.ema_ramp_ratio)
            self.ema.update(self.denoiser, beta)
            self.step, self.images = self.step + 1, self.images + len(x)
            yield Progress(self.step, loss.detach(), rate, self.images)

    def state_dict(self) -> dict[str, Any]:
        """Everything that goes on changing, for a checkpoint."""
        return {
            "denoiser": self.denoiser.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "images": self.images,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the run where `state_dict` left it."""
        self.denoiser.load_state_dict(state["denoiser"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.images = int(state["step"]), int(state["images"])
