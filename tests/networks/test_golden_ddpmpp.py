"""DDPM++ against the authors' implementation: parameter names, parameter counts and outputs."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from edmkit.networks import DDPMpp

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "networks.json").read_text(encoding="utf-8"))


def golden_network() -> DDPMpp:
    config = GOLDEN["config"]
    options = (
        "label_dim",
        "augment_dim",
        "model_channels",
        "channel_mult",
        "num_blocks",
        "attn_resolutions",
        "dropout",
    )
    shape = (config["img_channels"], config["img_resolution"], config["img_resolution"])
    return DDPMpp(shape, **{name: config[name] for name in options}).eval()


def golden_weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    weights = {}
    for k, key in enumerate(sorted(state)):
        shape = state[key].shape
        v = torch.sin(1.0 + 0.7 * k + 1.3 * torch.arange(shape.numel(), dtype=torch.float64)).reshape(shape)
        if key.endswith("resample_filter"):
            v = state[key]
        elif len(shape) >= 2:
            v = v * 1.5 / math.sqrt(shape[1:].numel())
        elif "norm" in key and key.endswith("weight"):
            v = 1 + 0.2 * v
        else:
            v = 0.1 * v
        weights[key] = v.float()
    return weights


def coefficients(case: str, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """c_skip, c_out, c_in, c_noise of Table 1."""
    one = torch.ones_like(sigma)
    if case == "vp":
        beta_d, beta_min = 19.9, 0.1
        t = ((beta_min**2 + 2 * beta_d * (1 + sigma**2).log()).sqrt() - beta_min) / beta_d
        return one, -sigma, 1 / (1 + sigma**2).sqrt(), 999 * t
    if case == "ve":
        return one, sigma, one, (sigma / 2).log()
    total = sigma**2 + 0.5**2
    return 0.5**2 / total, 0.5 * sigma / total.sqrt(), 1 / total.sqrt(), sigma.log() / 4


def test_state_dict_is_that_of_the_reference() -> None:
    network = golden_network()
    shapes = {f"model.{key}": list(value.shape) for key, value in network.state_dict().items()}
    assert shapes == GOLDEN["keys"]
    assert sum(p.numel() for p in network.parameters()) == GOLDEN["params"]
    filters = [value for key, value in network.state_dict().items() if key.endswith("resample_filter")]
    assert len(filters) == 4
    assert all(torch.equal(f, torch.full((1, 1, 2, 2), 0.25)) for f in filters)


@pytest.mark.parametrize("case", ["edm", "vp", "ve"])
def test_outputs_are_those_of_the_reference(case: str) -> None:
    network = golden_network()
    network.load_state_dict(golden_weights(network.state_dict()))
    i = torch.arange(4 * 3 * 16 * 16, dtype=torch.float64)
    x = (torch.sin(0.37 * i) * torch.cos(0.011 * i)).float().reshape(4, 3, 16, 16)
    x = x * torch.tensor([0.5, 1.0, 5.0, 40.0])[:, None, None, None]
    sigma = torch.tensor(GOLDEN["sigma"], dtype=torch.float64)
    *scales, c_noise = (c.float() for c in coefficients(case, sigma))
    c_skip, c_out, c_in = (c[:, None, None, None] for c in scales)
    labels = torch.tensor(GOLDEN["labels"])
    augment = torch.sin(torch.arange(36, dtype=torch.float64)).float().reshape(4, 9)

    golden = GOLDEN["cases"][case]
    for key, cond in (("D_head", {"labels": labels, "augment": augment}), ("D0_head", {"labels": labels})):
        with torch.no_grad():
            denoised = c_skip * x + c_out * network(c_in * x, c_noise, cond)
        expected = torch.tensor(golden[key])
        error = (denoised[:, :, 3, 5:9] - expected).abs().amax((1, 2))
        assert (error <= 5e-5 * expected.abs().amax((1, 2))).all()
        if key == "D_head":
            torch.testing.assert_close(denoised.std((1, 2, 3)), torch.tensor(golden["D_std"]), rtol=1e-5, atol=0)
            torch.testing.assert_close(denoised.mean((1, 2, 3)), torch.tensor(golden["D_mean"]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("case", "size", "options"),
    [("cifar10-ddpmpp", 32, {}), ("ffhq64-ddpmpp", 64, {"channel_mult": (1, 2, 2, 2)})],
)
def test_full_size_parameter_counts(case: str, size: int, options: dict[str, tuple[int, ...]]) -> None:
    with torch.device("meta"):
        network = DDPMpp((3, size, size), augment_dim=9, **options)
    assert sum(p.numel() for p in network.parameters()) == GOLDEN["full_size_params"][case]
