"""Solvers of diffspace as schedulers in the pipelines of diffusers: the end is that of diffspace's own `sample`."""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass

import pytest
import torch
from diffusers_models import run, sd3, text_unet, unet
from two_m import TwoM

import diffspace as ds
from diffspace.interop.diffusers import from_diffusers, to_diffusers
from diffspace.protocols import Increment, Request
from diffspace.sampling import LevelSteps
from diffspace.sampling.solvers.base import UnscaledSolver

diffusers = pytest.importorskip("diffusers")

LINEAR = {"beta_start": 1e-4, "beta_end": 0.02}
SOLVERS = {"euler": ds.Euler(), "heun": ds.Heun(), "midpoint": ds.Heun(alpha=0.5), "2m": ds.DPMSolverPP2M()}


@pytest.fixture(scope="module")
def network():
    return unet(torch.float32)


def unclamped(monkeypatch, pipeline, **call):
    """The sample that a pipeline ends with, before it is made a picture in [0, 1]."""
    ends = []
    step = pipeline.scheduler.step

    def recorded(*args, **kwargs):
        result = step(*args, **kwargs)
        ends.append(result.prev_sample)
        return result

    monkeypatch.setattr(pipeline.scheduler, "step", recorded)
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(output_type="pt", **call).images
    torch.testing.assert_close(images, (ends[-1] / 2 + 0.5).clamp(0, 1))
    return ends[-1]


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("rounded", [False, True])
def test_inside_a_ddpm_pipeline(network, monkeypatch, solver, prediction, rounded):
    trained = diffusers.DDPMScheduler(**LINEAR, prediction_type=prediction)
    steps = ds.EDMSteps(5)
    pipeline = diffusers.DDPMPipeline(network, to_diffusers(solver, steps, trained, rounded=rounded))
    theirs = unclamped(
        monkeypatch, pipeline, batch_size=2, generator=torch.Generator().manual_seed(3), num_inference_steps=5
    )
    denoiser = from_diffusers(network, trained, rounded=rounded)
    levels = denoiser.round_sigma(steps.sigmas((denoiser.sigma_min, denoiser.sigma_max))).tolist()
    # a pipeline that does not scale its noise takes it for x/√(σ² + 1)
    drawn = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    x = drawn.double() * (1 + levels[0] ** 2) ** 0.5
    ours = ds.sample_from(denoiser, x, levels[0], sampler=ds.Sampler(ds.GivenSteps(tuple(levels)), solver))
    assert len(pipeline.scheduler.timesteps) == ours.nfe
    assert len(pipeline.scheduler.sigmas) == ours.nfe + 1
    assert pipeline.scheduler.timesteps.dtype == (torch.int64 if rounded else torch.float32)
    torch.testing.assert_close(theirs, ours.x.float(), rtol=1e-6, atol=1e-6 * float(ours.x.abs().max()))


def test_inside_a_ddim_pipeline(network, monkeypatch):
    trained = diffusers.DDIMScheduler(**LINEAR, clip_sample=False, timestep_spacing="trailing")
    pipeline = diffusers.DDIMPipeline(network, trained)
    ours = diffusers.DDIMPipeline(network, trained)
    levels = from_diffusers(network, trained).levels
    ours.scheduler = to_diffusers(ds.Euler(), LevelSteps(8, levels=levels, spacing="trailing"), trained, rounded=True)
    ends = [
        unclamped(monkeypatch, p, generator=torch.Generator().manual_seed(3), num_inference_steps=8)
        for p in (pipeline, ours)
    ]
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-5, atol=1e-5 * float(ends[0].abs().max()))


def text_loop(model, scheduler, latents, text, weight, steps):
    """The denoising of `StableDiffusionPipeline` with classifier-free guidance, line by line."""
    scheduler.set_timesteps(steps)
    extra = {"generator": None} if "generator" in inspect.signature(scheduler.step).parameters else {}
    latents = latents * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        seen = scheduler.scale_model_input(torch.cat([latents] * 2), t)
        output = model(seen, t, encoder_hidden_states=text, return_dict=False)[0]
        without, with_text = output.chunk(2)
        output = without + weight * (with_text - without)
        latents = scheduler.step(output, t, latents, **extra, return_dict=False)[0]
    return latents


@torch.no_grad()
def test_inside_the_loop_of_stable_diffusion():
    model = text_unet(torch.float32)
    trained = diffusers.PNDMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    draws = torch.Generator().manual_seed(2)
    text, latents = torch.randn(4, 5, 12, generator=draws), torch.randn(2, 4, 8, 8, generator=draws)
    scheduler = to_diffusers(ds.Heun(), ds.EDMSteps(), trained)
    theirs = text_loop(model, scheduler, latents, text, 3.0, 6)
    inner = from_diffusers(model, trained)

    def guided(x, sigma, cond=None):
        without, with_text = (inner(x, sigma, {"encoder_hidden_states": part}) for part in text.chunk(2))
        return without + 3.0 * (with_text - without)

    guided.sigma_min, guided.sigma_max = inner.sigma_min, inner.sigma_max
    ours = ds.sample(guided, latents=latents, steps=ds.EDMSteps(6)).x.float()
    torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-5)


