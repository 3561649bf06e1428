import json
import math
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import torch
from reference_pickle import write_snapshot
from small_networks import make_denoiser

import diffspace as ds
from diffspace.cli.app import main

LABELS = {"labels": torch.tensor([0, 1])}


def make_model(names=("cat", "dog"), counts=()):
    torch.manual_seed(0)
    labels = {"label_dim": len(names), "label_dropout": 0.1 if names else 0.0}
    network = ds.networks.DDPMpp((3, 8, 8), model_channels=8, channel_mult=(1, 2), num_blocks=1, **labels)
    with torch.no_grad():
        for parameter in network.parameters():  # the output layer starts at zero, which would hide mistakes
            parameter.add_(0.05 * torch.randn_like(parameter))
    transform = ds.Transform((127.5,), (127.5,), 0, 255, "integer", "uint8")
    denoiser = ds.Preconditioned(network, ds.EDMPreconditioning(0.6))
    return ds.Model(denoiser, transform, names, {"data": "animals"}, counts).eval()


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


def test_classes_without_data_are_neither_drawn_nor_evaluated(tmp_path):
    make_model(("a", "b", "c", "d"), (6, 0, 0, 3)).save(tmp_path)
    model = ds.load(tmp_path)
    assert model.class_counts == (6, 0, 0, 3)
    assert model.sampled_classes == (0, 3)
    counts = torch.bincount(model.random_labels(range(900)), minlength=4).tolist()
    assert counts[1:3] == [0, 0]
    assert abs(counts[0] - 450) < 4 * 15  # four standard deviations
    proportional = torch.bincount(model.random_labels(range(900), proportional=True), minlength=4).tolist()
    assert proportional[1:3] == [0, 0]
    assert abs(proportional[0] - 600) < 4 * 14.2
    x, sigma = torch.zeros(2, 3, 8, 8), torch.tensor(1.0)
    for labels in (torch.tensor([0, 2]), torch.eye(4)[[3, 2]]):
        with pytest.raises(ValueError, match=r"^labels: the training had no data of the class 'c'; known: a, d$"):
            model(x, sigma, {"labels": labels})
    model(x, sigma, {"labels": torch.tensor([0, 3])})


