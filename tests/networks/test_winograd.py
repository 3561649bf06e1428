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

from diffspace.averages import EMA
from diffspace.networks import DDPMpp, use_winograd
from diffspace.networks.winograd import WinogradConv, _Differentiable, transformed, winograd


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
    y = winograd(x, transformed(weight), bias)
    assert y.shape == exact.shape
    assert relative_error(y, exact) < 3e-6


def test_its_gradients_are_those_of_the_convolution() -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(*shape, generator=generator) for shape in ((3, 8, 9, 6), (5, 8, 3, 3), (5,))]
    dy = torch.randn(3, 5, 9, 6, generator=generator)
    single = [t.clone().requires_grad_() for t in tensors]
    double = [t.double().requires_grad_() for t in tensors]
    _Differentiable.apply(*single).backward(dy)
    F.conv2d(*double, padding=1).backward(dy.double())
    for a, b in zip(single, double, strict=True):
        assert relative_error(a.grad, b.grad) < 5e-6


def test_more_tiles_than_are_taken_at_a_time() -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(5, 2, 68, 64, generator=generator), torch.randn(3, 2, 3, 3, generator=generator)
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    assert relative_error(winograd(x, transformed(weight), torch.zeros(3)), exact) < 3e-6


def network() -> DDPMpp:
    torch.manual_seed(0)
    made = DDPMpp((1, 16, 16), model_channels=64, channel_mult=(1, 1), num_blocks=1).eval()
    for p in made.parameters():
        nn.init.normal_(p, std=1 / math.sqrt(p[0].numel()) if p.ndim > 1 else 0.3)
    return made


def test_a_network_gives_the_same_and_keeps_its_parameters() -> None:
    plain = network()
    fast = copy.deepcopy(plain)
    assert use_winograd(fast) == sum(isinstance(m, WinogradConv) for m in fast.modules()) > 10
    assert use_winograd(fast) == 0
    assert list(fast.state_dict()) == list(plain.state_dict())
    x, c_noise = torch.randn(3, 1, 16, 16), torch.tensor([-1.0, 0.0, 1.0])
    with torch.no_grad():
        exact = copy.deepcopy(plain).double()(x.double(), c_noise.double())
        output = fast(x, c_noise)
        assert relative_error(output, exact) < 1e-5
        assert not torch.equal(output, plain(x, c_noise))  # it was in use
        for i in range(3):
            alone = fast(x[i : i + 1], c_noise[i : i + 1])
            torch.testing.assert_close(alone[0], output[i], rtol=1e-4, atol=1e-5)
    for trained in (plain, fast):
        trained(x, c_noise).square().sum().backward()
    for (name, p), q in zip(plain.named_parameters(), fast.parameters(), strict=True):
        assert relative_error(q.grad, p.grad.double()) < 2e-4, name


def test_changed_weights_are_noticed() -> None:
    plain = network()
    fast = copy.deepcopy(plain)
    use_winograd(fast)
    x, c_noise = torch.randn(2, 1, 16, 16), torch.zeros(2)
    for p, q in zip(plain.parameters(), fast.parameters(), strict=True):
        with torch.no_grad():
            p.mul_(1.1)
            q.mul_(1.1)
    with torch.no_grad():
        torch.testing.assert_close(fast(x, c_noise), plain(x, c_noise), rtol=1e-3, atol=1e-4)


def test_other_precisions_are_left_alone() -> None:
    fast = network()
    use_winograd(fast)
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
        wrong.extend(k for _ in range(10) if relative_error(winograd(inputs[k], kernels, bias), exact) > 3e-6)

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
        assert use_winograd(network)
        compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
        with torch.no_grad():
            torch.testing.assert_close(compiled(x, c_noise), expected, rtol=1e-4, atol=1e-4)
        compiled(x, c_noise).sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_average_of_a_network_goes_on_after_it_was_used() -> None:
    training = network()
    use_winograd(training)
    average = EMA(training)
    x, c_noise = torch.randn(2, 1, 16, 16), torch.zeros(2)
    with torch.no_grad():
        average.module(x, c_noise)
    average.update(training, 0.5)
    assert list(training.state_dict()) == list(network().state_dict())


def test_copies_and_replaced_weights_are_noticed() -> None:
    fast = network()
    use_winograd(fast)
    x, c_noise = torch.randn(2, 1, 16, 16), torch.zeros(2)
    with torch.no_grad():
        fast(x, c_noise)
        copied = copy.deepcopy(fast)
        for p in copied.parameters():
            p.mul_(1.1)
        for p in fast.parameters():
            p.data = 1.1 * p.data
        plain = network()
        for p in plain.parameters():
            p.mul_(1.1)
        for changed in (copied, fast):
            torch.testing.assert_close(changed(x, c_noise), plain(x, c_noise), rtol=1e-3, atol=1e-4)


def test_it_goes_on_after_inference_mode() -> None:
    fast = network()
    use_winograd(fast)
    x, c_noise = torch.randn(40, 1, 16, 16), torch.zeros(40)
    with torch.inference_mode():
        expected = fast(x, c_noise)
    with torch.no_grad():
        torch.testing.assert_close(fast(x, c_noise), expected.clone())
    fast(x, c_noise).sum().backward()
