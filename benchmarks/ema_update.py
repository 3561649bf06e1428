"""One step of the average of the paper's CIFAR-10 DDPM++ (55.7 M parameters), against plain loops.

    python benchmarks/ema_update.py --device cuda

All three follow the same network in this process, in turns, and must agree. Ratios are taken within a round.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from pathlib import Path

import torch

from diffspace.averages import EMA, PowerFunction
from diffspace.config import from_config
from diffspace.train import read_recipe

RECIPE = Path(__file__).parents[1] / "recipes" / "cifar10-ddpmpp.yaml"


@torch.no_grad()
def lerp_loop(own: torch.nn.Module, source: torch.nn.Module, beta: float) -> None:
    for a, b in zip(own.parameters(), source.parameters(), strict=True):
        a.lerp_(b, 1 - beta)
    for a, b in zip(own.buffers(), source.buffers(), strict=True):
        a.copy_(b)


@torch.no_grad()
def copy_loop(own: torch.nn.Module, source: torch.nn.Module, beta: float) -> None:
    for a, b in zip(own.parameters(), source.parameters(), strict=True):
        a.copy_(a * beta + b * (1 - beta))
    for a, b in zip(own.buffers(), source.buffers(), strict=True):
        a.copy_(b)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, … (default cpu)")
    parser.add_argument("--rounds", type=int, default=15, help="rounds (default 15)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(options.device)
    config = {**read_recipe(RECIPE)["network"], "shape": [3, 32, 32], "label_dim": 0, "augment_dim": 9}
    source = from_config("network", config).to(device)
    average = EMA(source, PowerFunction(0.05))
    owns = [copy.deepcopy(average.module) for _ in range(2)]
    with torch.no_grad():
        for p in source.parameters():
            p.add_(torch.randn_like(p))
    steps = {
        "diffspace": lambda beta: average.update(source, beta),
        "loop of lerp_": lambda beta: lerp_loop(owns[0], source, beta),
        "loop of copy_": lambda beta: copy_loop(owns[1], source, beta),
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(options.rounds + 1):  # the first warms up
        for name, step in steps.items():
            start = time.perf_counter()
            step(0.999)
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - start)
    for own in owns:
        for a, b in zip(own.parameters(), average.module.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    ours = seconds["diffspace"][1:]
    print(f"{device}, {sum(p.numel() for p in source.parameters()):,} parameters, {options.rounds} rounds")
    for name, theirs in seconds.items():
        ratio = statistics.median(b / a for a, b in zip(ours, theirs[1:], strict=True))
        print(f"{name:14} {1e3 * statistics.median(theirs[1:]):8.2f} ms   {ratio:5.2f} times diffspace's")


if __name__ == "__main__":
    main()
