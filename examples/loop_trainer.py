"""Training with diffspace's own trainer, a generator of steps: you write the loop around it.

python examples/loop_trainer.py --steps 2000
"""

import argparse
import itertools
from typing import get_args

import torch

import diffspace as ds
from diffspace.averages import EMA, HalfLife
from diffspace.train import LearningRate, Precision, Trainer
from ring import SIGMA_DATA, judge, points


def train(x: torch.Tensor, steps: int, batch: int = 256, precision: Precision = "float32") -> ds.Preconditioned:
    """A network trained on x, with the average of the weights."""
    torch.manual_seed(0)
    network = ds.networks.MLP(x.shape[1:], width=64)
    denoiser = ds.Preconditioned(network, ds.EDMPreconditioning(sigma_data=SIGMA_DATA))
    trainer = Trainer(
        denoiser,
        ds.DenoisingLoss(ds.LogNormal()),
        torch.optim.Adam(denoiser.parameters(), fused=True),
        LearningRate(steps * batch, learning_rate=2e-3, ramp_images=min(20, steps) * batch),
        [EMA(denoiser, HalfLife(ramp_ratio=0.1))],
        precision=precision,
    )
    batches = ((x[torch.randint(len(x), (batch,))], None) for _ in itertools.count())
    for step in trainer.run(batches):
        if step.step % 1000 == 0:
            loss, norm = float(step.loss), float(step.grad_norm)
            print(f"step {step.step}: loss {loss:.3f}, gradient norm {norm:.2f}, {trainer.skipped} steps skipped")
    return trainer.averages[0].module


def main(arguments: list[str] | None = None) -> float:
    """Train, and return the relative excess of the error over the attainable one."""
    parser = argparse.ArgumentParser(description="training with diffspace's trainer")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--precision", default="float32", choices=get_args(Precision))
    options = parser.parse_args(arguments)
    return judge(train(points(50_000, seed=0), options.steps, precision=options.precision))


if __name__ == "__main__":
    main()
