import json
import math
import shutil

import pytest
import torch
from reference_pickle import write_snapshot
from small_networks import make_denoiser

import diffspace as ds


def make_model(names=("cat", "dog")):
    torch.manual_seed(0)
    labels = {"label_dim": len(names), "label_dropout": 0.1 if names else 0.0}
    network = ds.networks.DDPMpp((3, 8, 8), model_channels=8, channel_mult=(1, 2), num_blocks=1, **labels)
    with torch.no_grad():
        for parameter in network.parameters():  # the output layer starts at zero, which would hide mistakes
            parameter.add_(0.05 * torch.randn_like(parameter))
    transform = ds.Transform((127.5,), (127.5,), 0, 255, "integer", "uint8")
    denoiser = ds.Preconditioned(network, ds.EDMPreconditioning(0.6))
    return ds.Model(denoiser, transform, names, {"data": "animals"}).eval()


def test_round_trip_is_exact(tmp_path):
    model = make_model()
    model.save(tmp_path / "m")
    loaded = ds.load(tmp_path / "m")
    x, cond = torch.randn(4, 3, 8, 8), {"labels": torch.tensor([0, 1, 1, 0])}
    assert torch.equal(loaded(x, torch.tensor(0.3), cond), model(x, torch.tensor(0.3), cond))
    assert loaded.class_names == ("cat", "dog")
    assert loaded.notes == {"data": "animals"}
    assert loaded.transform == model.transform
    assert (loaded.sigma_min, loaded.sigma_max) == (0.0, math.inf)
    assert loaded.denoiser.preconditioning == ds.EDMPreconditioning(0.6)
    assert not loaded.training


def test_a_model_takes_part_as_a_denoiser_and_decodes():
    model = make_model()
    samples = ds.sample(model, seeds=range(3), steps=ds.EDMSteps(3), cond={"labels": torch.tensor([0, 1, 0])})
    raw = model.decode(samples.x)
    assert raw.dtype == torch.uint8
    assert raw.shape == (3, 3, 8, 8)
    assert torch.equal(raw, (samples.x.float() * 127.5 + 127.5).clamp(0, 255).round().to(torch.uint8))


def test_a_model_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"shape: \(1, 8, 8\)"):
        ds.sample(make_model(), seeds=[0], shape=(1, 8, 8))


def test_missing_and_damaged_folders_are_named(tmp_path):
    with pytest.raises(ValueError, match="no folder"):
        ds.load(tmp_path / "none")
    with pytest.raises(ValueError, match=r"no config\.json"):
        ds.load(tmp_path)
    make_model().save(tmp_path)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"model\.safetensors: cannot be read as weights"):
        ds.load(tmp_path)
    weights.unlink()
    with pytest.raises(ValueError, match=r"no model\.safetensors"):
        ds.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "format"),
        ({"network": {"kind": "resnet"}}, r"network.kind: 'resnet'"),
        ({"transform": {"shft": [0.0]}}, "make no model: .*'shft'"),
        ({"transform": []}, "make no model"),
        ({"network": 3}, "make no model"),
        ({"class_names": 3}, "make no model"),
        ({"preconditioning": None}, "make no model"),
        ({"preconditioning": {"kind": "edm", "sigma_data": "x"}}, "make no model"),
        ({"network": {"kind": "mlp", "shape": [2], "width": 2_000_000}}, "the weights are not those of the network"),
        ({"preconditioning": {"kind": "edm", "sigma": 1}}, "preconditioning.sigma"),
    ],
)
def test_configs_that_are_not_understood(tmp_path, change, message):
    make_model().save(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        ds.load(tmp_path)


def test_weights_of_another_network_are_refused(tmp_path):
    make_model().save(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    config["network"]["model_channels"] = 16
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match="expected shape"):
        ds.load(tmp_path)


def test_names_that_the_hub_cannot_have_are_errors_without_a_network(monkeypatch):
    import huggingface_hub

    def refuse(*args, **kwargs):
        raise OSError("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(ValueError, match="is no folder, and the Hub failed: offline"):
        ds.load("nobody/nothing")
    with pytest.raises(ValueError, match="no folder"):
        ds.load("runs/digits/deeper")


def test_a_repository_of_the_hub_is_loaded_from_its_snapshot(tmp_path, monkeypatch):
    import huggingface_hub

    make_model().save(tmp_path / "snapshot")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, allow_patterns: str(tmp_path / "snapshot"))
    assert ds.load("somebody/animals").class_names == ("cat", "dog")


class FakeHub:
    """The Hub, as far as a model talks to it: repositories are folders."""

    def __init__(self, root):
        self.root, self.private = root, {}

    def create_repo(self, repo_id, *, private, exist_ok):
        assert exist_ok
        self.private[repo_id] = private

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        shutil.copytree(folder_path, self.root / repo_id)
        return f"https://huggingface.co/{repo_id}/tree/main/"

    def snapshot_download(self, repo_id, allow_patterns):
        return str(self.root / repo_id)


def test_a_model_comes_back_from_the_hub_with_a_card(tmp_path, monkeypatch):
    import huggingface_hub

    hub = FakeHub(tmp_path)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    model = make_model()
    assert model.push("somebody/animals", private=True) == "https://huggingface.co/somebody/animals/tree/main/"
    assert hub.private == {"somebody/animals": True}
    files = {path.name for path in (tmp_path / "somebody/animals").iterdir()}
    assert files == {"config.json", "model.safetensors", "README.md"}
    card = (tmp_path / "somebody/animals/README.md").read_text()
    assert card.startswith("---\nlibrary_name: diffspace\n")
    assert "diffspace sample somebody/animals" in card
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(ds.load("somebody/animals")(x, torch.tensor(0.3)), model(x, torch.tensor(0.3)))


def test_what_the_hub_refuses_is_one_line(monkeypatch):
    import huggingface_hub

    class Offline:
        def create_repo(self, *args, **kwargs):
            raise OSError("no connection\nand more")

    monkeypatch.setattr(huggingface_hub, "HfApi", Offline)
    with pytest.raises(ValueError, match=r"^repo_id: the upload to me/model failed: no connection$"):
        make_model().push("me/model")


def test_a_foreign_file_is_loaded_as_a_model(tmp_path):
    denoiser = make_denoiser()
    model = ds.load(write_snapshot(tmp_path / "edm.pkl", denoiser))
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(model(x, torch.tensor(0.3)), denoiser(x, torch.tensor(0.3)))
    model.save(tmp_path / "folder")
    again = ds.load(tmp_path / "folder")
    assert torch.equal(model(x, torch.tensor(0.3)), again(x, torch.tensor(0.3)))
    assert again.notes == model.notes
    with pytest.raises(ValueError, match="no file"):
        ds.load(tmp_path / "none.pkl")
