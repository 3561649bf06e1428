"""The loss on data that are not trained on, with noise that stays the same from one measurement to the next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from diffspace._shapes import Float, Tensor
from diffspace.data import DataSet
from diffspace.objective import LossBySigma, NoiseDistribution, loss_by_sigma
from diffspace.protocols import Denoiser

__all__ = ["HeldOut", "HeldOutLoss"]


@dataclass(frozen=True)
class HeldOutLoss:
    """The weighted loss over the training noise, and the squared error per dimension by σ that it is made of."""

    loss: float
    by_sigma: LossBySigma

    def record(self) -> dict[str, Any]:
        """For a log: {"loss", "sigma", "mse", "trivial"}, numbers and lists of numbers."""
        by = self.by_sigma
        return {
            "loss": self.loss,
            "sigma": by.sigma.tolist(),
            "mse": by.mse.tolist(),
            "trivial": by.trivial.tolist(),
        }


class HeldOut:
    """E[λ(σ)·‖D(y + σε; σ) − y‖²] over held-out data y, the levels and the noise the same every time.

    The mean over p(σ) is taken at `levels` quantiles of the training noise, (k + ½)/levels, each with the same `count`
    samples, those of `data.some`, and the same noise, drawn by `seed`: two measurements differ by what the
    denoiser has learnt, and those of one model agree whatever the batch size. `reduction` is that of the training loss;
    `conditional` says whether the denoiser is told the classes of data that have some.
    `mean` is the mean of the training data, which the trivial denoiser answers (default: of the samples themselves).
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
        mean: Float[Tensor, "*dims"] | None = None,
        seed: int = 0,
        batch_size: int = 256,
        device: torch.device | str = "cpu",
    ) -> None:
        if count < 2:
            raise ValueError(f"count: {count}; want at least 2 samples")
        if levels < 1:
            raise ValueError(f"levels: {levels}; want at least 1")
        if len(data) < 2:
            raise ValueError(f"data: {len(data)} held-out samples; want at least 2")
        places = data.some(count)
        self.x0 = data.batch(places).to(device)
        labels = data.classes(places) if conditional else None
        self.cond = None if labels is None else {"labels": labels.to(device)}
        self.sigmas = noise.quantile((torch.arange(levels, dtype=torch.float64) + 0.5) / levels)
        self.reduction, self.seed, self.batch_size = reduction, seed, batch_size
        self.mean = None if mean is None else mean.to(self.x0)

    def measure(self, denoiser: Denoiser) -> HeldOutLoss:
        """The loss of a denoiser that has a weight(σ); a module is put into evaluation meanwhile."""
        weight = getattr(denoiser, "weight", None)
        if weight is None:
            raise ValueError("denoiser: has no weight(sigma) of its own")
        module = denoiser if isinstance(denoiser, torch.nn.Module) else None
        training = module is not None and module.training
        if module is not None:
            module.eval()
        try:
            by_sigma = loss_by_sigma(
                denoiser,
                self.x0,
                self.cond,
                sigmas=self.sigmas,
                mean=self.mean,
                seed=self.seed,
                batch_size=self.batch_size,
            )
        finally:
            if module is not None:
                module.train(training)
        loss = float((weight(self.sigmas).to(by_sigma.mse) * by_sigma.mse).mean())
        if self.reduction == "sum":
            loss *= self.x0[0].numel()
        return HeldOutLoss(loss, by_sigma)
