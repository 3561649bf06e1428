"""Kill a training run again and again, and take it up each time: FOLDER KILLS SEED [key=value …]. Prints JSON.

Each attempt is a forked process, killed at a random moment by the signal that nothing can catch.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from kill_saves import half_written

from diffspace.train import Processes, Run, apply_overrides, make_recipe

CONFIG = {
    "data": {"source": "digits"},
    "network": {"kind": "ddpmpp", "model_channels": 8, "channel_mult": [1], "num_blocks": 1, "dropout": 0.1},
    "preconditioning": {"kind": "edm"},
    "noise": {"kind": "lognormal"},
    "augment": "edm",
    "uncertainty": True,
    "adaptive_noise": True,
    "batch_size": 8,
    "images": 8 * 400,
    "ramp_images": 800,
    "decay_images": 1600,
    "ema_halflife_images": 100,
    "ema_widths": [0.05, 0.1],
    "snapshot_images": 1600,
    "held_out_images": 800,
    "checkpoint_images": 16,
}


def train(folder, recipe, data):
    training, held_out = data
    cpu = Processes(torch.device("cpu"))
    run = Run(recipe, training, folder, held_out=held_out, processes=cpu, report_seconds=0)
    if (folder / "recipe.yaml").exists():
        run.resume()
    else:
        run.begin()
    for _ in run.train():
        pass


def main():
    folder, kills, rng = Path(sys.argv[1]), int(sys.argv[2]), random.Random(int(sys.argv[3]))
    torch.set_num_threads(1)
    recipe = make_recipe(apply_overrides(CONFIG, sys.argv[4:]))
    data = recipe.data.load()
    told = {"kills": 0, "in a checkpoint": 0, "attempts": 0}
    while True:
        told["attempts"] += 1
        child = os.fork()
        if child == 0:
            train(folder, recipe, data)
            os._exit(0)
        if told["kills"] < kills:
            time.sleep(rng.uniform(0.02, 0.6))
            if told["kills"] % 2:  # every second time in the middle of a checkpoint, if one is written soon
                deadline = time.monotonic() + 5
                while not half_written(folder) and time.monotonic() < deadline:
                    time.sleep(rng.uniform(0, 2e-4))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            told["kills"] += 1
            told["in a checkpoint"] += bool(half_written(folder))
        elif os.WEXITSTATUS(status):
            raise SystemExit(f"a run failed with code {os.WEXITSTATUS(status)}")
        else:
            break
    print(json.dumps(told))


if __name__ == "__main__":
    main()
