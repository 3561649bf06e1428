"""A checkpoint of others in our terms, and the model made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from diffspace._shapes import Tensor
from diffspace.model import Model
from diffspace.preconditioning import Preconditioned, Preconditioning
from diffspace.registry import from_config, to_config
from diffspace.transform import PIXELS

__all__ = ["Foreign", "Report", "build", "fit_network"]


@dataclass(frozen=True)
class Foreign:
    """What a reader finds in a file: a network's config and weights under our names, and the preconditioning.

    `ignored` says what of the file is not in the model, `assumed` what the file does not say.
    """

    format: str
    network: Mapping[str, Any]
    state: Mapping[str, Tensor]
    preconditioning: Preconditioning
    ignored: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """What became of a foreign file. `tensors` of the file are in the model, with `parameters` numbers in all."""

    source: str
    sha256: str
    format: str
    architecture: str
    network: Mapping[str, Any] = field(repr=False)
    preconditioning: Mapping[str, Any]
    sigma_min: float
    sigma_max: float
    tensors: int
    parameters: int
    ignored: tuple[str, ...]
    assumed: tuple[str, ...]

    def lines(self) -> list[str]:
        """The report for people, one fact a line."""
        options = ", ".join(f"{name} {value}" for name, value in self.network.items() if value not in (None, 0, False))
        choices = ", ".join(
            f"{name} {value}" for name, value in self.preconditioning.items() if not isinstance(value, Mapping)
        )
        return [
            f"source           {self.source}, sha256 {self.sha256[:16]}",
            f"format           {self.format}",
            f"architecture     {self.architecture}: {options}",
            f"preconditioning  {choices}",
            f"σ range          {self.sigma_min:g} … {self.sigma_max:g}",
            f"parameters       {self.parameters:,} in {self.tensors} tensors, every one of them matched by name",
            *(f"ignored          {what}" for what in self.ignored),
            *(f"assumed          {what}" for what in self.assumed),
        ]

    def notes(self) -> dict[str, Any]:
        """What the model keeps of it."""
        return {"source": self.source, "sha256": self.sha256, "format": self.format, "assumed": list(self.assumed)}


def build(foreign: Foreign, source: str, sha256: str) -> tuple[Model, Report]:
    """The model with its report; ValueError unless the weights are exactly those of the network."""
    blocks = foreign.network["num_blocks"] * len(foreign.network["channel_mult"])
    if blocks > len(foreign.state):
        raise ValueError(f"num_blocks, channel_mult: make {blocks} blocks of {len(foreign.state)} tensors")
    # the filters follow from the architecture, and not every format holds them
    network = fit_network(foreign.network, foreign.state, optional="resample_filter")
    denoiser = Preconditioned(network, foreign.preconditioning)
    kind = foreign.network["kind"]
    report = Report(
        source=source,
        sha256=sha256,
        format=foreign.format,
        architecture=kind,
        network={name: value for name, value in to_config("network", network).items() if name != "kind"},
        preconditioning=to_config("preconditioning", foreign.preconditioning),
        sigma_min=denoiser.sigma_min,
        sigma_max=denoiser.sigma_max,
        tensors=len(foreign.state),
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        ignored=foreign.ignored,
        assumed=foreign.assumed,
    )
    class_names = tuple(str(i) for i in range(foreign.network.get("label_dim", 0)))
    return Model(denoiser, PIXELS, class_names, report.notes()).eval(), report


def fit_network(config: Mapping[str, Any], state: Mapping[str, Tensor], optional: str | None = None) -> torch.nn.Module:
    """The network of a config with these weights; ValueError unless they are exactly its own.

    Names that end in `optional` may be missing. The network is made without memory first: what a file says may be
    absurd.
    """
    with torch.device("meta"):
        wanted = from_config("network", config).state_dict()
    missing = [name for name in wanted if name not in state and not (optional and name.endswith(optional))]
    unknown = [name for name in state if name not in wanted]
    if missing or unknown:
        found = [f"{len(names)} {what}, {names[0]!r} first" for names, what in _kinds(missing, unknown) if names]
        raise ValueError(f"the weights are not those of the network: {' and '.join(found)}")
    for name, value in state.items():
        if value.shape != wanted[name].shape:
            raise ValueError(f"{name}: shape {tuple(value.shape)}; the network wants {tuple(wanted[name].shape)}")
        if not value.dtype.is_floating_point:
            raise ValueError(f"{name}: {value.dtype}; want floating-point numbers")
    network: torch.nn.Module = from_config("network", config)
    network.load_state_dict(state, strict=False)
    return network


def _kinds(missing: list[str], unknown: list[str]) -> tuple[tuple[list[str], str], ...]:
    return (missing, "missing"), (unknown, "unknown")
