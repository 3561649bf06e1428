"""Precision, shapes, errors and compilation of the module that wraps a raw network."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch

from diffspace.preconditioning import (
    EDMPreconditioning,
    EpsilonPrediction,
    FlowPrediction,
    IDDPMPreconditioning,
    Preconditioned,
    VEPreconditioning,
    VPPreconditioning,
    VPrediction,
    X0Prediction,
)
from diffspace.protocols import Denoiser

ALL = [
    EDMPreconditioning(),
    VPPreconditioning(),
    VEPreconditioning(),
    IDDPMPreconditioning(),
    EpsilonPrediction(),
    VPrediction(),
    X0Prediction(),
    FlowPrediction(),
]
each = pytest.mark.parametrize("preconditioning", ALL, ids=lambda p: type(p).__name__)
SIGMAS = torch.logspace(-2, 2, 9)


class Recorder(torch.nn.Module):
    """Keeps what it is called with and answers a fixed field in the dtype of its parameter."""

    def __init__(self, dtype=None):
        super().__init__()
        if dtype is not None:
            self.scale = torch.nn.Parameter(torch.tensor(1.5, dtype=dtype))

    def forward(self, x, c_noise, cond=None):
        self.x, self.c_noise, self.cond = x, c_noise, cond
        answer = torch.linspace(-1, 1, x.numel(), dtype=x.dtype).reshape(x.shape)
        return self.scale * answer if hasattr(self, "scale") else answer


def state(dtype=torch.float32):
    x0, noise = torch.randn(2, len(SIGMAS), 2, 3, 4, generator=torch.Generator().manual_seed(0))
    return (x0 + SIGMAS[:, None, None, None] * noise).to(dtype)


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_arithmetic_is_exact_to_the_rounding_of_x(preconditioning, dtype):
    network = Recorder()
    denoiser = Preconditioned(network, preconditioning)
    x = state(dtype)
    denoised = denoiser(x, SIGMAS)
    eps = torch.finfo(dtype).eps

    exact = SIGMAS.double()
    c_skip, c_out, c_in = (c.reshape(-1, 1, 1, 1) for c in preconditioning.coefficients(exact))
    torch.testing.assert_close(network.x, (c_in * x.double()).to(dtype), rtol=2 * eps, atol=0)
    assert network.c_noise.dtype == dtype
    assert torch.equal(network.c_noise, preconditioning.c_noise(exact).to(dtype))
    answer = torch.linspace(-1, 1, x.numel(), dtype=dtype).reshape(x.shape).double()
    bound = 3 * eps * ((c_skip * x.double()).abs() + (c_out * answer).abs())
    assert ((denoised.double() - (c_skip * x.double() + c_out * answer)).abs() <= bound).all()


@each
@pytest.mark.parametrize("inner", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("outer", [torch.bfloat16, torch.float32, torch.float64])
def test_a_network_of_any_dtype_loses_only_its_own_digits(preconditioning, inner, outer):
    network = Recorder(inner)
    x = state(outer)
    denoised = Preconditioned(network, preconditioning)(x, SIGMAS)
    assert denoised.dtype == outer
    assert network.x.dtype == inner
    wide = torch.promote_types(inner, torch.float32)
    assert torch.equal(network.c_noise, preconditioning.c_noise(SIGMAS.double()).to(wide))

    c_skip, c_out, _ = (c.reshape(-1, 1, 1, 1) for c in preconditioning.coefficients(SIGMAS.double()))
    answer = 1.5 * torch.linspace(-1, 1, x.numel(), dtype=torch.float64).reshape(x.shape)
    skipped = c_skip * x.double()
    arithmetic = max(torch.finfo(outer).eps, torch.finfo(torch.float64).eps)
    bound = 2 * arithmetic * (skipped.abs() + c_out.abs() * 1.5) + 3 * torch.finfo(inner).eps * c_out.abs() * 1.5
    assert ((denoised.double() - skipped - c_out * answer).abs() <= bound + 1e-15).all()


@each
def test_at_sigma_zero_nothing_is_undefined(preconditioning):
    x = state()
    denoised = Preconditioned(Recorder(), preconditioning)(x, torch.tensor(0.0))
    if isinstance(preconditioning, X0Prediction):
        assert torch.isfinite(denoised).all()
    else:
        assert torch.equal(denoised, x)


@each
def test_one_sigma_for_all_is_each_one_alone(preconditioning):
    denoiser, x = Preconditioned(torch.nn.Identity(), preconditioning), state()
    denoiser.network.forward = lambda x, c_noise, cond: x * c_noise[:, None, None, None].cos()
    together = denoiser(x, SIGMAS)
    for i, sigma in enumerate(SIGMAS):
        assert torch.equal(denoiser(x, sigma)[i], together[i])
        assert torch.equal(denoiser(x[i : i + 1], sigma[None])[0], together[i])


def test_conditions_reach_the_network_untouched():
    network = Recorder()
    cond = {"labels": torch.zeros(9, dtype=torch.int64)}
    Preconditioned(network, EDMPreconditioning())(state(), SIGMAS, cond)
    assert network.cond is cond


@pytest.mark.parametrize("shape", [(5,), (5, 7), (5, 1, 8, 6), (5, 2, 3, 4, 5)])
def test_samples_of_any_shape(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    denoised = Preconditioned(Recorder(), EDMPreconditioning())(x, torch.tensor(0.5))
    answer = torch.linspace(-1, 1, x.numel(), dtype=torch.float64).reshape(shape)
    torch.testing.assert_close(denoised, x / 2 + math.sqrt(0.125) * answer, rtol=1e-14, atol=1e-15)


def test_gradients_reach_parameters_x_and_sigma():
    network = torch.nn.Linear(3, 3, dtype=torch.float64)
    call = network.forward
    network.forward = lambda x, c_noise, cond: call(x) * c_noise[:, None]
    denoiser = Preconditioned(network, EDMPreconditioning())
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    sigma = torch.tensor([0.3, 2.0], dtype=torch.float64, requires_grad=True)
    weight = network.weight.detach().clone().requires_grad_()

    def through(x, sigma, weight):
        return torch.func.functional_call(denoiser, {"network.weight": weight}, (x, sigma))

    assert torch.autograd.gradcheck(through, (x, sigma, weight))


def test_it_is_a_denoiser_that_says_what_it_needs():
    preconditioning = VEPreconditioning()
    denoiser = Preconditioned(torch.nn.Linear(3, 3), preconditioning)
    assert isinstance(denoiser, Denoiser)
    assert (denoiser.sigma_min, denoiser.sigma_max) == (0.02, 100.0)
    assert torch.equal(denoiser.weight(SIGMAS), preconditioning.weight(SIGMAS))
    assert torch.equal(denoiser.round_sigma(SIGMAS), SIGMAS)
    assert denoiser.sample_shape is None
    assert list(denoiser.state_dict()) == ["network.weight", "network.bias"]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("sigma", [torch.ones(8), torch.ones(1), torch.ones(9, 1)])
def test_sigma_of_the_wrong_shape(sigma):
    with pytest.raises(ValueError, match=r"^sigma: expected shape \(\) or \(9,\)"):
        Preconditioned(Recorder(), EDMPreconditioning())(state(), sigma)


@pytest.mark.usefixtures("unchecked")
def test_a_network_that_returns_another_shape():
    network = Recorder()
    network.forward = lambda x, c_noise, cond: x[:, :1]
    with pytest.raises(ValueError, match=r"^network: expected a result of shape \(9, 2, 3, 4\), got \(9, 1, 3, 4\)"):
        Preconditioned(network, EDMPreconditioning())(state(), SIGMAS)


COMPILATION = """
import torch, warnings
warnings.simplefilter("error")
from diffspace.preconditioning import *

class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 2)

    def forward(self, x, c_noise, cond=None):
        return self.linear(x) * c_noise.cos()[:, None]

x, sigma = torch.randn(4, 2), torch.tensor([0.1, 0.5, 1.0, 2.0])
for kind in (EDMPreconditioning, VPPreconditioning, IDDPMPreconditioning, FlowPrediction):
    torch.compiler.reset()
    denoiser = Preconditioned(Network(), kind())
    exported = torch.export.export(denoiser, (x, sigma)).module()  # first: no cache may keep what was traced
    compiled = torch.compile(denoiser, fullgraph=True, backend="eager")
    expected = denoiser(x, sigma)
    assert torch.equal(exported(x, sigma), expected), kind
    assert torch.equal(compiled(x, sigma), expected), kind
    assert torch.equal(compiled(x, sigma[0]), denoiser(x, sigma[0])), kind
"""


def test_torch_can_compile_and_export_it_whole():
    """In a process without the shape checks, which torch.compile cannot look through."""
    done = subprocess.run([sys.executable, "-c", COMPILATION], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
