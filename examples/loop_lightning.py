"""Training in Lightning: the same denoiser, loss and average in a LightningModule.

    python examples/loop_lightning.py --steps 2000
    python examples/loop_lightning.py --precision bf16-mixed

The denoiser is called within `training_step`, where mixed precision casts only the operations of the network: x and σ
stay in float32.
"""

import argparse

import lightning
import torch
from torch.utils.data import DataLoader, TensorDataset

import diffspace as ds
from diffspace.averages import EMA, HalfLife
from ring import SIGMA_DATA, judge, points


class Diffusion(lightning.LightningModule):
    """A denoiser with its loss and the average of its weights."""

    def __init__(self, network: torch.nn.Module, sigma_data: float) -> None:
        super().__init__()
        self.denoiser = ds.Preconditioned(network, ds.EDMPreconditioning(sigma_data=sigma_data))
        self.loss = ds.DenoisingLoss(ds.LogNormal())
        self.ema = EMA(self.denoiser, HalfLife(ramp_ratio=0.1))
        self.average = self.ema.module  # a module attribute is saved and moved to the device
        self.images = 0

    def on_fit_start(self) -> None:
        # seed_everything gives all processes the same seed, with which they would draw the same noise
        self.generator = torch.Generator().manual_seed(self.global_rank)

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        return self.loss(self.denoiser, batch[0], generator=self.generator).mean()

    def on_train_batch_end(self, outputs: object, batch: list[torch.Tensor], index: int) -> None:
        size = len(batch[0]) * self.trainer.world_size
        self.ema.follow(self.denoiser, self.images, size)
        self.images += size

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.denoiser.parameters(), lr=2e-3, fused=True)


def train(x: torch.Tensor, steps: int, batch: int = 256, precision: str = "32-true") -> Diffusion:
    """A module trained on x by Lightning."""
    lightning.seed_everything(0, verbose=False)
    module = Diffusion(ds.networks.MLP(x.shape[1:], width=64), SIGMA_DATA)
    loader = DataLoader(TensorDataset(x), batch_size=batch, shuffle=True, drop_last=True)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = lightning.Trainer(accelerator="cpu", devices=1, max_steps=steps, precision=precision, **quiet)
    trainer.fit(module, loader)
    return module


def main(arguments: list[str] | None = None) -> float:
    """Train, and return the relative excess of the error over the attainable one."""
    parser = argparse.ArgumentParser(description="training in Lightning")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--precision", default="32-true")
    options = parser.parse_args(arguments)
    return judge(train(points(50_000, seed=0), options.steps, precision=options.precision).average)


if __name__ == "__main__":
    main()
