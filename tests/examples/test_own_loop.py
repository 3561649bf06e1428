"""The examples of training are run as they stand, at a size that takes seconds, against what they have to learn."""

import runpy
from pathlib import Path

import pytest
import torch

import diffspace as ds
from diffspace.averages import EMA

EXAMPLES = Path(__file__).parents[2] / "examples"
ENGINES = ("plain", "trainer", "lightning", "accelerate")


@pytest.fixture
def load(monkeypatch):
    """From the name of an example to what it defines."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return lambda name: runpy.run_path(str(EXAMPLES / f"{name}.py"))


@pytest.fixture
def loop(load):
    """From the name of an engine to what its loop defines."""

    def made(engine):
        if engine in ("lightning", "accelerate"):
            pytest.importorskip(engine)
        if engine == "accelerate":
            from accelerate.state import AcceleratorState

            AcceleratorState._reset_state(reset_partial_state=True)
        return load(f"loop_{engine}")

    return made


# Lightning remarks on loaders without workers, and that the average is in evaluation mode, which it should be
quiet = pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore::FutureWarning:lightning")


@quiet
@pytest.mark.parametrize("engine", ENGINES)
def test_loop_comes_near_the_attainable_error(loop, engine):
    assert loop(engine)["main"](["--steps", "200"]) < 0.2  # untrained it is 0.34


@quiet
@pytest.mark.parametrize("engine", ENGINES)
def test_mixed_precision_rounds_neither_sigma_nor_x(loop, engine, monkeypatch):
    seen = []
    forward = ds.Preconditioned.forward

    def recording(self, x, sigma, cond=None):
        product = torch.mm(torch.ones(1, 1), torch.ones(1, 1))
        seen.append((x.detach(), sigma.detach(), product.dtype))
        return forward(self, x, sigma, cond)

    monkeypatch.setattr(ds.Preconditioned, "forward", recording)
    train, x = loop(engine)["train"], torch.randn(64, 1, 1, 2)
    if engine == "lightning":
        train(x, steps=2, batch=32, precision="bf16-mixed")
    elif engine == "accelerate":
        from accelerate import Accelerator

        train(x, 2, Accelerator(cpu=True, mixed_precision="bf16"), batch=32)
    elif engine == "trainer":
        train(x, steps=2, batch=32, precision="bfloat16")
    else:
        with torch.autocast("cpu", torch.bfloat16):
            train(x, steps=2, batch=32)
    assert len(seen) == 2
    for x, sigma, arithmetic in seen:
        assert arithmetic == torch.bfloat16  # the precision is what was asked for
        for value in (x, sigma):
            assert value.dtype == torch.float32
            assert (value.bfloat16().float() != value).float().mean() > 0.9
        assert len(sigma.unique()) == 32


def test_fabric_rounds_the_arguments_of_forward():
    """Why the page says to wrap the network and not the denoiser; where it fails, the page can be shorter."""
    lightning = pytest.importorskip("lightning")
    seen = {}
    network = ds.networks.MLP((2,), width=8)
    network.register_forward_pre_hook(lambda module, args: seen.update(c_noise=args[1].detach()))
    fabric = lightning.Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    x, sigma = torch.randn(3, 2), torch.tensor([0.123456, 1.23456, 12.3456], dtype=torch.float64)
    fabric.setup(ds.Preconditioned(network, ds.EDMPreconditioning()))(x, sigma)
    torch.testing.assert_close(seen["c_noise"], sigma.bfloat16().log().float() / 4, rtol=2e-2, atol=0)
    assert (seen["c_noise"] - sigma.log().float() / 4).abs().max() > 1e-4


@quiet
def test_lightning_saves_the_average_and_leaves_its_mode(loop):
    module = loop("lightning")["train"](torch.randn(64, 1, 1, 2), steps=3, batch=32)
    assert module.average is module.ema.module
    assert not module.average.training
    assert module.images == 96
    saved = {name.removeprefix("average.") for name in module.state_dict() if name.startswith("average.")}
    assert saved == set(module.denoiser.state_dict())


def test_accelerate_averages_what_plain_averages(loop):
    """The average of the same steps, worked out from the weights by hand."""
    module = loop("accelerate")
    from accelerate import Accelerator

    weights = []
    follow = EMA.follow

    def recording(self, source, images, batch):
        weights.append((images, batch, next(source.parameters()).detach().clone()))
        follow(self, source, images, batch)

    accelerator = Accelerator(cpu=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EMA, "follow", recording)
        average = module["train"](torch.randn(64, 1, 1, 2), 5, accelerator, batch=32)
    expected = torch.zeros(())
    for images, batch, weight in weights:
        beta = 0.5 ** (batch / (0.1 * images)) if images else 0.0
        expected = beta * expected + (1 - beta) * weight
    torch.testing.assert_close(next(average.parameters()), expected)


def test_waves_are_learnt(load, tmp_path):
    picture = tmp_path / "waves.png"
    figures = load("waves")["main"](["--steps", "60", "--samples", "50", "--out", str(picture)])
    assert figures["attainable at 1"] < figures["error at 1"] < 0.2  # trivial: 0.5
    assert figures["purity of a Gaussian process"] < 0.55
    assert figures["mean square"] == pytest.approx(0.5, abs=0.15)
    assert picture.stat().st_size > 1000


def test_a_wave_is_pure_and_its_exact_denoiser_finds_it(load):
    example = load("waves")
    x = example["waves"](torch.tensor([2, 6]), torch.tensor([0.3, 0.7]))
    assert example["power"](x).amax(1).min() > 1 - 1e-9
    noisy = x + 0.3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    # √32 amplitude of a phase in the noise: σ²/64 a dimension
    assert (example["exact_denoiser"]()(noisy, torch.tensor(0.3)) - x).square().mean() < 3 * 0.3**2 / 64


@pytest.mark.slow
def test_balls_are_recognised_and_learnt(load, tmp_path):
    example = load("volumes")
    radius, difference = example["fitted"](
        example["balls"](torch.tensor([1.7, 2.8]), torch.tensor([[4.0, 3.5, 5.0], [4.0, 4.2, 4.0]]))
    )
    assert (radius - torch.tensor([1.7, 2.8])).abs().max() < 0.05
    assert difference.max() < 0.03
    picture = tmp_path / "volumes.png"
    figures = example["main"](["--steps", "140", "--samples", "8", "--out", str(picture)])
    assert figures["error at 1"] < 0.5 * figures["trivial"]
    assert figures["data"] < 0.02 < figures["Gaussian"]
    assert picture.stat().st_size > 1000


def test_super_resolution_beats_interpolation(load, tmp_path):
    picture = tmp_path / "digits.png"
    figures = load("super_resolution")["main"](["--steps", "140", "--samples", "48", "--out", str(picture)])
    assert figures["nearest"] < figures["bicubic"]
    assert figures["mean"] > figures["bicubic"] + 0.5
    assert figures["consistency"] < 0.3
    assert picture.stat().st_size > 1000


@pytest.mark.slow
def test_guidance_makes_classes_clearer(load, tmp_path):
    picture = tmp_path / "classes.png"
    figures = load("classes")["main"](["--steps", "140", "--samples", "50", "--out", str(picture)])
    assert figures["recognised at 0"] < 0.3 < figures["recognised at 1"]  # chance: 0.1
    assert figures["recognised at 4"] > figures["recognised at 1"] + 0.1
    assert figures["spread at 4"] < figures["spread at 1"]
    assert picture.stat().st_size > 1000
