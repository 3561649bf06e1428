"""Latents: `decode` as the inverse of `encode`, and ways between two of them."""

import math

import numpy as np
import pytest
import torch
from plain_denoisers import mixture_of

from diffspace import EDMSteps, Euler, FlowSchedule, GivenTimes, Heun, Process, VPSchedule, encode, sample
from diffspace.sampling import Execution, Sampler, decode, interpolate

SIGMA_MIN, SIGMA_MAX = 0.002, 80.0
COUNTS = (48, 96, 192)
SOLVERS = [Euler(), Heun(), Heun(1 / 2)]  # those whose round trip is measured
PROCESSES = {"EDM": Process(), "VP": Process(VPSchedule()), "flow": Process(FlowSchedule())}


def steps(n, terminal="sigma_min"):
    return EDMSteps(n, SIGMA_MIN, SIGMA_MAX, terminal=terminal)


def rms(x):
    return float(x.square().sum(1).mean().sqrt())


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("solver", SOLVERS, ids=str)
def test_decoding_undoes_encoding_to_the_order_of_the_solver(mixture, solver, process):
    denoiser = mixture_of(mixture)
    x = mixture.sample(8, generator=torch.Generator().manual_seed(0))
    errors = []
    for n in COUNTS:
        options = {"sampler": Sampler(steps(n), solver, PROCESSES[process])}
        encoded = encode(denoiser, x, **options)
        decoded = decode(denoiser, encoded.x, **options)
        assert decoded.sigmas.tolist() == encoded.sigmas.flip(0).tolist()
        assert decoded.nfe == encoded.nfe == n * solver.evaluations(to_zero=False)
        errors.append(rms(decoded.x - x))
    order = -np.polyfit(np.log(COUNTS), np.log(errors), 1)[0]
    print(f"\n  {solver}, {process}: order {order:.2f}, errors {' '.join(f'{e:.1e}' for e in errors)}")
    assert order > solver.order - 0.15
    assert errors[-1] < (0.05 if solver.order == 1 else 2e-4)


def test_latents_of_decode_are_at_the_first_level(mixture):
    latents = torch.randn(4, 2, dtype=torch.float64)
    for terminal in ("sigma_min", "zero"):
        drawn = sample(mixture, latents=latents, steps=steps(7, terminal))
        assert torch.equal(decode(mixture, SIGMA_MAX * latents, sampler=Sampler(steps(7, terminal))).x, drawn.x)
    assert decode(mixture, SIGMA_MAX * latents).num_steps == encode(mixture, latents).num_steps == 18


def test_levels_that_a_model_rounds_are_the_same_both_ways():
    def rounding(x, sigma, cond=None):
        return 0.2 / (0.2 + sigma**2) * x

    rounding.round_sigma = lambda sigma: torch.where(sigma > 0, (sigma * 64).round().clamp(min=1) / 64, sigma)
    placed = {"sampler": Sampler(EDMSteps(200, 0.02, 9.99, terminal="sigma_min", rho=2.0))}
    x = torch.randn(3, 2, dtype=torch.float64)
    encoded = encode(rounding, x, **placed)
    decoded = decode(rounding, encoded.x, **placed)
    assert decoded.sigmas.tolist() == encoded.sigmas.flip(0).tolist()
    assert float(encoded.sigmas[-1]) == 639 / 64
    torch.testing.assert_close(decoded.x, x, rtol=5e-3, atol=5e-3)
    given = {"sampler": Sampler(GivenTimes(tuple(encoded.sigmas.flip(0).tolist())))}
    torch.testing.assert_close(decode(rounding, encode(rounding, x, **given).x, **given).x, decoded.x)


def test_decode_takes_what_encode_takes(mixture):
    latents = SIGMA_MAX * torch.randn(5, 2, dtype=torch.float64)
    whole = decode(mixture, latents, sampler=Sampler(steps(4)), execution=Execution(trajectory=True))
    seen = []
    parts = decode(
        mixture,
        latents,
        sampler=Sampler(steps(4)),
        execution=Execution(batch_size=2, progress=lambda first, state: seen.append(first)),
    )
    assert torch.equal(parts.x, whole.x)
    assert seen == [0] * 5 + [2] * 5 + [4] * 5
    assert torch.equal(whole.trajectory.x[0], latents)
    with pytest.raises(ValueError, match="x: not finite"):
        decode(mixture, latents / 0, sampler=Sampler(steps(4)))
    with pytest.raises(ValueError, match="batch_size: expected"):
        decode(mixture, latents, sampler=Sampler(steps(4)), execution=Execution(batch_size=0))
    with pytest.raises(ValueError, match="cond: 'labels'"):
        decode(mixture, latents, cond={"labels": torch.zeros(2)})
    along = latents.clone().requires_grad_()
    (slope,) = torch.autograd.grad(
        decode(mixture, along, sampler=Sampler(steps(4)), execution=Execution(grad=True)).x.sum(), along
    )
    assert float(slope.abs().min()) > 0


def pair(shape=(3, 4, 4), dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(*shape, dtype=torch.float64, generator=generator).to(dtype) for _ in range(2))


