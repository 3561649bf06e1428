"""tr ∂D/∂x: exactly, or by Hutchinson's estimator. Both are quadratic forms vᵀ(∂D/∂x)v."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from diffspace._shapes import Float, Tensor
from diffspace.checks import check_choice, check_integer
from diffspace.protocols import Cond, Denoiser
from diffspace.sampling.streams import step_noise


class Trace(ABC):
    """A method to compute tr J of the Jacobian J = ∂D/∂x of each sample, from vᵀJv for some vectors v."""

    chunk: int
    """How many products vᵀJ are computed at a time: more is faster and takes more memory."""
    seeded: ClassVar[bool] = False
    """Whether the vectors depend on the seeds of the samples."""

    @property
    def estimates(self) -> int:
        """How many traces are made for each sample."""
        return 1

    @abstractmethod
    def vectors(self, seeds: Sequence[int], shape: Sequence[int]) -> Float[Tensor, "vectors _ *dims"]:
        """The vectors v for each sample, or for all samples (then the second dimension is 1)."""

    @abstractmethod
    def traces(self, forms: Float[Tensor, "vectors batch"]) -> Float[Tensor, "estimates batch"]:
        """tr J from vᵀJv of every vector."""


@dataclass(frozen=True)
class ExactTrace(Trace):
    """tr J = Σ_i e_iᵀJe_i: d vector-Jacobian products in each evaluation, for small d."""

    chunk: int = 64

    def __post_init__(self) -> None:
        check_integer("chunk", self.chunk, 1)

    def vectors(self, seeds: Sequence[int], shape: Sequence[int]) -> Float[Tensor, "vectors 1 *dims"]:
        d = math.prod(shape)
        return torch.eye(d, dtype=torch.float32, device="cpu").reshape(d, 1, *shape)

    def traces(self, forms: Float[Tensor, "vectors batch"]) -> Float[Tensor, "1 batch"]:
        return forms.sum(0, keepdim=True)


@dataclass(frozen=True)
class Hutchinson(Trace):
    """tr J ≈ vᵀJv with E[vvᵀ] = I (Hutchinson 1990): `probes` estimates for each sample, one product each.

    A sample's probes depend on its seed alone and stay the same along its path, so that the ODE remains smooth. The
    variance of one, with S = ½(J + Jᵀ):

    - "rademacher", v_i = ±1: 2·(‖S‖² − Σ S_ii²), which is 0 for a diagonal S;
    - "gaussian", v ~ N(0, I): 2·‖S‖²;
    - "sphere", v uniform on ‖v‖² = d: 2d/(d + 2)·(‖S‖² − (tr S)²/d), below "gaussian" for every S, and 0 for a multiple
      of I, which S nearly is at both ends of the range of σ.

    Two or more probes yield a standard error, which is too small for "rademacher" in few dimensions, where its 2^(d−1)
    different probes repeat by chance.
    """

    probes: int = 1
    kind: Literal["rademacher", "gaussian", "sphere"] = "rademacher"
    chunk: int = 64
    seeded = True

    def __post_init__(self) -> None:
        check_integer("probes", self.probes, 1)
        check_choice("kind", self.kind, ("rademacher", "gaussian", "sphere"))
        check_integer("chunk", self.chunk, 1)

    @property
    def estimates(self) -> int:
        return self.probes

    def vectors(self, seeds: Sequence[int], shape: Sequence[int]) -> Float[Tensor, "probes batch *dims"]:
        # counted from −1 downward, away from the noise of sampling steps, on which samples may depend
        z = torch.stack([step_noise(seeds, -1 - probe, shape) for probe in range(self.probes)])
        if self.kind == "rademacher":
            return torch.where(z < 0, -1.0, 1.0)
        if self.kind == "sphere":
            flat = z.view(*z.shape[:2], -1)
            flat *= math.sqrt(flat.shape[2]) / torch.linalg.vector_norm(flat, dim=2, keepdim=True)
        return z

    def traces(self, forms: Float[Tensor, "vectors batch"]) -> Float[Tensor, "vectors batch"]:
        return forms


class WithLogDensity(torch.nn.Module):
    """D of the state (x, ℓ₁ … ℓ_k), flattened to (B, d + k), which integrates ln p together with x.

    Along dx/dσ = (x − D)/σ the density changes by d ln p/dσ = −(d − tr ∂D/∂x)/σ (instantaneous change of variables).
    With D_ℓ = ℓ + d − tr ∂D/∂x this reads dℓ/dσ = (ℓ − D_ℓ)/σ, the ODE of x: ℓ is another coordinate of an ordinary
    denoiser, for any solver and process. Each of k trace estimates has its own ℓ along the same path of x.
    """

    def __init__(self, denoiser: Denoiser, shape: Sequence[int], trace: Trace, vectors: Tensor) -> None:
        super().__init__()
        self.denoiser, self.shape, self.trace, self.vectors = denoiser, tuple(shape), trace, vectors
        self.batched = True  # until an operation of the network does not support it

    def forward(self, state: Tensor, sigma: Tensor, cond: Cond | None = None) -> Tensor:
        d = math.prod(self.shape)
        recorded = torch.is_grad_enabled()
        x = state[:, :d].reshape(-1, *self.shape)
        if not (recorded and x.requires_grad):
            x = x.detach().requires_grad_()
        with torch.enable_grad():
            denoised = self.denoiser(x, sigma, cond)
            if denoised.shape != x.shape:
                raise ValueError(f"denoiser: returned shape {tuple(denoised.shape)} for x of shape {tuple(x.shape)}")
            chunks = torch.split(self.vectors, self.trace.chunk)
            forms = torch.cat([self._forms(denoised, x, some, recorded) for some in chunks])
            density = state[:, d:] + (d - self.trace.traces(forms)).T
            result = torch.cat([denoised.reshape(-1, d).to(state.dtype), density.to(state.dtype)], 1)
        return result if recorded else result.detach()

    def _forms(self, denoised: Tensor, x: Tensor, vectors: Tensor, recorded: bool) -> Tensor:
        """vᵀJv of vectors (m, B or 1, *dims), as (m, B)."""
        v = vectors.to(x.device, denoised.dtype).expand(-1, *x.shape)
        products = self._products(denoised, x, v, recorded)
        return (products * v.to(products.dtype)).reshape(len(v), len(x), -1).sum(2)

    def _products(self, denoised: Tensor, x: Tensor, v: Tensor, recorded: bool) -> Tensor:
        """vᵀJ, all at once where the operations of the network support it, else one by one."""
        if self.batched and len(v) > 1:
            try:
                return _product(denoised, x, v, recorded, batched=True)
            except RuntimeError:
                # an operation without a rule for batches, or too little memory; other errors occur again below
                self.batched = False
        return torch.stack([_product(denoised, x, one, recorded) for one in v])


def _product(denoised: Tensor, x: Tensor, v: Tensor, recorded: bool, batched: bool = False) -> Tensor:
    product = None
    if denoised.requires_grad:
        (product,) = torch.autograd.grad(
            denoised, x, v, retain_graph=True, create_graph=recorded, allow_unused=True, is_grads_batched=batched
        )
    if product is None:
        raise ValueError("denoiser: has no gradient with respect to x; do not use detach or inference mode in it")
    return product
