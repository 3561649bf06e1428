"""Drawing more of the noise levels whose gradient is large, without changing its mean."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from diffspace._shapes import Float, Tensor
from diffspace.checks import check_integer, check_number
from diffspace.objective.by_sigma import SigmaBins
from diffspace.objective.noise import NoiseDistribution, Reduce


class AdaptiveNoise(NoiseDistribution, torch.nn.Module):
    """q(σ) = p(σ)·h(σ), with h constant on `bins` of equal probability under `base`, whose density is p.

    Multiplied by p/q = 1/h, loss and gradient have the same mean under q as under p, whatever h. The gradient's second
    moment is E_p[G(σ)/h(σ)], G(σ) = E[‖g‖² | σ], and least for h ∝ √G, where it is lower by the factor (E_p √G)²/E_p G.
    The loss tells G in the output F of the network, where λ‖D − y‖² has the gradient ‖g‖² = 4·(λ·c_out)²·‖D − y‖². The
    gain from F to the weights is assumed to be the same at every σ (as by Katharopoulos and Fleuret 2018,
    arXiv:1803.00942). With λ = 1/c_out², as in Table 1, G varies little, and there is more to gain with other weights.
    So

        h = share + (1 − share)·√G/mean(√G),

    with G the mean by bin of what `statistics` was given (`Terms.gradient`). A part `share` of the draws comes from p:
    every level is drawn, and no weight exceeds 1/share. At each `update`, the sums of the one before count half.
    """

    update_steps = 64
    """The steps of training after which `learn` updates h."""

    def __init__(self, base: NoiseDistribution, *, bins: int = 32, share: float = 0.25) -> None:
        super().__init__()
        check_integer("bins", bins, 2)
        check_number("share", share, "(0, 1]")
        tiny = torch.finfo(torch.float64).eps
        ends = torch.linspace(0, 1, bins + 1, dtype=torch.float64, device="cpu").clamp(tiny, 1 - tiny)
        around = ends[1:-1] + 1e-9 * torch.tensor([[-1.0], [1.0]], dtype=torch.float64, device="cpu")
        below, above = base.quantile(around)
        if not bool((below < above).all()):
            raise ValueError(f"base: {base} has a level whose probability lies in two of the {bins} bins")
        self.base, self.bins, self.share = base, bins, share
        self.statistics = SigmaBins(edges=base.quantile(ends).tolist())
        # not a buffer, since levels are drawn on the CPU whatever the device of the loss
        self.density = torch.ones(bins, dtype=torch.float64, device="cpu")
        self._past = torch.zeros(2, bins, dtype=torch.float64, device="cpu")

    @property
    def target(self) -> NoiseDistribution:
        return self.base

    def quantile(self, u: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        ends = (self.density / self.bins).cumsum(0)
        ends = torch.cat([ends.new_zeros(1), ends / ends[-1]]).to(u)
        k = torch.bucketize(u, ends[1:-1], right=True)
        within = (u - ends[k]) / (ends[k + 1] - ends[k])
        tiny = torch.finfo(u.dtype).eps / 2
        return self.base.quantile(((k + within) / self.bins).clamp(tiny, 1 - tiny))

    def importance(self, sigma: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        place = torch.bucketize(sigma, self.statistics.edges[1:-1].to(sigma), right=True)
        return 1 / self.density.to(sigma)[place]

    def update(self) -> None:
        """Compute h from what `statistics` gathered since; a bin without draws takes the mean of the others."""
        self._past = self._past / 2 + self.statistics.sums.cpu().to(self._past)
        self.statistics.reset()
        total, count = self._past
        seen = count > 0
        if not bool(seen.any()):
            return
        root = (total / count).sqrt()
        root = torch.where(seen, root, root[seen].mean())
        mean = float(root.mean())
        if math.isfinite(mean) and mean > 0:
            self.density = self.share + (1 - self.share) * root / mean

    def learn(
        self, step: int, sigma: Float[Tensor, "batch"], gradient: Float[Tensor, "batch"], reduce: Reduce | None = None
    ) -> None:
        self.statistics.add(sigma, gradient, reduce)
        if (step + 1) % self.update_steps == 0:
            self.update()

    def get_extra_state(self) -> dict[str, Tensor]:
        """Everything that changes."""
        return {"density": self.density, "past": self._past, "sums": self.statistics.sums.clone()}

    def set_extra_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on where `get_extra_state` stopped."""
        for name, own in self.get_extra_state().items():
            if state[name].shape != own.shape:
                raise ValueError(f"{name}: expected shape {tuple(own.shape)}, got {tuple(state[name].shape)}")
        self.density, self._past = state["density"].to(self.density), state["past"].to(self._past)
        self.statistics.sums.copy_(state["sums"])
