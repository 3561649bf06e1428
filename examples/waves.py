"""One-dimensional signals: a U-Net learns sine waves of five frequencies, each with any phase.

    python examples/waves.py --out waves.png

A wave is cos(2π·(k·t/64 + φ)), t = 0 … 63, with k = 2 … 6 equally likely and φ uniform. All of its power is in one bin
of the spectrum: its purity is 1. A Gaussian process with the same covariance has the same spectrum but a lower purity.
The exact denoiser of a fine grid of phases gives the attainable error.
"""

import math

import torch

import diffspace as ds
from shared import print_errors, read_options, train

LENGTH = 64
FREQUENCIES = (2, 3, 4, 5, 6)


def waves(frequencies: torch.Tensor, phases: torch.Tensor) -> torch.Tensor:
    """Waves of shape (n, 1, 64), of frequencies and phases of shape (n,)."""
    turns = frequencies[:, None, None] * torch.arange(LENGTH) / LENGTH + phases[:, None, None]
    return torch.cos(2 * math.pi * turns)


def draw(n: int, generator: torch.Generator | None = None) -> torch.Tensor:
    """n random waves."""
    chosen = torch.randint(len(FREQUENCIES), (n,), generator=generator)
    return waves(torch.tensor(FREQUENCIES)[chosen], torch.rand(n, generator=generator))


def exact_denoiser(phases: int = 256) -> ds.oracles.FiniteData:
    """The denoiser of a grid of phases; for σ much larger than their distance it is that of all phases."""
    grid = torch.cartesian_prod(torch.tensor(FREQUENCIES, dtype=torch.float32), torch.arange(phases) / phases)
    return ds.oracles.FiniteData(waves(grid[:, 0], grid[:, 1]))


def power(x: torch.Tensor) -> torch.Tensor:
    """The share of each frequency 0 … 32 in the power of each signal, (n, 33)."""
    squares = torch.fft.rfft(x[:, 0].double()).abs().square()
    return squares / squares.sum(1, keepdim=True)


def train_waves(steps: int, batch: int = 64) -> ds.Preconditioned:
    """A U-Net in one dimension, trained on steps·batch waves."""
    torch.manual_seed(0)
    network = ds.networks.DDPMpp((1, LENGTH), model_channels=16, channel_mult=(1, 2, 2), num_blocks=1, dropout=0.0)
    denoiser = ds.Preconditioned(network, ds.EDMPreconditioning(sigma_data=math.sqrt(0.5)))
    return train(denoiser, ds.LogNormal(P_mean=-0.4, P_std=1.2), lambda: (draw(batch), None), steps)


def save_picture(path: str, data: torch.Tensor, samples: torch.Tensor, gaussian: torch.Tensor) -> None:
    """Signals, their mean spectrum, and a histogram of their purity."""
    from matplotlib.figure import Figure

    figure = Figure((10, 3.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(2, 1, 1))
    for k in range(4):
        for x, color, shift in ((data, "0.5", 0), (samples, "C0", -10.4)):
            left.plot(x[k, 0] - 2.6 * k + shift, color=color)
    left.set(title="data (grey) and samples (blue)", yticks=[], xlabel="t")
    for x, color, name in ((data, "0.5", "data"), (samples, "C0", "samples"), (gaussian, "C1", "Gaussian process")):
        middle.plot(power(x).mean(0)[:10], "o-", color=color)
        right.hist(power(x).amax(1), bins=40, range=(0, 1), density=True, color=color, alpha=0.6, label=name)
    middle.set(title="share of power", xlabel="frequency")
    right.set(title="share in the strongest bin", yscale="log")
    right.legend(loc="upper left", fontsize=8)
    figure.savefig(path, dpi=110)


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Train, draw, print and return the figures."""
    options = read_options(arguments, steps=900, samples=500)
    denoiser = train_waves(options.steps)

    held_out = draw(options.samples, torch.Generator().manual_seed(1))
    sigmas = torch.tensor([0.2, 0.5, 1.0, 2.0, 5.0])
    found = ds.loss_by_sigma(denoiser, held_out, sigmas=sigmas, oracle=exact_denoiser())
    assert found.attainable is not None  # an oracle was given
    print_errors(found)

    samples = ds.sample(denoiser, seeds=range(options.samples), steps=ds.EDMSteps(18)).x
    covariance = torch.zeros(LENGTH)
    for k in FREQUENCIES:
        covariance += torch.cos(2 * math.pi * k * torch.arange(LENGTH) / LENGTH) / (2 * len(FREQUENCIES))
    places = torch.arange(LENGTH)
    gaussian = ds.oracles.Gaussian(torch.zeros(1, LENGTH), covariance[(places[:, None] - places) % LENGTH]).sample(
        options.samples, generator=torch.Generator().manual_seed(2)
    )
    strongest = power(samples).argmax(1)
    shares = [float((strongest == k).double().mean()) for k in FREQUENCIES]
    purity = {name: float(power(x).amax(1).mean()) for name, x in (("samples", samples), ("gaussian", gaussian))}
    print("frequency:", *FREQUENCIES, "— share of the samples:", *(f"{s:.3f}" for s in shares), "(0.2 each)")
    print(f"purity: samples {purity['samples']:.3f}, data 1, Gaussian process {purity['gaussian']:.3f}")
    power_of_samples = float(samples.square().mean())
    print(f"mean square: samples {power_of_samples:.3f}, data 0.5")
    if options.out:
        save_picture(options.out, held_out, samples, gaussian)
    return {
        "error at 1": float(found.mse[2]),
        "attainable at 1": float(found.attainable[2]),
        "purity": purity["samples"],
        "purity of a Gaussian process": purity["gaussian"],
        "worst share": max(abs(s - 0.2) for s in shares),
        "mean square": power_of_samples,
    }


if __name__ == "__main__":
    main()
