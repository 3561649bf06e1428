"""A step of training by diffspace against a plain loop, and what of it is not forward, backward or optimizer.

The plain loop is what one writes first: eager, contiguous float32 tensors, Adam, an average of the weights tensor by
tensor; its network is that of `network_speed.py`. All variants take turns in one process; ratios are plain ÷ variant,
the median over the rounds.

    python benchmarks/training_speed.py                              # CIFAR-10 DDPM++, batch of 8
    python benchmarks/training_speed.py --channels 32 --curve 200    # losses of 200 steps of each, side by side
    python benchmarks/training_speed.py --memory --batch 32          # peak memory, each way in a process of its own
    python benchmarks/training_speed.py --device cuda --batch 128
"""

from __future__ import annotations

import argparse
import copy
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import diffspace as ds
from diffspace.averages import EMA, HalfLife
from diffspace.data import load_data
from diffspace.networks import PAPER_NETWORKS, paper_network
from diffspace.train import LearningRate, Trainer
from network_speed import Plain, resident

SIGMA_DATA, RATE, HALFLIFE = 0.5, 2e-4, 500_000


def images(batch: int, device: str) -> Iterator[tuple[Tensor, None]]:
    """Digits, enlarged to 32×32 in three colours: any images do to measure time, but a loss is to have a way down."""
    digits = load_data("digits").batch()
    large = torch.nn.functional.interpolate(digits, size=(32, 32), mode="bilinear").repeat(1, 3, 1, 1)
    for k in range(10**9):
        yield large[torch.arange(k * batch, (k + 1) * batch) % len(large)].to(device), None


def network_of(options: argparse.Namespace) -> torch.nn.Module:
    torch.manual_seed(0)
    narrow = {} if options.channels is None else {"model_channels": options.channels}
    network = paper_network(options.network, augment_dim=0, label_dim=0, dropout=0.0, **narrow)
    return network.to(options.device)


class WithoutConditions(torch.nn.Module):
    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.inner = Plain(network)

    def forward(self, x: Tensor, c_noise: Tensor, cond: object = None) -> Tensor:
        return self.inner(x, c_noise)


