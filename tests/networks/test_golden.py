"""The U-Nets against the authors' implementation: parameter names, parameter counts and outputs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffspace import EDMPreconditioning, Preconditioned, VEPreconditioning, VPPreconditioning
from diffspace.networks import ADM, DDPMpp, NCSNpp, paper_network

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "networks.json").read_text(encoding="utf-8"))
CASES: dict[str, dict[str, Any]] = GOLDEN["cases"]
NETWORKS = {"ddpmpp": DDPMpp, "ncsnpp": NCSNpp, "adm": ADM}
PRECONDITIONING = {"edm": EDMPreconditioning, "vp": VPPreconditioning, "ve": VEPreconditioning}
OPTIONS = ("label_dim", "augment_dim", "model_channels", "channel_mult", "num_blocks", "attn_resolutions", "dropout")
SONG_OPTIONS = ("encoder_type", "decoder_type")


def golden_denoiser(case: str) -> Preconditioned:
    network, preconditioning = case.partition("-")[0].partition("/")[0], CASES[case]["precond"]
    config = CASES[case]["config"]
    shape = (config["img_channels"], config["img_resolution"], config["img_resolution"])
    made = NETWORKS[network](shape, **{name: config[name] for name in (*OPTIONS, *SONG_OPTIONS) if name in config})
    return Preconditioned(made, PRECONDITIONING[preconditioning]()).eval()


def golden_weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    weights = {}
    for k, key in enumerate(sorted(state)):
        shape = state[key].shape
        v = torch.sin(1.0 + 0.7 * k + 1.3 * torch.arange(shape.numel(), dtype=torch.float64)).reshape(shape)
        if key.endswith("resample_filter"):
            v = state[key]
        elif key.endswith("freqs"):
            v = 4 * v
        elif len(shape) >= 2:
            v = v * 1.5 / math.sqrt(shape[1:].numel())
        elif "norm" in key and key.endswith("weight"):
            v = 1 + 0.2 * v
        else:
            v = 0.1 * v
        weights[key] = v.float()
    return weights


@pytest.mark.parametrize("case", CASES)
def test_state_dict_is_that_of_the_reference(case: str) -> None:
    network = golden_denoiser(case).network
    shapes = {f"model.{key}": list(value.shape) for key, value in network.state_dict().items()}
    assert shapes == CASES[case]["keys"]
    assert sum(p.numel() for p in network.parameters()) == CASES[case]["params"]


@pytest.mark.parametrize("case", CASES)
def test_outputs_are_those_of_the_reference(case: str) -> None:
    golden, denoiser = CASES[case], golden_denoiser(case)
    denoiser.network.load_state_dict(golden_weights(denoiser.network.state_dict()))
    i = torch.arange(4 * 3 * 16 * 16, dtype=torch.float64)
    x = (torch.sin(0.37 * i) * torch.cos(0.011 * i)).float().reshape(4, 3, 16, 16)
    x = x * torch.tensor([0.5, 1.0, 5.0, 40.0])[:, None, None, None]
    sigma = torch.tensor(golden["sigma"], dtype=torch.float64)
    known = {} if golden["labels"] is None else {"labels": torch.tensor(golden["labels"])}
    augmented = known
    if golden["config"]["augment_dim"]:
        augmented = known | {"augment": torch.sin(torch.arange(36, dtype=torch.float64)).float().reshape(4, 9)}

    for key, cond in (("D_head", augmented), ("D0_head", known)):
        with torch.no_grad():
            denoised = denoiser(x, sigma, cond)
        expected = torch.tensor(golden[key])
        error = (denoised[:, :, 3, 5:9] - expected).abs().amax((1, 2))
        assert (error <= 5e-5 * expected.abs().amax((1, 2))).all()
        if key == "D_head":
            torch.testing.assert_close(denoised.std((1, 2, 3)), torch.tensor(golden["D_std"]), rtol=1e-5, atol=0)
            torch.testing.assert_close(denoised.mean((1, 2, 3)), torch.tensor(golden["D_mean"]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("case", GOLDEN["full_size_params"])
def test_full_size_parameter_counts(case: str) -> None:
    with torch.device("meta"):
        network = paper_network(case)
    assert sum(p.numel() for p in network.parameters()) == GOLDEN["full_size_params"][case]
