"""Gradients of the mean loss over a global batch, in as many passes as the memory demands."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

import torch

from diffspace._shapes import Tensor
from diffspace.checks import is_out_of_memory
from diffspace.objective import DenoisingLoss, Terms
from diffspace.preconditioning import Preconditioned
from diffspace.protocols import Cond
from diffspace.train.parallel import Processes
from diffspace.train.step_random import StepRandom

Precision: TypeAlias = Literal["float32", "tf32", "bfloat16", "float16"]
_AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class NoisyBatch(NamedTuple):
    """What a process trains on in one step: samples, unit-variance noise and σ (in float64) for each, conditions."""

    x: Tensor
    noise: Tensor
    sigma: Tensor
    cond: Cond | None


class _Objective(torch.nn.Module):
    """Denoiser and loss as one module, so that whatever replicates it sees everything that is trained."""

    def __init__(self, denoiser: Preconditioned, loss: DenoisingLoss) -> None:
        super().__init__()
        self.denoiser, self.loss = denoiser, loss

    def forward(self, batch: NoisyBatch) -> Terms:
        return self.loss.terms(self.denoiser, batch.x, batch.sigma, batch.cond, noise=batch.noise)


class Accumulator:
    """Leaves in the parameters the gradients of the mean loss, averaged over the processes.

    `micro_batch` is the most samples of one pass; None: all, halved until a pass fits the memory, of which `warn` is
    told. Of several processes, each tries once, and all take the smallest.
    """

    def __init__(
        self,
        denoiser: Preconditioned,
        loss: DenoisingLoss,
        processes: Processes,
        precision: Precision = "float32",
        micro_batch: int | None = None,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.processes, self.micro_batch, self.warn = processes, micro_batch, warn
        self.scaler = torch.amp.GradScaler(processes.device.type, enabled=precision == "float16")
        self._dtype = _AUTOCAST.get(precision)
        self._module = processes.replicate(_Objective(denoiser, loss))

    def __call__(self, batch: NoisyBatch, size: int, random: StepRandom, exchange: bool = True) -> Terms:
        """The terms of each sample of this process, whose part `batch` is of a global batch of `size` samples.

        `random` seeds dropout. Without `exchange` the gradients stay those of this process.
        """
        processes, device = self.processes, self.processes.device
        if processes.count > 1 and self.micro_batch is None:
            self._agree_on_micro_batch(batch, size, random)
        while True:
            self._module.zero_grad(set_to_none=True)
            torch.manual_seed(random.torch_seed(1 + processes.rank))  # dropout draws from torch's own streams
            terms = []
            pieces = self._pieces(batch, size)
            try:
                for piece in pieces:
                    with processes.accumulating(self._module, exchange and piece is pieces[-1]):
                        with torch.autocast(device.type, self._dtype, enabled=self._dtype is not None):
                            found: Terms = self._module(piece)
                        # processes average their gradients, and what counts is the sum over all samples by their number
                        total = found.objective.sum() * (processes.count / size)
                        self.scaler.scale(total).backward()  # type: ignore[no-untyped-call]
                    terms.append(found._replace(objective=found.objective.detach()))
                return Terms(*map(torch.cat, zip(*terms, strict=True)))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # only now has the traceback let go of what the failed pass held
            self._halve(size, may_retry=processes.count == 1 or not exchange)

    def _pieces(self, batch: NoisyBatch, size: int) -> list[NoisyBatch]:
        """The passes of a step: the same number on all processes, whatever their share of the batch."""
        largest, least = -(-size // self.processes.count), size // self.processes.count
        count = min(-(-largest // (self.micro_batch or largest)), least)
        if count == 1:
            return [batch]
        ends = [len(batch.x) * k // count for k in range(count + 1)]
        return [
            NoisyBatch(
                batch.x[begin:end],
                batch.noise[begin:end],
                batch.sigma[begin:end],
                batch.cond and {name: c[begin:end] for name, c in batch.cond.items()},
            )
            for begin, end in itertools.pairwise(ends)
        ]

    def _halve(self, size: int, may_retry: bool) -> None:
        limit, device = self.micro_batch or size, self.processes.device
        if limit == 1:
            raise MemoryError(f"micro_batch: not even 1 sample fits the memory of {device}")
        if not may_retry:  # the other processes wait for the gradients of this one
            raise MemoryError(f"micro_batch: {limit} samples do not fit the memory of {device}; choose fewer")
        self.micro_batch = -(-limit // 2)
        self.warn(f"{limit} samples do not fit the memory of {device}; going on with {self.micro_batch}")
        if device.type == "cuda":
            torch.cuda.empty_cache()

    def _agree_on_micro_batch(self, batch: NoisyBatch, size: int, random: StepRandom) -> None:
        self.micro_batch = -(-size // self.processes.count)
        if not self.processes.sharded:  # whose passes need the other processes
            self(batch, size, random, exchange=False)
            self.micro_batch = -self.processes.max(-self.micro_batch)
