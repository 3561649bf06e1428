"""Snapshots, and averages of other widths made of them, against averages that ran at those widths."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffspace.averages import EMA, PowerFunction, Reconstruction, Snapshots, attainable, reconstruct
from diffspace.averages.posthoc import correlation, mismatch, solve

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "phema.json").read_text(encoding="utf-8"))
TRACKED = (0.05, 0.1)
BATCH, STEPS = 64, 512
LAST = BATCH * STEPS


class Net(torch.nn.Module):
    """A weight, and a buffer that float16 would spoil."""

    def __init__(self, size=64):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(size))
        self.register_buffer("frequencies", 1000 * torch.rand(4) + 1 / 3)


def trajectory(folder, count, direct=(), dtype=torch.float32, size=64):
    """Train a little network with `count` snapshots; the averages that ran at the widths `direct`."""
    torch.manual_seed(0)
    net, goal = Net(size), torch.randn(size)
    tracked = [EMA(net, PowerFunction(w)) for w in TRACKED]
    others = [EMA(net, PowerFunction(w)) for w in direct]
    snapshots = Snapshots(folder, dtype)
    for k in range(STEPS):
        with torch.no_grad():
            net.weight.add_(0.02 * (goal - net.weight) + 0.05 * torch.randn(size))
        for average in (*tracked, *others):
            average.follow(net, k * BATCH, BATCH)
        if (k + 1) % (STEPS // count) == 0:
            for average in tracked:
                snapshots.write(average, (k + 1) * BATCH)
    return net, [average.module.weight.detach() for average in (*tracked, *others)]


def distance(a, b):
    return float((a - b).norm() / b.norm())


class TestSolve:
    @pytest.mark.parametrize("case", GOLDEN["solve"])
    def test_coefficients_of_the_reference(self, case):
        x = solve(list(zip(case["in_ofs"], case["in_std"], strict=True)), [(case["out_ofs"], case["out_std"])])
        expected = torch.tensor(case["coefficients"], dtype=torch.float64)[:, None]
        torch.testing.assert_close(x, expected, rtol=1e-8, atol=0)

    def test_correlation_of_the_reference(self):
        value = float(correlation([(1000, 0.05)], [(2000, 0.1)]))
        assert value == pytest.approx(GOLDEN["correlation"], rel=1e-8)

    def test_correlation_is_the_integral_of_the_product(self):
        grid = torch.linspace(0, 800, 200_001, dtype=torch.float64)

        def profile(time, width):
            gamma = PowerFunction(width).exponent
            return torch.where(grid <= time, (gamma + 1) / time * (grid / time) ** gamma, 0.0)

        expected = torch.trapezoid(profile(800, 0.12) * profile(500, 0.2), grid)
        assert float(correlation([(800, 0.12)], [(500, 0.2)])) == pytest.approx(float(expected), rel=1e-4)

    def test_a_profile_that_is_there_is_taken_alone(self):
        x = solve([(100, 0.05), (100, 0.1), (200, 0.05), (200, 0.1)], [(200, 0.1), (100, 0.05)])
        expected = torch.tensor([[0.0, 1.0], [0.0, 0.0], [0.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
        torch.testing.assert_close(x, expected, rtol=0, atol=1e-12)

    def test_residual_is_that_of_the_profiles(self):
        given, required = [(500.0, 0.1), (800.0, 0.05), (800.0, 0.1)], [(800.0, 0.15)]
        grid = torch.linspace(0, 800, 400_001, dtype=torch.float64)

        def profile(time, width):
            gamma = PowerFunction(width).exponent
            return torch.where(grid <= time, (gamma + 1) / time * (grid / time) ** gamma, 0.0)

        x = solve(given, required)[:, 0]
        target = profile(800.0, 0.15)
        off = sum(c * profile(*average) for c, average in zip(x, given, strict=True)) - target
        expected = (torch.trapezoid(off**2, grid) / torch.trapezoid(target**2, grid)).sqrt()
        assert float(mismatch(given, required)) == pytest.approx(float(expected), rel=1e-4)

    def test_many_snapshots_of_several_widths_are_solved(self):
        """The Gram matrix is near singular, but the profiles are matched all the better."""
        given = [(t, width) for t in range(1, 129) for width in (0.02, 0.05, 0.1, 0.2)]
        error = mismatch(given, [(128, width) for width in (0.03, 0.07, 0.15)])
        assert float(error.max()) < 1e-6

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ([(1.0, 0.1), (1.0, 0.1)], "averages: expected each once"),
            ([(0.0, 0.1)], "averages: expected positive numbers of images, got 0.0"),
            ([], "averages: expected at least one"),
            ([(1.0, 0.3)], "width: expected .*, got 0.3"),
        ],
    )
    def test_bad_input(self, given, message):
        with pytest.raises(ValueError, match=message):
            solve(given, [(1.0, 0.1)])


class TestReconstruct:
    def test_a_width_that_was_tracked_is_exact(self, tmp_path):
        net, (narrow, wide) = trajectory(tmp_path, 4)
        assert torch.equal(reconstruct(tmp_path, 0.05)["weight"], narrow)
        assert torch.equal(reconstruct(tmp_path, 0.1)["weight"], wide)
        assert torch.equal(reconstruct(tmp_path, 0.1)["frequencies"], net.frequencies)

    def test_other_widths_approach_the_average_that_ran_at_them(self, tmp_path):
        errors = []
        for count in (8, 16, 32):
            _, (_, _, *direct) = trajectory(tmp_path / str(count), count, (0.07, 0.15))
            made = [reconstruct(tmp_path / str(count), w)["weight"] for w in (0.07, 0.15)]
            errors.append([distance(a, b) for a, b in zip(made, direct, strict=True)])
        for coarse, fine in pairwise(errors):
            assert all(b < 0.5 * a for a, b in zip(coarse, fine, strict=True)), errors
        assert max(errors[-1]) < 2e-4

    def test_earlier_images_are_as_if_training_had_ended_there(self, tmp_path):
        trajectory(tmp_path, 16)
        half = reconstruct(tmp_path, 0.07, LAST // 2)["weight"]
        for snapshot in Snapshots(tmp_path).all():
            if snapshot.images > LAST // 2:
                snapshot.path.unlink()
        assert torch.equal(half, reconstruct(tmp_path, 0.07)["weight"])

    def test_half_precision_costs_what_is_said(self, tmp_path):
        _, (_, _, direct) = trajectory(tmp_path / "h", 32, (0.07,), torch.float16, size=4096)
        trajectory(tmp_path / "s", 32, dtype=torch.float32, size=4096)
        half, single = (reconstruct(tmp_path / name, 0.07)["weight"] for name in "hs")
        coefficients = torch.tensor(list(Reconstruction.plan(Snapshots(tmp_path / "h").all(), 0.07).parts.values()))
        rounding = 2e-4 * float(coefficients.norm())
        assert distance(half, single) == pytest.approx(rounding, rel=0.15)
        assert distance(single, direct) < rounding / 3

    def test_buffers_are_not_averaged_and_not_rounded(self, tmp_path):
        net, _ = trajectory(tmp_path, 8, dtype=torch.float16)
        assert torch.equal(reconstruct(tmp_path, 0.07)["frequencies"], net.frequencies)

    def test_attainable_range_is_where_it_is_refused(self, tmp_path):
        trajectory(tmp_path, 8)
        snapshots = Snapshots(tmp_path).all()
        low, high = attainable(snapshots, LAST)
        assert 0.02 < low < 0.04 < 0.15 < high < 0.25
        for width in (low, high):
            Reconstruction.plan(snapshots, width)
        for width in (0.95 * low, 1.05 * high):
            with pytest.raises(
                ValueError, match=rf"width: {width:g} is outside of what the snapshots allow, {low:.3g}"
            ):
                Reconstruction.plan(snapshots, width)


class TestFiles:
    def test_names_say_images_and_width(self, tmp_path):
        trajectory(tmp_path, 2)
        names = sorted(path.name for path in (tmp_path / "snapshots").iterdir())
        half, end = f"{LAST // 2:012d}", f"{LAST:012d}"
        assert names == [f"{t}-{w}.safetensors" for t in (half, end) for w in ("0.05", "0.1")]

    def test_only_power_functions_and_finite_weights_are_written(self, tmp_path):
        net = Net()
        with pytest.raises(ValueError, match="expected one with the profile PowerFunction"):
            Snapshots(tmp_path).write(EMA(net), 100)
        net.weight.data[0] = 1e5
        with pytest.raises(FloatingPointError, match=r"weight is not finite, or beyond the range of torch\.float16"):
            Snapshots(tmp_path).write(EMA(net, PowerFunction(0.1)), 100)
        Snapshots(tmp_path, torch.float32).write(EMA(net, PowerFunction(0.1)), 100)
        with pytest.raises(ValueError, match=r"dtype: expected .*, got torch\.float64"):
            Snapshots(tmp_path, torch.float64)

    def test_nothing_to_read(self, tmp_path):
        with pytest.raises(ValueError, match="has no snapshots; train with ema_widths and snapshot_images"):
            reconstruct(tmp_path, 0.05)

    def test_images_without_a_snapshot(self, tmp_path):
        trajectory(tmp_path, 4)
        with pytest.raises(ValueError, match=f"images: there is no snapshot after 99999; .*after .*{LAST}"):
            reconstruct(tmp_path, 0.05, 99999)
        with pytest.raises(ValueError, match=f"images: there is no snapshot after 9000; .*{LAST // 4}, {LAST // 2}"):
            reconstruct(tmp_path, 0.05, 9000)

    @pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "foreign"])
    def test_a_damaged_snapshot_is_named(self, tmp_path, damage):
        trajectory(tmp_path, 4)
        path = Snapshots(tmp_path).all()[3].path
        data = bytearray(path.read_bytes())
        data[-5] ^= 1
        contents = {"cut": path.read_bytes()[:-20], "flipped": bytes(data), "empty": b""}
        if damage == "foreign":
            save_file(load_file(path), path)
        else:
            path.write_bytes(contents[damage])
        with pytest.raises(ValueError, match=rf"{path.name}: cannot be read as a snapshot"):
            reconstruct(tmp_path, 0.07)

    def test_a_snapshot_of_another_network_is_named(self, tmp_path):
        trajectory(tmp_path, 4)
        Snapshots(tmp_path).write(EMA(Net(3), PowerFunction(0.05)), LAST // 2)
        with pytest.raises(ValueError, match=rf"{LAST // 2:012d}-0.05.safetensors is of another network"):
            reconstruct(tmp_path, 0.07)
        other = Net()
        del other.frequencies
        Snapshots(tmp_path).write(EMA(other, PowerFunction(0.05)), LAST // 2)
        with pytest.raises(ValueError, match="is of another network"):
            reconstruct(tmp_path, 0.07)
