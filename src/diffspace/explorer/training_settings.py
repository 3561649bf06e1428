"""What room 3 asks for, checked: a prediction, its weight and its noise levels, each with the Python that makes it."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from diffspace._shapes import Float, Tensor
from diffspace.checks import check_choice, check_integer, check_number, check_seed
from diffspace.explorer.settings import Data
from diffspace.networks import MLP
from diffspace.objective import EDMWeight, InverseVariance, LogNormal, NoiseDistribution, UniformWeight
from diffspace.preconditioning import Preconditioning
from diffspace.studies import COLUMNS, log_space, predictions
from diffspace.studies.coefficients import Weight

WIDTHS = (16, 32, 64, 128)
LEVELS, HELD_OUT, MEASURED = 25, 512, 192
"""Noise levels at which denoisers are measured, samples that no training sees, and those of them for a network."""

_HELD_OUT_SEED = 987_654_321


@dataclass(frozen=True)
class Design:
    """A design of the training: F as D by `prediction`, λ by `weighting`, the training's σ by `draws`.

    `sigma_data` None is that of the data. Draws "EDM" are the paper's lognormal ones, moved to σ_data; "lognormal" has
    `P_mean` and `P_std`, and the others are those of a column of Table 1.
    """

    data: Data = field(default_factory=Data)
    prediction: Literal["VP", "VE", "iDDPM", "EDM", "ε", "v", "x₀", "flow"] = "EDM"
    weighting: Literal["own", "EDM", "noise", "uniform"] = "own"
    draws: Literal["EDM", "lognormal", "VP", "VE", "iDDPM"] = "EDM"
    sigma_data: float | None = None
    P_mean: float = -1.2
    P_std: float = 1.2

    def __post_init__(self) -> None:
        if self.sigma_data is not None:
            check_number("sigma_data", self.sigma_data, "[0.001, 1000]")
        check_number("P_mean", self.P_mean, "[-12, 12]")
        check_number("P_std", self.P_std, "[0.05, 5]")

    @property
    def scale(self) -> float:
        """σ_data as the design has it."""
        return self.sigma_data if self.sigma_data is not None else data_deviation(self.data)

    def build(self) -> tuple[Preconditioning, Weight, NoiseDistribution]:
        preconditioning = predictions(self.scale)[self.prediction][0]
        weights: dict[str, Weight] = {
            "own": preconditioning.weight,
            "EDM": EDMWeight(self.scale),
            "noise": InverseVariance(),
            "uniform": UniformWeight(),
        }
        return preconditioning, weights[self.weighting], self._noise()

    def _noise(self) -> NoiseDistribution:
        if self.draws == "EDM":
            return LogNormal.for_data(self.scale)
        return LogNormal(self.P_mean, self.P_std) if self.draws == "lognormal" else COLUMNS[self.draws].noise

    @property
    def python(self) -> str:
        """The lines that make it, as `data`, `sigma_data`, `preconditioning`, `weight` and `noise`."""
        scale = "data.sigma_data" if self.sigma_data is None else repr(self.sigma_data)
        weight = {
            "own": "preconditioning.weight",
            "EDM": "ds.EDMWeight(sigma_data)",
            "noise": "ds.InverseVariance()",
            "uniform": "ds.UniformWeight()",
        }[self.weighting]
        noise = {
            "EDM": "ds.LogNormal.for_data(sigma_data)",
            "lognormal": f"ds.LogNormal({self.P_mean!r}, {self.P_std!r})",
        }.get(self.draws, f"studies.COLUMNS[{self.draws!r}].noise")
        return (
            f"import torch\nimport diffspace as ds\nfrom diffspace import studies\n\n{self.data.python}\n"
            f"sigma_data = {scale}\n"
            f"preconditioning = studies.predictions(sigma_data)[{self.prediction!r}][0]\n"
            f"weight = {weight}\nnoise = {noise}"
        )


@dataclass(frozen=True)
class Training(Design):
    """A training of a design: `steps` of a network of some `width`, from random numbers of `seed`."""

    steps: int = 400
    width: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("steps", self.steps, 100, 5000)
        check_choice("width", self.width, WIDTHS)
        check_seed("seed", self.seed)

    def network(self, shape: tuple[int, ...]) -> torch.nn.Module:
        return MLP(shape, width=self.width)

    @property
    def options(self) -> dict[str, Any]:
        """Those of `training_stages`."""
        preconditioning, weight, noise = self.build()
        given = {"data": self.data.mixture, "preconditioning": preconditioning, "weight": weight, "noise": noise}
        return given | {"network": self.network, "steps": self.steps, "seed": self.seed}


def data_deviation(data: Data) -> float:
    """The standard deviation of the data, which is never 0: each mode has a width."""
    return math.sqrt(data.mixture.moments()[1])


def unit(data: Data) -> float:
    """A power of ten near the standard deviation: scales that follow the data, but not each of their movements."""
    return float(10.0 ** round(math.log10(data_deviation(data))))


def measured_levels(data: Data) -> Float[Tensor, "levels"]:
    """Four decades of σ around the data's scale."""
    return log_space(*_ends(data), LEVELS)


def _ends(data: Data) -> tuple[float, float]:
    return 0.01 * unit(data), 100.0 * unit(data)


@functools.lru_cache(16)
def held_out(data: Data) -> Tensor:
    """Samples that no training sees."""
    return data.mixture.sample(HELD_OUT, generator=torch.Generator().manual_seed(_HELD_OUT_SEED)).float()


def held_out_python(data: Data) -> str:
    """The lines that make the same, as `held_out`, and the levels as `sigmas`."""
    low, high = _ends(data)
    return (
        f"held_out = data.sample({HELD_OUT}, generator=torch.Generator().manual_seed({_HELD_OUT_SEED})).float()\n"
        f"sigmas = studies.log_space({low!r}, {high!r}, {LEVELS})"
    )