def test_a_network_of_flow():
    model = sd3(torch.float32)
    trained = diffusers.FlowMatchEulerDiscreteScheduler()
    draws = torch.Generator().manual_seed(2)
    cond = {
        "encoder_hidden_states": torch.randn(2, 5, 12, generator=draws),
        "pooled_projections": torch.randn(2, 6, generator=draws),
    }
    latents = torch.randn(2, 4, 8, 8, generator=draws)
    scheduler = to_diffusers(ds.Heun(), ds.EDMSteps(5), trained)
    theirs = run(model, scheduler, latents * scheduler.init_noise_sigma, **cond)
    ours = ds.sample(from_diffusers(model, trained), latents=latents, steps=ds.EDMSteps(5), cond=cond).x
    torch.testing.assert_close(theirs, ours.float(), rtol=1e-5, atol=1e-5)


def test_edm_data_end_unscaled(network):
    trained = diffusers.EDMEulerScheduler(sigma_data=0.7)
    latents = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    scheduler = to_diffusers(ds.Heun(), ds.EDMSteps(5), trained)
    theirs = run(network, scheduler, latents * scheduler.init_noise_sigma)
    ours = ds.sample(from_diffusers(network, trained), latents=latents, steps=ds.EDMSteps(5)).x
    torch.testing.assert_close(theirs, ours.float(), rtol=1e-5, atol=1e-4)


@dataclass(frozen=True)
class Ancestral(UnscaledSolver):
    """Down to √(σ⁺²(σ² − σ⁺²)/σ²) less than asked for, and up again with noise."""

    order = 1
    stochastic = True

    def unscaled_step(self, x, start, end, memory):
        t, t_next = start.sigma, end.sigma
        denoised = yield Request(x, t)
        up = t_next * (1 - (t_next / t) ** 2) ** 0.5
        down = (t_next**2 - up**2) ** 0.5
        x = denoised + down / t * (x - denoised)
        increment = yield Increment(t_next, t)
        return x + up / (t - t_next) ** 0.5 * increment, None


