"""Training in Accelerate: the plain loop on one or several processes.

    python examples/loop_accelerate.py --steps 2000
    torchrun --nproc-per-node 2 examples/loop_accelerate.py

Mixed precision casts only the operations of the network: x and σ stay in float32. The loss is given the weight λ, since
`prepare` may return a wrapper that hides the attributes of the denoiser.
"""

import argparse

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import DataLoader, TensorDataset

import diffspace as ds
from diffspace.averages import EMA, HalfLife
from ring import SIGMA_DATA, judge, points


def train(x: torch.Tensor, steps: int, accelerator: Accelerator, batch: int = 256) -> ds.Preconditioned:
    """A network trained on x in batches of `batch` over all processes, with the average of the weights."""
    set_seed(0)  # the same weights on all processes
    network = ds.networks.MLP(x.shape[1:], width=64)
    denoiser = ds.Preconditioned(network, ds.EDMPreconditioning(sigma_data=SIGMA_DATA)).to(accelerator.device)
    ema = EMA(denoiser, HalfLife(ramp_ratio=0.1))  # before `prepare`, since a copy would include its autocast
    loss = ds.DenoisingLoss(ds.LogNormal(), weight=denoiser.weight)
    loader = DataLoader(TensorDataset(x), batch_size=batch // accelerator.num_processes, shuffle=True, drop_last=True)
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=2e-3)
    model, optimizer, loader = accelerator.prepare(denoiser, optimizer, loader)
    set_seed(0, device_specific=True)  # different noise on each process
    step = 0
    while True:
        for (x0,) in loader:
            if step == steps:
                return ema.module
            optimizer.zero_grad()
            accelerator.backward(loss(model, x0).mean())
            optimizer.step()
            ema.follow(denoiser, images=step * batch, batch=batch)
            step += 1


def main(arguments: list[str] | None = None) -> float:
    """Train, and return the relative excess of the error over the attainable one."""
    parser = argparse.ArgumentParser(description="training in Accelerate")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--precision", default="no", choices=("no", "bf16", "fp16"))
    options = parser.parse_args(arguments)
    accelerator = Accelerator(cpu=True, mixed_precision=options.precision)
    average = train(points(50_000, seed=0), options.steps, accelerator)
    excess = judge(average) if accelerator.is_main_process else float("nan")
    accelerator.end_training()  # without it gloo may abort a process that has finished
    return excess


if __name__ == "__main__":
    main()
