"""What `sample`, `sample_states`, `encode` and `score` promise besides their numbers."""

import itertools
import math

import pytest
import torch

import diffspace as ds


class Recording(torch.nn.Module):
    """A small learned denoiser that remembers how it was called."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(2, 2).double()
        self.dropout = torch.nn.Dropout(0.5)
        self.modes, self.grads = [], []

    def forward(self, x, sigma, cond=None):
        self.modes.append((self.training, self.dropout.training))
        self.grads.append(torch.is_grad_enabled())
        return self.dropout(torch.tanh(self.layer(x / (1 + sigma))))


def test_a_full_euler_step_to_zero_lands_on_D(mixture):
    latents = torch.randn(6, 2, dtype=torch.float64)
    samples = ds.sample(
        mixture, latents=latents, steps=ds.EDMSteps(1), solver=ds.Euler(), execution=ds.Execution(trajectory=True)
    )
    assert samples.nfe == 1
    torch.testing.assert_close(samples.x, mixture(80 * latents, torch.tensor(80.0)), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(samples.x, samples.trajectory.denoised[0], rtol=1e-13, atol=1e-13)


def test_states_are_what_sample_is_built_on(mixture):
    options = {"seeds": range(4), "shape": (2,)}
    sampler = ds.Sampler(ds.EDMSteps(5), process=ds.Process(ds.VPSchedule()))
    states = list(ds.sample_states(mixture, sampler=sampler, **options))
    samples = ds.sample(mixture, sampler=sampler, execution=ds.Execution(trajectory=True), **options)
    assert [state.step for state in states] == [0, 1, 2, 3, 4, 5]
    assert [state.nfe for state in states] == [0, 2, 4, 6, 8, 9]
    assert torch.equal(states[-1].x, samples.x)
    assert torch.equal(torch.stack([state.x for state in states]), samples.trajectory.x)
    assert states[0].denoised is None
    assert [state.sigma for state in states] == samples.sigmas.tolist()
    torch.testing.assert_close(
        states[0].x.std(), torch.tensor(80.0).double() * ds.initial_latents(range(4), (2,)).double().std()
    )
    for before, after in itertools.pairwise(states):
        expected = mixture(before.x, torch.tensor(before.sigma, dtype=torch.float64))
        torch.testing.assert_close(after.denoised, expected, rtol=1e-9, atol=1e-9)


def test_gradients_flow_end_to_end_when_asked():
    denoiser = Recording().eval()
    latents = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)

    def loss(z):
        return (
            ds.sample(denoiser, latents=z, steps=ds.EDMSteps(4, 0.1, 3.0), execution=ds.Execution(grad=True))
            .x.square()
            .sum()
        )

    assert torch.autograd.gradcheck(loss, (latents,), atol=1e-6)
    (slope,) = torch.autograd.grad(loss(latents), denoiser.layer.bias)
    with torch.no_grad():
        step = 1e-6
        denoiser.layer.bias[0] += step
        above = loss(latents)
        denoiser.layer.bias[0] -= 2 * step
        below = loss(latents)
        denoiser.layer.bias[0] += step
    assert float(slope[0]) == pytest.approx(float(above - below) / (2 * step), rel=1e-5)


def test_no_gradients_by_default_and_no_mode_leaks():
    denoiser = Recording()
    latents = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    for state in ds.sample_states(denoiser, latents=latents, sampler=ds.Sampler(ds.EDMSteps(4))):
        assert torch.is_grad_enabled()
        assert denoiser.training
        assert denoiser.dropout.training
        assert state.step == 0 or not state.x.requires_grad
    assert not any(denoiser.grads)
    with torch.no_grad():
        ds.sample(denoiser, latents=latents.detach(), steps=ds.EDMSteps(2), execution=ds.Execution(grad=True))
        assert not torch.is_grad_enabled()


def test_dropout_is_off_and_modes_are_restored():
    denoiser = Recording()
    denoiser.dropout.eval()
    denoiser.train(True)
    denoiser.dropout.train(False)
    first = ds.sample(denoiser, seeds=[0], shape=(2,)).x
    assert not any(a or b for a, b in denoiser.modes)
    assert denoiser.training
    assert not denoiser.dropout.training
    denoiser.train()
    assert torch.equal(first, ds.sample(denoiser, seeds=[0], shape=(2,)).x)


def test_partial_sampling_spaces_the_steps_anew(mixture):
    x = mixture.sample(5, generator=torch.Generator().manual_seed(0)) + 3.0 * torch.randn(5, 2, dtype=torch.float64)
    fine = ds.sample_from(mixture, x, 3.0, sampler=ds.Sampler(ds.EDMSteps(400)))
    coarse = ds.sample_from(mixture, x, 3.0, sampler=ds.Sampler(ds.EDMSteps(40)))
    assert coarse.sigmas[0] == 3.0
    assert len(coarse.sigmas) == 41
    torch.testing.assert_close(coarse.x, fine.x, rtol=0, atol=5e-3)
    with pytest.raises(ValueError, match="sigma_start"):
        ds.sample_from(mixture, x, 0.001, sampler=ds.Sampler(ds.EDMSteps(40)))


def test_a_non_monotone_schedule_takes_given_times():
    """σ(t) = t(2 − t)·(…) that rises, falls and rises again: no inverse, but the ODE does not mind."""
    gaussian = ds.oracles.Gaussian(torch.zeros(2), 0.5 * torch.eye(2))
    wavy = ds.Process(sigma=lambda t: t + 0.3 * torch.sin(4 * t))
    latents = torch.randn(4, 2, dtype=torch.float64)
    times = torch.linspace(3.0, 0.0, 1201, dtype=torch.float64)
    start = float(wavy.sigma(3.0))
    samples = ds.sample(gaussian, latents=latents, process=wavy, steps=ds.GivenTimes(tuple(times.tolist())))
    torch.testing.assert_close(samples.x, gaussian.flow(start * latents, start, 0.0), rtol=0, atol=2e-3)
    with pytest.raises(ValueError, match="increasing"):
        ds.sample(gaussian, latents=latents, process=wavy, steps=ds.EDMSteps(5, 0.1, 2.0))


def test_ranges_are_errors_or_clipped():
    class Ranged:
        sigma_min, sigma_max = 0.02, 50.0

        def __call__(self, x, sigma, cond=None):
            return 0.5 * x

    options = {"seeds": [0], "shape": (2,)}
    assert ds.sample(Ranged(), **options).sigmas[0] == 50.0
    with pytest.raises(ValueError, match=r"sigma_max: 60 is outside the model's range \[0.02, 50\]"):
        ds.sample(Ranged(), steps=ds.EDMSteps(5, sigma_max=60.0), **options)
    clipped = ds.sample(Ranged(), steps=ds.EDMSteps(5, 0.001, 60.0, clip=True), **options)
    assert clipped.sigmas[[0, -2]].tolist() == pytest.approx([50.0, 0.02], rel=1e-14)


def test_discrete_models_are_asked_only_at_their_levels():
    levels = ds.IDDPMLevels(M=50)
    asked = []

    class Discrete:
        sigma_min, sigma_max = ds.LevelIndex(levels).sigma_range
        round_sigma = staticmethod(ds.LevelIndex(levels).round_sigma)

        def __call__(self, x, sigma, cond=None):
            asked.append(float(sigma))
            return 0.5 * x

    churn = ds.Churn(S_churn=5, S_tmax=50.0)
    ds.sample(Discrete(), seeds=range(3), shape=(2,), steps=ds.EDMSteps(12), solver=ds.Euler(), churn=churn)
    table = levels.table()
    assert max(float((table / sigma - 1).abs().min()) for sigma in asked) < 1e-12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "seeds"),
        ({"seeds": [], "shape": (2,)}, "seeds"),
        ({"seeds": [0]}, "shape"),
        ({"latents": torch.full((2, 2), math.nan)}, r"latents: not finite in samples \[0, 1\]"),
        ({"latents": torch.zeros(2, 2), "shape": (3,)}, "shape"),
        ({"latents": torch.zeros(2, 2), "seeds": [1]}, "seeds"),
        ({"seeds": [0, 1], "shape": (2,), "cond": {"labels": torch.zeros(3)}}, "'labels'"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        ds.sample(lambda x, sigma, cond=None: x, **options)


def test_denoisers_that_misbehave_are_named():
    with pytest.raises(ValueError, match="denoiser: expected a result of shape"):
        ds.sample(lambda x, sigma, cond=None: x[:1], seeds=[0, 1], shape=(2,))
    with pytest.raises(FloatingPointError, match="not finite"):
        ds.sample(lambda x, sigma, cond=None: x / 0.0, seeds=[0, 1], shape=(2,))


def test_score_is_that_of_the_oracle(mixture):
    x = torch.randn(7, 2, dtype=torch.float64)
    for sigma in (torch.tensor(0.3, dtype=torch.float64), torch.linspace(0.1, 3, 7, dtype=torch.float64)):
        torch.testing.assert_close(ds.score(mixture)(x, sigma), mixture.score(x, sigma), rtol=1e-10, atol=1e-10)


def test_the_state_may_be_float32_and_the_network_sees_it(mixture):
    seen = []

    def denoiser(x, sigma, cond=None):
        seen.append((x.dtype, sigma.dtype))
        return mixture(x, sigma)

    single = ds.sample(denoiser, seeds=range(5), shape=(2,), execution=ds.Execution(dtype=torch.float32)).x
    double = ds.sample(mixture, seeds=range(5), shape=(2,)).x
    assert set(seen) == {(torch.float32, torch.float32)}
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, rtol=1e-3, atol=1e-3)


def test_progress_is_told_every_state(mixture):
    told = []
    ds.sample(
        mixture,
        seeds=range(5),
        shape=(2,),
        steps=ds.EDMSteps(3),
        execution=ds.Execution(batch_size=2, progress=lambda i, s: told.append((i, s.step))),
    )
    assert told == [(first, step) for first in (0, 2, 4) for step in range(4)]


def test_encoding_needs_steps_that_do_not_end_at_zero(mixture):
    with pytest.raises(ValueError, match="sigma_min"):
        ds.encode(mixture, torch.zeros(1, 2), sampler=ds.Sampler(ds.EDMSteps(5)))


def test_large_requests_in_batches_with_their_conditions(mixture):
    def shifted(x, sigma, cond=None):
        return mixture(x - cond["shift"][:, None], sigma) + cond["shift"][:, None]

    shift = torch.linspace(-1, 1, 23, dtype=torch.float64)
    options = {"cond": {"shift": shift}, "churn": ds.Churn(S_churn=4, S_noise=1.003), "shape": (2,), "seeds": range(23)}
    whole, parts = (
        ds.sample(shifted, steps=ds.EDMSteps(5), execution=ds.Execution(batch_size=size, trajectory=True), **options)
        for size in (None, 6)
    )
    assert torch.equal(whole.x, parts.x)
    assert torch.equal(whole.trajectory.x, parts.trajectory.x)
    assert torch.equal(whole.trajectory.denoised, parts.trajectory.denoised)
    assert whole.nfe == parts.nfe == 9


def test_parts_that_are_given_replace_those_of_the_sampler(mixture):
    options = {"seeds": range(3), "shape": (2,)}
    sampler = ds.Sampler(ds.VPSteps(6), ds.Euler(), ds.Process(ds.VPSchedule()), ds.Churn(3.0))
    whole = ds.sample(mixture, sampler=sampler, **options)
    parts = {"steps": sampler.steps, "solver": sampler.solver, "process": sampler.process, "churn": sampler.churn}
    assert torch.equal(ds.sample(mixture, **parts, **options).x, whole.x)
    replaced = ds.sample(mixture, sampler=sampler, solver=ds.Heun(), churn=ds.Churn(), **options)
    assert torch.equal(replaced.x, ds.sample(mixture, **parts | {"solver": ds.Heun(), "churn": None}, **options).x)


def test_batches_come_as_they_are_finished(mixture):
    seen = []
    sampler = ds.Sampler(ds.EDMSteps(3))
    execution = ds.Execution(batch_size=2, progress=lambda first, state: seen.append((first, state.step)))
    batches = ds.sample_batches(mixture, seeds=range(5), shape=(2,), sampler=sampler, execution=execution)
    first = next(batches)
    assert (first.seeds, len(first.x)) == ((0, 1), 2)
    assert seen == [(0, step) for step in range(4)]
    rest = list(batches)
    assert [batch.seeds for batch in rest] == [(2, 3), (4,)]
    whole = ds.sample(mixture, seeds=range(5), shape=(2,), sampler=sampler)
    assert torch.equal(torch.cat([batch.x for batch in (first, *rest)]), whole.x)
    with pytest.raises(ValueError, match="seeds: "):
        ds.sample_batches(mixture, shape=(2,))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ds.Sampler(ds.Heun()), "steps"),
        (lambda: ds.Sampler(solver=ds.EDMSteps()), "solver"),
        (lambda: ds.Sampler(process=ds.VPSchedule()), "process"),
        (lambda: ds.Sampler(solver=ds.IPNDM(), churn=ds.Churn(1.0)), "churn: IPNDM remembers"),
        (lambda: ds.Sampler(ds.GivenSteps((1.0, 0.0))).with_num_steps(2), "num_steps: 2, but GivenSteps has 1"),
    ],
)
def test_a_sampler_is_checked_when_it_is_made(make, message):
    with pytest.raises((ValueError, TypeError), match=message):  # the types are checked first under pytest
        make()


def test_a_sampler_knows_its_cost_and_takes_another_number_of_steps():
    sampler = ds.Sampler(ds.EDMSteps(18, rho=5.0))
    assert (sampler.nfe, sampler.with_num_steps(5).nfe) == (35, 9)
    assert sampler.with_num_steps(5).steps == ds.EDMSteps(5, rho=5.0)
    assert ds.Sampler(solver=ds.DormandPrince()).nfe is None