def test_the_generator_of_the_pipeline_draws_the_noise_of_the_steps(network, monkeypatch):
    trained = diffusers.DDPMScheduler(**LINEAR, prediction_type="v_prediction")
    pipeline = diffusers.DDPMPipeline(network, to_diffusers(Ancestral(), ds.EDMSteps(4), trained))
    theirs = unclamped(
        monkeypatch, pipeline, batch_size=2, generator=torch.Generator().manual_seed(3), num_inference_steps=4
    )
    generator = torch.Generator().manual_seed(3)
    drawn = [torch.randn(2, 3, 8, 8, generator=generator) for _ in range(4)]
    ours = ds.sample_from(
        from_diffusers(network, trained),
        drawn[0].double() * (1 + 80.0**2) ** 0.5,
        80.0,
        noise=lambda step, like: drawn[1 + step],
        sampler=ds.Sampler(ds.EDMSteps(4), Ancestral()),
    )
    torch.testing.assert_close(theirs, ours.x.float(), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_run_from_the_middle_and_from_a_changed_sample(network):
    """As image-to-image and inpainting do it."""
    trained = diffusers.DDPMScheduler(**LINEAR, prediction_type="v_prediction")
    scheduler = to_diffusers(ds.Heun(), ds.EDMSteps(6), trained)
    scheduler.set_timesteps(6)
    draws = torch.Generator().manual_seed(2)
    image, noise, change = (torch.randn(2, 3, 8, 8, generator=draws) for _ in range(3))
    first = 2 * scheduler.order
    denoiser = from_diffusers(network, trained)
    levels = ds.EDMSteps(6).sigmas((denoiser.sigma_min, denoiser.sigma_max))
    sigma = float(levels[2])
    for set_begin in (True, False):
        scheduler.set_timesteps(6)
        times = scheduler.timesteps[first:]
        if set_begin:
            scheduler.set_begin_index(first)
        sample = scheduler.add_noise(image, noise, times[:1].expand(2))
        for i, t in enumerate(times):
            sample = scheduler.step(network(sample, t).sample, t, sample).prev_sample
            if i == 1:  # at the end of a step, where the sample is x/√(σ² + 1)
                sample = sample + 0.1 * change
        x = (image + sigma * noise).double()
        x = ds.sample_from(denoiser, x, sigma, sampler=ds.Sampler(ds.GivenSteps(tuple(levels[2:4].tolist())))).x
        x = x + 0.1 * change.double() * (1 + float(levels[3]) ** 2) ** 0.5
        rest = ds.GivenSteps(tuple(levels[3:].tolist()))
        ours = ds.sample_from(denoiser, x, float(levels[3]), sampler=ds.Sampler(rest)).x
        torch.testing.assert_close(sample, ours.float(), rtol=1e-5, atol=1e-5)


def test_the_number_of_steps(network):
    trained = diffusers.DDPMScheduler(**LINEAR)
    scheduler = to_diffusers(ds.Heun(), ds.EDMSteps(4), trained)
    assert (len(scheduler.timesteps), scheduler.order, len(scheduler)) == (7, 2, 1000)
    scheduler.set_timesteps(1)
    assert len(scheduler.timesteps) == 1
    scheduler.set_timesteps()
    assert scheduler.num_inference_steps == 4
    given = to_diffusers(ds.Euler(), ds.GivenSteps((10.0, 1.0, 0.0)), trained)
    given.set_timesteps(2)
    with pytest.raises(ValueError, match="num_steps: 3, but GivenSteps has 2"):
        given.set_timesteps(3)
    ends_above_zero = to_diffusers(ds.Euler(), ds.EDMSteps(3, terminal="sigma_min"), trained)
    assert float(ends_above_zero.sigmas[-1]) == from_diffusers(network, trained).sigma_min


def test_its_config_is_saved_and_read(tmp_path):
    trained = diffusers.DDIMScheduler(**LINEAR, prediction_type="v_prediction", steps_offset=1)
    scheduler = to_diffusers(ds.Heun(alpha=0.5), ds.EDMSteps(4, rho=5.0), trained, rounded=True)
    assert scheduler.config.prediction_type == "v_prediction"
    scheduler.save_pretrained(tmp_path)
    again = type(scheduler).from_pretrained(tmp_path)
    assert (again.solver, again.steps, again.rounded) == (scheduler.solver, scheduler.steps, True)
    assert again.timesteps.tolist() == scheduler.timesteps.tolist()
    # and it leads back to those of diffusers, as their own configs do
    back = diffusers.EulerDiscreteScheduler.from_config(scheduler.config)
    assert back.config.prediction_type == "v_prediction"
    assert back.config.steps_offset == 1
    torch.testing.assert_close(back.alphas_cumprod, trained.alphas_cumprod)
    to_diffusers(TwoM(), ds.EDMSteps(4), trained).save_pretrained(tmp_path)  # a solver that no file can name


def test_a_finished_scheduler_can_be_copied_and_used_again(network):
    scheduler = to_diffusers(ds.Heun(), ds.EDMSteps(3), diffusers.DDPMScheduler(**LINEAR))
    start = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    sample = start
    for t in scheduler.timesteps:
        sample = scheduler.step(network(sample, t).sample, t, sample, return_dict=False)[0].detach()
    again = copy.deepcopy(scheduler)
    again.set_timesteps(3)
    assert torch.equal(run(network, again, start), sample)


def test_errors():
    trained = diffusers.DDPMScheduler(**LINEAR)
    scheduler = to_diffusers(ds.Heun(), ds.EDMSteps(3), trained)
    x = torch.randn(1, 3, 8, 8)
    first = scheduler.timesteps[0]
    with pytest.raises(ValueError, match=r"timestep: expected .*, the next one of timesteps, got 5"):
        scheduler.step(x, 5, x)
    with pytest.raises(ValueError, match=r"eta, use_clipped_model_output: 1.0, None; options of DDIM"):
        scheduler.step(x, first, x, eta=1.0)
    with pytest.raises(ValueError, match=r"begin_index: expected the first evaluation of a step \(0, 2, 4\), got 1"):
        scheduler.set_begin_index(1)
    scheduler.step(x, first, x)
    with pytest.raises(ValueError, match="the next one of timesteps"):  # the same evaluation again
        scheduler.step(x, first, x)
    with pytest.raises(ValueError, match=r"timesteps: expected .* got \[5\]"):
        scheduler.add_noise(x, x, torch.tensor([5]))
    with pytest.raises(ValueError, match="sigma_max: 200 is outside"):
        to_diffusers(ds.Heun(), ds.EDMSteps(3, sigma_max=200.0), trained)
    for timestep in scheduler.timesteps[1:]:
        scheduler.step(x, timestep, x)
    with pytest.raises(ValueError, match="timestep: the run has ended; call set_timesteps"):
        scheduler.step(x, scheduler.timesteps[-1], x)


def test_solvers_that_no_pipeline_can_run():
    trained = diffusers.DDPMScheduler(**LINEAR)

    class Adaptive(ds.Euler):
        def evaluations(self, to_zero):
            return None

    class Early(Ancestral):
        def unscaled_step(self, x, start, end, memory):
            yield Increment(end.t, start.t)
            return (yield from super().unscaled_step(2 * x, start, end, memory))

    with pytest.raises(ValueError, match="solver: Adaptive chooses its evaluations by a tolerance"):
        to_diffusers(Adaptive(), ds.EDMSteps(3), trained)
    with pytest.raises(ValueError, match="solver: Early does not begin each step with D"):
        to_diffusers(Early(), ds.EDMSteps(3), trained)
