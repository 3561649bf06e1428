"""An image as condition: handwritten digits from 4×4 pixels, beside nearest and bicubic interpolation.

    python examples/super_resolution.py --out super_resolution.png

The network sees the small image, enlarged, as the condition "image". Its samples are digits that could have led to it;
D at a large σ is their mean, E[x₀ | small], which has the least squared error. The figures are those of digits held
out: PSNR, and how far the samples, made small again, are from what was given.
"""

import argparse
import math

import torch
from torch.nn.functional import avg_pool2d, interpolate

import diffspace as ds
from diffspace.averages import EMA, HalfLife
from diffspace.data import load_data

LARGE = 10.0  # where noise hides the digit, and training still comes


def small(x: torch.Tensor) -> torch.Tensor:
    """Digits of 8×8 as 4×4 means."""
    return avg_pool2d(x, 2)


def enlarged(y: torch.Tensor) -> torch.Tensor:
    """Every pixel four times: the condition, and the nearest-neighbour interpolation."""
    return interpolate(y, scale_factor=2, mode="nearest")


def psnr(x: torch.Tensor, truth: torch.Tensor) -> float:
    """10·log₁₀(range²/mean squared error) in dB, of values in [−1, 1]."""
    return 10 * math.log10(4 / float((x - truth).double().square().mean()))


def train(x: torch.Tensor, steps: int, batch: int = 64) -> ds.Preconditioned:
    """The average of the weights of a U-Net that is shown digits x beside their small versions."""
    torch.manual_seed(0)
    network = ds.networks.DDPMpp(
        (1, 8, 8), image_channels=1, model_channels=16, channel_mult=(1, 2), num_blocks=1, dropout=0.0
    )
    denoiser = ds.Preconditioned(network, ds.EDMPreconditioning(sigma_data=float(x.std())))
    loss = ds.DenoisingLoss(ds.LogNormal(P_mean=-0.4, P_std=1.6), reduction="mean")
    ema = EMA(denoiser, HalfLife(ramp_ratio=0.1))
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=2e-3, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        x0 = x[torch.randint(len(x), (batch,))]
        optimizer.zero_grad()
        loss(denoiser, x0, {"image": enlarged(small(x0))}).mean().backward()
        optimizer.step()
        schedule.step()
        ema.follow(denoiser, images=step * batch, batch=batch)
    return ema.module


def save_picture(path: str, columns: dict[str, torch.Tensor], count: int = 12) -> None:
    """One row for each of the images' versions."""
    from matplotlib.figure import Figure

    figure = Figure((8, 0.75 * len(columns)), layout="constrained")
    axes = figure.subplots(len(columns), 1)
    for ax, (name, x) in zip(axes, columns.items(), strict=True):
        tiles = torch.nn.functional.pad(x[:count, 0], (0, 1, 0, 1), value=-1.0)
        ax.imshow(torch.cat(list(tiles), dim=1).clamp(-1, 1).numpy(), cmap="gray_r", vmin=-1, vmax=1)
        ax.set(xticks=[], yticks=[])
        ax.set_ylabel(name, rotation=0, ha="right", va="center")
        ax.spines[:].set_visible(False)
    figure.savefig(path, dpi=110)


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Train, enlarge the digits held out, print and return the figures."""
    parser = argparse.ArgumentParser(description="digits from 4×4 pixels")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--samples", type=int, default=359, help="of the digits held out")
    parser.add_argument("--out", help="where the picture goes")
    options = parser.parse_args(arguments)
    training, held_out = load_data("digits").split()
    denoiser = train(training.batch(), options.steps)

    truth = held_out.batch()[: options.samples]
    given = small(truth)
    cond = {"image": enlarged(given)}
    samples = ds.sample(denoiser, seeds=range(len(truth)), cond=cond, steps=ds.EDMSteps(12)).x
    noise = LARGE * ds.initial_latents(range(len(truth)), truth.shape[1:]).to(truth)
    with torch.no_grad():
        mean = denoiser(noise, torch.tensor(LARGE), cond)
    versions = {
        "nearest": enlarged(given),
        "bicubic": interpolate(given, scale_factor=2, mode="bicubic").clamp(-1, 1),
        "sample": samples.clamp(-1, 1),
        "mean": mean.clamp(-1, 1),
    }
    figures = {name: psnr(x, truth) for name, x in versions.items()}
    figures["consistency"] = float((small(samples) - given).square().mean().sqrt())
    print("PSNR on digits held out:", ", ".join(f"{name} {figures[name]:.2f} dB" for name in versions))
    print(f"samples made small again: {figures['consistency']:.4f} from what was given, in a range of 2")
    if options.out:
        save_picture(options.out, {**versions, "truth": truth})
    return figures


if __name__ == "__main__":
    main()
