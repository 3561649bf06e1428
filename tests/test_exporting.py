"""Exported denoisers against the models that they were made of, read back by torch.export and ONNX Runtime."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import jaxtyping
import pytest
import torch
from torch import nn

import diffspace as ds
from diffspace import exporting
from diffspace.cli.app import main
from diffspace.conditions import Condition
from diffspace.exporting import METADATA
from diffspace.networks import ADM, MLP, DDPMpp, NCSNpp

UNET = {"model_channels": 8, "channel_mult": (1, 2), "num_blocks": 1}
SHAPES = {1: (2, 12), 2: (2, 8, 6), 3: (1, 4, 6, 4)}
KINDS = {"mlp": (MLP, (5,), {"width": 16})} | {
    f"{kind.__name__.lower()}-{dims}d": (kind, shape, UNET | {"attn_resolutions": (max(shape[1:]) // 2,)})
    for kind in (DDPMpp, NCSNpp, ADM)
    for dims, shape in SHAPES.items()
}
CLASSES = {"label_dim": 3, "label_dropout": 0.1}
PRECONDITIONINGS = {
    "vp": ds.VPPreconditioning(),
    "ve": ds.VEPreconditioning(),
    "iddpm": ds.IDDPMPreconditioning(),
    "v-cosine": ds.VPrediction(ds.ContinuousTime(ds.CosineSchedule(), 1.0)),
    "x0": ds.X0Prediction(),
    "flow": ds.FlowPrediction(),
    "ddpm": ds.ddpm_preconditioning(torch.linspace(0.999, 0.001, 50)),
    "ddpm-rounded": ds.ddpm_preconditioning(torch.linspace(0.999, 0.001, 50), rounded=True),
}


@pytest.fixture(autouse=True)
def unchecked():
    """Without shape checks, which take a batch of any size for no integer."""
    jaxtyping.config.update("jaxtyping_disable", True)


def make(kind="mlp", preconditioning=None, **options):
    network, shape, small = KINDS[kind]
    torch.manual_seed(0)
    made = network(shape, **small, **options)
    for p in made.parameters():
        nn.init.normal_(p, std=1 / math.sqrt(p[0].numel()) if p.ndim > 1 else 0.3)
    names = tuple("abc"[: options.get("label_dim", 0)])
    transform = ds.Transform((2.0,), (3.0,), lowest=0.0, highest=9.0)
    return ds.Model(ds.Preconditioned(made, preconditioning or ds.EDMPreconditioning(0.5)), transform, names).eval()


def reader(path):
    """The file as a function of x, σ and the conditions by name, and its description."""
    if path.suffix == ".pt2":
        files = {METADATA: ""}
        program = torch.export.load(path, extra_files=files).module()
        return lambda x, sigma, cond: program(x, sigma, *([cond] if cond else [])), json.loads(files[METADATA])
    session = pytest.importorskip("onnxruntime").InferenceSession(path)

    def run(x, sigma, cond):
        given = {name: value.numpy() for name, value in {"x": x, "sigma": sigma, **cond}.items()}
        return torch.from_numpy(session.run(["denoised"], given)[0])

    return run, json.loads(session.get_modelmeta().custom_metadata_map[METADATA])


def check_equal(path, model, conditions=None):
    """20 inputs in batches of 1, 2 and 7 over the range of σ: the same as the model's to 1e-5 of their own size."""
    run, _ = reader(path)
    low, high = model.sampling_range or (0.01, 20.0)
    generator = torch.Generator().manual_seed(7)
    for k in range(20):
        batch = (1, 2, 7)[k % 3]
        sigma = low * (high / low) ** torch.rand(batch, generator=generator)
        x = torch.randn(batch, *model.sample_shape, generator=generator) * (1 + sigma).reshape(
            -1, *[1] * len(model.sample_shape)
        )
        given = {name: draw(batch, generator) for name, draw in (conditions or {}).items()}
        with torch.no_grad():
            expected = model(x, sigma, given or None)
            error = (run(x, sigma, given) - expected).abs().max()
        assert float(error) <= 1e-5 * float(expected.abs().max())


