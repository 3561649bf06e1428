"""The recipes of the paper: what its Table 7 says, and that each of them trains."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from diffspace.config import to_config
from diffspace.data import Augmentation
from diffspace.networks import paper_network
from diffspace.train import FROM_DATA, Processes, Run, apply_overrides, make_recipe, read_recipe

FOLDER = Path(__file__).parents[2] / "recipes"

# architecture, preconditioning, noise, classes, channels per level, batch, learning rate, dropout, augmentation,
# millions of images, half-life of the average in millions of images
TABLE = {
    "cifar10-ddpmpp": ("ddpmpp", "edm", "lognormal", False, (2, 2, 2), 512, 10e-4, 0.13, 0.12, 200, 0.5),
    "cifar10-ddpmpp-cond": ("ddpmpp", "edm", "lognormal", True, (2, 2, 2), 512, 10e-4, 0.13, 0.12, 200, 0.5),
    "cifar10-ncsnpp": ("ncsnpp", "edm", "lognormal", False, (2, 2, 2), 512, 10e-4, 0.13, 0.12, 200, 0.5),
    "cifar10-ncsnpp-cond": ("ncsnpp", "edm", "lognormal", True, (2, 2, 2), 512, 10e-4, 0.13, 0.12, 200, 0.5),
    "cifar10-ddpmpp-vp": ("ddpmpp", "vp", "vp", False, (2, 2, 2), 512, 10e-4, 0.13, 0.12, 200, 0.5),
    "cifar10-ncsnpp-ve": ("ncsnpp", "ve", "loguniform", False, (2, 2, 2), 512, 10e-4, 0.13, 0.12, 200, 0.5),
    "ffhq64-ddpmpp": ("ddpmpp", "edm", "lognormal", False, (1, 2, 2, 2), 256, 2e-4, 0.05, 0.15, 200, 0.5),
    "ffhq64-ncsnpp": ("ncsnpp", "edm", "lognormal", False, (1, 2, 2, 2), 256, 2e-4, 0.05, 0.15, 200, 0.5),
    "afhqv2-64-ddpmpp": ("ddpmpp", "edm", "lognormal", False, (1, 2, 2, 2), 256, 2e-4, 0.25, 0.15, 200, 0.5),
    "afhqv2-64-ncsnpp": ("ncsnpp", "edm", "lognormal", False, (1, 2, 2, 2), 256, 2e-4, 0.25, 0.15, 200, 0.5),
    "imagenet64-adm": ("adm", "edm", "lognormal", True, (1, 2, 3, 4), 4096, 1e-4, 0.10, None, 2500, 50),
}
HALF = {"imagenet64-adm"}
WIDTHS = {"ddpmpp": (128, 4), "ncsnpp": (128, 4), "adm": (192, 3)}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Random images of two classes, as an .npz file for each size."""
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for side in (32, 64):
        images = random.integers(0, 256, (12, side, side, 3), dtype=np.uint8)
        np.savez(folder / f"{side}.npz", x=images, labels=np.arange(12) % 2)
    return folder


def recipe_of(name, data, *overrides):
    side = 32 if "cifar" in name else 64
    config = read_recipe(FOLDER / f"{name}.yaml")
    return make_recipe(apply_overrides(config, [f"data.source={data / f'{side}.npz'}", *overrides]))


def test_every_recipe_is_in_the_table():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == {*TABLE, "mnist-5k"}


def test_the_recipe_of_mnist_is_for_two_cores():
    recipe = make_recipe(read_recipe(FOLDER / "mnist-5k.yaml"))
    assert recipe.data.source == "mnist-5k"
    assert recipe.network["model_channels"] == 32
    assert recipe.images <= 100_000


@pytest.mark.parametrize("name", TABLE)
def test_hyperparameters_are_the_paper_s(name, data):
    recipe = recipe_of(name, data)
    kind, preconditioning, noise, classes, mult, batch, rate, dropout, augment, millions, halflife = TABLE[name]
    assert recipe.network["kind"] == kind
    assert (recipe.network["model_channels"], recipe.network["num_blocks"]) == WIDTHS[kind]
    assert recipe.network["channel_mult"] == list(mult)
    assert recipe.network["dropout"] == dropout
    described = to_config("preconditioning", recipe.preconditioning)
    assert described["kind"] == preconditioning
    assert to_config("noise", recipe.noise)["kind"] == noise
    assert recipe.conditional is classes
    assert recipe.batch_size == batch
    assert recipe.learning_rate == rate
    assert recipe.images == millions * 10**6
    assert recipe.ema_halflife_images == halflife * 10**6
    assert recipe.augment == (None if augment is None else Augmentation.edm(augment))
    # the same in all of them
    assert recipe.betas == (0.9, 0.999)
    assert recipe.eps == 1e-8
    assert recipe.ramp_images == 10 * 10**6
    assert recipe.decay_images == 0
    assert recipe.ema_ramp_ratio == 0.05
    assert recipe.reduction == "sum"
    assert recipe.precision == ("bfloat16" if name in HALF else "float32")
    parameters = {"edm": ("sigma_data", 0.5), "vp": ("M", 1000), "ve": ("sigma_max", 100)}
    option, value = parameters[preconditioning]
    assert described[option] == value
    if noise == "lognormal":
        assert (recipe.noise.P_mean, recipe.noise.P_std) == (-1.2, 1.2)


@pytest.mark.parametrize("name", TABLE)
def test_networks_are_those_of_the_same_name(name, data):
    known = name.removesuffix("-vp").removesuffix("-ve")
    with torch.device("meta"):
        named = to_config("network", paper_network(known))
    recipe = recipe_of(name, data)
    assert recipe.network == {key: value for key, value in named.items() if key not in FROM_DATA}
    assert named["augment_dim"] == (0 if recipe.augment is None else recipe.augment.label_dim)


@pytest.mark.parametrize("name", TABLE)
def test_a_few_steps(name, data, tmp_path):
    narrow = ["network.model_channels=16", "network.num_blocks=1", "batch_size=4", "images=12", "ramp_images=0"]
    if "imagenet" in name:
        narrow.append("network.channels_per_head=16")
    recipe = recipe_of(name, data, *narrow)
    training, _ = recipe.data.load()
    run = Run(recipe, training, tmp_path / "run", processes=Processes(torch.device("cpu")))
    before = [p.clone() for p in run.trainer.denoiser.parameters()]
    losses = [float(progress.loss) for progress in run.trainer.run(_batches(training, recipe))]
    assert len(losses) == 3
    assert all(math.isfinite(loss) for loss in losses)
    moved = [not torch.equal(a, b) for a, b in zip(before, run.trainer.denoiser.parameters(), strict=True)]
    assert sum(moved) > len(moved) / 2
    network = run.trainer.denoiser.network
    assert network.config["augment_dim"] == (0 if recipe.augment is None else 9)
    assert network.config["label_dim"] == (2 if recipe.conditional else 0)


def _batches(data, recipe):
    for k in range(4):
        numbers = torch.arange(4 * k, 4 * k + 4) % len(data)
        yield data.batch(numbers), data.labels[numbers] if recipe.conditional else None


def test_missing_data_are_named():
    with pytest.raises(ValueError, match=r"^data: 'datasets/cifar10-32x32.zip' does not exist"):
        make_recipe(read_recipe(FOLDER / "cifar10-ddpmpp.yaml"))
