"""The files of tests/golden that hold end points of samplers on a Gaussian mixture."""

import json
from pathlib import Path

import torch

from diffspace.oracles import GaussianMixture


def read_golden(name):
    """(the whole file, its mixture, its latents)."""
    content = json.loads((Path(__file__).parents[1] / "golden" / f"{name}.json").read_text())
    parts = (torch.tensor(content["mixture"][k], dtype=torch.float64) for k in ("means", "stds", "weights"))
    mixture = GaussianMixture(*parts)
    mixture.sigma_data = 0.5  # the reference's range of σ is that of the paper, whatever the denoiser
    return content, mixture, torch.tensor(content["latents"], dtype=torch.float64)