def test_classes_whose_counts_are_not_known_are_all_drawn_as_ever(tmp_path):
    model = make_model(("a", "b", "c"))
    model.save(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    del config["class_counts"]  # as version 0.1 wrote it
    path.write_text(json.dumps(config))
    old = ds.load(tmp_path)
    assert (old.class_counts, old.sampled_classes) == ((), (0, 1, 2))
    assert torch.equal(old.random_labels(range(40)), ds.random_labels(range(40), (3, 8, 8), 3))
    with pytest.raises(ValueError, match="proportional: how many samples of each class there were is not known"):
        old.random_labels(range(4), proportional=True)
    for counts in ((1, 2), (0, 0, 0), (1, -1, 1)):
        with pytest.raises(ValueError, match="class_counts: expected"):
            make_model(("a", "b", "c"), counts)


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
        ({"transform": {"shft": [0.0]}}, r"make no model: transform\.shft: .*'shift'"),
        ({"transform": []}, r"config\.json: .*transform: expected a dict, got a list"),
        ({"network": 3}, "make no model"),
        ({"class_names": 3}, "class_names: expected a list, got a int"),
        ({"class_names": [["a"]]}, "make no model: class_names, class_counts: expected texts"),
        ({"network": {"kind": "mlp", "shape": [2], "depth": 10**7}}, "make no model: .*more than [0-9]+ tensors"),
        (
            {"preconditioning": {"kind": "iddpm", "M": 10**9}},
            "preconditioning.*M: expected an integer from 1 to 100000",
        ),
        ({"preconditioning": None}, "make no model"),
        ({"shape": [3]}, r"make no model: shape: the config of the network states \(3, 8, 8\), got \(3,\)"),
        ({"shape": {"a": 1}}, "make no model"),
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


def test_only_a_name_that_begins_with_hf_is_asked_of_the_hub(tmp_path, monkeypatch):
    import huggingface_hub

    asked = []

    def refuse(name, **kwargs):
        asked.append(name)
        raise OSError("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "typed").mkdir(parents=True)
    with pytest.raises(ValueError, match="there is no folder runs/typod; did you mean runs/typed"):
        ds.load("runs/typod")
    with pytest.raises(ValueError, match=r"no folder nobody/nothing; a repository of the .* is hf:nobody/nothing$"):
        ds.load("nobody/nothing")
    for source in ("runs/digits/deeper", Path("nobody/nothing"), "nothing.pt"):
        with pytest.raises(ValueError, match="source: there is no f"):
            ds.load(source)
    assert asked == []
    with pytest.raises(ValueError, match="source: hf:nobody/nothing cannot be had from the Hub: offline"):
        ds.load("hf:nobody/nothing")
    assert asked == ["nobody/nothing"]


def test_a_repository_of_the_hub_is_loaded_from_its_snapshot(tmp_path, monkeypatch):
    import huggingface_hub

    make_model().save(tmp_path / "snapshot")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, allow_patterns: str(tmp_path / "snapshot"))
    assert ds.load("hf:somebody/animals").class_names == ("cat", "dog")


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
    assert "diffspace sample hf:somebody/animals" in card
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(
        ds.load("hf:somebody/animals")(x, torch.tensor(0.3), LABELS), model(x, torch.tensor(0.3), LABELS)
    )


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


class Plain(torch.nn.Module):
    """A network of one's own: plain arguments, a module used twice, a whole number in its state."""

    def __init__(self, shape=(2,), width=8):
        super().__init__()
        self.config = {"shape": shape, "width": width}
        self.layers = torch.nn.Sequential(torch.nn.Linear(shape[0] + 1, width), torch.nn.Linear(width, shape[0]))
        self.again = self.layers
        self.register_buffer("steps", torch.tensor(3))

    def forward(self, x, c_noise, cond=None):
        return self.layers(torch.cat([x, c_noise[:, None]], 1))


class AnySize(torch.nn.Module):
    """A network whose config states no shape, and whose constructor reads the values of a tensor."""

    def __init__(self, rates):
        super().__init__()
        self.config = {"rates": rates}
        self.conv = torch.nn.Conv2d(1, 1, 3, padding=int(torch.linspace(0, 1, rates).tolist()[-1]))

    def forward(self, x, c_noise, cond=None):
        return self.conv(x)


class Outer(torch.nn.Module):
    """A network around another one."""

    def __init__(self, shape, network):
        super().__init__()
        self.config = {"shape": shape, "network": network}
        self.network = network

    def forward(self, x, c_noise, cond=None):
        return self.network(x, c_noise)


class Deeper(ds.networks.MLP):
    """A network with the options of its base."""

    def __init__(self, shape, gain=1.0, **options):
        super().__init__(shape, **options)
        self.config |= {"gain": gain}


class Bare(torch.nn.Module):
    """A network without arguments and without a config."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)

    def forward(self, x, c_noise, cond=None):
        return self.layer(x)


class WithMore(Bare):
    """A network whose state is not of tensors alone."""

    def get_extra_state(self):
        return {}


OWN = [Plain, AnySize, Outer, Deeper, Bare]


def own_model(network, **options):
    return ds.Model(ds.Preconditioned(network, ds.EDMPreconditioning(0.6)), **options).eval()


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (Plain, None),
        (lambda: AnySize(3), (1, 4, 6)),
        (lambda: Outer((2,), Plain((2,), 16)), None),
        (lambda: Deeper((2,), 0.5, width=8, depth=1), None),
        (Bare, [2]),
        (lambda: torch.compile(Plain()), None),
    ],
    ids=["plain", "any-size", "nested", "derived", "bare", "compiled"],
)
def test_own_networks_come_back_without_a_transform(tmp_path, make, shape):
    model = own_model(make(), shape=shape)
    model.save(tmp_path)
    loaded = ds.load(tmp_path, parts=OWN)
    assert loaded.transform == ds.Transform()
    assert loaded.sample_shape == model.sample_shape
    x = torch.randn(3, *model.sample_shape)
    network = getattr(model.denoiser.network, "_orig_mod", model.denoiser.network)
    plain = ds.Preconditioned(network, model.denoiser.preconditioning)
    assert torch.equal(loaded(x, torch.tensor(0.5)), plain(x, torch.tensor(0.5)))
    assert torch.equal(loaded.decode(x), x)
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.denoiser.network.state_dict()[name], value)
    with pytest.raises(ValueError, match=r"is not registered, .*pass parts=\[\w+\], or use --part [\w.]*test_model:"):
        ds.load(tmp_path)


def changed(network, **attributes):
    network.__dict__.update(attributes)
    return network


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: changed(Plain(width=4), config={"shape": (2,)}),
            r"in its config 'layers.0.weight' has shape \(8, 3\), but",
        ),
        (lambda: changed(Plain(), config={"shape": (2,), "deep": 1}), "network: Plain could not be .*network.deep"),
        (lambda: changed(Plain(), config={"shape": (2,), "width": torch.tanh}), "width: a .* cannot be saved to a f"),
        (lambda: changed(AnySize(3), config=object()), "AnySize: cannot be saved; .*`config` to the mapping"),
        (WithMore, "its state has a dict, '_extra_state'; only tensors"),
        (lambda: ds.from_ddpm(Bare(), torch.linspace(0.9, 0.1, 5)).network, "function: is missing"),
    ],
)
def test_a_network_that_would_not_come_back_is_not_saved(tmp_path, make, message):
    network = make()
    stated = ds.Preconditioned(network, ds.EDMPreconditioning()).sample_shape
    model = own_model(network, shape=(2,) if stated is None else None)
    with pytest.raises(ValueError, match=message):
        model.save(tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_what_cannot_be_a_model_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"^shape: the config of the network states no shape .*ds.Model\(denoiser, sh"):
        own_model(AnySize(3))
    with pytest.raises(ValueError, match=r"^shape: the config of the network states \(2,\), got \(3,\)$"):
        own_model(Plain(), shape=(3,))
    with pytest.raises(ValueError, match=r"^shape: expected an integer of at least 1, got 0$"):
        own_model(AnySize(3), shape=(0, 4))
    with pytest.raises(ValueError, match=r"^notes: cannot be saved: Object of type Tensor"):
        own_model(Plain(), notes={"loss": torch.tensor(1.0)}).save(tmp_path)


def test_a_class_of_a_script_is_stored_under_the_name_of_its_file(tmp_path, monkeypatch):
    """`python own.py` calls its module __main__, which nobody else could import."""
    script = Path(__file__).read_text().partition("class Plain(")[2].partition("\n\n\nclass")[0]
    body = "model = ds.Model(ds.Preconditioned(Plain(), ds.EDMPreconditioning()))\n    model.save('m')\n"
    body += "    ds.load('m', parts=[Plain])\n"
    head = "import torch\nimport diffspace as ds\n\nclass Plain("
    (tmp_path / "own.py").write_text(f"{head}{script}\n\nif __name__ == '__main__':\n    {body}")
    monkeypatch.chdir(tmp_path)
    runpy.run_path("own.py", run_name="__main__")
    assert json.loads((tmp_path / "m/config.json").read_text())["network"]["kind"] == "own:Plain"
    monkeypatch.setattr("diffspace.parts._unregistered", {})
    monkeypatch.setattr(sys, "path", [*sys.path])
    command = ["sample", "m", "--part", "own:Plain", "--seeds", "0-3", "--steps", "2", "--out", "m.npz"]
    assert main(command) == 0
