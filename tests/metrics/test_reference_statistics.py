"""Statistics in files and by blocks, against plain numpy and plain pickle."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from diffspace.metrics import FeatureStatistics, load_statistics, save_statistics


def features(n: int = 60, dim: int = 7, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 5 + torch.randn(n, dim, generator=generator) @ torch.randn(dim, dim, generator=generator)


def moments(x: torch.Tensor, dtype: type = np.float64) -> dict[str, np.ndarray]:
    wide = x.double().numpy()
    return {"mu": wide.mean(0).astype(dtype), "sigma": np.cov(wide, rowvar=False).astype(dtype)}


def test_blocks_give_the_statistics_of_the_whole() -> None:
    x = features(1000) + 1e4
    whole = FeatureStatistics.of(x)
    found = FeatureStatistics.of_blocks(x.split([1, 300, 7, 692]), "name")
    assert (found.n, found.extractor) == (1000, "name")
    torch.testing.assert_close(found.mean, whole.mean, rtol=1e-14, atol=0)
    torch.testing.assert_close(found.scatter, whole.scatter, rtol=1e-10, atol=0)
    with pytest.raises(ValueError, match="features: expected 7 of them as before, got 6"):
        found.add(x[:, :6])
    with pytest.raises(ValueError, match="blocks: expected at least one"):
        FeatureStatistics.of_blocks([])


def test_numpy_reads_what_is_written_as_the_reference_does(tmp_path: Path) -> None:
    x = features()
    file = tmp_path / "ref.npz"
    save_statistics(file, FeatureStatistics.of(x, "inception"))
    with np.load(file) as content:
        ref = dict(content)
    for name, exact in moments(x).items():
        assert ref[name].dtype == np.float64
        np.testing.assert_allclose(ref[name], exact, rtol=1e-12)
    again = load_statistics(file)
    assert (again.n, again.extractor) == (60, "inception")
    torch.testing.assert_close(again.scatter, FeatureStatistics.of(x).scatter, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_files_of_the_reference_do_not_state_n(tmp_path: Path, dtype: type) -> None:
    exact = moments(features(), dtype)
    np.savez(tmp_path / "cifar10.npz", **exact)
    found = load_statistics(tmp_path / "cifar10.npz")
    assert found.n is None
    np.testing.assert_allclose(found.mean, exact["mu"], rtol=1e-15)
    np.testing.assert_allclose(found.covariance, exact["sigma"], rtol=1e-6 if dtype == np.float32 else 1e-15)
    with pytest.raises(ValueError, match="n: is not known of these statistics, and add needs it"):
        found.add(features())
    save_statistics(tmp_path / "again.npz", found)
    assert sorted(np.load(tmp_path / "again.npz")) == ["mu", "sigma"]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_of_edm2(tmp_path: Path, protocol: int) -> None:
    fid, dino = moments(features()), moments(features(dim=5, seed=1))
    dino["sigma"] = np.asfortranarray(dino["sigma"])
    file = tmp_path / "img512.pkl"
    file.write_bytes(pickle.dumps({"num_images": 60, "fid": fid, "fd_dinov2": dino}, protocol=protocol))
    for metric, exact in (("fid", fid), ("fd_dinov2", dino)):
        found = load_statistics(file, metric)
        assert found.n == 60
        np.testing.assert_array_equal(found.mean, exact["mu"])
        np.testing.assert_allclose(found.covariance, exact["sigma"], rtol=1e-14)
    with pytest.raises(ValueError, match=r"img512.pkl: .*metric: .* got None; known: fd_dinov2, fid"):
        load_statistics(file)


def test_what_is_no_file_of_statistics(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="statistics: there is no file"):
        load_statistics(tmp_path / "none.npz")
    np.savez(tmp_path / "images.npz", images=np.zeros(3))
    with pytest.raises(ValueError, match=r"images.npz: .*expected floating-point mu .* got images"):
        load_statistics(tmp_path / "images.npz")
    np.savez(tmp_path / "shapes.npz", mu=np.zeros(3), sigma=np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"shapes.npz: .*mu \(dim,\) and sigma \(dim, dim\)"):
        load_statistics(tmp_path / "shapes.npz")
    (tmp_path / "big.pkl").write_bytes(pickle.dumps({"mu": np.zeros(2, ">f8"), "sigma": np.zeros((2, 2), ">f8")}))
    with pytest.raises(ValueError, match=r"big.pkl: .*expected floating-point mu"):
        load_statistics(tmp_path / "big.pkl")
    (tmp_path / "code.pkl").write_bytes(pickle.dumps(print))
    with pytest.raises(ValueError, match=r"code.pkl: .*asks for 'builtins.print', which is not allowed"):
        load_statistics(tmp_path / "code.pkl")
    with pytest.raises(ValueError, match=r"path: expected a name that ends in .npz"):
        save_statistics(tmp_path / "x.pkl", FeatureStatistics.of(features()))
