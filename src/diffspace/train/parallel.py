"""The processes of a run: one, or several that torchrun (or whatever sets its variables) has started.

What they share is torch's own: `DistributedDataParallel`, `fully_shard`, and the collectives of a process group.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypeAlias, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from diffspace._shapes import Tensor
from diffspace.checks import check_integer, first_line
from diffspace.tensors import check_device

Strategy: TypeAlias = Literal["ddp", "fsdp"]
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_PATIENCE = timedelta(hours=2)  # the others wait while the first process draws and scores
_MEETING = timedelta(minutes=30)  # which schedulers take to start all processes
_SILENCE = 10.0  # seconds of waiting for the others, after which it is said
_LOST = re.compile(r"connection|socket|broken pipe|timed? ?out|rendezvous", re.IGNORECASE)  # in errors of gloo's


def choose_device(name: str | None = None, local_rank: int = 0) -> torch.device:
    """The device of this name, or the best that there is; of several GPUs that of the process."""
    if name is not None:
        return check_device(f"cuda:{local_rank}" if name == "cuda" else name)
    if torch.cuda.is_available():
        return torch.device("cuda", local_rank)
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def started_together() -> tuple[int, int, int]:
    """(rank, count, rank on this machine) by the variables that torchrun sets; (0, 1, 0) where nothing has set them.

    ValueError names a variable that is missing or contradicts another: the others would be waited for in vain.
    """
    several = "WORLD_SIZE" in os.environ
    numbers = {"WORLD_SIZE": 1, "RANK": 0, "LOCAL_RANK": 0, "MASTER_PORT": 1}
    for name in numbers if several else ("LOCAL_RANK",):
        text = os.environ.get(name, str(numbers[name]))
        if not re.fullmatch(r"-?[0-9]{1,9}", text):
            raise ValueError(f"{name}: expected an integer, got {text!r} in the environment")
        numbers[name] = int(text)
    count, rank, local_rank, port = numbers.values()
    check_integer("WORLD_SIZE", count, 1)
    check_integer("RANK", rank, 0, count - 1)
    check_integer("LOCAL_RANK", local_rank, 0)
    check_integer("MASTER_PORT", port, 1, 65535)
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if count > 1 and missing:
        raise ValueError(f"{missing[0]}: is not set, but WORLD_SIZE is {count}; start the processes with torchrun")
    return rank, count, local_rank


@dataclass(frozen=True)
class Processes:
    """This process among those of a run. With one process nothing is communicated.

    With strategy "ddp" each keeps all of the model, with "fsdp" a share of weights, gradients and optimizer state.
    """

    device: torch.device
    rank: int = 0
    count: int = 1
    strategy: Strategy = "ddp"

    @classmethod
    @contextlib.contextmanager
    def join(
        cls, device: str | None = None, strategy: Strategy = "ddp", warn: Callable[[str], None] = lambda text: None
    ) -> Iterator[Processes]:
        """Join the other processes, by the variables that torchrun sets (RANK, WORLD_SIZE, …), until the block ends.

        `warn` is called where the others are long in coming. ValueError where the variables contradict one another or
        nobody comes in half an hour; ConnectionError where another process ends before this one.
        """
        rank, count, local_rank = started_together()
        here = choose_device(device, local_rank)
        if count == 1:
            if strategy != "ddp":
                raise ValueError(f"strategy: {strategy!r} has no effect on one process; start several")
            yield cls(here)
            return
        if here.type == "mps":
            raise ValueError("device: several processes cannot share mps; use device cpu, or one process")
        if here.type == "cuda":
            torch.cuda.set_device(here)
        _meet(rank, count, "cpu:gloo,cuda:nccl" if here.type == "cuda" else "gloo", warn)
        try:
            yield cls(here, rank, count, strategy)
        except RuntimeError as error:
            if not isinstance(error, dist.DistError) and not _LOST.search(str(error)):
                raise
            raise ConnectionError(
                f"processes: process {rank} of {count} lost the connection to the others, of which one has ended"
            ) from None
        finally:
            # without it, threads of gloo may abort a process that has finished
            dist.destroy_process_group()

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    @property
    def sharded(self) -> bool:
        return self.count > 1 and self.strategy == "fsdp"

    def share(self, size: int) -> tuple[int, int]:
        """(begin, end): the positions of a global batch of this size that are this process's, one more or less."""
        return self.rank * size // self.count, (self.rank + 1) * size // self.count

    def shard(self, module: torch.nn.Module) -> None:
        """Spread the weights over the processes with strategy "fsdp"; call it before the optimizer is made."""
        if not self.sharded:
            return
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        for parameter in module.parameters():  # channels-last weights cannot be cut
            parameter.data = parameter.data.contiguous()
        mesh = init_device_mesh(self.device.type, (self.count,))
        lists = [m for m in module.modules() if isinstance(m, torch.nn.ModuleList | torch.nn.ModuleDict)]
        for block in dict.fromkeys(child for m in lists for child in m.children()):
            fully_shard(block, mesh=mesh)
        fully_shard(module, mesh=mesh)

    def replicate(self, module: torch.nn.Module) -> torch.nn.Module:
        """The module to call in training: its gradients are means over the processes after a backward pass."""
        if self.count == 1 or self.sharded:
            return module
        from torch.nn.parallel import DistributedDataParallel

        devices = [self.device] if self.device.type == "cuda" else None
        new = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters  # of torch 2.13
        quiet: Any = {"forward_sync_buffers" if new else "broadcast_buffers": False}
        return DistributedDataParallel(module, device_ids=devices, gradient_as_bucket_view=True, **quiet)

    def accumulating(self, module: torch.nn.Module, last: bool) -> contextlib.AbstractContextManager[Any]:
        """Around the passes of a micro-batch: gradients are exchanged in the last one only."""
        if self.sharded:
            from torch.distributed.fsdp import FSDPModule

            for part in module.modules():
                if isinstance(part, FSDPModule):
                    part.set_requires_gradient_sync(last, recurse=False)
        elif self.count > 1 and not last:
            quiet: contextlib.AbstractContextManager[Any] = module.no_sync()  # type: ignore[operator]
            return quiet
        return contextlib.nullcontext()

    def max(self, value: int) -> int:
        """The largest of the values that the processes bring."""
        values = torch.tensor(value, device=self.device, dtype=torch.int64)
        if self.count > 1:
            dist.all_reduce(values, dist.ReduceOp.MAX)
        return int(values)

    def sum(self, values: Tensor) -> Tensor:
        """The sum over the processes, in the place of `values`."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def broadcast(self, value: Any) -> Any:
        """What the first process has here."""
        if self.count == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, device=torch.device("cpu"))
        return box[0]

    def spread(self, work: Callable[[_Item], _Result], items: Sequence[_Item]) -> Iterator[_Result]:
        """`work` of each item in order, on the first process; the others do their share and yield nothing.

        Each does every `count`-th item. The results travel, so that only the first process needs to reach the files
        that it writes; they are tensors of the CPU and what else can be pickled.
        """
        for first in range(0, len(items), self.count):
            own = first + self.rank
            result = work(items[own]) if own < len(items) else None
            if self.count == 1:
                results: list[Any] = [result]
            else:
                results = [None] * self.count
                dist.gather_object(result, results if self.first else None)
            if self.first:
                yield from results[: len(items) - first]

    def barrier(self) -> None:
        """Wait until all processes are here."""
        if self.count > 1:
            dist.barrier()


def _meet(rank: int, count: int, backend: str, warn: Callable[[str], None]) -> None:
    """Make the process group; ValueError where the others do not come."""
    place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    waiting = f"process {rank} of {count} waits for the others at {place}"
    timer = threading.Timer(_SILENCE, warn, [waiting])
    timer.daemon = True
    timer.start()
    try:
        store, *_ = next(rendezvous("env://", rank, count, timeout=_MEETING))
        dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=_PATIENCE)
    except RuntimeError as error:
        raise ValueError(f"processes: {waiting}, in vain: {first_line(error)}") from None
    finally:
        timer.cancel()
