"""How OpenMP threads wait: training digits at torch's default and with a shorter spin, alone and beside other work.

    python benchmarks/openmp_waiting.py
    python benchmarks/openmp_waiting.py --spins 100000 --rounds 12

Each way is a process of its own, since libgomp reads its settings once. All stay alive, and one at a time trains the
network of the digits' recipe; the others sleep. Within a round every way has its turn, first alone, then beside busy
loops; ratios to torch's default are taken within the round. It takes about three minutes where nothing else runs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

WARM_UP = 2.0


def train() -> None:
    """Train when a line on standard input says for how many seconds; answer with the images a second."""
    import torch

    import diffspace as ds

    torch.manual_seed(0)
    torch.set_num_threads(int(sys.argv[2]))
    network = ds.networks.DDPMpp(
        (1, 8, 8), model_channels=32, channel_mult=(1, 2), num_blocks=1, attn_resolutions=(4,), label_dim=10
    )
    denoiser, loss = (
        ds.Preconditioned(network, ds.EDMPreconditioning(sigma_data=0.75)),
        ds.DenoisingLoss(ds.LogNormal()),
    )
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=1e-4)
    x0, labels = 0.75 * torch.randn(64, 1, 8, 8), torch.arange(64) % 10

    def step() -> None:
        optimizer.zero_grad()
        loss(denoiser, x0, cond={"labels": labels}).mean().backward()
        optimizer.step()

    step()
    print("ready", flush=True)
    for line in sys.stdin:
        start, images = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - start) < float(line):
            step()
            images += len(x0)
        print(images / elapsed, flush=True)


def start(environment: dict[str, str], threads: int) -> subprocess.Popen[str]:
    """A process that trains, with nothing else set that concerns OpenMP."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "KMP_"))}
    command = [sys.executable, __file__, "--train", str(threads)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen(command, env=kept | environment, text=True, **pipes)  # type: ignore[call-overload]


def ask(process: subprocess.Popen[str], seconds: float | None = None) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    if seconds is not None:
        process.stdin.write(f"{seconds}\n")
        process.stdin.flush()
    return process.stdout.readline()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spins", default="1000,10000,100000", help="of GOMP_SPINCOUNT (100000 is diffspace's)")
    parser.add_argument("--busy", type=int, default=2, help="busy loops beside it (default 2)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds (default 7)")
    parser.add_argument("--seconds", type=float, default=2.0, help="seconds of each turn (default 2)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="OpenMP threads (default: all cores)")
    options = parser.parse_args()
    ways = {"torch's default": {}, **{f"GOMP_SPINCOUNT={n}": {"GOMP_SPINCOUNT": n} for n in options.spins.split(",")}}
    ways |= {"OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"}}
    workers = {name: start(environment, options.threads) for name, environment in ways.items()}
    workers["one thread"] = start({"OMP_NUM_THREADS": "1"}, 1)
    if hasattr(os, "getloadavg"):
        print(f"{options.threads} threads on {os.cpu_count()} cores, load before the start {os.getloadavg()[1]:.1f}")
    for process in workers.values():
        ask(process)
    for process in workers.values():
        ask(process, WARM_UP)
    rates: dict[tuple[str, str], list[float]] = {}
    situations = {"alone": 0, f"beside {options.busy} busy loops": options.busy}
    for number in range(options.rounds):
        for situation, count in situations.items():
            loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
            names = list(workers)
            for name in names[number % len(names) :] + names[: number % len(names)]:  # no way has a place of its own
                rates.setdefault((situation, name), []).append(float(ask(workers[name], options.seconds)))
            for loop in loops:
                loop.kill()
                loop.wait()
    for process in workers.values():
        process.kill()
        process.wait()
    for situation in situations:
        print(f"\n{situation}: images a second, and the ratio to torch's default (median, quartiles)")
        base = rates[situation, "torch's default"]
        for name in workers:
            own = rates[situation, name]
            ratios = [a / b for a, b in zip(own, base, strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
            print(f"  {name:26} {statistics.median(own):7.0f}   {middle:.2f}  ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    train() if "--train" in sys.argv else main()
