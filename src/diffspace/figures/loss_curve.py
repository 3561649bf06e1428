"""The loss over the noise level beside its baselines (Figure 5a of the paper)."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes

from diffspace.figures.style import GRAY, INK, PALETTE, tidy
from diffspace.objective import LossBySigma, NoiseDistribution


def draw_loss_by_sigma(ax: Axes, curves: Mapping[str, LossBySigma], noise: NoiseDistribution | None = None) -> None:
    """Mean squared error per dimension of each curve over σ, with ±2 standard errors.

    The dotted line is the trivial denoiser of the first curve, the dashed one the attainable minimum if a curve has
    one. The band marks the levels between the 5 % and 95 % quantiles of the training noise.
    """
    for (name, curve), colour in zip(curves.items(), PALETTE, strict=False):
        sigma, mse, error = curve.sigma.numpy(), curve.mse.numpy(), curve.standard_error.numpy()
        ax.plot(sigma, mse, color=colour, label=name, zorder=3)
        ax.fill_between(sigma, (mse - 2 * error).clip(min=mse * 1e-2), mse + 2 * error, color=colour, alpha=0.18, lw=0)
        if curve.attainable is not None:
            ideal = f"{name}: ideal denoiser of it"
            ax.plot(sigma, curve.attainable.numpy(), color=colour, ls="--", lw=1.1, label=ideal)
    first = next(iter(curves.values()))
    sigma = first.sigma.numpy()
    ax.plot(sigma, first.trivial.numpy(), color=INK, ls=":", lw=1.1, label="trivial: answers the mean")
    ax.plot(sigma, sigma**2, color=GRAY, ls=":", lw=1.1, label="identity: answers x")
    if noise is not None:
        low, high = noise.quantile(first.sigma.new_tensor([0.05, 0.95])).tolist()
        ax.axvspan(low, high, color=GRAY, alpha=0.15, lw=0, label="90 % of training noise")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(float(first.sigma[0]), float(first.sigma[-1]))
    lowest = min(float(curve.mse.min()) for curve in curves.values())
    ax.set_ylim(lowest / 3, float(first.trivial.max()) * 3)
    ax.set_xlabel("noise level σ")
    ax.set_ylabel("E‖D(y + n; σ) − y‖² per dimension")
    ax.legend(fontsize=7.5)
    tidy(ax)
