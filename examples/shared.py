"""What the examples share: a training loop, a table of errors, a picture of digits and the options of a command."""

import argparse
from collections.abc import Callable

import torch

import diffspace as ds
from diffspace.averages import EMA, HalfLife
from diffspace.objective import LossBySigma
from diffspace.protocols import Cond


def train(
    denoiser: ds.Preconditioned, noise: ds.LogNormal, draw: Callable[[], tuple[torch.Tensor, Cond | None]], steps: int
) -> ds.Preconditioned:
    """Train on the batches (x₀, condition) that `draw` returns; the result has the average of the weights."""
    loss = ds.DenoisingLoss(noise, reduction="mean")
    ema = EMA(denoiser, HalfLife(ramp_ratio=0.1))
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=2e-3, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        x0, cond = draw()
        optimizer.zero_grad()
        loss(denoiser, x0, cond).mean().backward()
        optimizer.step()
        schedule.step()
        ema.follow(denoiser, images=step * len(x0), batch=len(x0))
    return ema.module


def print_errors(found: LossBySigma) -> None:
    """A row for each noise level: the error beside the trivial and, if it is known, the attainable one."""
    columns = {"σ": found.sigma, "trivial": found.trivial, "error": found.mse}
    if found.attainable is not None:
        columns["attainable"] = found.attainable
    print(" ".join(f"{name:>10}" for name in columns))
    for row in zip(*columns.values(), strict=True):
        print(" ".join(f"{float(value):10.4f}" for value in row))


def save_digits(path: str, rows: dict[str, torch.Tensor], count: int = 20) -> None:
    """A picture with a row of digits for each name."""
    from matplotlib.figure import Figure

    figure = Figure((0.45 * count, 0.6 * len(rows)), layout="constrained")
    for ax, (name, x) in zip(figure.subplots(len(rows), 1), rows.items(), strict=True):
        tiles = torch.nn.functional.pad(x[:count, 0], (0, 1, 0, 1), value=-1.0)
        ax.imshow(torch.cat(list(tiles), dim=1).clamp(-1, 1).numpy(), cmap="gray_r", vmin=-1, vmax=1)
        ax.set(xticks=[], yticks=[])
        ax.set_ylabel(name, rotation=0, ha="right", va="center")
        ax.spines[:].set_visible(False)
    figure.savefig(path, dpi=110)


def read_options(arguments: list[str] | None, *, steps: int, samples: int) -> argparse.Namespace:
    """The options `--steps`, `--samples` and `--out`, with these defaults."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=steps, help="steps of training")
    parser.add_argument("--samples", type=int, default=samples, help="samples to draw")
    parser.add_argument("--out", help="file of the picture")
    return parser.parse_args(arguments)
