"""Inpainting: what replacement reaches on correlated Gaussians, and how far resampling mends it."""

import itertools
import math

import pytest
import torch

import diffspace as ds
from diffspace import Process, VPSchedule, sample, step_noise
from diffspace.figures import affine_ends
from diffspace.guidance import MMPS, Mask, Replacement, repaint
from diffspace.oracles import Gaussian, GaussianMixture
from diffspace.sampling import EDMSteps, Euler, Execution, Heun, Sampler

RHO, STD, KNOWN = 0.8, 0.5, 0.6
COVARIANCE = STD**2 * torch.tensor([[1, RHO], [RHO, 1]], dtype=torch.float64)
PRIOR = Gaussian(torch.zeros(2, dtype=torch.float64), COVARIANCE)
MASK = torch.tensor([True, False])
VALUES = torch.tensor([KNOWN, math.nan], dtype=torch.float64)  # what is not known is not looked at
REPLACED = Replacement(PRIOR, MASK, VALUES)
MEAN, VARIANCE = RHO * KNOWN, STD**2 * (1 - RHO**2)  # of the second coordinate, given the first
STEPS = EDMSteps(18)


def unknown(moments):
    return float(moments[0][1]), float(moments[1][1, 1])


def repainted(resamplings, jump=1, steps=STEPS):
    """Mean and variance of the unknown coordinate, exactly: a run is affine in its latents and its noise."""
    jumps = (resamplings - 1) * -(-steps.num_steps // jump)

    def run(z):
        draws = z.reshape(len(z), 1 + jumps, 2)
        options = {"latents": draws[:, 0], "noise": lambda k, like: draws[:, 1 + k], "sampler": Sampler(steps)}
        return repaint(REPLACED, resamplings=resamplings, jump=jump, **options).x

    return unknown(affine_ends(run, 2 * (1 + jumps)))


@pytest.mark.parametrize("solver", [Euler(), Heun(), Heun(2 / 3)])
@pytest.mark.parametrize("num_steps", [1, 2, 9])
def test_the_known_part_runs_on_the_line_of_its_own_noise_and_ends_exactly(solver, num_steps):
    result = sample(
        REPLACED, seeds=range(4), steps=EDMSteps(num_steps), solver=solver, execution=Execution(trajectory=True)
    )
    assert torch.equal(result.x[:, 0], torch.full((4,), KNOWN, dtype=torch.float64))
    path = result.trajectory.x[:, :, 0]
    noise = (path[0] - KNOWN) / result.sigmas[0]
    torch.testing.assert_close(path, KNOWN + result.sigmas[:, None] * noise, rtol=0, atol=1e-9)


def test_replacement_alone_agrees_too_little_with_what_is_known_and_resampling_mends_it():
    found = {r: repainted(r) for r in (1, 2, 5, 20)}
    found["sample"] = unknown(affine_ends(lambda z: sample(REPLACED, latents=z, steps=STEPS).x, 2))
    mmps = MMPS(PRIOR, Mask(MASK), VALUES[None, :1], 0.0)
    found["MMPS"] = unknown(affine_ends(lambda z: sample(mmps, latents=z, steps=STEPS).x, 2))
    print(
        f"\n  exact: {MEAN:.3f}, {VARIANCE:.4f}; " + "; ".join(f"{n}: {m:.3f}, {v:.4f}" for n, (m, v) in found.items())
    )
    assert found[1] == pytest.approx(found["sample"], rel=1e-12)
    for name, mean, variance in (("sample", 0.217, 0.184), (20, 0.453, 0.0968), ("MMPS", 0.478, 0.0956)):
        assert found[name] == pytest.approx((mean, variance), rel=0.01 if name != "MMPS" else 0.2)
    bias = [MEAN - found[r][0] for r in (1, 2, 5, 20)]
    excess = [found[r][1] - VARIANCE for r in (1, 2, 5, 20)]
    for deviations in (bias, excess):
        assert all(0 < after < before for before, after in itertools.pairwise(deviations))
    assert bias[-1] < 0.11 * bias[0]
    assert excess[-1] < 0.08 * excess[0]


def test_with_finer_steps_and_more_resampling_it_comes_to_the_conditional():
    """No bias is left over: it goes with 1/resamplings, until what is left is that of the steps."""
    errors = [abs(MEAN - repainted(r, steps=EDMSteps(16, sigma_max=5.0))[0]) for r in (5, 20)]
    assert errors[1] < 0.35 * errors[0]


def test_longer_jumps_see_fewer_noises():
    assert repainted(5, jump=6)[0] < repainted(5, jump=1)[0] - 0.02


def test_by_seeds_within_the_error_of_their_number():
    n = 3000
    x = repaint(REPLACED, shape=(2,), seeds=range(n), resamplings=3, sampler=Sampler(EDMSteps(8))).x
    assert torch.equal(x[:, 0], torch.full((n,), KNOWN, dtype=torch.float64))
    mean, variance = repainted(3, steps=EDMSteps(8))
    assert float(x[:, 1].mean()) == pytest.approx(mean, abs=4 * math.sqrt(variance / n))
    assert float(x[:, 1].var()) == pytest.approx(variance, abs=4 * variance * math.sqrt(2 / n))


def test_once_is_the_plain_sampler():
    for jump in (1, 4, 100):
        for process in (Process(), Process(VPSchedule())):
            plain = sample(REPLACED, seeds=range(3), steps=STEPS, process=process, execution=Execution(trajectory=True))
            result = repaint(
                REPLACED, shape=(2,), seeds=range(3), resamplings=1, jump=jump, sampler=Sampler(STEPS, process=process)
            )
            torch.testing.assert_close(result.x, plain.x, rtol=1e-10, atol=1e-12)
            assert torch.equal(result.sigmas, plain.sigmas)
            assert (result.num_steps, result.nfe, result.seeds) == (18, plain.nfe, (0, 1, 2))


def test_once_is_the_plain_sampler_in_the_range_that_a_model_states():
    network = ds.networks.MLP((2,), width=8, depth=1)
    for sampling_range in (None, (0.1, 7.0)):
        model = ds.Preconditioned(network, ds.EDMPreconditioning(0.7), sampling_range)
        known = Replacement(model, torch.tensor([True, False]), torch.tensor([0.6, 0.0]))
        once = repaint(known, seeds=range(3), resamplings=1)
        plain = sample(known, seeds=range(3))
        assert torch.equal(once.sigmas, plain.sigmas)
        torch.testing.assert_close(once.x, plain.x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("resamplings", "jump", "jumps"), [(1, 1, 0), (3, 1, 10), (4, 2, 9), (3, 4, 4), (2, 9, 1)])
def test_evaluations_and_noise_are_counted(resamplings, jump, jumps):
    calls, drawn = [], []

    def denoiser(x, sigma, cond=None):
        calls.append(float(sigma))
        return 0.5 * x

    def noise(k, like):
        drawn.append(k)
        return torch.zeros_like(like)

    options = {"resamplings": resamplings, "jump": jump, "sampler": Sampler(EDMSteps(5)), "noise": noise}
    result = repaint(denoiser, latents=torch.ones(1, 2), **options)
    assert drawn == list(range(jumps))
    assert len(calls) == result.nfe == 9 * resamplings


def test_noise_is_that_of_seed_and_jump_whatever_the_batch():
    def identity(x, sigma, cond=None):
        return x  # the state stays, so that its jumps can be read off

    steps = EDMSteps(2, 1.0, 3.0, terminal="sigma_min")
    x = repaint(identity, shape=(3,), seeds=range(5), resamplings=3, sampler=Sampler(steps))
    levels = x.sigmas.tolist()
    expected = sample(identity, shape=(3,), seeds=range(5), steps=steps).x
    for k in range(4):
        high, low = levels[k // 2], levels[k // 2 + 1]
        expected = expected + math.sqrt(high**2 - low**2) * step_noise(range(5), k, (3,)).double()
    torch.testing.assert_close(x.x, expected, rtol=1e-12, atol=1e-12)
    alone = repaint(identity, shape=(3,), seeds=[3], resamplings=3, sampler=Sampler(steps)).x
    assert torch.equal(alone, x.x[3:4])


def test_gradients_go_through_the_jumps():
    mixture = GaussianMixture(torch.tensor([[0.5, 0.2], [-0.6, 0.1]], dtype=torch.float64), torch.tensor([0.3, 0.4]))
    latents = torch.tensor([[0.3, -0.5]], dtype=torch.float64, requires_grad=True)
    known = torch.tensor([0.4, 0.0], dtype=torch.float64, requires_grad=True)

    def end(latents, known):
        sampler = Sampler(EDMSteps(2, sigma_max=2.0, sigma_min=0.3))
        options = {"seeds": [1], "resamplings": 2, "sampler": sampler, "execution": Execution(grad=True)}
        return repaint(Replacement(mixture, MASK, known), latents=latents, **options).x

    assert torch.autograd.gradcheck(end, (latents, known))
    assert not repaint(mixture, latents=latents, seeds=[1], sampler=Sampler(EDMSteps(2))).x.requires_grad


def test_masks_and_values_of_a_batch_and_of_images():
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    mask, known = torch.rand(4, 4, generator=torch.Generator().manual_seed(1)) > 0.5, torch.ones(2, 3, 1, 1)
    replaced = Replacement(lambda x, sigma, cond=None: 2 * x, mask, known)(x, torch.tensor(1.0))
    assert torch.equal(replaced, torch.where(mask, torch.ones(()), 2 * x))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Replacement(PRIOR, MASK.double(), VALUES), "mask: expected a tensor of bool, .* got torch.float64"),
        (
            lambda: Replacement(PRIOR, MASK, VALUES[:1].expand(3))(COVARIANCE, torch.tensor(1.0)),
            r"mask, known: shapes \(2,\), \(3,\)",
        ),
        (lambda: repaint(PRIOR, seeds=[0], resamplings=0), "resamplings: expected an integer of at least 1, got 0"),
        (lambda: repaint(PRIOR, seeds=[0], jump=0), "jump: expected an integer of at least 1, got 0"),
        (lambda: repaint(PRIOR, latents=COVARIANCE), "seeds: are missing"),
        (
            lambda: repaint(PRIOR, latents=COVARIANCE, noise=lambda k, like: like[:1]),
            r"noise: shape \(1, 2\) for a state",
        ),
        (lambda: repaint(PRIOR, resamplings=1, sampler=Sampler(STEPS)), "seeds: expected seeds"),
        (lambda: repaint(PRIOR, shape=(2,), seeds=[0], sampler=Sampler(EDMSteps(sigma_min=90.0))), "sigma_min"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("solver", [ds.DPMSolverPPSDE(), ds.EulerAncestral()])
def test_what_a_stochastic_solver_draws_is_new_in_each_run(solver):
    """For one Gaussian the law of a sample does not depend on how often pieces are run."""
    wide = Gaussian(torch.zeros(200, dtype=torch.float64), STD**2 * torch.eye(200, dtype=torch.float64))
    sampler = Sampler(EDMSteps(60), solver)
    once, often = (repaint(wide, seeds=range(6), sampler=sampler, resamplings=r) for r in (1, 6))
    assert torch.equal(once.x, sample(wide, seeds=range(6), sampler=sampler).x)
    assert float(often.x.std()) == pytest.approx(float(once.x.std()), rel=0.04)
    assert often.seeds == once.seeds == tuple(range(6))
    drawn = []

    def noise(k, like):
        drawn.append(k)
        return step_noise(range(6), k, like.shape[1:])

    repaint(
        wide,
        latents=ds.initial_latents(range(6), (200,)),
        noise=noise,
        sampler=Sampler(EDMSteps(6), solver),
        resamplings=3,
    )
    assert drawn == list(range(len(drawn)))
    assert len(drawn) > 6 * 2


def test_resampling_once_is_sampling_with_an_analytical_step_too():
    two = GaussianMixture(torch.tensor([[-1.0], [1.0]]).double(), torch.tensor([0.1, 0.1]).double())
    sampler = Sampler(EDMSteps(18), ds.AnalyticalFirstStep(Heun()))
    plain = sample(two, seeds=range(5), sampler=sampler)
    found = repaint(two, seeds=range(5), sampler=sampler, resamplings=1)
    assert torch.equal(found.x, plain.x)
    assert found.nfe == plain.nfe