LABELS = {"labels": lambda batch, generator: torch.randint(0, 3, (batch,), generator=generator)}
QUICK = {("mlp", ".onnx"), ("ddpmpp-2d", ".pt2")}


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [
        (kind, suffix) if (kind, suffix) in QUICK else pytest.param(kind, suffix, marks=pytest.mark.slow)
        for kind in KINDS
        for suffix in (".pt2", ".onnx")
    ],
)
def test_every_network_gives_the_same_in_any_batch(tmp_path, kind, suffix):
    model, path = make(kind, **CLASSES, augment_dim=2), tmp_path / f"x{suffix}"
    report = ds.export(model, path)
    assert report.difference <= 1e-5
    check_equal(path, model, LABELS)
    run, _ = reader(path)
    x, sigma = torch.randn(2, *model.sample_shape), torch.tensor([0.3, 2.0])
    with torch.no_grad():
        null = run(x, sigma, {"labels": torch.tensor([-1, -1])})
        torch.testing.assert_close(null, model(x, sigma), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
@pytest.mark.parametrize("name", PRECONDITIONINGS)
def test_every_preconditioning_gives_the_same(tmp_path, name, suffix):
    model, path = make(preconditioning=PRECONDITIONINGS[name]), tmp_path / f"x{suffix}"
    assert ds.export(model, path).difference <= 1e-5
    check_equal(path, model)


def test_what_onnx_lacks_is_computed_otherwise():
    y, x = torch.meshgrid(
        torch.linspace(-3, 3, 7).double(), torch.tensor([-2.0, -1e-3, 0.5, 7.0]).double(), indexing="ij"
    )
    torch.testing.assert_close(exporting._atan2(y, x)[y != 0], torch.atan2(y, x)[y != 0], rtol=1e-12, atol=0)
    torch.testing.assert_close(exporting._hypot(x, y), torch.hypot(x, y), rtol=1e-15, atol=0)
    table, values = torch.tensor([0.5, 1.0, 4.0]), torch.tensor([0.1, 0.5, 0.7, 4.0, 9.0])
    assert torch.equal(exporting._searchsorted(table, values), torch.searchsorted(table, values))


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_conditions_are_inputs_by_name(tmp_path, suffix):
    conditioning = {"pose": Condition((2,), (0.5, 1.0), (2.0, 3.0)), "low": Condition((1, 4, 3))}
    model = make("ddpmpp-2d", conditioning=conditioning, image_channels=1, **CLASSES)
    path = tmp_path / f"x{suffix}"
    report = ds.export(model, path)
    assert [port.name for port in report.inputs] == ["x", "sigma", "image", "labels", "low", "pose"]
    draw = {
        "image": lambda n, g: torch.randn(n, 1, 8, 6, generator=g),
        **LABELS,
        "low": lambda n, g: torch.randn(n, 1, 4, 3, generator=g),
        "pose": lambda n, g: torch.randn(n, 2, generator=g).where(torch.rand(n, 1, generator=g) < 0.7, torch.nan),
    }
    check_equal(path, model, draw)


class Own(nn.Module):
    """A network of one's own."""

    def __init__(self, shape=(2,), how="well"):
        super().__init__()
        self.config = {"shape": shape, "how": how}
        self.layer = nn.Linear(shape[0] + 1, shape[0])

    def forward(self, x, c_noise, cond=None):
        angle = cond["angle"] if cond else torch.zeros_like(c_noise)
        y = self.layer(torch.cat([x, (c_noise + angle)[:, None]], 1))
        if self.config["how"] == "fixed":
            return y.reshape(len(x), 2)
        return y + torch.randn_like(x) if self.config["how"] == "random" else y


def own(how="well"):
    return ds.Model(ds.Preconditioned(Own(how=how), ds.EDMPreconditioning(0.5))).eval()


def test_a_network_of_ones_own_with_an_example_of_its_conditions(tmp_path):
    model = own()
    report = ds.export(model, tmp_path / "x.pt2", cond={"angle": torch.zeros(1)})
    assert report.inputs[2].shape == ("batch",)
    check_equal(tmp_path / "x.pt2", model, {"angle": lambda n, g: torch.randn(n, generator=g)})


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("fixed", ValueError, r"^model: cannot be traced for a batch of any size; write x.shape\[0\] instead of len"),
        ("random", FloatingPointError, r"x.pt2: the exported denoiser differs from the model by .*nothing was written"),
    ],
)
def test_what_does_not_give_the_same_is_not_written(tmp_path, how, error, message):
    (tmp_path / "x.pt2").write_text("old")
    with pytest.raises(error, match=message):
        ds.export(own(how), tmp_path / "x.pt2")
    assert [file.name for file in tmp_path.iterdir()] == ["x.pt2"]
    assert (tmp_path / "x.pt2").read_text() == "old"


def test_the_command_writes_a_file_that_says_what_it_takes_and_gives(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = make(**CLASSES)
    model.save("model")
    assert main(["export", "model", "x.pt2"]) == 0
    text = capsys.readouterr().out
    for line in (
        "written   x.pt2, torch.export",
        "takes     x: float32 (batch, 5), x₀ + σ·ε, without a scaling s(t)",
        "takes     sigma: float32 (batch,), σ of each sample; sampling goes from 80 to 0.002",
        "takes     labels: int64 (batch,), the number of the class, 0 to 2, or -1 for none",
        "gives     denoised: float32 (batch, 5), D(x; σ), the estimate of x₀",
        "raw data  3·x + 2, within [0, 9], float32",
        "checked   20 inputs in batches of 1, 2, 7: at most 0 from the model",
    ):
        assert line in text
    _, description = reader(Path("x.pt2"))
    ports = [(each["name"], each["shape"], each["dtype"]) for each in description["inputs"] + description["outputs"]]
    assert ports == [
        ("x", ["batch", 5], "float32"),
        ("sigma", ["batch"], "float32"),
        ("labels", ["batch"], "int64"),
        ("denoised", ["batch", 5], "float32"),
    ]
    assert (description["sigma_min"], description["sigma_max"], description["sigma_data"]) == (0.002, 80.0, 0.5)
    assert description["class_names"] == ["a", "b", "c"]
    transform = {name: tuple(v) if isinstance(v, list) else v for name, v in description["transform"].items()}
    assert ds.Transform(**transform) == model.transform


def test_the_command_refuses_before_it_works(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.pt2").touch()
    for out, message in (
        ("x.pt2", "OUT: x.pt2 exists already; add --overwrite to replace it"),
        ("x.pt", "OUT: expected a name that ends in .pt2 or .onnx, got x.pt"),
        ("none/x.pt2", "OUT: there is no folder none"),
    ):
        assert main(["export", "model", out]) == 2
        assert message in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert main(["export", "model", "x.onnx"]) == 2
    assert "export to ONNX requires the package onnx" in capsys.readouterr().err


def test_a_model_in_training_stays_so(tmp_path):
    model = make().train()
    modes = [module.training for module in model.modules()]
    ds.export(model, tmp_path / "x.pt2")
    assert [module.training for module in model.modules()] == modes
    assert all(modes)


def test_other_dtypes_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"^model: expected float32 on the CPU, got .* in torch\.float16"):
        ds.export(make().half(), tmp_path / "x.pt2")
    assert not list(tmp_path.iterdir())
