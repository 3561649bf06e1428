import copy
import json
import math
from pathlib import Path

import pytest
import torch

from diffspace.averages import (
    EMA,
    HalfLife,
    PowerFunction,
    Snapshots,
    exponent_to_width,
    reconstruct,
    width_to_exponent,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "phema.json").read_text(encoding="utf-8"))


class Scalar(torch.nn.Module):
    """One weight that a test moves along a known path."""

    def __init__(self, value=0.0):
        super().__init__()
        self.theta = torch.nn.Parameter(torch.tensor([value], dtype=torch.float64))

    def set(self, value):
        self.theta.data.fill_(value)


def averaged(path, profile, steps, batch=10):
    """The average after `steps` steps of a weight that is path(t) after the step that ends at t, t = 1 at the last."""
    module = Scalar()
    average = EMA(module, profile)
    for k in range(steps):
        module.set(path((k + 1) / steps))
        average.follow(module, k * batch, batch)
    return float(average.module.theta)


class TestHalfLife:
    def test_half_of_the_distance_is_left(self):
        torch.manual_seed(0)
        target, source = torch.nn.Linear(3, 2).double(), torch.nn.Linear(3, 2).double()
        ema = EMA(target, HalfLife(500, None))
        start = [p.clone() for p in ema.module.parameters()]
        for k in range(10):
            ema.follow(source, 10_000 + 50 * k, 50)
        for before, after, goal in zip(start, ema.module.parameters(), source.parameters(), strict=True):
            torch.testing.assert_close(after - goal, 0.5 * (before - goal), rtol=1e-12, atol=1e-15)

    @pytest.mark.parametrize(("images", "halflife"), [(0, 0.0), (1_000, 50.0), (10_000, 500.0), (1_000_000, 500.0)])
    def test_ramp_limits_it(self, images, halflife):
        beta = HalfLife(500, 0.05).beta(images, 10)
        assert beta == pytest.approx(0.5 ** (10 / halflife) if halflife else 0.0)

    def test_bad_input(self):
        with pytest.raises(ValueError, match=r"halflife_images: expected .*, got -1"):
            HalfLife(-1)
        with pytest.raises(ValueError, match=r"ramp_ratio: expected .*, got nan"):
            HalfLife(1, math.nan)


class TestPowerFunction:
    @pytest.mark.parametrize(("width", "exponent"), GOLDEN["std_to_exp"].items())
    def test_exponent_of_the_reference(self, width, exponent):
        assert width_to_exponent(float(width)) == pytest.approx(exponent, rel=1e-8)

    @pytest.mark.parametrize("case", GOLDEN["power_function_beta"])
    def test_beta_of_the_reference(self, case):
        beta = PowerFunction(case["std"]).beta(case["t_next"] - case["t_delta"], case["t_delta"])
        assert beta == pytest.approx(case["beta"], rel=1e-8)

    @pytest.mark.parametrize("width", [1e-4, 0.01, 0.1, 0.25, 0.288, 12**-0.5])
    def test_width_and_exponent_are_inverse(self, width):
        assert exponent_to_width(width_to_exponent(width)) == pytest.approx(width, rel=1e-13)

    def test_width_is_the_standard_deviation_of_the_profile(self):
        # moments of p(τ) = (γ + 1)·τ^γ on [0, 1] are (γ + 1)/(γ + 1 + k)
        gamma = width_to_exponent(0.07)
        mean, square = ((gamma + 1) / (gamma + 1 + k) for k in (1, 2))
        assert math.sqrt(square - mean**2) == pytest.approx(0.07, rel=1e-10)

    @pytest.mark.parametrize("width", [0.0, -0.1, 0.29, math.nan])
    def test_bad_width(self, width):
        with pytest.raises(ValueError, match=r"width: expected a number in \(0, 1/√12 = 0\.2887\]"):
            PowerFunction(width)

    @pytest.mark.parametrize("width", [0.03, 0.1, 12**-0.5])
    @pytest.mark.parametrize("power", [1, 2, 3])
    def test_recursion_is_the_weighted_mean_of_the_path(self, width, power):
        """∫ p(τ)·τ^k dτ = (γ + 1)/(γ + 1 + k), approached in proportion to the length of a step."""
        gamma = width_to_exponent(width)
        exact = (gamma + 1) / (gamma + 1 + power)
        errors = [averaged(lambda t: t**power, PowerFunction(width), steps) - exact for steps in (400, 800)]
        assert 0 < errors[1] < 2e-3 * power
        assert errors[0] / errors[1] == pytest.approx(2, abs=0.05)

    def test_recursion_is_exact_for_a_path_of_steps(self):
        """Each θ counts by the integral of the profile over its step: t_k^(γ+1) − t_(k−1)^(γ+1)."""
        values, gamma = torch.randn(50, dtype=torch.float64).tolist(), width_to_exponent(0.08)
        exact = sum(v * (((k + 1) / 50) ** (gamma + 1) - (k / 50) ** (gamma + 1)) for k, v in enumerate(values))
        assert averaged(lambda t: values[round(50 * t) - 1], PowerFunction(0.08), 50) == pytest.approx(exact, rel=1e-12)

    def test_width_zero_point_289_is_the_plain_mean(self):
        assert averaged(lambda t: t, PowerFunction(12**-0.5), 9) == pytest.approx(5 / 9, rel=1e-12)

    def test_constant_weights_stay(self):
        assert averaged(lambda t: 0.3, PowerFunction(0.05), 30) == 0.3