@pytest.mark.parametrize("kind", ["spherical", "mixing"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_the_ends_are_the_given_ones_to_the_last_bit(kind, dtype):
    a, b = pair(dtype=dtype)
    for n in (2, 3, 8):
        way = interpolate(80 * a, 80 * b, n, kind=kind)
        assert way.shape == (n, 3, 4, 4)
        assert way.dtype == dtype
        assert torch.equal(way[0], 80 * a)
        assert torch.equal(way[-1], 80 * b)


def test_the_great_circle_keeps_the_norm_and_turns_evenly():
    a, b = pair()
    b *= torch.linalg.vector_norm(a) / torch.linalg.vector_norm(b)
    way = interpolate(a, b, 9).reshape(9, -1)
    norms = torch.linalg.vector_norm(way, dim=1)
    torch.testing.assert_close(norms, norms[:1].expand(9), rtol=1e-14, atol=0)
    directions = way / norms[:, None]
    angles = (directions[:-1] * directions[1:]).sum(1).clamp(-1, 1).acos()
    whole = float((directions[0] @ directions[-1]).acos())
    torch.testing.assert_close(angles, torch.full((8,), whole / 8, dtype=torch.float64), rtol=1e-12, atol=0)
    # sin((1 − w)θ)/sin θ·a + sin(wθ)/sin θ·b
    w = torch.linspace(0, 1, 9, dtype=torch.float64)[:, None]
    formula = (torch.sin((1 - w) * whole) * way[0] + torch.sin(w * whole) * way[-1]) / math.sin(whole)
    torch.testing.assert_close(way, formula, rtol=1e-12, atol=1e-13)
    longer = torch.linalg.vector_norm(interpolate(a, 3 * b, 9).reshape(9, -1), dim=1)
    torch.testing.assert_close(longer, norms * torch.linspace(1, 3, 9, dtype=torch.float64), rtol=1e-13, atol=0)


def test_mixing_keeps_the_distribution():
    a, b = (torch.randn(40_000, dtype=torch.float64, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    way = interpolate(a, b, 5, kind="mixing")
    assert float((way.var(1) - 1).abs().max()) < 4 * (2 / 40_000) ** 0.5
    torch.testing.assert_close(way[2], (a + b) / math.sqrt(2), rtol=1e-13, atol=1e-14)


def test_parallel_opposite_and_zero_vectors():
    a, _ = pair((5,))
    norm = torch.linalg.vector_norm(a)
    w = torch.linspace(0, 1, 7, dtype=torch.float64)[:, None]
    torch.testing.assert_close(interpolate(a, 3 * a, 7), (1 + 2 * w) * a, rtol=1e-13, atol=0)
    torch.testing.assert_close(interpolate(a, torch.zeros(5).double(), 7), (1 - w) * a, rtol=1e-13, atol=0)
    torch.testing.assert_close(interpolate(torch.zeros(5).double(), a, 7), w * a, rtol=1e-13, atol=0)
    assert torch.equal(interpolate(0 * a, 0 * a, 3), torch.zeros(3, 5).double())
    for opposite in (-a, -2 * a, -a * (1 + 1e-16), -a + 1e-15, -a + 1e-9):
        way = interpolate(a, opposite, 7)
        lengths = torch.linalg.vector_norm(way, dim=1)
        expected = norm + w[:, 0] * (torch.linalg.vector_norm(opposite) - norm)
        torch.testing.assert_close(lengths, expected, rtol=1e-12, atol=0)
        turned = (way[:-1] * way[1:]).sum(1) / lengths[:-1] / lengths[1:]
        torch.testing.assert_close(turned, torch.full((6,), math.cos(math.pi / 6)).double(), rtol=1e-7, atol=0)
    near = a + 1e-10 * torch.ones(5).double()
    torch.testing.assert_close(interpolate(a, near, 3)[1], 0.5 * (a + near), rtol=1e-15, atol=0)
    # numbers have no circle
    numbers = interpolate(torch.tensor([2.0]).double(), torch.tensor([-1.0]).double(), 4)
    torch.testing.assert_close(numbers, torch.tensor([[2.0], [1.0], [0.0], [-1.0]]).double(), rtol=1e-14, atol=1e-15)
    assert interpolate(torch.tensor(2.0), torch.tensor(-1.0), 4).tolist() == pytest.approx([2.0, 1.0, 0.0, -1.0])


def test_a_way_between_encoded_samples_decodes_to_its_ends(mixture):
    x = mixture.sample(2, generator=torch.Generator().manual_seed(1))
    latents = encode(mixture, x, sampler=Sampler(steps(60))).x
    decoded = decode(mixture, interpolate(latents[0], latents[1], 5), sampler=Sampler(steps(60))).x
    torch.testing.assert_close(decoded[[0, -1]], x, rtol=0, atol=2e-3)


def test_mistakes_are_named():
    a, b = pair((4,))
    for arguments, options, message in (
        ((a, b, 1), {}, "n: expected an integer of at least 2, got 1"),
        ((a, b[:3], 3), {}, "b: "),
        ((a, b.float(), 3), {}, "b: "),
        ((a / 0, b, 3), {}, "a: holds"),
        ((a, b * math.nan, 3), {}, "b: holds"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            interpolate(*arguments, **options)
