"""A raw network F as a denoiser D (Eq. 7)."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from diffspace._shapes import Batch, Float, Sigma, Tensor
from diffspace.checks import check_range, check_type
from diffspace.preconditioning.choices import Preconditioning
from diffspace.process import NoiseLevels
from diffspace.protocols import Cond
from diffspace.tensors import check_floating, check_sigma


class Preconditioned(torch.nn.Module):
    """D(x; σ) = c_skip(σ)·x + c_out(σ)·F(c_in(σ)·x; c_noise(σ)) (Eq. 7).

    `network` is called as F(c_in·x, c_noise, cond), c_in·x in the dtype of its parameters, c_noise of shape (B,) in
    float32 or better, as time indices require. The other arithmetic is in float32, or in float64 if x is. The range of
    σ, its rounding, the training weight and σ_data (None where it has none) are those of the preconditioning.
    `sampling_range` is (σ_min, σ_max) of sampling where the steps do not say, None for the paper's moved to σ_data.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        preconditioning: Preconditioning,
        sampling_range: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        check_type("network", network, torch.nn.Module)
        if isinstance(preconditioning, type) or not hasattr(preconditioning, "coefficients"):
            expected = "a preconditioning such as EDMPreconditioning(0.5)"
            raise ValueError(f"preconditioning: expected {expected}, got {preconditioning!r}")
        self.network = network
        self.preconditioning = preconditioning
        self.sigma_min, self.sigma_max = preconditioning.sigma_range
        self.sigma_data: float | None = getattr(preconditioning, "sigma_data", None)
        self.sampling_range = check_range("sampling_range", sampling_range)

    @property
    def sample_shape(self) -> tuple[int, ...] | None:
        """The shape of one sample, if the network states it."""
        config = getattr(self.network, "config", None)
        shape = config.get("shape") if isinstance(config, Mapping) else None
        return None if shape is None else tuple(shape)

    @property
    def levels(self) -> NoiseLevels | None:
        """The trained noise levels, if the network has a table of them."""
        levels: NoiseLevels | None = getattr(getattr(self.preconditioning, "times", None), "levels", None)
        return levels

    def round_sigma(self, sigma: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """The nearest σ that the network knows."""
        return self.preconditioning.round_sigma(sigma)

    def weight(self, sigma: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """The training weight λ(σ) of the preconditioning."""
        return self.preconditioning.weight(sigma)

    def forward(self, x: Batch, sigma: Sigma, cond: Cond | None = None) -> Batch:
        """D(x; σ) for unscaled x of shape (B, *dims) and σ of shape () or (B,); ValueError for other numbers.

        On a device other than the CPU, where a check would wait, a negative σ gives NaN.
        """
        check_floating("x", x)
        check_sigma(sigma, x.shape[0])
        dtype = torch.promote_types(x.dtype, torch.float32)
        # the coefficients are a few numbers: float64, if the device supports it, costs nothing
        levels = sigma.to(x.device, dtype if x.device.type == "mps" else torch.float64).expand(x.shape[0])
        if levels.device.type != "cpu":
            levels = torch.where(levels < 0, torch.nan, levels)
        shape = (-1,) + (1,) * (x.ndim - 1)
        c_skip, c_out, c_in = (c.to(dtype).reshape(shape) for c in self.preconditioning.coefficients(levels))
        c_noise = self.preconditioning.c_noise(levels)

        parameter = next(self.network.parameters(), None)
        inner = dtype if parameter is None else parameter.dtype
        wide = x.to(dtype)
        output: Tensor = self.network(
            (c_in * wide).to(inner), c_noise.to(torch.promote_types(inner, torch.float32)), cond
        )
        if not isinstance(output, Tensor):
            raise ValueError(f"network: expected a tensor as its result, got {type(output).__name__}")
        if output.shape != x.shape:
            raise ValueError(f"network: expected a result of shape {tuple(x.shape)}, got {tuple(output.shape)}")
        return (c_skip * wide + c_out * output.to(dtype)).to(x.dtype)
