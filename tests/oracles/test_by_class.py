import pytest
import torch

from diffspace.oracles import ByClass, FiniteData, Gaussian, GaussianMixture


def test_each_class_is_answered_by_its_own_oracle():
    parts = [Gaussian(torch.tensor([m, 0.0]), 0.1 * torch.eye(2)) for m in (-1.0, 0.0, 2.0)]
    x, labels = torch.randn(9, 2, dtype=torch.float64), torch.tensor([0, 2, 1, 1, 0, 2, 2, 0, 1])
    sigma = torch.linspace(0.1, 3, 9, dtype=torch.float64)
    denoised = ByClass(parts)(x, sigma, {"labels": labels})
    for i in range(9):
        torch.testing.assert_close(denoised[i : i + 1], parts[int(labels[i])](x[i : i + 1], sigma[i]))


def test_density_is_that_of_the_mixture():
    means = torch.tensor([[-1.0, 0.0], [1.0, 0.5]])
    parts = [Gaussian(mean, 0.04 * torch.eye(2)) for mean in means]
    x, sigma = torch.randn(5, 2, dtype=torch.float64), torch.tensor(0.3)
    mixture = GaussianMixture(means, stds=torch.tensor([0.2, 0.2]))
    torch.testing.assert_close(ByClass(parts).log_prob(x, sigma), mixture.log_prob(x, sigma), rtol=1e-6, atol=1e-6)


def test_bad_input_is_named():
    oracle = ByClass([FiniteData(torch.zeros(1, 2)), FiniteData(torch.ones(1, 2))])
    x, sigma = torch.zeros(3, 2), torch.tensor(1.0)
    with pytest.raises(ValueError, match="labels"):
        oracle(x, sigma)
    with pytest.raises(ValueError, match=r"\[0, 2\]"):
        oracle(x, sigma, {"labels": torch.tensor([0, 1, 2])})
    with pytest.raises(ValueError, match="'class'"):
        oracle(x, sigma, {"class": torch.tensor([0, 1, 1])})
    with pytest.raises(ValueError, match="one sample shape"):
        ByClass([FiniteData(torch.zeros(1, 2)), FiniteData(torch.zeros(1, 3))])


def test_the_score_of_a_class_is_that_of_its_oracle():
    one, two = Gaussian(torch.zeros(2), torch.eye(2)), Gaussian(torch.ones(2), 0.1 * torch.eye(2))
    x, sigma = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), torch.tensor(0.3)
    found = ByClass([one, two]).score(x, sigma, {"labels": torch.tensor([0, 1, 0, 1])})
    torch.testing.assert_close(found[::2], one.score(x[::2], sigma))
    torch.testing.assert_close(found[1::2], two.score(x[1::2], sigma))
