"""Class labels and classifier-free guidance: handwritten digits of a given class.

    python examples/classes.py --out classes.png

In training, each label is dropped with probability 0.1, so that one network learns D(x; σ, label) and D(x; σ). A
classifier, trained on the same digits and correct on nearly all held-out ones, measures how many samples show the given
class; the spread of the samples within a class measures the variety that guidance costs.
"""

import torch

import diffspace as ds
from diffspace.averages import EMA, HalfLife
from diffspace.data import DataSet, batches, load_data
from diffspace.guidance import ClassifierFree
from diffspace.metrics import train_classifier
from diffspace.train import LearningRate, Trainer
from shared import read_options, save_digits


def train(data: DataSet, steps: int, batch: int = 64) -> ds.Preconditioned:
    """A class-conditional U-Net with the average of the weights, trained by diffspace's own trainer."""
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
        LearningRate(steps * batch, learning_rate=2e-3, ramp_images=20 * batch, decay_images=steps * batch),
        [EMA(denoiser, HalfLife(ramp_ratio=0.1))],
    )
    for step in trainer.run(batches(data, batch, seed=0)):
        if step.step % 200 == 0:
            print(f"step {step.step}: loss {float(step.loss):.3f}")
    return trainer.averages[0].module


def spread(x: torch.Tensor, labels: torch.Tensor) -> float:
    """The standard deviation of a pixel within its class, root mean square over pixels and classes."""
    return float(torch.stack([x[labels == k].var(0).mean() for k in labels.unique()]).mean().sqrt())


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Train, sample with several weights, print and return the share recognised and the spread for each weight."""
    options = read_options(arguments, steps=600, samples=200)
    training, held_out = load_data("digits").split()
    assert training.labels is not None
    assert held_out.labels is not None
    classifier = train_classifier(training.batch(), training.labels, 10)
    print(f"held-out digits: {classifier.accuracy(held_out.batch(), held_out.labels):.1%} recognised")
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
        save_digits(options.out, rows)
    return figures


if __name__ == "__main__":
    main()
