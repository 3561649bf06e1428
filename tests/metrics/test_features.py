"""Feature extractors against the linear algebra that they stand for."""

import pytest
import torch

from diffspace.metrics import PCA, FeatureExtractor, Identity, default_extractor
from diffspace.metrics.features import fingerprint, in_batches


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_identity_flattens() -> None:
    x = normal(5, 2, 3)
    extractor = Identity(6)
    assert isinstance(extractor, FeatureExtractor)
    assert (extractor.name, extractor.dim) == ("identity-6", 6)
    assert torch.equal(extractor(x), x.reshape(5, 6))
    with pytest.raises(ValueError, match=r"x: expected items of 6 elements, got shape \(5, 2, 2\)"):
        extractor(normal(5, 2, 2))


def test_principal_components_diagonalise_the_covariance() -> None:
    x = (normal(200, 12) @ normal(12, 12, seed=1) + 3).reshape(200, 3, 4)
    pca = PCA.fit(x, 5)
    features = pca(x)
    covariance = torch.cov(x.reshape(200, 12).double().T)
    largest = torch.linalg.eigvalsh(covariance).flip(0)[:5]
    torch.testing.assert_close(torch.cov(features.T), largest.diag(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(features.mean(0), torch.zeros(5).double(), rtol=0, atol=1e-12)
    assert isinstance(pca, FeatureExtractor)
    assert pca.dim == 5
    with pytest.raises(ValueError, match=r"dim: .* from 1 to 12, got 13"):
        PCA.fit(x, 13)


def test_names_tell_extractors_apart() -> None:
    x = normal(50, 8)
    assert PCA.fit(x, 3).name == PCA.fit(x, 3).name
    assert PCA.fit(x, 3).name != PCA.fit(x + 1, 3).name
    assert fingerprint([x]) != fingerprint([x.reshape(8, 50)])


def test_default_extractor_by_number_of_elements() -> None:
    assert default_extractor(normal(30, 1, 8, 8)) == Identity(64)
    assert default_extractor(normal(30, 5, 13)).dim == 30
    assert default_extractor(normal(3000, 1, 9, 9)).dim == 64


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_batches_leave_no_trace(batch_size: int) -> None:
    x = normal(10, 3).requires_grad_()
    result = in_batches(lambda batch: 2 * batch, x, batch_size=batch_size)
    assert torch.equal(result, 2 * x)
    assert not result.requires_grad
    with pytest.raises(ValueError, match=r"batch_size: .* got 0"):
        in_batches(torch.sin, x, batch_size=0)
