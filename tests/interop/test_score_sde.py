import pytest
import torch
from score_sde import forward, random_modules

import diffspace as ds
from diffspace.interop import convert

PLAN = (16, (1, 2), 2, {1})


def checkpoint(modules, *, sigmas=(50.0, 0.7, 0.01)):
    """A checkpoint whose average is `modules`, and whose last weights are others."""
    named = {f"module.all_modules.{i}.{name}": value for i, m in enumerate(modules) for name, value in m.items()}
    model = {"module.sigmas": torch.tensor(sigmas)}
    model |= {name: value if name.endswith(".0.W") else value + 1 for name, value in named.items()}
    shadows = [value for name, value in named.items() if not name.endswith("all_modules.0.W")]
    ema = {"decay": 0.999, "num_updates": 7, "shadow_params": shadows}
    return {"optimizer": {"state": {}}, "model": model, "ema": ema, "step": 3}


def saved(tmp_path, content):
    torch.save(content, tmp_path / "x.pth")
    return tmp_path / "x.pth"


@pytest.mark.parametrize("fourier", [True, False])
def test_outputs_are_those_of_a_plain_forward_pass(tmp_path, fourier):
    modules = random_modules(*PLAN, fourier=fourier)
    model, report = convert(saved(tmp_path, checkpoint(modules)), size=8)
    x, sigma = torch.randn(2, 3, 8, 8), torch.tensor([0.4, 3.0])
    choice = model.denoiser.preconditioning
    with torch.no_grad():
        ours = model(x, sigma)
        if fourier:  # their data are in [0, 1] with noise of σ/2, and the network centres them
            theirs = x + sigma.reshape(2, 1, 1, 1) * forward(modules, x, (sigma / 2).log(), *PLAN[1:], fourier=True)
        else:
            t = ds.VPSchedule().sigma_inv(sigma)
            scaled = x / (sigma**2 + 1).sqrt().reshape(2, 1, 1, 1)
            theirs = x - sigma.reshape(2, 1, 1, 1) * forward(modules, scaled, 999 * t, *PLAN[1:], fourier=False)
    assert (theirs - x).std() > 0.1
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    assert choice == (ds.VEPreconditioning(0.02, 100.0) if fourier else ds.VPPreconditioning())
    assert report.architecture == ("ncsnpp" if fourier else "ddpmpp")
    assert "'optimizer' of the checkpoint" in report.ignored


def drop_shadow(content):
    content["ema"]["shadow_params"].pop()


def add_shadow(content):
    content["ema"]["shadow_params"].append(torch.ones(1))


def add_name(content):
    content["model"]["module.extra"] = torch.ones(1)


@pytest.mark.parametrize(
    ("change", "message"), [(drop_shadow, "no average"), (add_shadow, "1 more"), (add_name, "module.extra")]
)
def test_mistakes_are_named(tmp_path, change, message):
    content = checkpoint(random_modules(*PLAN, fourier=False))
    change(content)
    with pytest.raises(ValueError, match=message):
        convert(saved(tmp_path, content), size=8)


def test_other_architectures_are_refused(tmp_path):
    modules = random_modules(*PLAN, fourier=True)
    without = [module for module in modules if "Conv2d_0.weight" not in module]
    with pytest.raises(ValueError, match="Fourier features with a residual encoder"):
        convert(saved(tmp_path, checkpoint(without)), size=8)
    skip = [*modules[:-2], {"weight": torch.ones(4), "bias": torch.ones(4)}, *modules[-2:]]
    with pytest.raises(ValueError, match="all_modules"):
        convert(saved(tmp_path, checkpoint(skip)), size=8)


@pytest.mark.parametrize(
    "content", [{"ema": {"shadow_params": 3}, "model": {}}, {"ema": {"shadow_params": []}, "model": {}}]
)
def test_content_of_another_kind_is_one_line(tmp_path, content):
    with pytest.raises(ValueError, match=r"x\.pth: ") as error:
        convert(saved(tmp_path, content))
    assert "\n" not in str(error.value)
