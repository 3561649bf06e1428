"""The loss on held-out data, with noise that stays the same from one measurement to the next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from diffspace.checks import check_integer
from diffspace.data import DataSet
from diffspace.objective import LossBySigma, NoiseDistribution, loss_by_sigma
from diffspace.protocols import Denoiser, stated


@dataclass(frozen=True)
class ValidationLoss:
    """The weighted loss over the training noise, and the squared error per dimension by σ from which it is computed."""

    loss: float
    by_sigma: LossBySigma

    def record(self) -> dict[str, Any]:
        """For a log: {"loss", "sigma", "mse", "trivial"}, numbers and lists of numbers."""
        by = self.by_sigma
        lists = {"sigma": by.sigma.tolist(), "mse": by.mse.tolist(), "trivial": by.trivial.tolist()}
        return {"loss": self.loss, **lists}


class Validation:
    """E[λ(σ)·‖D(y + σε; σ) − y‖²] over held-out data y, with the same levels and noise every time.

    The mean over p(σ) is taken at `levels` quantiles of the training noise, (k + ½)/levels, each with the same samples
    and noise: two measurements differ by what the denoiser has learnt, and do not depend on the batch size.

    Args:
        data: the held-out data, of which `data.sample_numbers(count)` is used.
        noise: p(σ).
        count: samples at each level.
        levels: noise levels.
        reduction: that of the training loss.
        conditional: whether the denoiser gets the classes and other conditions of data that have some.
        seed: of the noise.
        batch_size: samples of one pass.
        device: where the samples are kept, that of the denoiser.
    """

    def __init__(
        self,
        data: DataSet,
        noise: NoiseDistribution,
        *,
        count: int = 256,
        levels: int = 16,
        reduction: Literal["sum", "mean"] = "sum",
        conditional: bool = True,
        seed: int = 0,
        batch_size: int = 256,
        device: torch.device | str = "cpu",
    ) -> None:
        check_integer("count", count, 2)
        check_integer("levels", levels, 1)
        if len(data) < 2:
            raise ValueError(f"data: expected at least 2 held-out samples, got {len(data)}")
        places = data.sample_numbers(count)
        self.x0 = data.batch(places).to(device)
        cond = data.cond(places) if conditional else None
        self.cond = cond and {name: value.to(device) for name, value in cond.items()}
        self.sigmas = noise.quantile((torch.arange(levels, dtype=torch.float64, device="cpu") + 0.5) / levels)
        self.reduction, self.seed, self.batch_size = reduction, seed, batch_size

    def measure(self, denoiser: Denoiser) -> ValidationLoss:
        """The loss of a denoiser that has a weight(σ), in evaluation mode."""
        weight = stated(denoiser, "weight")
        if weight is None:
            raise ValueError("denoiser: has no weight(sigma) of its own")
        by_sigma = loss_by_sigma(
            denoiser, self.x0, self.cond, sigmas=self.sigmas, seed=self.seed, batch_size=self.batch_size
        )
        loss = float((weight(self.sigmas).to(by_sigma.mse) * by_sigma.mse).mean())
        return ValidationLoss(loss * (self.x0[0].numel() if self.reduction == "sum" else 1), by_sigma)