class TestEMA:
    def test_buffers_are_copied_and_no_gradients_are_kept(self):
        source = torch.nn.BatchNorm1d(2)
        ema = EMA(source)
        source.running_mean += 3.0
        ema.update(source, 0.9)
        assert torch.equal(ema.module.running_mean, source.running_mean)
        assert not any(p.requires_grad for p in ema.module.parameters())
        assert not ema.module.training

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_an_average_of_half_precision_is_kept_in_single(self, dtype):
        """A step of 1e-5 of the distance is far below the resolution of either."""
        source = torch.nn.Linear(2, 2).to(dtype)
        source.weight.data.fill_(1.0)
        ema = EMA(source)
        source.weight.data.fill_(2.0)
        for _ in range(100):
            ema.update(source, 1 - 1e-5)
        expected = 2 - (1 - 1e-5) ** 100
        torch.testing.assert_close(ema.module.weight, torch.full((2, 2), expected), rtol=0, atol=5e-6)
        assert source.weight.dtype == dtype

    def test_double_precision_is_kept(self):
        assert EMA(torch.nn.Linear(2, 2).double()).module.weight.dtype == torch.float64

    def test_state_goes_on(self):
        source = torch.nn.Linear(3, 3)
        one = EMA(source, PowerFunction(0.1))
        other = EMA(copy.deepcopy(source), PowerFunction(0.1))
        for k in range(6):
            torch.nn.init.normal_(source.weight)
            one.follow(source, 8 * k, 8)
            if k == 2:
                other.module.load_state_dict(one.module.state_dict())
            elif k > 2:
                other.follow(source, 8 * k, 8)
        assert torch.equal(one.module.weight, other.module.weight)


@pytest.fixture
def mesh(tmp_path):
    from torch.distributed.device_mesh import init_device_mesh

    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


def test_sharded_parameters_are_followed_and_written_whole(mesh, tmp_path):
    """The module and its average, each sharded, against the same without."""
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    plain = torch.nn.Linear(4, 4)
    sharded = copy.deepcopy(plain)
    averages = [EMA(module, PowerFunction(0.1)) for module in (plain, sharded)]
    for module in (sharded, averages[1].module):
        fully_shard(module, mesh=mesh)
    for k in range(3):
        torch.nn.init.normal_(plain.weight)
        with torch.no_grad():
            sharded.weight.to_local().copy_(plain.weight)
        for average, module in zip(averages, (plain, sharded), strict=True):
            average.follow(module, 8 * k, 8)
    assert isinstance(averages[1].module.weight, DTensor)
    assert torch.equal(averages[1].module.weight.full_tensor(), averages[0].module.weight)
    Snapshots(tmp_path, torch.float32).write(averages[1], 24, writer=False)
    assert not (tmp_path / "snapshots").exists()
    Snapshots(tmp_path, torch.float32).write(averages[1], 24)
    assert torch.equal(reconstruct(tmp_path, 0.1)["weight"], averages[0].module.weight)
