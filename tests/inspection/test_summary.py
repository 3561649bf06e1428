"""What `inspect` says of a data set."""

from pathlib import Path

import numpy as np
import pytest
import torch

from diffspace.data import PIXELS, ArrayFile, DataSet, Digits, ImageFolder, InMemory, SwissRoll
from diffspace.inspection import inspect
from diffspace.transform import Transform


@pytest.fixture(autouse=True)
def _fewer_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffspace.inspection.learnability._REFERENCES", 512)
    monkeypatch.setattr("diffspace.inspection.learnability._QUERIES", 128)


def of(values: torch.Tensor, labels: list[int] | None = None, transform: Transform | None = None) -> DataSet:
    names = () if labels is None else tuple("abcdef"[: max(labels) + 1])
    numbers = None if labels is None else torch.tensor(labels)
    return DataSet("data", InMemory(values), transform or Transform(), numbers, names)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def test_digits() -> None:
    data = Digits().load()
    found = inspect(data)
    x = data.batch().double()
    assert (found.name, found.count, found.measured, found.shape, found.dtype) == (
        "digits",
        1797,
        1797,
        (1, 8, 8),
        "uint8",
    )
    assert found.raw_range == (0, 16)
    assert found.mean == pytest.approx((x.mean().item(),))
    assert found.std == pytest.approx((x.std(correction=0).item(),))
    assert dict(found.classes)["3"] == 183
    assert found.proposals.sigma_data.value == pytest.approx(x.std(correction=0).item())
    assert found.proposals.sigma_min.value == pytest.approx(1 / 8 / 12**0.5)
    text = "\n".join(found.lines())
    assert "the model sees x = (raw − 8)/8: mean -0.389, standard deviation 0.752" in text
    assert "10 classes of 174 to 183 samples" in text
    assert "sigma_data = 0.752 (paper: 0.5)" in text
    assert [warning.split()[:2] for warning in found.warnings] == [["1797", "samples"]]


def test_channels_have_their_own_moments() -> None:
    x = (
        normal(500, 3, 4, 5) * torch.tensor([1.0, 2.0, 3.0])[:, None, None]
        + torch.tensor([0.0, 5.0, -5.0])[:, None, None]
    )
    found = inspect(of(x))
    assert found.mean == pytest.approx(x.double().mean((0, 2, 3)).tolist())
    assert found.std == pytest.approx(x.double().transpose(0, 1).flatten(1).std(1, correction=0).tolist())


def test_the_result_depends_on_the_data_alone() -> None:
    data = SwissRoll().load()
    torch.manual_seed(1)
    first = inspect(data)
    torch.manual_seed(2)
    assert inspect(data) == first
    assert (first.count, first.measured) == (20_000, 4096)
    assert "20000 samples of shape (2,) (4096 of them measured)" in first.lines()[0]


def test_big_samples_are_looked_at_in_smaller_numbers() -> None:
    values = torch.zeros(1, 3, 512, 512, dtype=torch.uint8).expand(100, -1, -1, -1)
    blocks = torch.randint(0, 256, (100, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    values = blocks.repeat_interleave(64, 2).repeat_interleave(64, 3)
    found = inspect(of(values, transform=PIXELS))
    assert found.measured == 32
    assert found.raw_range == (0, 255)


def test_in_memory_or_decoded_it_says_the_same(tmp_path: Path) -> None:
    from PIL import Image

    for i, image in enumerate(Digits().load().raw()[:40, 0]):
        Image.fromarray((image * 15).numpy()).save(tmp_path / f"{i}.png")
    kept, lazy = (inspect(ImageFolder(tmp_path, cache_mb=mb).load()) for mb in (1, 0))
    assert kept.proposals == lazy.proposals
    assert kept.space == lazy.space == "x = (raw − 127.5)/127.5"


def test_warnings() -> None:
    fine = normal(6000, 4)
    assert inspect(of(fine)).warnings == ()

    copied = fine.clone()
    copied[1:4] = copied[0]
    (warning,) = inspect(of(copied[:4096].repeat(1, 1))).warnings[:1]
    assert warning == "3 of 4096 samples measured are exact copies of others"

    constant = fine.clone()
    constant[:, 2] = 1
    assert "channels that never change: 2" in inspect(of(constant)).warnings

    (warning,) = inspect(of(fine + 1.5)).warnings
    assert "far from 0" in warning

    (warning,) = inspect(of(fine, [0] * 5700 + [1] * 300)).warnings
    assert warning == "classes are uneven: 300 of 'b', 5700 of 'a'"

    (warning,) = inspect(of(fine[:500])).warnings
    assert warning.startswith("500 samples are few")
    assert inspect(of(fine[:500, :2])).warnings == ()  # a plane is filled by fewer


def test_copies_do_not_pass_for_structure() -> None:
    twice = normal(1000, 2).repeat(2, 1)
    assert "white noise" in inspect(of(twice)).proposals.P_mean.reason


def test_a_constant_data_set() -> None:
    with pytest.raises(ValueError, match="data: every value is 7; there is nothing to learn"):
        inspect(of(torch.full((10, 3), 7.0)))
    assert inspect(of(torch.tensor([[1.0, 2.0]]))).count == 1  # one sample that is not constant


def test_standardised_integers_know_their_step(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(1000, [[30], [60]], (2000, 2, 5)).round().astype(np.int16)
    np.save(tmp_path / "x.npy", array)
    data = ArrayFile(tmp_path / "x.npy").load()
    found = inspect(data)
    # the scales are near 60 and 120, so that a step of 1 is 1/120 in the finer channel
    assert found.proposals.sigma_min.value == pytest.approx(1 / max(data.transform.scale) / 12**0.5)
    assert found.space == "x = (raw − shift)/scale for each channel"
    assert found.proposals.sigma_data.value == pytest.approx(0.5, abs=1e-6)
