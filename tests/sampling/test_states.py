"""What a run hands out: states, trajectories, progress, batches, dtype and device."""

import pytest
import torch

from diffspace import (
    Churn,
    EDMPreconditioning,
    EDMSteps,
    Euler,
    GivenSteps,
    Heun,
    Preconditioned,
    Process,
    State,
    VPSchedule,
    initial_latents,
    random_labels,
    sample,
    sample_states,
    score,
)
from diffspace.sampling import Execution, Sampler, sample_from

SEEDS = range(10, 15)
OPTIONS = [
    {"solver": Euler()},
    {"solver": Heun()},
    {"solver": Heun(1 / 2), "process": Process(VPSchedule())},
    {"solver": Heun(), "churn": Churn(2.0, S_tmax=50.0)},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_the_trajectory_is_made_of_the_states(mixture, options):
    steps = EDMSteps(6)
    states = list(sample_states(mixture, seeds=SEEDS, sampler=Sampler(steps, **options)))
    result = sample(mixture, seeds=SEEDS, steps=steps, execution=Execution(trajectory=True), **options)
    path = result.trajectory
    assert path.x.shape == (7, 5, 2)
    assert path.denoised.shape == (6, 5, 2)
    assert torch.equal(path.x, torch.stack([state.x for state in states]))
    assert torch.equal(path.denoised, torch.stack([state.denoised for state in states[1:]]))
    assert torch.equal(path.x[-1], result.x)
    assert [state.sigma for state in states] == result.sigmas.tolist() == steps.sigmas().tolist()
    assert [state.step for state in states] == list(range(7))
    assert {state.num_steps for state in states} == {result.num_steps} == {6}
    assert states[-1].nfe == result.nfe
    assert states[0].denoised is None
    assert states[0].nfe == 0
    assert result.seeds == tuple(SEEDS)


def test_states_are_unscaled_and_begin_with_the_latents(mixture):
    for process in (Process(), Process(VPSchedule())):
        first = next(iter(sample_states(mixture, seeds=SEEDS, sampler=Sampler(process=process))))
        assert torch.equal(first.x, initial_latents(SEEDS, (2,)).double() * 80)


@pytest.mark.parametrize("process", [Process(), Process(VPSchedule())])
def test_the_denoised_of_a_step_is_d_where_the_step_began(mixture, process):
    path = sample(
        mixture, seeds=SEEDS, steps=EDMSteps(6), process=process, execution=Execution(trajectory=True)
    ).trajectory
    for x, sigma, denoised in zip(path.x, EDMSteps(6).sigmas(), path.denoised, strict=False):
        torch.testing.assert_close(denoised, mixture(x, sigma), rtol=1e-10, atol=1e-10)


def test_with_sigma_equal_to_time_a_full_euler_step_to_zero_lands_on_d(mixture):
    for sigma in (80.0, 3.0, 0.002):
        steps = GivenSteps((sigma, 0.0))
        for solver in (Euler(), Heun()):
            path = sample(mixture, seeds=SEEDS, steps=steps, solver=solver, execution=Execution(trajectory=True))
            assert torch.equal(path.x, path.trajectory.denoised[0])
            assert torch.equal(path.x, mixture(path.trajectory.x[0], torch.tensor(sigma, dtype=torch.float64)))


def test_one_step_is_one_evaluation(mixture):
    result = sample(mixture, seeds=SEEDS, steps=EDMSteps(1))
    assert result.nfe == 1
    assert torch.equal(result.x, mixture(initial_latents(SEEDS, (2,)).double() * 80, torch.tensor(80.0)))


def test_progress_is_told_of_every_state_of_every_batch(mixture):
    seen = []
    sample(
        mixture,
        seeds=range(5),
        steps=EDMSteps(3),
        execution=Execution(batch_size=2, progress=lambda first, state: seen.append((first, state))),
    )
    assert [(first, state.step) for first, state in seen] == [(f, i) for f in (0, 2, 4) for i in range(4)]
    assert all(isinstance(state, State) for _, state in seen)
    assert [len(state.x) for _, state in seen] == [2] * 8 + [1] * 4


def test_batches_put_together_are_the_whole(mixture):
    options = {"seeds": range(11), "steps": EDMSteps(4)}
    whole, split = (
        sample(mixture, execution=Execution(batch_size=size, trajectory=True), **options) for size in (None, 4)
    )
    assert torch.equal(split.x, whole.x)
    assert torch.equal(split.trajectory.x, whole.trajectory.x)
    assert torch.equal(split.trajectory.denoised, whole.trajectory.denoised)
    assert split.nfe == whole.nfe


def test_an_early_stop_costs_no_further_evaluation():
    calls = []

    def denoiser(x, sigma, cond=None):
        calls.append(float(sigma))
        return 0.5 * x

    for state in sample_states(denoiser, shape=(2,), seeds=[0], sampler=Sampler(EDMSteps(18))):
        if state.step == 3:
            break
    assert len(calls) == 6


def test_the_arguments_of_states_are_checked_at_the_call(mixture):
    with pytest.raises(ValueError, match="sigma_min"):
        sample_states(mixture, seeds=[0], sampler=Sampler(EDMSteps(sigma_min=100.0)))


def test_what_is_given_is_left_as_it_is(mixture):
    latents = torch.ones(1, 2, dtype=torch.float64)
    given = latents.clone()
    next(iter(sample_states(mixture, latents=latents))).x.zero_()
    with pytest.raises(ValueError, match="states: x or denoised of one was changed in place"):
        sample_from(mixture, latents, 1.0, execution=Execution(progress=lambda first, state: state.x.zero_()))
    assert torch.equal(latents, given)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_state_has_the_dtype_asked_for(dtype):
    heard = set()

    def denoiser(x, sigma, cond=None):
        heard.update((x.dtype, sigma.dtype))
        return (0.5 * x).to(torch.bfloat16)

    result = sample(
        denoiser, shape=(2,), seeds=[0], churn=Churn(1.0), execution=Execution(dtype=dtype, trajectory=True)
    )
    assert heard == {dtype}
    assert result.x.dtype == result.trajectory.x.dtype == result.trajectory.denoised.dtype == dtype
    assert result.sigmas.dtype == torch.float64


def test_single_precision_agrees_with_double(mixture):
    one, two = (
        sample(mixture, seeds=SEEDS, execution=Execution(dtype=dtype)).x.double()
        for dtype in (torch.float32, torch.float64)
    )
    assert float((one - two).abs().max()) < 1e-4


def test_sigma_is_a_scalar_tensor_that_a_denoiser_may_change():
    def spoiling(x, sigma, cond=None):
        assert sigma.shape == ()
        return x / (1 + sigma.square_())

    def careful(x, sigma, cond=None):
        return x / (1 + sigma**2)

    assert torch.equal(*(sample(d, shape=(2,), seeds=SEEDS).x for d in (spoiling, careful)))


def test_the_device_is_that_of_the_module_s_parameters_or_buffers():
    parameters = Preconditioned(torch.nn.Linear(2, 2, device="meta"), EDMPreconditioning())
    buffers = Preconditioned(torch.nn.Identity(), EDMPreconditioning())
    buffers.register_buffer("mean", torch.zeros(2, device="meta"))
    neither = Preconditioned(torch.nn.Identity(), EDMPreconditioning())
    for model, expected in ((parameters, "meta"), (buffers, "meta"), (neither, "cpu")):
        first = next(iter(sample_states(model, shape=(2,), seeds=[0])))
        assert first.x.device.type == expected
    first = next(iter(sample_states(neither, shape=(2,), seeds=[0], execution=Execution(device="meta"))))
    assert first.x.device.type == "meta"


def test_labels_and_latents_of_a_seed_go_together():
    """The reference draws the latents first and the label from what follows, with one generator a sample."""
    seen = {}

    def denoiser(x, sigma, cond=None):
        seen.update(cond)
        return 0.5 * x

    labels = random_labels(SEEDS, (2,), 10)
    first = next(iter(sample_states(denoiser, shape=(2,), seeds=SEEDS, cond={"labels": labels}))).x
    sample(denoiser, shape=(2,), seeds=SEEDS, cond={"labels": labels}, steps=EDMSteps(1))
    for i, seed in enumerate(SEEDS):
        generator = torch.Generator().manual_seed(seed)
        assert torch.equal(first[i], torch.randn(2, generator=generator).double() * 80)
        assert seen["labels"][i] == torch.randint(10, (), generator=generator)


def test_the_score_of_any_denoiser_is_that_of_eq_3(mixture):
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for sigma in (torch.tensor(0.3, dtype=torch.float64), torch.linspace(0.1, 5, 6, dtype=torch.float64)):
        at = x.clone().requires_grad_()
        (expected,) = torch.autograd.grad(mixture.log_prob(at, sigma).sum(), at)
        torch.testing.assert_close(score(mixture)(x, sigma), expected, rtol=1e-9, atol=1e-9)


def test_the_score_hands_the_condition_on():
    def denoiser(x, sigma, cond=None):
        return cond["image"]

    x, image = torch.zeros(2, 3), torch.full((2, 3), 8.0)
    assert torch.equal(score(denoiser)(x, torch.tensor(2.0), {"image": image}), torch.full((2, 3), 2.0))


def test_scalar_samples_have_no_dimensions():
    result = sample(lambda x, sigma, cond=None: 0.5 * x, shape=(), seeds=range(3), churn=Churn(1.0))
    assert result.x.shape == (3,)
