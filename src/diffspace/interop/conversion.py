"""Checkpoints of other code bases as models of diffspace."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from diffspace._shapes import Tensor
from diffspace.config import from_config, to_config
from diffspace.files import file_sha256, missing_path
from diffspace.interop import nvidia, openai, score_sde
from diffspace.interop.model_parts import ModelParts, make_skeleton
from diffspace.model import Model
from diffspace.pickles import read_pickle, short_repr
from diffspace.preconditioning import Preconditioned
from diffspace.tensors import plain_defaults
from diffspace.transform import PIXELS

_READERS: tuple[tuple[Callable[[Mapping[str, Any]], bool], Callable[..., ModelParts]], ...] = (
    (nvidia.recognise, nvidia.read),
    (openai.recognise, openai.read),
    (score_sde.recognise, score_sde.read),
)
SUFFIXES = (".pkl", ".pt", ".pth", ".safetensors")
"""File name suffixes of the checkpoints of other code bases."""


@dataclass(frozen=True)
class Report:
    """A summary of a conversion; `tensors` counts the tensors taken from the file, `parameters` their numbers."""

    source: str
    format: str
    model: Model = field(repr=False)
    tensors: int
    ignored: tuple[str, ...]
    assumed: tuple[str, ...]

    @property
    def architecture(self) -> str:
        """The kind of the network."""
        return str(to_config("network", self.model.denoiser.network)["kind"])

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.denoiser.network.parameters())

    def lines(self) -> list[str]:
        """The report as text, one fact per line."""
        denoiser = self.model.denoiser
        network = to_config("network", denoiser.network)
        choices = to_config("preconditioning", denoiser.preconditioning)
        kind = network.pop("kind")
        options = ", ".join(f"{name} {value}" for name, value in network.items() if value not in (None, 0, False))
        null = "trained without labels too" if denoiser.network.null_trained else "trained with labels only"
        settings = ", ".join(f"{name} {value}" for name, value in choices.items() if not isinstance(value, Mapping))
        return [
            f"source           {self.source}, sha256 {self.model.notes['sha256'][:16]}",
            f"format           {self.format}",
            f"architecture     {kind}: {options}",
            f"preconditioning  {settings}",
            f"σ range          {denoiser.sigma_min:g} … {denoiser.sigma_max:g}",
            *([f"classes          {classes}, {null}"] if (classes := network.get("label_dim")) else ()),
            f"parameters       {self.parameters:,} in {self.tensors} tensors, every one of them matched by name",
            *(f"ignored          {what}" for what in self.ignored),
            *(f"assumed          {what}" for what in self.assumed),
        ]


def convert(source: str | Path, **options: Any) -> tuple[Model, Report]:
    """The model in a checkpoint of another code base, with a report of what was recognised, matched and ignored.

    Supported are NVIDIA's pickles of EDM and its baselines, state dicts of OpenAI's improved-diffusion and
    guided-diffusion, and checkpoints of Song's score_sde. Nothing in a file is executed. Options state facts that a
    file lacks (`openai.read`, `score_sde.read`). ValueError, naming the file, for anything else.
    """
    path = Path(source)
    if not path.is_file():
        raise ValueError(f"source: there is no file {missing_path(source)}")
    try:
        content = _read_content(path)
        reader = _reader(content)
        known = list(inspect.signature(reader).parameters)[1:]
        given = {name: value for name, value in options.items() if value is not None}
        for name in given:
            if name not in known:
                raise ValueError(f"{name}: has no effect on this kind of file; options: {', '.join(known) or 'none'}")
        return _build(reader(content, **given), path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    except Exception as error:
        # the file has names and shapes of a known code base but other content
        reason = f"{type(error).__name__} {error}".splitlines()[0]
        raise ValueError(f"{path}: cannot be interpreted: {reason}") from None


def _read_content(path: Path) -> Any:
    """The content of a pickle, a file of torch.save (both recognised by their first bytes) or safetensors."""
    with path.open("rb") as file:
        if file.read(2).startswith((b"\x80", b"PK")):
            return read_pickle(path)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"is neither a pickle, nor a file of torch.save, nor safetensors: {error}") from None


def _reader(content: Any) -> Callable[..., ModelParts]:
    if not isinstance(content, Mapping):
        raise ValueError(f"expected the checkpoint of a network, got a {type(content).__name__}")
    for recognise, read in _READERS:
        if recognise(content):
            return read
    first = ", ".join(short_repr(name) for name in list(content)[:5])
    raise ValueError(
        "expected a checkpoint of NVIDIA's EDM, OpenAI's improved-diffusion or guided-diffusion, or score_sde, "
        f"got a file that holds {first or 'nothing'}"
    )


def _build(parts: ModelParts, path: Path) -> tuple[Model, Report]:
    """The model with its report; ValueError unless the weights are exactly those of the network."""
    # the filters follow from the architecture, and some formats do not store them
    network = fit_network(parts.network, parts.state, optional="resample_filter")
    notes = {"source": path.name, "sha256": file_sha256(path), "format": parts.format, "assumed": list(parts.assumed)}
    class_names = tuple(str(i) for i in range(parts.network.get("label_dim", 0)))
    model = Model(Preconditioned(network, parts.preconditioning), PIXELS, class_names, notes).eval()
    return model, Report(path.name, parts.format, model, len(parts.state), parts.ignored, parts.assumed)


def _alike(one: torch.dtype, other: torch.dtype) -> bool:
    """Whether two types are both of real numbers, of whatever precision, or else the same."""
    return one == other or (one.is_floating_point and other.is_floating_point)


def fit_network(config: Mapping[str, Any], state: Mapping[str, Tensor], optional: str | None = None) -> torch.nn.Module:
    """The network of a config with these weights; ValueError unless names and shapes match exactly.

    Names that end in `optional` may be missing.
    """
    expected = make_skeleton(config, state).state_dict()
    missing = [name for name in expected if name not in state and not (optional and name.endswith(optional))]
    unknown = [name for name in state if name not in expected]
    if missing or unknown:
        kinds = {"missing": missing, "unknown": unknown}
        found = [f"{len(names)} {kind}, {names[0]!r} first" for kind, names in kinds.items() if names]
        raise ValueError(f"the weights are not those of the network: {' and '.join(found)}")
    for name, value in state.items():
        if value.shape != expected[name].shape:
            raise ValueError(f"{name}: expected shape {tuple(expected[name].shape)}, got {tuple(value.shape)}")
        if not _alike(value.dtype, expected[name].dtype):
            raise ValueError(f"{name}: expected numbers such as {expected[name].dtype}, got {value.dtype}")
    with plain_defaults():
        network: torch.nn.Module = from_config("network", config)
    network.load_state_dict(state, strict=False)
    return network
