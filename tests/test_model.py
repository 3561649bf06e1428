import json
import math

import pytest
import torch

import edmkit as ek


def make_model(names=("cat", "dog")):
    torch.manual_seed(0)
    network = ek.networks.DDPMpp((3, 8, 8), label_dim=len(names), model_channels=8, channel_mult=(1, 2), num_blocks=1)
    with torch.no_grad():
        for parameter in network.parameters():  # the output layer starts at zero, which would hide mistakes
            parameter.add_(0.05 * torch.randn_like(parameter))
    transform = ek.Transform((127.5,), (127.5,), 0, 255, "integer", "uint8")
    denoiser = ek.Preconditioned(network, ek.EDMPreconditioning(0.6))
    return ek.Model(denoiser, transform, names, {"data": "animals"}).eval()


def test_round_trip_is_exact(tmp_path):
    model = make_model()
    model.save(tmp_path / "m")
    loaded = ek.load(tmp_path / "m")
    x, cond = torch.randn(4, 3, 8, 8), {"labels": torch.tensor([0, 1, 1, 0])}
    assert torch.equal(loaded(x, torch.tensor(0.3), cond), model(x, torch.tensor(0.3), cond))
    assert loaded.class_names == ("cat", "dog")
    assert loaded.notes == {"data": "animals"}
    assert loaded.transform == model.transform
    assert (loaded.sigma_min, loaded.sigma_max) == (0.0, math.inf)
    assert loaded.denoiser.preconditioning == ek.EDMPreconditioning(0.6)
    assert not loaded.training


def test_a_model_takes_part_as_a_denoiser_and_decodes():
    model = make_model()
    samples = ek.sample(model, seeds=range(3), steps=ek.EDMSteps(3), cond={"labels": torch.tensor([0, 1, 0])})
    raw = model.decode(samples.x)
    assert raw.dtype == torch.uint8
    assert raw.shape == (3, 3, 8, 8)
    assert torch.equal(raw, (samples.x.float() * 127.5 + 127.5).clamp(0, 255).round().to(torch.uint8))


def test_a_model_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"shape: \(1, 8, 8\)"):
        ek.sample(make_model(), seeds=[0], shape=(1, 8, 8))


def test_missing_and_damaged_folders_are_named(tmp_path):
    with pytest.raises(ValueError, match="no folder"):
        ek.load(tmp_path / "none")
    with pytest.raises(ValueError, match=r"no config\.json"):
        ek.load(tmp_path)
    make_model().save(tmp_path)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="damaged"):
        ek.load(tmp_path)
    weights.unlink()
    with pytest.raises(ValueError, match=r"no model\.safetensors"):
        ek.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "format"),
        ({"network": {"kind": "resnet"}}, r"network.kind: 'resnet'"),
        ({"transform": {"shft": [0.0]}}, "transform"),
        ({"preconditioning": {"kind": "edm", "sigma": 1}}, "preconditioning.sigma"),
    ],
)
def test_configs_that_are_not_understood(tmp_path, change, message):
    make_model().save(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        ek.load(tmp_path)


def test_weights_of_another_network_are_refused(tmp_path):
    make_model().save(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    config["network"]["model_channels"] = 16
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match="does not fit"):
        ek.load(tmp_path)


def test_names_that_the_hub_cannot_have_are_errors_without_a_network(monkeypatch):
    import huggingface_hub

    def refuse(*args, **kwargs):
        raise OSError("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(ValueError, match="neither a folder nor a repository"):
        ek.load("nobody/nothing")
    with pytest.raises(ValueError, match="no folder"):
        ek.load("runs/digits/deeper")


def test_a_repository_of_the_hub_is_loaded_from_its_snapshot(tmp_path, monkeypatch):
    import huggingface_hub

    make_model().save(tmp_path / "snapshot")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, allow_patterns: str(tmp_path / "snapshot"))
    assert ek.load("somebody/animals").class_names == ("cat", "dog")
