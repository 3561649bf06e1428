"""An image as condition: handwritten digits from 4×4 pixels, beside nearest and bicubic interpolation.

    python examples/super_resolution.py --out super_resolution.png

The condition "image" of the network is the small image, enlarged. Its samples are digits with about that small image; D
at a large σ is their mean, E[x₀ | small], which minimises the squared error. On held-out digits the example prints the
PSNR, and how far the samples, made small again, differ from the given images.
"""

import math

import torch
from torch.nn.functional import avg_pool2d, interpolate

import diffspace as ds
from diffspace.data import load_data
from diffspace.protocols import Cond
from shared import read_options, save_digits, train

LARGE = 10.0  # noise of this level hides the digit, and training still covers it


def small(x: torch.Tensor) -> torch.Tensor:
    """Digits of 8×8 as 4×4 means."""
    return avg_pool2d(x, 2)


def enlarged(y: torch.Tensor) -> torch.Tensor:
    """The nearest-neighbour interpolation to 8×8, which is also the condition."""
    return interpolate(y, scale_factor=2, mode="nearest")


def psnr(x: torch.Tensor, truth: torch.Tensor) -> float:
    """10·log₁₀(range²/mean squared error) in dB, of values in [−1, 1]."""
    return 10 * math.log10(4 / float((x - truth).double().square().mean()))


def train_enlarging(x: torch.Tensor, steps: int, batch: int = 64) -> ds.Preconditioned:
    """A U-Net conditioned on the small versions of the digits x."""
    torch.manual_seed(0)
    network = ds.networks.DDPMpp(
        (1, 8, 8), image_channels=1, model_channels=16, channel_mult=(1, 2), num_blocks=1, dropout=0.0
    )
    denoiser = ds.Preconditioned(network, ds.EDMPreconditioning(sigma_data=float(x.std())))

    def draw() -> tuple[torch.Tensor, Cond]:
        x0 = x[torch.randint(len(x), (batch,))]
        return x0, {"image": enlarged(small(x0))}

    return train(denoiser, ds.LogNormal(P_mean=-0.4, P_std=1.6), draw, steps)


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Train, enlarge held-out digits, print and return the figures."""
    options = read_options(arguments, steps=800, samples=359)
    training, held_out = load_data("digits").split()
    denoiser = train_enlarging(training.batch(), options.steps)

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
    print("PSNR on held-out digits:", ", ".join(f"{name} {figures[name]:.2f} dB" for name in versions))
    print(f"samples made small again: {figures['consistency']:.4f} from the given images, in a range of 2")
    if options.out:
        save_digits(options.out, {**versions, "truth": truth}, count=12)
    return figures


if __name__ == "__main__":
    main()