def plain_loop(options: argparse.Namespace) -> Iterator[float]:
    denoiser = ds.Preconditioned(WithoutConditions(network_of(options)), ds.EDMPreconditioning(SIGMA_DATA)).train()
    average = copy.deepcopy(denoiser)
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=RATE)
    for x, _ in images(options.batch, options.device):
        rnd = torch.randn(len(x), 1, 1, 1, device=x.device)
        sigma = (rnd * 1.2 - 1.2).exp()
        weight = (sigma**2 + SIGMA_DATA**2) / (sigma * SIGMA_DATA) ** 2
        denoised = denoiser(x + torch.randn_like(x) * sigma, sigma.flatten())
        loss = (weight * (denoised - x) ** 2).sum() / len(x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        beta = 0.5 ** (len(x) / HALFLIFE)
        with torch.no_grad():
            for mine, theirs in zip(average.parameters(), denoiser.parameters(), strict=True):
                mine.copy_(theirs.detach().lerp(mine, beta))
        yield float(loss.detach())


class Engine:
    """diffspace's loop, with the time that goes into forward, backward and optimizer taken apart."""

    def __init__(self, options: argparse.Namespace, precision: str, compiled: bool = False) -> None:
        network = network_of(options)
        denoiser = ds.Preconditioned(network, ds.EDMPreconditioning(SIGMA_DATA))
        average = EMA(denoiser, HalfLife(HALFLIFE, None))
        if compiled:
            network.compile()
        optimizer = torch.optim.Adam(denoiser.parameters(), fused=True)
        schedule = LearningRate(10**12, RATE, ramp_images=0)
        loss = ds.DenoisingLoss(ds.LogNormal())
        self.trainer = Trainer(denoiser, loss, optimizer, schedule, [average], precision=precision)
        self.device, self.spent = options.device, 0.0
        accumulate = self.timed(self.trainer.accumulate)
        accumulate.scaler = self.trainer.accumulate.scaler
        self.trainer.accumulate = accumulate
        optimizer.step = self.timed(optimizer.step)
        self.batches = images(options.batch, options.device)

    def timed(self, function: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            wait(self.device)
            begin = time.perf_counter()
            result = function(*arguments, **options)
            wait(self.device)
            self.spent += time.perf_counter() - begin
            return result

        return call

    def loop(self) -> Iterator[float]:
        for progress in self.trainer.run(self.batches):
            yield float(progress.loss)


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


MEMORY = {  # samples of a pass as a share of the batch, and whether activations are computed again
    "all at once": (1, False),
    "in 4 passes": (4, False),
    "in 16 passes": (16, False),
    "all at once, checkpointing": (1, True),
    "in 4 passes, checkpointing": (4, True),
}


def peak_megabytes(options: argparse.Namespace, way: str) -> float:
    """The peak of the second step, with weights, averages and state of the optimizer, over what the libraries take."""
    passes, checkpointing = MEMORY[way]
    before = resident("VmRSS") if options.device == "cpu" else 0.0
    engine = Engine(options, "float32", False, False)
    engine.trainer.denoiser.network.checkpointing = checkpointing
    engine.trainer.micro_batch = -(-options.batch // passes)
    loop = engine.loop()
    next(loop)
    if options.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        next(loop)
        return torch.cuda.max_memory_allocated() / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
    next(loop)
    return resident("VmHWM") - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="cifar10-ddpmpp", choices=PAPER_NETWORKS)
    parser.add_argument("--channels", type=int, help="of the finest level, for a network that is narrower")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--curve", type=int, help="steps whose losses are printed instead of times")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--compile", action="store_true", help="compiled networks too, which takes minutes to begin")
    parser.add_argument("--memory", action="store_true", help="peak memory instead of time")
    parser.add_argument("--measure", choices=MEMORY, help=argparse.SUPPRESS)  # in the process that --memory starts
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.measure:
        print(peak_megabytes(options, options.measure))
        return
    if options.memory:
        print(f"{options.network}, float32, batch of {options.batch}, peak memory of a step, MB")
        for way in MEMORY:
            command = [sys.executable, __file__, *sys.argv[1:], "--measure", way]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            print(f"{way:28}{float(done.stdout):9.0f}", flush=True)
        return
    engines = {"diffspace float32": Engine(options, "float32"), "diffspace bfloat16": Engine(options, "bfloat16")}
    if options.device != "cpu":
        engines["diffspace tf32"] = Engine(options, "tf32")
    if options.compile:
        engines["diffspace float32, compiled"] = Engine(options, "float32", compiled=True)
        engines["diffspace bfloat16, compiled"] = Engine(options, "bfloat16", compiled=True)
    loops = {"plain float32": plain_loop(options), **{name: engine.loop() for name, engine in engines.items()}}
    print(f"torch {torch.__version__}, {options.device}, {torch.get_num_threads()} threads, batch of {options.batch}")
    if options.curve:
        curve(loops, options.curve)
        return
    for loop in loops.values():
        for _ in range(2):
            next(loop)
    for engine in engines.values():
        engine.spent = 0.0
    times: list[list[float]] = []
    for _ in range(options.rounds):
        times.append([])
        for loop in loops.values():
            wait(options.device)
            begin = time.perf_counter()
            next(loop)
            wait(options.device)
            times[-1].append(time.perf_counter() - begin)
    print(f"{'':28}{'s a step':>10}{'images/s':>10}{'ratio':>8}   {'quartiles':<14}{'the rest of the step':>22}")
    for k, name in enumerate(loops):
        column = [row[k] for row in times]
        low, ratio, high = np.quantile([row[0] / row[k] for row in times], [0.25, 0.5, 0.75])
        seconds = statistics.median(column)
        rest = f"{1 - engines[name].spent / sum(column):22.1%}" if name in engines else ""
        print(f"{name:28}{seconds:10.3f}{options.batch / seconds:10.2f}{ratio:8.2f}   {low:.2f} to {high:.2f}  {rest}")


def curve(loops: dict[str, Iterator[float]], steps: int) -> None:
    """Means over tenths of the steps. The plain loop draws other noise; those of diffspace differ by their rounding."""
    losses = {name: [next(loop) for _ in range(steps)] for name, loop in loops.items()}
    print(f"{'steps':>12}" + "".join(f"{name:>28}" for name in loops))
    width = max(1, steps // 10)
    for begin in range(0, steps, width):
        means = (statistics.mean(values[begin : begin + width]) for values in losses.values())
        print(f"{f'{begin + 1}-{begin + width}':>12}" + "".join(f"{mean:28.3f}" for mean in means))


if __name__ == "__main__":
    main()
