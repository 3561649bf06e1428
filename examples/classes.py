"""Class labels and classifier-free guidance: handwritten digits that one can ask for.

    python examples/classes.py --out classes.png

In training, each label is dropped with probability 0.1, so that one network learns D(x; σ, label) and D(x; σ). A
classifier that was trained on the same digits, and is right on nearly all of those held out, says how many of the
samples show what was asked for; the spread of the samples within a class says what guidance costs.
"""

import argparse

import torch

import diffspace as ds
from diffspace.averages import EMA, HalfLife
from diffspace.data import DataSet, batches, load_data
from diffspace.guidance import ClassifierFree
from diffspace.metrics import train_classifier
from diffspace.train import Schedule, Trainer


def train(data: DataSet, steps: int, batch: int = 64) -> ds.Preconditioned:
    """The average of the weights of a U-Net that is told the class of what it sees."""
    torch.manual_seed(0)
    network = ds.networks.DDPMpp(
        data.sample_shape,
        label_dim=len(data.class_names),
        label_dropout=0.1,
        model_channels=16,
        channel_mult=(1, 2),
        num_blocks=1,
        dropout=0.0,
    )
    denoiser = ds.Preconditioned(network, ds.EDMPreconditioning(sigma_data=float(data.batch().std())))
    trainer = Trainer(
        denoiser,
        ds.DenoisingLoss(ds.LogNormal(P_mean=-0.6, P_std=1.2), reduction="mean"),
        torch.optim.Adam(denoiser.parameters(), fused=True),
        Schedule(steps * batch, learning_rate=2e-3, ramp_images=20 * batch, decay_images=steps * batch),
        [EMA(denoiser, HalfLife(ramp_ratio=0.1))],
    )
    for progress in trainer.run(batches(data, batch, seed=0)):
        if progress.step % 200 == 0:
            print(f"step {progress.step}: loss {float(progress.loss):.3f}")
    return trainer.averages[0].module


def spread(x: torch.Tensor, labels: torch.Tensor) -> float:
    """The standard deviation of a pixel within its class, root mean square over pixels and classes."""
    return float(torch.stack([x[labels == k].var(0).mean() for k in labels.unique()]).mean().sqrt())


def save_picture(path: str, rows: dict[str, torch.Tensor]) -> None:
    """A row of digits for each name."""
    from matplotlib.figure import Figure

    figure = Figure((9, 0.6 * len(rows)), layout="constrained")
    for ax, (name, x) in zip(figure.subplots(len(rows), 1), rows.items(), strict=True):
        tiles = torch.nn.functional.pad(x[:, 0], (0, 1, 0, 1), value=-1.0)
        ax.imshow(torch.cat(list(tiles), dim=1).clamp(-1, 1).numpy(), cmap="gray_r", vmin=-1, vmax=1)
        ax.set(xticks=[], yticks=[])
        ax.set_ylabel(name, rotation=0, ha="right", va="center")
        ax.spines[:].set_visible(False)
    figure.savefig(path, dpi=110)


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Train, draw with several weights, print and return the share recognised and the spread of each."""
    parser = argparse.ArgumentParser(description="digits that one can ask for")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--out", help="where the picture goes")
    options = parser.parse_args(arguments)
    training, held_out = load_data("digits").split()
    assert training.labels is not None
    assert held_out.labels is not None
    classifier = train_classifier(training.batch(), training.labels, 10)
    print(f"digits held out: {classifier.accuracy(held_out.batch(), held_out.labels):.1%} recognised")
    denoiser = train(training, options.steps)

    labels = torch.arange(options.samples) % 10
    figures = {"spread of data": spread(training.batch(), training.labels)}
    rows = {"data": torch.cat([training.batch()[training.labels == k][:2] for k in range(10)])}
    for weight in (0.0, 1.0, 2.0, 4.0):
        guided = ClassifierFree(denoiser, weight)
        x = ds.sample(guided, seeds=range(len(labels)), cond={"labels": labels}, steps=ds.EDMSteps(12)).x
        figures[f"recognised at {weight:g}"] = classifier.accuracy(x, labels)
        figures[f"spread at {weight:g}"] = spread(x, labels)
        rows[f"w = {weight:g}"] = torch.cat([x[labels == k][:2] for k in range(10)])
        print(
            f"w = {weight:g}: {figures[f'recognised at {weight:g}']:.1%} recognised, spread within a class "
            f"{figures[f'spread at {weight:g}']:.3f} (data {figures['spread of data']:.3f})"
        )
    if options.out:
        save_picture(options.out, rows)
    return figures


if __name__ == "__main__":
    main()
