"""A small classifier of real data: its output is what is recognised, its last hidden layer gives features."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from diffspace._shapes import Float, Int, Tensor
from diffspace.checks import check_integer, check_number, check_seed
from diffspace.metrics.features import fingerprint, in_batches
from diffspace.tensors import plain_defaults

FEATURES = 64


@dataclass(frozen=True, eq=False)
class Classifier:
    """A trained classifier of data of shape (n, *shape), and the `FeatureExtractor` of its last hidden layer.

    The network is frozen, in evaluation mode; results lie on the CPU whatever the device of its weights.
    """

    network: nn.Sequential
    architecture: str
    shape: tuple[int, ...]
    num_classes: int
    seed: int

    @property
    def name(self) -> str:
        """Architecture, seed and a hash of the weights."""
        return f"{self.architecture} seed {self.seed} {fingerprint(self.network.state_dict().values())}"

    @property
    def dim(self) -> int:
        return FEATURES

    def __call__(self, x: Float[Tensor, "n *dims"]) -> Float[Tensor, "n dim"]:
        """Activations of the last hidden layer, (n, dim)."""
        return self._run(self.network[:-1], x)

    def predict(self, x: Float[Tensor, "n *dims"]) -> Int[Tensor, "n"]:
        """The likeliest class of each item, (n,)."""
        return self._run(self.network, x).argmax(1)

    def accuracy(self, x: Float[Tensor, "n *dims"], labels: Int[Tensor, "n"]) -> float:
        """The share of items whose likeliest class is their label."""
        return float((self.predict(x) == labels.cpu()).double().mean())

    def _run(self, network: nn.Module, x: Tensor) -> Tensor:
        if x.shape[1:] != self.shape:
            expected = ", ".join(["n", *map(str, self.shape)])
            raise ValueError(f"x: expected shape ({expected}) as in the classifier's training, got {tuple(x.shape)}")
        device = next(network.parameters()).device
        return in_batches(lambda batch: network(batch.float()), x, device=device)


def train_classifier(
    x: Float[Tensor, "n *dims"],
    labels: Int[Tensor, "n"],
    num_classes: int,
    *,
    seed: int = 0,
    epochs: int = 12,
    batch_size: int = 64,
    learning_rate: float = 4e-3,
) -> Classifier:
    """A classifier of real data, trained on the device of x.

    Images (channels, height, width) get a convolutional network and small random rotations, zooms and shifts, but no
    flips; other data a perceptron. AdamW on the cross-entropy with label smoothing 0.05, warm-up and cosine decay. All
    randomness comes from `seed`; no global random state is read or changed.

    Args:
        x: the data, (n, *dims).
        labels: the class of each item, from 0 to num_classes − 1.
        num_classes: the number of classes.
        seed: of the weights, the order of the data and the changes of images.
        epochs: passes over the data.
        batch_size: items in a step.
        learning_rate: the highest learning rate.
    """
    labels = labels.to(x.device)
    if len(x) == 0 or len(x) != len(labels):
        raise ValueError(f"labels: expected one for each of at least one item, got {len(labels)} for {len(x)} items")
    if not bool(torch.isfinite(x).all()):
        raise ValueError("x: has values that are not finite")
    check_integer("num_classes", num_classes, 2)
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise ValueError(f"labels: expected 0 to {num_classes - 1}, got {low} to {high}")
    check_integer("epochs", epochs, 1)
    check_integer("batch_size", batch_size, 1)
    check_number("learning_rate", learning_rate, "(0, inf)")
    check_seed("seed", seed)
    generator = torch.Generator().manual_seed(seed)
    image = x.ndim == 4
    with plain_defaults():
        network = (_convolutional if image else _perceptron)(x.float(), num_classes, generator).to(x.device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=0.01)
    steps = epochs * math.ceil(len(x) / batch_size)
    step = 0
    with torch.enable_grad():
        for _ in range(epochs):
            for batch in torch.split(
                torch.randperm(len(x), generator=generator, dtype=torch.int64, device="cpu").to(x.device), batch_size
            ):
                optimizer.param_groups[0]["lr"] = learning_rate * _ramp(step, steps)
                inputs = _jitter(x[batch].float(), generator) if image else x[batch].float()
                loss = functional.cross_entropy(network(inputs), labels[batch], label_smoothing=0.05)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                step += 1
    network.eval().requires_grad_(False)
    name = "conv" if image else "mlp"
    return Classifier(network, f"{name}-{FEATURES}", tuple(x.shape[1:]), num_classes, seed)


def _ramp(step: int, steps: int) -> float:
    """The share of the learning rate: up over the first twentieth of the steps, then down a cosine to 0."""
    warmup = steps / 20
    return min((step + 1) / (warmup + 1), 0.5 * (1 + math.cos(math.pi * step / steps)))


class _Standardise(nn.Module):
    """(x − mean) / std, with those of the training data for each channel (dimension 1)."""

    mean: Tensor
    std: Tensor

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        over = [0, *range(2, x.ndim)]
        std = x.std(over, correction=0, keepdim=True)
        self.register_buffer("mean", x.mean(over, keepdim=True))
        self.register_buffer("std", torch.where(std > 0, std, 1.0))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


def _convolutional(x: Tensor, num_classes: int, generator: torch.Generator) -> nn.Sequential:
    """Pairs of 3×3 convolutions, halving until at most 2×2 is left, for images of any size and channels."""
    channels, height, width = x.shape[1:]
    layers: list[nn.Module] = []
    out = 32
    with torch.device("meta"):
        while max(height, width) > 2 or not layers:
            for _ in range(2):
                layers += [nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.GroupNorm(8, out), nn.ReLU()]
                channels = out
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
            height, width, out = math.ceil(height / 2), math.ceil(width / 2), min(2 * out, 128)
        layers += [nn.Flatten(), nn.Linear(channels * height * width, FEATURES), nn.ReLU()]
        layers.append(nn.Linear(FEATURES, num_classes))
    return nn.Sequential(_Standardise(x), *_initialised(layers, generator))


def _perceptron(x: Tensor, num_classes: int, generator: torch.Generator) -> nn.Sequential:
    """Two hidden layers on the flattened data."""
    elements = math.prod(x.shape[1:])
    with torch.device("meta"):
        layers = [nn.Linear(elements, 256), nn.ReLU(), nn.Linear(256, FEATURES), nn.ReLU()]
        layers.append(nn.Linear(FEATURES, num_classes))
    return nn.Sequential(nn.Flatten(), _Standardise(x.flatten(1)), *_initialised(layers, generator))


def _initialised(layers: list[nn.Module], generator: torch.Generator) -> list[nn.Module]:
    """Layers built without memory, given weights of U(−1, 1)/√fan_in from `generator` and biases of 0."""
    for layer in layers:
        layer.to_empty(device="cpu")
        if isinstance(layer, nn.GroupNorm):
            layer.reset_parameters()
        elif isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return layers


def _jitter(x: Tensor, generator: torch.Generator) -> Tensor:
    """Each image turned by up to 10°, zoomed by up to 10 % and shifted by up to 6 % of its size."""
    turn, zoom, right, down = (
        torch.rand(4, len(x), generator=generator, dtype=torch.float32, device="cpu") * 2 - 1
    ).to(x.device)
    turn, zoom = turn * math.radians(10), 1 + 0.1 * zoom
    cos, sin = turn.cos() * zoom, turn.sin() * zoom
    # grid coordinates run from -1 to 1 along both axes: 0.12 is 6 % of the size, and a rotation needs the aspect ratio
    aspect = x.shape[2] / x.shape[3]
    rows = [torch.stack([cos, -sin * aspect, 0.12 * right], 1), torch.stack([sin / aspect, cos, 0.12 * down], 1)]
    grid = functional.affine_grid(torch.stack(rows, 1), list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, padding_mode="border", align_corners=False)
