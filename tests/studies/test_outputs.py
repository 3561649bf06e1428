"""What an exact denoiser answers over σ."""

import pytest
import torch

from diffspace.oracles import FiniteData, Gaussian
from diffspace.studies import denoiser_outputs


def test_outputs_of_a_gaussian():
    data = Gaussian(torch.zeros(3, dtype=torch.float64), 0.25 * torch.eye(3, dtype=torch.float64))
    found = denoiser_outputs(data, seed=3, num_steps=96)
    gain = (0.25 / (0.25 + found.sigma**2))[:, None]
    torch.testing.assert_close(found.denoised, gain * found.noisy, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.path_denoised, gain * found.path, rtol=1e-12, atol=1e-12)
    # the solution is x₀·√(σ_d² + σ²)/σ_d
    exact = found.clean * ((0.25 + found.sigma**2) / 0.25).sqrt()[:, None]
    torch.testing.assert_close(found.path, exact, rtol=2e-3, atol=1e-4)
    noise = (found.noisy - found.clean) / found.sigma[:, None]
    torch.testing.assert_close(noise, noise[:1].expand_as(noise), rtol=1e-9, atol=1e-9)
    assert noise.abs().max() > 0.1


def test_outputs_of_points_go_from_their_mean_to_one_of_them():
    points = torch.tensor([[-1.0, 0.5], [1.0, -0.2], [0.3, 0.9]], dtype=torch.float64)
    found = denoiser_outputs(FiniteData(points), seed=1)
    for answers in (found.denoised, found.path_denoised):
        torch.testing.assert_close(answers[0], points.mean(0), rtol=0.0, atol=0.02)
        assert float((points - answers[-1]).norm(dim=1).min()) < 1e-6
    assert bool((found.sigma.diff() < 0).all())


def test_outputs_keep_to_the_conditions():
    def of_class(x, sigma, cond=None):
        assert cond["labels"].tolist() == [2] * len(x)
        return torch.zeros_like(x) + cond["labels"][:, None]

    found = denoiser_outputs(of_class, shape=(2,), cond={"labels": torch.tensor([2])})
    assert found.clean.tolist() == pytest.approx([2.0, 2.0])
