"""Winograd's convolution against convolution in double precision."""

from __future__ import annotations

import copy
import math
import subprocess
import sys
import textwrap
import threading

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffspace.networks import MLP, DDPMpp, use_winograd
from diffspace.networks.winograd import WinogradConv, convolve, transformed


def relative_error(x: Tensor, exact: Tensor) -> float:
    return float((x.double() - exact).norm() / exact.norm())


@pytest.mark.parametrize("size", [(4, 4), (1, 1), (3, 9), (8, 5), (33, 2)])
@pytest.mark.parametrize(("batch", "channels", "out"), [(1, 3, 5), (7, 8, 4)])
def test_it_is_the_convolution(size: tuple[int, int], batch: int, channels: int, out: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, channels, *size, generator=generator)
    weight = torch.randn(out, channels, 3, 3, generator=generator)
    bias = torch.randn(out, generator=generator)
    exact = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    y = convolve(x, transformed(weight), bias)
    assert y.shape == exact.shape
    assert relative_error(y, exact) < 3e-6


def test_more_tiles_than_are_taken_at_a_time() -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(5, 2, 68, 64, generator=generator), torch.randn(3, 2, 3, 3, generator=generator)
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    assert relative_error(convolve(x, transformed(weight), torch.zeros(3)), exact) < 3e-6


def make_network(*, fast: bool) -> DDPMpp:
    torch.manual_seed(0)
    made = DDPMpp((1, 16, 16), model_channels=64, channel_mult=(1, 1), num_blocks=1).eval()
    for p in made.parameters():
        nn.init.normal_(p, std=1 / math.sqrt(p[0].numel()) if p.ndim > 1 else 0.3)
    if fast:
        use_winograd(made)
    return made


@pytest.fixture
def fast() -> DDPMpp:
    return make_network(fast=True)


@pytest.fixture
def plain() -> DDPMpp:
    return make_network(fast=False)


def test_a_network_gives_the_same_and_keeps_its_parameters(fast: DDPMpp, plain: DDPMpp) -> None:
    assert sum(isinstance(m, WinogradConv) for m in fast.modules()) > 10
    assert list(fast.state_dict()) == list(plain.state_dict())
    x, c_noise = torch.randn(3, 1, 16, 16), torch.tensor([-1.0, 0.0, 1.0])
    with torch.no_grad():
        exact = copy.deepcopy(plain).double()(x.double(), c_noise.double())
        output = fast(x, c_noise)
        assert relative_error(output, exact) < 1e-5
        assert not torch.equal(output, plain(x, c_noise))  # Winograd was in use
        for i in range(3):
            alone = fast(x[i : i + 1], c_noise[i : i + 1])
            torch.testing.assert_close(alone[0], output[i], rtol=1e-4, atol=1e-5)
    assert torch.equal(fast(x, c_noise), plain(x, c_noise))  # with gradients both compute the same


@pytest.mark.parametrize("why", ["converted already", "narrow", "float64", "no convolutions"])
def test_where_it_has_no_effect_it_is_an_error(fast: DDPMpp, plain: DDPMpp, why: str) -> None:
    narrow = DDPMpp((1, 16, 16), model_channels=16, channel_mult=(1, 1), num_blocks=1)
    networks = {"converted already": fast, "narrow": narrow, "float64": plain.double(), "no convolutions": MLP((2,))}
    with pytest.raises(ValueError, match="winograd: has no effect on this network"):
        use_winograd(networks[why])


def test_changed_weights_are_noticed(fast: DDPMpp, plain: DDPMpp) -> None:
    x, c_noise = torch.randn(2, 1, 16, 16), torch.zeros(2)
    for p, q in zip(plain.parameters(), fast.parameters(), strict=True):
        with torch.no_grad():
            p.mul_(1.1)
            q.mul_(1.1)
    with torch.no_grad():
        torch.testing.assert_close(fast(x, c_noise), plain(x, c_noise), rtol=1e-3, atol=1e-4)


def test_other_precisions_are_left_alone(fast: DDPMpp) -> None:
    x, c_noise = torch.randn(2, 1, 16, 16), torch.zeros(2)
    with torch.no_grad():
        exact = fast(x, c_noise)
        with torch.autocast("cpu", torch.bfloat16):
            assert relative_error(fast(x, c_noise), exact.double()) < 0.05
        assert relative_error(fast.double()(x.double(), c_noise.double()), exact.double()) < 1e-5
        assert fast.to(torch.bfloat16)(x.bfloat16(), c_noise).dtype == torch.bfloat16


def test_threads_do_not_share_scratch_memory() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(2, 16, 32, 32, generator=generator) for _ in range(4)]
    weight, bias = torch.randn(16, 16, 3, 3, generator=generator), torch.zeros(16)
    kernels = transformed(weight)
    wrong: list[int] = []

    def work(k: int) -> None:
        exact = F.conv2d(inputs[k].double(), weight.double(), padding=1)
        wrong.extend(k for _ in range(10) if relative_error(convolve(inputs[k], kernels, bias), exact) > 3e-6)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_it_compiles_into_one_graph() -> None:
    # in a process of its own: the checks of shapes that the tests run with cannot be traced
    code = """
        import torch
        from diffspace.networks import DDPMpp, use_winograd

        network = DDPMpp((1, 8, 8), model_channels=64, channel_mult=(1,), num_blocks=1).eval()
        for p in network.parameters():
            torch.nn.init.normal_(p, std=p[0].numel() ** -0.5 if p.ndim > 1 else 0.3)
        x, c_noise = torch.randn(2, 1, 8, 8), torch.zeros(2)
        expected = network(x, c_noise).detach()
        use_winograd(network)
        compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
        with torch.no_grad():
            torch.testing.assert_close(compiled(x, c_noise), expected, rtol=1e-4, atol=1e-4)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_copies_and_replaced_weights_are_noticed(fast: DDPMpp, plain: DDPMpp) -> None:
    x, c_noise = torch.randn(2, 1, 16, 16), torch.zeros(2)
    with torch.no_grad():
        fast(x, c_noise)
        copied = copy.deepcopy(fast)
        for p in copied.parameters():
            p.mul_(1.1)
        for p in fast.parameters():
            p.data = 1.1 * p.data
        for p in plain.parameters():
            p.mul_(1.1)
        for changed in (copied, fast):
            torch.testing.assert_close(changed(x, c_noise), plain(x, c_noise), rtol=1e-3, atol=1e-4)


def test_it_works_after_inference_mode(fast: DDPMpp) -> None:
    x, c_noise = torch.randn(40, 1, 16, 16), torch.zeros(40)
    with torch.inference_mode():
        expected = fast(x, c_noise)
    with torch.no_grad():
        torch.testing.assert_close(fast(x, c_noise), expected.clone())
    fast(x, c_noise).sum().backward()
