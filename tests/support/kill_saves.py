"""Kill a process that does nothing but save checkpoints, again and again, and look at what it leaves.

`python tests/support/kill_saves.py FOLDER KILLS [--sync]` prints the counts as JSON. Each process goes on from the
newest checkpoint, as a run would; what a checkpoint must hold follows from its images alone.
"""

import argparse
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from diffspace.train.checkpoint import Checkpoints

STEP = 100


def state(images):
    """Three parts, some 2 MB, all of it a function of `images`."""
    generator = torch.Generator().manual_seed(images)
    weights = {f"layer.{i}": torch.randn(50_000, generator=generator) for i in range(4)}
    moments = {i: {"step": torch.tensor(float(images)), "exp_avg": weights[f"layer.{i}"] ** 2} for i in range(4)}
    return {
        "denoiser": weights,
        "optimizer": {"state": moments, "param_groups": [{"lr": 1 / (1 + images), "params": [0, 1, 2, 3]}]},
        "trainer": {"images": images, "step": images // STEP},
    }


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(equal, a, b))
    return type(a) is type(b) and a == b


def complaint(problem):
    raise AssertionError(problem)


def save_for_ever(checkpoints, images, report, wait):
    while True:
        images += STEP
        checkpoints.save(images, state(images))
        if wait:
            checkpoints.wait()
            os.write(report, images.to_bytes(8, "big"))
        if images % (3 * STEP) == 0:  # a replacement too
            checkpoints.save(images, state(images))


def half_written(folder):
    """The files of saves that did not end."""
    return set(Path(folder).glob("checkpoints/.*"))


def kill_once(folder, delay, wait, in_a_save):
    """The images of the last save that had returned, and whether the kill left a save half written."""
    ends, left = os.pipe(), half_written(folder)
    child = os.fork()
    if child == 0:
        checkpoints = Checkpoints(folder, keep_every_images=10 * STEP)
        images = checkpoints.newest(complaint).images if checkpoints.path.exists() else 0
        try:
            save_for_ever(checkpoints, images, ends[1], wait)
        finally:
            os._exit(1)
    os.close(ends[1])
    time.sleep(delay)
    deadline = time.monotonic() + 5
    while in_a_save and half_written(folder) <= left and time.monotonic() < deadline:
        time.sleep(1e-4)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the process ended by itself"
    with os.fdopen(ends[0], "rb") as reported:
        content = reported.read()
    return int.from_bytes(content[-8:], "big"), bool(half_written(folder) - left)


def main(folder, kills, wait):
    chance = random.Random(0)
    counts = {"kills": kills, "half_written": 0, "images": 0}
    checkpoints = Checkpoints(folder)
    checkpoints.save(0, state(0))
    checkpoints.wait()
    for k in range(kills):
        returned, hit = kill_once(folder, chance.uniform(0, 0.2), wait, in_a_save=k % 2 == 1)
        counts["half_written"] += hit
        newest = checkpoints.newest(complaint)
        assert newest.images >= max(counts["images"], returned), "a checkpoint was lost"
        assert equal(newest.read(), state(newest.images)), "a checkpoint holds something else"
        counts["images"] = newest.images
    checkpoints.save(counts["images"] + STEP, state(counts["images"] + STEP))
    checkpoints.wait()
    left = [path.name for path in checkpoints.path.iterdir() if not path.stem.isdigit()]
    assert not left, f"left over: {left}"
    return counts


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("kills", type=int)
    parser.add_argument("--sync", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)  # a forked process has none of the threads of its parent
    json.dump(main(given.folder, given.kills, given.sync), sys.stdout)
