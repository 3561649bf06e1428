"""Augmentation in recipes and in training."""

import math
from functools import partial

import numpy as np
import pytest
import small_runs
import torch
import yaml
from small_runs import begin_and_stop, begin_and_train, same_weights

from diffspace.data.augmentation import Augmentation
from diffspace.loading import load
from diffspace.train import apply_overrides, make_recipe

CONFIG = {
    "data": {"source": "digits"},
    "network": {"kind": "ddpmpp", "model_channels": 8, "channel_mult": [1], "num_blocks": 1, "dropout": 0.0},
    "preconditioning": {"kind": "edm"},
    "noise": {"kind": "lognormal"},
    "images": 192,
    "batch_size": 32,
    "ramp_images": 0,
    "ema_halflife_images": 0,
}


def recipe_with(*overrides, config=CONFIG):
    return make_recipe(apply_overrides(config, overrides))


make_run = partial(small_runs.make_run, config=CONFIG)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ((), None),
        (("augment=edm",), Augmentation.edm(0.12)),
        (("augment=edm", "augment.probability=0.15"), Augmentation.edm(0.15)),
        (("augment.xflip=inf",), Augmentation(xflip=math.inf)),
        (("augment.xflip=1", "augment.probability=0.2"), Augmentation(0.2, xflip=1)),
        (("augment=null",), None),
    ],
)
def test_ways_to_say_it(overrides, expected):
    recipe = recipe_with(*overrides)
    assert recipe.augment == expected
    assert make_recipe(yaml.safe_load(recipe.to_yaml())) == recipe


def test_what_a_run_wrote_can_be_changed():
    written = yaml.safe_load(recipe_with("augment=edm").to_yaml())
    assert recipe_with("augment.probability=0.3", config=written).augment == Augmentation.edm(0.3)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("augment.xflop=1", r"^augment.xflop: .*did you mean 'xflip'"),
        ("augment=emd", r"^augment.kind: 'emd' is unknown; did you mean 'edm'"),
        ("augment=0.12", r"^augment: expected a kind or a mapping of options, got 0.12"),
        ("augment={}", r"^augment.*at least one transform"),
        ("augment.xflip=-1", r"^augment.xflip: "),
        ("augment.xflip=often", r"^augment.xflip: expected a number, got 'often'"),
    ],
)
def test_mistakes_are_named_on_one_line(override, message):
    with pytest.raises(ValueError, match=message) as caught:
        recipe_with(override)
    assert "\n" not in str(caught.value)


def test_data_that_are_no_images_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^augment: expected images .*, got samples of shape \(2,\)"):
        make_run(tmp_path / "run", "data.source=swissroll", "network.kind=mlp", "augment=edm")
    with pytest.raises(ValueError, match=r"^hue: requires images of 3 channels, got 1"):
        make_run(tmp_path / "run", "augment.hue=1")


def test_a_model_is_saved_with_its_labels_and_sampled_without(tmp_path):
    run = make_run(tmp_path / "run", "augment=edm")
    begin_and_train(run)
    model = load(tmp_path / "run")
    x, sigma = torch.randn(3, 1, 8, 8), torch.tensor(0.5)
    assert model.denoiser.network.augment_dim == 9
    labels = torch.tensor([0, 3, 7])
    without = model(x, sigma, {"labels": labels})
    zeros, ones = ({"labels": labels, "augment": augment} for augment in (torch.zeros(3, 9), torch.ones(3, 9)))
    torch.testing.assert_close(without, model(x, sigma, zeros), rtol=0, atol=0)
    assert not torch.equal(without, model(x, sigma, ones))


def test_the_denoiser_gets_the_labels_of_what_was_done(tmp_path):
    """The denoiser gets x after the augmentation, and the labels that go with it, beside those of the classes."""
    run = make_run(tmp_path / "run", "augment.xflip=1", "augment.yflip=1")
    x = torch.randn(32, 1, 8, 8)
    part = run.trainer.draw(x, torch.arange(32) % 10)
    assert set(part.cond) == {"labels", "augment"}
    assert len(part.cond["augment"].unique(dim=0)) == 4
    for image, result, (xflip, yflip) in zip(x, part.x, part.cond["augment"].tolist(), strict=True):
        image = image.flip(2) if xflip else image
        assert torch.equal(image.flip(1) if yflip else image, result)


def test_stopped_and_resumed_is_the_same_as_uninterrupted(tmp_path):
    whole = make_run(tmp_path / "whole", "augment=edm", "augment.probability=0.5")
    begin_and_train(whole)

    first = make_run(tmp_path / "parts", "augment=edm", "augment.probability=0.5")
    begin_and_stop(first, 2)
    second = make_run(tmp_path / "parts", "augment=edm", "augment.probability=0.5")
    second.resume()
    assert second.trainer.step == 2
    list(second.train())
    assert same_weights(whole, second)


def test_augmentation_depends_on_seed_step_and_position_and_leaves_the_noise_alone(tmp_path):
    x = torch.zeros(32, 1, 8, 8)

    def parts(*overrides):
        trainer = make_run(tmp_path, "augment=edm", *overrides).trainer
        made = []
        for trainer.step in range(3):
            made.append(trainer.draw(x, None))
        return made

    def labels(made):
        return [part.cond["augment"] for part in made]

    first, again, other = labels(parts()), labels(parts()), labels(parts("seed=1"))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert not torch.equal(first[0], first[1])
    stronger = parts("augment.probability=0.9", "augment.scale_std=0.5")
    assert all(torch.equal(a.noise, b.noise) for a, b in zip(parts(), stronger, strict=True))
    trainer = make_run(tmp_path, "augment=edm").trainer
    for begin, end in ((0, 10), (10, 32)):
        part = trainer.draw(x[begin:end], None, begin, 32)
        assert torch.equal(part.cond["augment"], first[0][begin:end])


def test_coloured_images_that_are_not_square(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).integers(0, 256, (40, 3, 6, 9), dtype=np.uint8))
    everything = ["augment=edm", *(f"augment.{n}=1" for n in ("translate_int", "brightness", "lumaflip", "hue"))]
    run = make_run(tmp_path / "run", f"data.source={tmp_path / 'x.npy'}", "data.layout=channels-first", *everything)
    assert math.isfinite(begin_and_train(run)[-1].loss)
    assert load(tmp_path / "run").denoiser.network.augment_dim == 15
