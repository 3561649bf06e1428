import json

import pytest
import torch

import edmkit as ek
from edmkit.data import batches, load_data
from edmkit.loading import load
from edmkit.train import Run, apply_overrides, make_recipe

CONFIG = {
    "data": {"source": "eight-gaussians", "n": 500},
    "network": {"kind": "mlp", "width": 16},
    "preconditioning": {"kind": "edm", "sigma_data": 0.7},
    "noise": {"kind": "lognormal"},
    "images": 1000,
    "batch_size": 100,
    "ramp_images": 0,
    "ema_halflife_images": 0,
}


def make_run(folder, *overrides, preview=None):
    recipe = make_recipe(apply_overrides(CONFIG, overrides))
    training, _ = recipe.data.load()
    return Run(recipe, training, folder, device=torch.device("cpu"), preview=preview)


def test_a_run_leaves_a_model_that_loads(tmp_path):
    run = make_run(tmp_path / "run")
    run.begin()
    reports = list(run.train())
    assert reports[-1].images == 1000
    model = load(tmp_path / "run")
    x = torch.randn(5, 2)
    torch.testing.assert_close(model(x, torch.tensor(0.3)), run.model()(x, torch.tensor(0.3)))
    assert model.notes["images"] == 1000
    logged = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert logged[-1]["images"] == 1000
    assert ek.load is load


def test_an_existing_folder_is_left_alone(tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(ValueError, match="exists already"):
        make_run(tmp_path).begin()
    assert [p.name for p in tmp_path.iterdir()] == ["precious.txt"]


def test_stopped_in_the_middle_and_resumed_is_the_same_as_uninterrupted(tmp_path):
    whole = make_run(tmp_path / "whole")
    whole.begin()
    list(whole.train())

    first = make_run(tmp_path / "parts")
    first.begin()
    first.trainer.run = _stopping_after(first, 4)
    list(first.train())
    assert first.trainer.step == 4
    second = make_run(tmp_path / "parts")
    second.resume()
    list(second.train())
    assert second.trainer.images == 1000
    for name, value in whole.model().state_dict().items():
        assert torch.equal(value, second.model().state_dict()[name]), name


def _stopping_after(run, steps):
    original = run.trainer.run

    def stepping(batches):
        for progress in original(batches):
            if progress.step == steps:
                run.stop()
            yield progress

    return stepping


def test_an_exception_in_the_consumer_saves_first(tmp_path):
    run = make_run(tmp_path / "run")
    run.begin()

    def interrupted():
        for _ in run.train():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (tmp_path / "run" / "checkpoint.pt").exists()
    load(tmp_path / "run")


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(tmp_path):
    run = make_run(tmp_path / "run")
    run.begin()
    list(run.train())
    before = (tmp_path / "run" / "model.safetensors").read_bytes()

    again = make_run(tmp_path / "run", "images=2000")
    again.resume()
    with torch.no_grad():
        next(again.trainer.denoiser.parameters()).fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="learning_rate"):
        list(again.train())
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before


def test_previews_come_at_their_interval(tmp_path):
    drawn = []
    run = make_run(tmp_path / "run", "preview_images=300", preview=lambda model, path: drawn.append(path.name))
    run.begin()
    list(run.train())
    assert drawn == ["000000300.png", "000000600.png", "000000900.png"]
    with pytest.raises(ValueError, match="preview_images"):
        make_run(tmp_path / "other", "preview_images=300")


def test_a_damaged_checkpoint_is_named(tmp_path):
    run = make_run(tmp_path / "run")
    run.begin()
    (tmp_path / "run" / "checkpoint.pt").write_bytes(b"PK not a checkpoint")
    with pytest.raises(ValueError, match="damaged"):
        run.resume()


def test_data_without_classes_train_an_unconditional_model(tmp_path):
    data = load_data("digits").subset(torch.arange(64))
    config = {**CONFIG, "data": {"source": "digits"}, "images": 64, "batch_size": 32, "conditional": False}
    config["network"] = {"kind": "ddpmpp", "model_channels": 8, "channel_mult": [1], "num_blocks": 1}
    run = Run(make_recipe(config), data, tmp_path / "run", device=torch.device("cpu"))
    run.begin()
    list(run.train())
    assert load(tmp_path / "run").class_names == ()


def test_a_run_begins_with_the_weights_of_a_model(tmp_path):
    first, second = make_run(tmp_path / "first"), make_run(tmp_path / "second", "seed=5")
    assert second.transfer(first.trainer.denoiser.network) == ()
    for module in (second.trainer.denoiser, second.trainer.ema.module):
        for a, b in zip(module.parameters(), first.trainer.denoiser.parameters(), strict=True):
            assert torch.equal(a, b)
    plain = ek.networks.MLP((2,), width=16)
    assert second.transfer(plain) == ("map_label.weight", "map_label.bias")
    second.trainer.denoiser.network = plain
    assert second.transfer(first.trainer.denoiser.network) == ()  # what is left over there does not matter
    with pytest.raises(ValueError, match=r"transfer: \S+ has shape \(\d.* there and"):
        second.transfer(ek.networks.MLP((2,), width=32))
    with pytest.raises(ValueError, match="transfer: a Linear has no weight of a MLP"):
        second.transfer(torch.nn.Linear(2, 2))


IMAGES = {
    "data": {"source": "digits"},
    "network": {"kind": "ddpmpp", "model_channels": 64, "channel_mult": [1], "num_blocks": 1, "dropout": 0},
    "preconditioning": {"kind": "edm"},
    "noise": {"kind": "lognormal"},
    "images": 64,
    "batch_size": 16,
    "ramp_images": 0,
}


def losses_with(folder, *overrides):
    recipe = make_recipe(apply_overrides(IMAGES, overrides))
    training, _ = recipe.data.load()
    run = Run(recipe, training, folder, device=torch.device("cpu"))
    losses = [float(p.loss) for p in run.trainer.run(batches(training, 16, seed=0))]
    assert all(p.dtype == torch.float32 for p in run.trainer.denoiser.parameters())
    return torch.tensor(losses)


def test_precision_and_algorithm_change_the_losses_by_their_rounding(tmp_path):
    exact = losses_with(tmp_path)
    for option, most in (("precision=bfloat16", 2e-2), ("winograd=true", 1e-4)):
        error = ((losses_with(tmp_path, option) - exact) / exact).abs().max()
        assert error < most, option
        assert option == "winograd=true" or error > 1e-6


def test_winograd_without_effect_is_an_error(tmp_path):
    for options in (["precision=bfloat16"], ["network.model_channels=16"]):
        with pytest.raises(ValueError, match="winograd: has no effect here"):
            losses_with(tmp_path, "winograd=true", *options)


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    run = make_run(tmp_path / "run", "images=1000")
    run.begin()
    run.save()
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    whole = run.trainer.run

    def breaking(data):
        for progress in whole(data):
            if progress.step == 3:
                next(run.trainer.denoiser.parameters()).data.fill_(float("nan"))
            if progress.step == 4:
                raise KeyboardInterrupt
            yield progress

    run.trainer.run = breaking
    with pytest.raises(KeyboardInterrupt):
        list(run.train())
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before


def test_a_checkpoint_of_another_network_is_refused_on_one_line(tmp_path):
    run = make_run(tmp_path / "run")
    run.begin()
    run.save()
    with pytest.raises(ValueError, match=r"resume: .*checkpoint\.pt does not fit recipe\.yaml") as caught:
        make_run(tmp_path / "run", "network.width=32").resume()
    assert "\n" not in str(caught.value)
