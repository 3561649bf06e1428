"""The weights of past steps in averages: closed forms, and the averages of the library themselves."""

import pytest
import torch

from diffspace.averages import EMA, HalfLife, PowerFunction
from diffspace.studies import profile_curve


@pytest.mark.parametrize("width", [0.05, 0.1, 0.25])
def test_power_function(width):
    profile, batch, steps = PowerFunction(width), 100, 4000
    found = profile_curve(profile, batch * steps, batch=batch)
    # the share of step k is (t_k^(γ+1) − t_(k−1)^(γ+1))/T^(γ+1)
    t = torch.arange(steps + 1, dtype=torch.float64) / steps
    shares = (t ** (profile.exponent + 1)).diff()
    torch.testing.assert_close(found.density * batch, shares, rtol=1e-10, atol=1e-15)
    assert found.initial == 0
    mean = (found.images * shares).sum()
    std = ((found.images - mean) ** 2 * shares).sum().sqrt()
    assert float(std) / (batch * steps) == pytest.approx(width, rel=1e-3)


def test_half_life():
    found = profile_curve(HalfLife(500.0, None), 2000, batch=1)
    after = 2000 - found.images
    expected = 0.5 ** (after / 500) * torch.log(torch.tensor(2.0, dtype=torch.float64)) / 500
    torch.testing.assert_close(found.density, expected, rtol=1e-6, atol=0.0)
    assert found.initial == pytest.approx(0.5**4)
    assert float(found.density.sum()) + found.initial == pytest.approx(1)


@pytest.mark.parametrize("profile", [PowerFunction(0.1), HalfLife(40.0), HalfLife(40.0, None)])
def test_an_average_of_the_library_has_these_weights(profile):
    module = torch.nn.Linear(12, 1, bias=False).double()
    torch.nn.init.zeros_(module.weight)
    average = EMA(module, profile)
    for step in range(12):  # the weights after step k are the k-th unit vector
        with torch.no_grad():
            module.weight.zero_()
            module.weight[0, step] = 1
        average.follow(module, step * 10, 10)
    found = profile_curve(profile, 120, batch=10)
    torch.testing.assert_close(average.module.weight[0].detach(), found.density * 10, rtol=1e-12, atol=1e-15)
