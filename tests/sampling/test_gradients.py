"""Differentiable sampling, and modes of torch and of modules that are left as they were found."""

import pytest
import torch

from diffspace import (
    Churn,
    EDMPreconditioning,
    EDMSteps,
    Euler,
    FlowSchedule,
    Heun,
    Preconditioned,
    Process,
    VPSchedule,
    encode,
    sample,
    sample_states,
)
from diffspace.sampling import Execution, Sampler, sample_from

LATENTS = torch.tensor([[0.5, -1.2], [1.4, 0.3]], dtype=torch.float64)
STEPS = EDMSteps(4, sigma_max=3.0, sigma_min=0.1)


class Scale(torch.nn.Module):
    """A nonlinear denoiser with one parameter."""

    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(0.7, dtype=torch.float64))

    def forward(self, x, sigma, cond=None):
        return torch.tanh(self.gain * x / (1 + sigma**2)) + 0.1 * x.flip(1)


@pytest.mark.parametrize("solver", [Euler(), Heun(), Heun(2 / 3)])
@pytest.mark.parametrize("process", [Process(), Process(VPSchedule()), Process(FlowSchedule())])
@pytest.mark.parametrize("churn", [None, Churn(1.0)])
def test_gradients_are_those_of_finite_differences(solver, process, churn):
    model = Scale()

    def end(latents, gain):
        def denoiser(x, sigma, cond=None):
            return torch.func.functional_call(model, {"gain": gain}, (x, sigma, cond))

        options = {"steps": STEPS, "solver": solver, "process": process, "churn": churn, "seeds": [1, 2]}
        return sample(denoiser, latents=latents, execution=Execution(grad=True), **options).x

    inputs = (LATENTS.clone().requires_grad_(), model.gain.detach().clone().requires_grad_())
    assert torch.autograd.gradcheck(end, inputs, eps=1e-6, atol=1e-7, rtol=1e-6)


def test_second_derivatives_exist():
    model = Scale()
    latents = LATENTS.clone().requires_grad_()
    end = sample(model, latents=latents, steps=STEPS, execution=Execution(grad=True)).x.square().sum()
    (first,) = torch.autograd.grad(end, latents, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), model.gain)
    shifted = []
    for sign in (1, -1):
        with torch.no_grad():
            model.gain.add_(sign * 1e-5)
        end = sample(model, latents=latents, steps=STEPS, execution=Execution(grad=True)).x.square().sum()
        shifted.append(torch.autograd.grad(end, latents)[0].sum())
        with torch.no_grad():
            model.gain.sub_(sign * 1e-5)
    assert float(second) == pytest.approx(float(shifted[0] - shifted[1]) / 2e-5, rel=1e-6)


def test_gradients_go_through_partial_sampling_encoding_and_batches():
    model = Scale()
    x = LATENTS.clone().requires_grad_()
    steps = EDMSteps(4, sigma_max=3.0, sigma_min=0.1, terminal="sigma_min")
    results = (
        sample_from(model, x, 2.0, sampler=Sampler(steps), execution=Execution(grad=True)),
        encode(model, x, sampler=Sampler(steps), execution=Execution(grad=True)),
        sample(model, latents=x, steps=steps, execution=Execution(batch_size=1, grad=True, trajectory=True)),
    )
    for result in results:
        (gradient,) = torch.autograd.grad(result.x.sum(), x)
        assert bool((gradient.abs() > 1e-3).all())
    assert results[-1].trajectory.x.requires_grad
    assert results[-1].trajectory.denoised.requires_grad


def test_without_being_asked_for_there_is_no_gradient():
    latents = LATENTS.clone().requires_grad_()
    result = sample(Scale(), latents=latents, steps=STEPS, execution=Execution(trajectory=True))
    assert not result.x.requires_grad
    assert not result.trajectory.x.requires_grad
    assert not result.trajectory.denoised.requires_grad
    assert not any(state.x.requires_grad for state in sample_states(Scale(), latents=latents, sampler=Sampler(STEPS)))
    assert not encode(Scale(), latents, execution=Execution(trajectory=True)).trajectory.x.requires_grad


@pytest.mark.parametrize("ambient", [True, False])
@pytest.mark.parametrize("grad", [True, False])
def test_the_mode_does_not_leak_between_states(ambient, grad):
    inside = []

    def denoiser(x, sigma, cond=None):
        inside.append(torch.is_grad_enabled())
        return 0.5 * x

    with torch.set_grad_enabled(ambient):
        states = sample_states(denoiser, latents=LATENTS, sampler=Sampler(STEPS), execution=Execution(grad=grad))
        assert torch.is_grad_enabled() == ambient
        for _ in states:
            assert torch.is_grad_enabled() == ambient
            assert (torch.ones(1, requires_grad=True) * 2).requires_grad == ambient
        abandoned = sample_states(denoiser, latents=LATENTS, sampler=Sampler(STEPS), execution=Execution(grad=grad))
        next(abandoned), next(abandoned)
        abandoned.close()
        assert torch.is_grad_enabled() == ambient
    assert set(inside) == {grad}


@pytest.mark.parametrize("ambient", [True, False])
def test_the_mode_is_restored_after_an_error(ambient):
    def broken(x, sigma, cond=None):
        raise RuntimeError("out of memory")

    with torch.set_grad_enabled(ambient):
        with pytest.raises(RuntimeError, match="out of memory"):
            sample(broken, latents=LATENTS, steps=STEPS)
        assert torch.is_grad_enabled() == ambient


class Network(torch.nn.Module):
    """With dropout and batch statistics, whose outputs in training mode are another thing."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(2, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 2)
        )

    def forward(self, x, c_noise, cond=None):
        return self.layers(x)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Preconditioned(Network(), EDMPreconditioning(0.5))


def test_a_module_in_training_mode_is_evaluated_and_left_in_training_mode(model):
    model.eval()
    expected = sample(model, latents=LATENTS, steps=STEPS).x
    model.train()
    model.network.layers[1].eval()  # one part frozen, as some keep it
    modes = {m: m.training for m in model.modules()}
    statistics = model.network.layers[1].running_mean.clone()
    ends = []
    for state in sample_states(model, latents=LATENTS, sampler=Sampler(STEPS)):
        assert {m: m.training for m in model.modules()} == modes
        ends.append(state.x)
    assert torch.equal(ends[-1], expected)
    assert torch.equal(model.network.layers[1].running_mean, statistics)


def test_training_mode_is_restored_after_an_error(model):
    model.train()
    model.network.forward = lambda x, c_noise, cond=None: x[:, :1]
    with pytest.raises(ValueError, match="network: expected a result of shape"):
        sample(model, latents=LATENTS, steps=STEPS)
    assert all(m.training for m in model.modules())


def test_two_runs_may_be_interleaved(model):
    model.train()
    alone = [state.x for state in sample_states(model, latents=LATENTS, sampler=Sampler(STEPS))]
    one = sample_states(model, latents=LATENTS, sampler=Sampler(STEPS))
    other = sample_states(model, latents=-LATENTS, sampler=Sampler(STEPS), execution=Execution(grad=True))
    for (state, _), expected in zip(zip(one, other, strict=True), alone, strict=True):
        assert torch.equal(state.x, expected)
    assert all(m.training for m in model.modules())
