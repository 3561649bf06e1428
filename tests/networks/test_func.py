"""torch.func through every network: derivatives against differences, batches against loops."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jvp, vmap

from diffspace import EDMPreconditioning, Preconditioned
from diffspace.networks import ADM, MLP, DDPMpp, NCSNpp, use_winograd

UNET: dict[str, Any] = {"model_channels": 8, "channel_mult": (1, 2), "num_blocks": 1}
SHAPES = {1: (2, 12), 2: (2, 8, 6), 3: (1, 4, 6, 4)}
CASES = {"mlp": (MLP, (5,), {"width": 16})} | {
    f"{kind.__name__.lower()}-{dims}d": (kind, shape, UNET | {"attn_resolutions": (max(shape[1:]) // 2,)})
    for kind in (DDPMpp, NCSNpp, ADM)
    for dims, shape in SHAPES.items()
}
QUICK = ("mlp", "ddpmpp-1d", "ddpmpp-2d", "ncsnpp-3d", "adm-2d")
every_network = pytest.mark.parametrize(
    "case", [case if case in QUICK else pytest.param(case, marks=pytest.mark.slow) for case in CASES]
)
BATCH = 3


def make(case: str, **options: Any) -> Preconditioned:
    kind, shape, small = CASES[case]
    torch.manual_seed(0)
    network = kind(shape, **small, label_dim=3, label_dropout=0.1, augment_dim=2, **options)
    for p in network.parameters():
        nn.init.normal_(p, std=1 / math.sqrt(p[0].numel()) if p.ndim > 1 else 0.3)
    return Preconditioned(network, EDMPreconditioning(0.5)).double().eval()


def inputs(denoiser: Preconditioned) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    assert denoiser.sample_shape is not None
    x = torch.randn(BATCH, *denoiser.sample_shape, dtype=torch.float64)
    cond = {"labels": torch.tensor([0, 2, 1]), "augment": torch.randn(BATCH, 2, dtype=torch.float64)}
    return x, torch.tensor([0.1, 1.0, 5.0], dtype=torch.float64), cond


@contextlib.contextmanager
def no_deprecation():
    """The formulas of forward derivatives are compiled by torch.jit at first use, which torch calls deprecated."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


@every_network
def test_jvp_is_the_difference_quotient(case: str) -> None:
    denoiser = make(case)
    x, sigma, cond = inputs(denoiser)
    v, w, h = torch.randn_like(x), torch.rand_like(sigma), 1e-5
    with no_deprecation(), torch.no_grad():
        y, tangent = jvp(lambda x, sigma: denoiser(x, sigma, cond), (x, sigma), (v, w))
        ends = [denoiser(x + step * v, sigma + step * w, cond) for step in (h, -h)]
    torch.testing.assert_close(y, denoiser(x, sigma, cond).detach())
    quotient = (ends[0] - ends[1]) / (2 * h)
    assert float((tangent - quotient).abs().max() / quotient.abs().max()) < 1e-6
    with no_deprecation(), forward_ad.dual_level():  # without torch.func
        again = forward_ad.unpack_dual(denoiser(forward_ad.make_dual(x, v), forward_ad.make_dual(sigma, w), cond))
        torch.testing.assert_close(again.tangent, tangent)


@every_network
def test_vmap_is_a_loop(case: str) -> None:
    denoiser = make(case)
    x, sigma, cond = inputs(denoiser)

    def alone(x: Tensor, sigma: Tensor, cond: dict[str, Tensor]) -> Tensor:
        return denoiser(x[None], sigma, {name: value[None] for name, value in cond.items()})[0]

    with torch.no_grad():
        together = vmap(alone)(x, sigma, cond)
        loop = [alone(x[i], sigma[i], {name: value[i] for name, value in cond.items()}) for i in range(BATCH)]
        torch.testing.assert_close(together, torch.stack(loop))
        levels = vmap(lambda sigma: denoiser(x, sigma, cond))(sigma)  # the same x at several noise levels
        torch.testing.assert_close(levels, torch.stack([denoiser(x, each, cond) for each in sigma]))


@every_network
def test_gradients_of_every_sample_are_those_of_a_loop(case: str) -> None:
    denoiser = make(case)
    x, sigma, cond = inputs(denoiser)
    parameters = dict(denoiser.named_parameters())

    def loss(parameters: dict[str, Tensor], x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        denoised: Tensor = functional_call(denoiser, parameters, (x[None], sigma, {"labels": labels[None]}))
        return denoised.square().sum()

    each = vmap(grad(loss), (None, 0, 0, 0))(parameters, x, sigma, cond["labels"])
    for i in range(BATCH):
        denoiser.zero_grad()
        denoiser(x[i : i + 1], sigma[i], {"labels": cond["labels"][i : i + 1]}).square().sum().backward()
        for name, p in parameters.items():
            if p.grad is not None:
                torch.testing.assert_close(each[name][i], p.grad, msg=lambda text, name=name: f"{name}: {text}")


def test_curvature_of_a_sum_of_squares_is_symmetric() -> None:
    """A derivative of a derivative, for which a fused attention has no rule either: uᵀ·H·v = vᵀ·H·u."""
    denoiser = make("ddpmpp-2d")
    x, sigma, cond = inputs(denoiser)
    u, v = torch.randn_like(x), torch.randn_like(x)

    def slope(x: Tensor) -> Tensor:
        gradient: Tensor = grad(lambda x: denoiser(x, sigma, cond).square().sum())(x)
        return gradient

    with no_deprecation():
        products = [jvp(slope, (x,), (a,))[1] for a in (u, v)]
    torch.testing.assert_close((products[0] * v).sum(), (products[1] * u).sum())


def test_checkpointing_and_winograd_do_not_stand_in_the_way() -> None:
    saving = make("ddpmpp-2d", checkpointing=True)
    x, sigma, cond = inputs(saving)

    def total(denoiser: Preconditioned, x: Tensor) -> Tensor:
        return denoiser(x, sigma.to(x), {"labels": cond["labels"]}).square().sum()

    plain = make("ddpmpp-2d")
    torch.testing.assert_close(grad(lambda x: total(saving, x))(x), grad(lambda x: total(plain, x))(x))
    torch.manual_seed(0)
    network = DDPMpp((1, 8, 8), model_channels=64, channel_mult=(1,), num_blocks=1).eval()
    fast = Preconditioned(network, EDMPreconditioning(0.5))
    x = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        expected = fast(x, torch.tensor(1.0))
        use_winograd(network)
        torch.testing.assert_close(vmap(lambda x: fast(x[None], torch.tensor(1.0))[0])(x), expected)
