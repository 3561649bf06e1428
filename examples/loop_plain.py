"""Training in plain PyTorch.

python examples/loop_plain.py --steps 2000
"""

import argparse

import torch

import diffspace as ds
from diffspace.averages import EMA, HalfLife
from ring import SIGMA_DATA, judge, points


def train(x: torch.Tensor, steps: int, batch: int = 256) -> ds.Preconditioned:
    """A network trained on x, with the average of the weights."""
    torch.manual_seed(0)
    network = ds.networks.MLP(x.shape[1:], width=64)
    denoiser = ds.Preconditioned(network, ds.EDMPreconditioning(sigma_data=SIGMA_DATA))
    loss = ds.DenoisingLoss(ds.LogNormal())
    ema = EMA(denoiser, HalfLife(ramp_ratio=0.1))
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=2e-3, fused=True)
    for step in range(steps):
        x0 = x[torch.randint(len(x), (batch,))]
        optimizer.zero_grad()
        loss(denoiser, x0).mean().backward()
        optimizer.step()
        ema.follow(denoiser, images=step * batch, batch=batch)
    return ema.module


def main(arguments: list[str] | None = None) -> float:
    """Train, and return the relative excess of the error over the attainable one."""
    parser = argparse.ArgumentParser(description="training in plain PyTorch")
    parser.add_argument("--steps", type=int, default=2000)
    options = parser.parse_args(arguments)
    return judge(train(points(50_000, seed=0), options.steps))


if __name__ == "__main__":
    main()
