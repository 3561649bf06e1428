"""Proposals, where the answer is known: in closed form, by scaling, and from the paper."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from diffspace.data import SwissRoll
from diffspace.inspection import Proposals, propose


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def values(proposals: Proposals) -> dict[str, float]:
    return {p.name: p.value for p in proposals}


def photographs(side: int, count: int) -> torch.Tensor:
    """Pieces of two photographs, at scales between 1 and 6, in [−1, 1]."""
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(picture) for picture in load_sample_images().images]
    pieces = []
    for i in range(count):
        picture = pictures[i % 2]
        part = int(side * math.exp(rng.uniform(0, math.log(6))))
        left, top = rng.integers(0, picture.width - part), rng.integers(0, picture.height - part)
        box = (left, top, left + part, top + part)
        pieces.append(np.asarray(picture.resize((side, side), Image.Resampling.LANCZOS, box)))
    return torch.from_numpy(np.stack(pieces)).permute(0, 3, 1, 2).float() / 127.5 - 1


def test_a_gaussian_in_closed_form() -> None:
    variances = torch.tensor([16.0, 4.0, 1.0, 0.25, 0.04, 0.01, 0.01, 0.01], dtype=torch.float64)
    x = (normal(8192, 8, seed=1) * variances.sqrt()) @ torch.linalg.qr(normal(8, 8, seed=2)).Q.T
    proposed = values(propose(x))
    sigma_data = math.sqrt(variances.mean())
    assert proposed["sigma_data"] == pytest.approx(sigma_data, rel=0.02)
    assert proposed["sigma_min"] == pytest.approx(0.004 * sigma_data, rel=0.02)
    assert proposed["sigma_max"] == pytest.approx(5 * 4, rel=0.03)

    # the integrals over ln σ of r(σ)·c_out(σ)/σ, with r of a Gaussian
    u = torch.linspace(math.log(0.004 * sigma_data), math.log(20), 2001, dtype=torch.float64)
    s2, mean_square = (2 * u).exp()[:, None], variances.mean()
    share = 1 - (variances / (variances + s2)).mean(1) * (1 + s2[:, 0] / mean_square)
    density = share / (1 + s2[:, 0] / mean_square).sqrt()
    mean = (density * u).sum() / density.sum()
    std = ((density * (u - mean) ** 2).sum() / density.sum()).sqrt()
    assert proposed["P_mean"] == pytest.approx(mean.item(), abs=0.05)
    assert proposed["P_std"] == pytest.approx(std.item(), abs=0.05)


@pytest.mark.parametrize("kind", ["points", "vectors", "images", "noise"])
def test_proposals_scale_with_the_data(kind: str) -> None:
    factor = 30.0
    x = {
        "points": SwissRoll(n=2000).load().batch().double(),
        "vectors": normal(1000, 50) * torch.linspace(0.1, 2, 50).double(),
        "images": photographs(32, 100).double(),
        "noise": normal(1000, 4),
    }[kind]
    before, after = values(propose(x, step=0.01)), values(propose(factor * x, step=factor * 0.01))
    for name in ("sigma_data", "sigma_min", "sigma_max"):
        assert after[name] == pytest.approx(factor * before[name], rel=1e-6)
    assert after["P_mean"] == pytest.approx(before["P_mean"] + math.log(factor), abs=1e-6)
    assert after["P_std"] == pytest.approx(before["P_std"], abs=1e-6)


def image_noise(side: int, exponent: float) -> torch.Tensor:
    """Images with σ_data = 0.5 whose power falls as 1/k^exponent, and with weak colours, like photographs."""
    k = torch.fft.fftfreq(side, dtype=torch.float64) * side
    radius = (k[:, None] ** 2 + k**2).sqrt().clamp_min(0.5)
    waves = torch.fft.fft2(normal(250, 3, side, side)) / radius ** (exponent / 2)
    colours = torch.tensor([[1, 1, 1], [0.3, 0, -0.3], [0.1, -0.2, 0.1]], dtype=torch.float64)
    x = torch.einsum("ncij,cd->ndij", torch.fft.ifft2(waves).real, colours)
    return 0.5 * x / x.std()


@pytest.mark.parametrize("side", [32, 64])
@pytest.mark.parametrize("exponent", [2.0, 2.4])
def test_images_get_what_the_paper_found_for_images(side: int, exponent: float) -> None:
    proposed = values(propose(image_noise(side, exponent), step=2 / 255))
    assert proposed["sigma_data"] == pytest.approx(0.5, abs=0.005)
    assert proposed["sigma_min"] == pytest.approx(0.002, abs=0.0003)
    assert 40 < proposed["sigma_max"] < 160
    assert proposed["P_mean"] == pytest.approx(-1.2, abs=0.3)
    assert proposed["P_std"] == pytest.approx(1.2, abs=0.2)


def test_photographs_get_nearly_what_the_paper_found() -> None:
    x = photographs(32, 400)
    proposed = values(propose(0.5 / x.std() * x, step=2 / 255))
    assert proposed["P_mean"] == pytest.approx(-1.2, abs=0.6)
    assert proposed["P_std"] == pytest.approx(1.2, abs=0.4)
    assert 40 < proposed["sigma_max"] < 160


def test_a_mean_far_from_zero_counts_for_the_start() -> None:
    x = normal(1000, 3) + torch.tensor([30.0, 0.0, 0.0], dtype=torch.float64)
    assert propose(x).sigma_max.value == pytest.approx(5 * math.sqrt(901), rel=0.01)


def test_fine_structure_is_found_where_the_covariance_is_blind() -> None:
    # two narrow Gaussians in every direction: the smaller they are, the lower the noise at which they matter
    angle = torch.arange(4000, dtype=torch.float64) % 8 * (math.pi / 4)
    centres = 0.7 * torch.stack([angle.cos(), angle.sin()], 1)[torch.randperm(4000)]
    wide, narrow = (propose(centres + std * normal(4000, 2)) for std in (0.1, 0.02))
    assert wide.P_mean.value - narrow.P_mean.value > 0.5
    for proposed in (wide, narrow):  # two standard deviations reach 2·sigma_data
        reach = proposed.P_mean.value + 2 * proposed.P_std.value
        assert reach >= math.log(2 * proposed.sigma_data.value) - 1e-9


@pytest.mark.parametrize(("x", "why"), [(normal(1000, 4), "white noise"), (normal(15, 4), "too few samples")])
def test_without_structure_the_papers_values_are_moved(x: torch.Tensor, why: str) -> None:
    proposed = propose(x)
    assert why in proposed.P_mean.reason
    assert proposed.P_mean.value == pytest.approx(-1.2 + math.log(proposed.sigma_data.value / 0.5))
    assert proposed.P_std.value == 1.2


@pytest.mark.parametrize(
    ("step", "expected"), [(None, 0.002), (2 / 255, 2 / 255 / math.sqrt(12)), (1e-5, 0.002), (0.5, 0.002)]
)
def test_sigma_min_is_the_error_of_quantisation_where_that_is_one(step: float | None, expected: float) -> None:
    x = normal(1000, 4)
    assert propose(0.5 * x / x.std(correction=0), step).sigma_min.value == pytest.approx(expected)


def test_samples_on_a_line_have_no_noise_to_be_lost_in() -> None:
    # a covariance without full rank: the range of σ bounds what is integrated
    proposed = values(propose(normal(500, 1) * torch.ones(20, dtype=torch.float64)))
    assert all(math.isfinite(value) for value in proposed.values())
    one_of_them = torch.zeros(100, 6, dtype=torch.float64)
    one_of_them[50, 3] = 1
    assert all(math.isfinite(value) for value in values(propose(one_of_them)).values())


def test_disagreements() -> None:
    x = normal(1000, 4)
    proposed = propose(0.5 * x / x.std(correction=0))  # 0.5, 0.002, 2.5, −1.2, 1.2
    assert proposed.disagreements(sigma_data=0.5, sigma_min=0.002, sigma_max=80.0, P_mean=-1.2, P_std=1.2) == ()
    assert proposed.disagreements() == ()
    found = proposed.disagreements(sigma_data=1.0, sigma_min=0.02, sigma_max=1.0, P_mean=0.1, P_std=0.5)
    assert [sentence.split(" = ")[0] for sentence in found] == [
        "sigma_data",
        "sigma_min",
        "sigma_max",
        "P_mean",
        "P_std",
    ]
    assert found[0].startswith("sigma_data = 1, but the data suggest 0.5: the standard deviation")
