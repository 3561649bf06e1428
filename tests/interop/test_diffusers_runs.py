"""Schedulers of diffusers beside the same methods here, and the evaluations that they take."""

import pytest

import diffspace as ds
from diffspace.data import named_oracle
from diffspace.interop.diffusers.runs import SCHEDULERS, run_scheduler, scheduler_cost
from diffspace.sampling import initial_latents

pytest.importorskip("diffusers")
RING = named_oracle("ring")
LATENTS = initial_latents(range(8), RING.sample_shape).double()


@pytest.mark.parametrize(("name", "solver"), [("EDMEuler", ds.Euler()), ("HeunDiscrete", ds.Heun())])
def test_the_same_method_ends_at_the_same_points(name, solver):
    steps = ds.EDMSteps(8, sigma_min=0.002, sigma_max=80.0)
    ours = ds.sample(RING, latents=LATENTS, steps=steps, solver=solver).x
    theirs = run_scheduler(name, RING, LATENTS, steps.sigmas())
    assert float((theirs - ours).abs().max()) < 1e-6  # one of the two rounds its state to float32


@pytest.mark.parametrize("name", SCHEDULERS)
def test_evaluations_are_those_stated_and_samples_near_the_ring(name):
    for budget in (1, 8, 25):
        levels, nfe = scheduler_cost(name, budget)
        assert nfe <= budget
        calls = []

        def denoiser(x, sigma, cond=None, calls=calls):
            calls.append(sigma)
            return RING(x, sigma)

        x = run_scheduler(name, denoiser, LATENTS, ds.EDMSteps(levels).sigmas())
        assert len(calls) == nfe
    assert float((x.flatten(1).norm(dim=1) - 1).abs().max()) < 0.5  # standard deviation 0.1 around the unit circle


def test_an_unknown_name_is_told():
    with pytest.raises(ValueError, match=r"diffusers: 'EDMEular' is unknown; did you mean 'EDMEuler'"):
        scheduler_cost("EDMEular", 5)
