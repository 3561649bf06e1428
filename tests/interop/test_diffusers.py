"""Networks of diffusers as denoisers: sampled by diffspace they go where diffusers' own schedulers go."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers_models import dit, pixart, run, sd3, sigmas_of, text_unet, unet

import diffspace as ds
from diffspace.interop.diffusers import from_diffusers, read_scheduler
from diffspace.preconditioning import EDMPreconditioning, FlowPrediction, InterpolatedIndex, LevelIndex, VPrediction
from diffspace.sampling import LevelSteps

diffusers = pytest.importorskip("diffusers")

LINEAR = {"beta_start": 1e-4, "beta_end": 0.02}
SOLVERS = {"euler": ds.Euler(), "heun": ds.Heun(), "2m": ds.DPMSolverPP2M()}
# each scheduler with its options, the solver that it is, and what it divides x by
SCHEDULERS = {
    "ddim": ("DDIMScheduler", {"clip_sample": False}, "euler"),
    "euler": ("EulerDiscreteScheduler", {}, "euler"),
    "heun": ("HeunDiscreteScheduler", {}, "heun"),
    "dpm++ 2m": ("DPMSolverMultistepScheduler", {}, "2m"),
}
PREDICTIONS = ("epsilon", "v_prediction", "sample")


def noise(channels=3, batch=2, dtype=torch.float64):
    return torch.randn(batch, channels, 8, 8, generator=torch.Generator().manual_seed(1), dtype=dtype)


def levels_of(scheduler):
    """The noise levels at which a scheduler evaluates, and the one where it ends."""
    if hasattr(scheduler, "final_alpha_cumprod"):  # DDIM, which has no table of σ
        a = torch.cat([scheduler.alphas_cumprod[scheduler.timesteps], scheduler.final_alpha_cumprod[None]]).double()
        return tuple(((1 - a) / a).sqrt().tolist())
    return sigmas_of(scheduler)


def scaled_by_sigma(scheduler):
    """Whether the samples of a scheduler are x, and not x/√(σ² + 1)."""
    return type(scheduler).__name__ in ("EulerDiscreteScheduler", "HeunDiscreteScheduler")


def compare(model, scheduler, solver, channels=3, cond=None, conditions=None, **options):
    """The largest difference between the end points of both, as a share of the largest element."""
    levels = levels_of(scheduler)
    x = noise(channels) * math.sqrt(1 + levels[0] ** 2)
    theirs = run(model, scheduler, x if scaled_by_sigma(scheduler) else noise(channels), **conditions or {})
    ours = ds.sample_from(
        from_diffusers(model, scheduler, **options),
        x,
        levels[0],
        cond=cond,
        sampler=ds.Sampler(ds.GivenSteps(levels, clip=True), SOLVERS[solver]),
    )
    assert ours.nfe == len(scheduler.timesteps)
    return float((ours.x - theirs).abs().max() / theirs.abs().max())


@pytest.fixture(scope="module")
def network():
    return unet()


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize(("name", "own", "solver"), SCHEDULERS.values(), ids=SCHEDULERS)
def test_the_same_end_as_the_schedulers_of_diffusers(network, name, own, solver, spacing, prediction):
    # DDIM of diffusers steps down by ⌊M/N⌋, to a level at which it does not go on where N does not divide M.
    # Between levels, the last digits of their float32 σ show in the interpolated time, to which this network is sharp
    for steps, rounded, tolerance in ((1, True, 5e-6), (5, True, 5e-6), (5, False, 1e-4)):
        scheduler = getattr(diffusers, name)(
            **LINEAR, **own, timestep_spacing=spacing, prediction_type=prediction, steps_offset=int(steps > 1)
        )
        scheduler.set_timesteps(steps)
        assert compare(network, scheduler, solver, rounded=rounded) < tolerance


def test_a_comparison_sees_another_solver_another_prediction_and_another_time(network):
    scheduler = diffusers.HeunDiscreteScheduler(**LINEAR, timestep_spacing="trailing", prediction_type="v_prediction")
    scheduler.set_timesteps(5)
    assert compare(network, scheduler, "heun", rounded=True) < 1e-6
    levels = sigmas_of(scheduler)
    start, sampler = 157.0 * noise(), ds.Sampler(ds.GivenSteps(levels, clip=True))
    right = ds.sample_from(from_diffusers(network, scheduler), start, levels[0], sampler=sampler).x
    euler = ds.Sampler(sampler.steps, ds.Euler())
    wrong = diffusers.HeunDiscreteScheduler(**LINEAR)
    table = torch.tensor([1.2 * s for s in from_diffusers(network, scheduler).levels.sigmas], dtype=torch.float64)
    shifted = from_diffusers(network, scheduler)
    shifted.preconditioning = VPrediction(InterpolatedIndex(ds.DiscreteLevels(tuple(table.tolist()))))
    for other in (
        ds.sample_from(from_diffusers(network, scheduler), start, levels[0], sampler=euler).x,
        ds.sample_from(from_diffusers(network, wrong), start, levels[0], sampler=sampler).x,
        ds.sample_from(shifted, start, levels[0], sampler=sampler).x,
    ):
        assert float((other - right).abs().max() / right.abs().max()) > 1e-3


@pytest.mark.parametrize("betas", ["scaled_linear", "squaredcos_cap_v2", "trained"])
def test_every_table_of_betas(network, betas):
    given = {"trained_betas": torch.linspace(1e-3, 0.1, 50).tolist(), "num_train_timesteps": 50}
    given = given if betas == "trained" else {"beta_schedule": betas}
    for name, own, solver in SCHEDULERS.values():
        scheduler = getattr(diffusers, name)(**given, **own, timestep_spacing="leading")
        scheduler.set_timesteps(7)
        assert compare(network, scheduler, solver) < 1e-6


def test_float32(network):
    scheduler = diffusers.HeunDiscreteScheduler(**LINEAR, timestep_spacing="trailing", prediction_type="v_prediction")
    scheduler.set_timesteps(10)
    model = unet(torch.float32)
    levels = sigmas_of(scheduler)
    start = levels[0] * noise(dtype=torch.float32)
    theirs = run(model, scheduler, start)
    ours = ds.sample_from(
        from_diffusers(model, scheduler), start, levels[0], sampler=ds.Sampler(ds.GivenSteps(levels, clip=True))
    )
    assert ours.x.dtype == torch.float64
    assert float((ours.x - theirs).abs().max() / theirs.abs().max()) < 1e-5


def test_levels_between_the_trained_ones(network):
    """Their σ of Karras are told as times interpolated in ln σ; rounded times are another network."""
    for name in ("EulerDiscreteScheduler", "HeunDiscreteScheduler"):
        scheduler = getattr(diffusers, name)(**LINEAR, use_karras_sigmas=True, prediction_type="v_prediction")
        scheduler.set_timesteps(8)
        solver = "heun" if "Heun" in name else "euler"
        assert compare(network, scheduler, solver) < 1e-4
        assert compare(network, scheduler, solver, rounded=True) > 1e-4


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_zero_terminal_snr(network, prediction):
    zero = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    zero |= {"rescale_betas_zero_snr": True, "prediction_type": prediction}
    at_alpha = diffusers.DDIMScheduler(**zero)
    at_sigma = diffusers.DPMSolverMultistepScheduler(**zero, timestep_spacing="trailing")
    # one table, whether the scheduler has ᾱ = 0 at its end or 2⁻²⁴
    choices = [read_scheduler(s, zero_snr="clip") for s in (at_sigma, at_alpha)]
    assert choices[0] == choices[1]
    table = choices[0].times.levels.table()
    assert float(table[-1]) == pytest.approx(4096, rel=1e-6)
    default = read_scheduler(at_alpha).sigma_range[1]
    assert default == (table[-2] if prediction == "epsilon" else table[-1])
    at_sigma.set_timesteps(6)
    assert compare(network, at_sigma, "2m", zero_snr="clip") < 1e-4
    # where the level below is above 4096, diffusers' own table falls at its end, and ours does not
    steep = diffusers.EulerDiscreteScheduler(**LINEAR, rescale_betas_zero_snr=True)
    assert steep.alphas_cumprod[-1] > steep.alphas_cumprod[-2]
    assert bool((read_scheduler(steep, zero_snr="clip").times.levels.table().diff() > 0).all())


def test_level_steps_are_the_timesteps_of_diffusers(network):
    scheduler = diffusers.DDIMScheduler(**LINEAR)
    levels = from_diffusers(network, scheduler).levels
    index = {sigma: n for n, sigma in enumerate(levels.sigmas)}

    def chosen(n, **options):
        return [index[sigma] for sigma in LevelSteps(n, levels=levels, **options).sigmas().tolist()[:-1]]

    for spacing in ("leading", "trailing", "linspace"):
        theirs = diffusers.DDIMScheduler(timestep_spacing=spacing)
        different = []
        for n in (*range(2, 60), 96, 112, 250, 500, 999, 1000):
            theirs.set_timesteps(n)
            # for some n, rounding makes their range of "trailing" one longer than was asked for
            if len(theirs.timesteps) == n and theirs.timesteps.tolist() != chosen(n, spacing=spacing):
                different.append(n)
        assert different == []
    theirs = diffusers.DDIMScheduler(timestep_spacing="leading", steps_offset=1)
    theirs.set_timesteps(50)
    assert theirs.timesteps.tolist() == chosen(50, spacing="leading", offset=1)


def test_the_discrete_heun_sampler_for_a_pretrained_ddpm(network):
    """The article's last figure: chosen levels of the model, and Heun between them."""
    scheduler = diffusers.HeunDiscreteScheduler(**LINEAR, timestep_spacing="trailing")
    scheduler.set_timesteps(18)
    denoiser = from_diffusers(network, scheduler, rounded=True)
    ours = ds.sample(denoiser, latents=noise(), steps=LevelSteps(18, levels=denoiser.levels, spacing="trailing"))
    theirs = run(network, scheduler, noise() * scheduler.init_noise_sigma)
    assert ours.nfe == len(scheduler.timesteps) == 35
    assert float((ours.x - theirs).abs().max() / theirs.abs().max()) < 1e-6


def test_text_embeddings_are_conditions():
    model = text_unet()
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
    )
    scheduler.set_timesteps(8)
    text = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    conditions = {"encoder_hidden_states": text}
    assert compare(model, scheduler, "euler", 4, conditions, conditions) < 1e-6
    assert compare(model, scheduler, "euler", 4, {"encoder_hidden_states": -text}, conditions) > 1e-4


def test_added_conditions():
    model = text_unet(
        addition_embed_type="text_time", addition_time_embed_dim=4, projection_class_embeddings_input_dim=6 * 4 + 7
    )
    scheduler = diffusers.EulerDiscreteScheduler(**LINEAR, timestep_spacing="leading")
    scheduler.set_timesteps(4)
    draws = torch.Generator().manual_seed(2)
    cond = {
        "encoder_hidden_states": torch.randn(2, 5, 12, generator=draws, dtype=torch.float64),
        "text_embeds": torch.randn(2, 7, generator=draws, dtype=torch.float64),
        "time_ids": torch.tensor([[8, 8, 0, 0, 8, 8]] * 2),
    }
    theirs = {"encoder_hidden_states": cond["encoder_hidden_states"]}
    theirs["added_cond_kwargs"] = {name: cond[name] for name in ("text_embeds", "time_ids")}
    assert compare(model, scheduler, "euler", 4, cond, theirs) < 1e-6
    with pytest.raises(ValueError, match="cond: UNet2DConditionModel requires 'text_embeds', 'time_ids'"):
        compare(model, scheduler, "euler", 4, {"encoder_hidden_states": theirs["encoder_hidden_states"]}, theirs)


def test_a_transformer_with_classes_and_a_learned_variance():
    model = dit()
    scheduler = diffusers.DDIMScheduler(**LINEAR, clip_sample=False)
    scheduler.set_timesteps(6)
    labels, null = torch.tensor([3, 9]), torch.tensor([10, 10])
    assert compare(model, scheduler, "euler", 4, {"labels": labels}, {"class_labels": labels}) < 1e-6
    # no condition is the null class
    assert compare(model, scheduler, "euler", 4, None, {"class_labels": null}) < 1e-6
    assert compare(model, scheduler, "euler", 4, {"labels": labels.flip(0)}, {"class_labels": labels}) > 1e-3


def test_conditions_of_pixart():
    model = pixart()
    scheduler = diffusers.DPMSolverMultistepScheduler(**LINEAR, timestep_spacing="trailing")
    scheduler.set_timesteps(4)
    draws = torch.Generator().manual_seed(2)
    cond = {
        "encoder_hidden_states": torch.randn(2, 5, 12, generator=draws, dtype=torch.float64),
        "encoder_attention_mask": torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]),
        "resolution": torch.tensor([[8.0, 8.0]] * 2, dtype=torch.float64),
        "aspect_ratio": torch.tensor([[1.0]] * 2, dtype=torch.float64),
    }
    theirs = {name: cond[name] for name in ("encoder_hidden_states", "encoder_attention_mask")}
    theirs["added_cond_kwargs"] = {name: cond[name] for name in ("resolution", "aspect_ratio")}
    assert compare(model, scheduler, "2m", 4, cond, theirs) < 1e-4
    others = cond | {"encoder_attention_mask": torch.ones(2, 5, dtype=torch.long)}
    assert compare(model, scheduler, "2m", 4, others, theirs) > 1e-3


def test_flow_matching():
    model = sd3()
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(sigmas=[0.98, 0.7, 0.4, 0.1])
    times = scheduler.sigmas.double()
    levels = tuple((times / (1 - times)).tolist())
    draws = torch.Generator().manual_seed(2)
    cond = {
        "encoder_hidden_states": torch.randn(2, 5, 12, generator=draws, dtype=torch.float64),
        "pooled_projections": torch.randn(2, 6, generator=draws, dtype=torch.float64),
    }
    # their scheduler is in float32
    theirs = run(model, scheduler, noise(4), **cond)
    denoiser = from_diffusers(model, scheduler)
    start = noise(4) * (1 + levels[0])
    steps = ds.GivenSteps(levels)
    ours = ds.sample_from(denoiser, start, levels[0], cond=cond, sampler=ds.Sampler(steps, ds.Euler())).x
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert denoiser.sigma_max == math.inf
    assert read_scheduler(scheduler) == FlowPrediction(ds.ContinuousTime(ds.FlowSchedule(), 1000.0, 1e-3))
    dpm = diffusers.DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
    assert read_scheduler(dpm) == read_scheduler(scheduler)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_edm_schedulers(network, prediction):
    scheduler = diffusers.EDMEulerScheduler(prediction_type=prediction, sigma_data=0.7)
    scheduler.set_timesteps(6)
    levels = sigmas_of(scheduler)
    start = 80.0 * noise()
    theirs = run(network, scheduler, start)
    denoiser = from_diffusers(network, scheduler)
    ours = ds.sample_from(denoiser, start, levels[0], sampler=ds.Sampler(ds.GivenSteps(levels, clip=True), ds.Euler()))
    assert float((ours.x - theirs).abs().max() / theirs.abs().max()) < 1e-6
    assert (denoiser.sigma_min, denoiser.sigma_max) == (0.002, 80.0)
    if prediction == "epsilon":
        assert denoiser.preconditioning == EDMPreconditioning(0.7, 0.002, 80.0)


def test_v_prediction_in_continuous_time_is_edm_with_unit_data(network):
    scheduler = diffusers.EulerDiscreteScheduler(
        **LINEAR,
        prediction_type="v_prediction",
        timestep_type="continuous",
        use_karras_sigmas=True,
        sigma_min=0.002,
        sigma_max=700.0,
    )
    scheduler.set_timesteps(6)
    assert compare(network, scheduler, "euler") < 1e-5
    assert from_diffusers(network, scheduler).sigma_max == 700


def test_a_config_is_as_good_as_the_scheduler(network):
    scheduler = diffusers.DDIMScheduler(beta_schedule="scaled_linear", prediction_type="v_prediction")
    choice = read_scheduler({**scheduler.config, "_class_name": "DDIMScheduler"})
    assert choice == read_scheduler(scheduler)
    assert isinstance(choice, VPrediction)
    assert isinstance(choice.times, InterpolatedIndex)
    assert isinstance(read_scheduler(scheduler, rounded=True).times, LevelIndex)
    a = scheduler.alphas_cumprod.double()
    assert choice.sigma_range == pytest.approx(tuple(((1 - a) / a).sqrt()[[0, -1]].tolist()), rel=1e-12)


def test_classes_of_a_unet():
    model = unet(num_class_embeds=4)
    scheduler = diffusers.DDIMScheduler(**LINEAR, clip_sample=False)
    scheduler.set_timesteps(3)
    labels = torch.tensor([2, 0])
    assert compare(model, scheduler, "euler", 3, {"labels": labels}, {"class_labels": labels}) < 1e-6
    denoiser = from_diffusers(model, scheduler)
    x, sigma = noise(), torch.tensor(1.0)
    for cond, message in (
        (None, "cond: UNet2DModel requires 'labels'"),
        ({"labels": labels, "text": labels}, "cond: UNet2DModel does not know 'text'; it takes labels"),
        ({"labels": labels + 2}, r"labels: expected class indices from 0 to 3, got 4"),
        ({"labels": labels[:1]}, r"labels: expected integers of shape \(2,\), got torch.int64 of shape \(1,\)"),
        ({"labels": labels.double()}, r"labels: expected integers .* got torch.float64"),
    ):
        with pytest.raises(ValueError, match=message):
            denoiser(x, sigma, cond)
    with pytest.raises(ValueError, match="'labels'; it takes no conditions"):
        from_diffusers(unet(), scheduler)(x, sigma, {"labels": labels})


def test_further_channels_of_input_are_an_image():
    """As in inpainting and super-resolution: the image is not scaled with the noise."""
    model = unet(in_channels=5)
    scheduler = diffusers.EulerDiscreteScheduler(**LINEAR)
    denoiser = from_diffusers(model, scheduler)
    assert denoiser.sample_shape == (3, 8, 8)
    image, x = noise(2), 20 * noise()
    n = 700
    sigma = denoiser.levels.table()[n]
    with torch.no_grad():
        output = model(torch.cat([x / (1 + sigma**2).sqrt(), image], 1), torch.tensor([n, n])).sample
        denoised = denoiser(x, sigma, {"image": image})
    torch.testing.assert_close(denoised, x - sigma * output, rtol=1e-9, atol=1e-9)


def test_sizes(network):
    scheduler = diffusers.DDIMScheduler()
    assert from_diffusers(network, scheduler).sample_shape == (3, 8, 8)
    assert from_diffusers(unet(sample_size=(8, 16)), scheduler).sample_shape == (3, 8, 16)
    assert from_diffusers(unet(sample_size=None), scheduler).sample_shape is None
    wide = ds.sample(from_diffusers(network, scheduler), seeds=[0], shape=(3, 16, 8), steps=ds.EDMSteps(2))
    assert wide.x.shape == (1, 3, 16, 8)


def test_half_precision_and_gradients():
    scheduler = diffusers.DDIMScheduler(**LINEAR, prediction_type="v_prediction")
    x = noise(dtype=torch.float32)
    with torch.no_grad():
        half = from_diffusers(unet(torch.bfloat16), scheduler)(x, torch.tensor(1.3))
        full = from_diffusers(unet(torch.float32), scheduler)(x, torch.tensor(1.3))
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, full, rtol=0, atol=0.05)
    denoiser = from_diffusers(unet(torch.float32), scheduler)
    out = ds.sample(denoiser, seeds=[0], steps=ds.EDMSteps(2), execution=ds.Execution(grad=True)).x.sum()
    out.backward()
    assert all(p.grad is not None for p in denoiser.network.model.conv_in.parameters())


def test_a_learned_embedding_of_times_is_told_integers():
    model = unet(time_embedding_type="learned", num_train_timesteps=1000)
    scheduler = diffusers.DDIMScheduler(**LINEAR, clip_sample=False)
    scheduler.set_timesteps(4)
    assert compare(model, scheduler, "euler", rounded=True) < 1e-6
    with pytest.raises(ValueError, match="rounded: must be True for a network with an embedding"):
        from_diffusers(model, scheduler)


def test_input_is_checked(network):
    ddim = diffusers.DDIMScheduler()
    flow = diffusers.FlowMatchEulerDiscreteScheduler()
    for scheduler, options, message in (
        (ddim, {"zero_snr": "clip"}, "zero_snr: 'clip' has no effect"),
        (flow, {"rounded": True}, "rounded: has no effect; FlowMatchEulerDiscreteScheduler"),
        (flow, {"zero_snr": "clip"}, "zero_snr: has no effect"),
        (diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True), {}, "invert_sigmas: True is not supported"),
        (diffusers.ScoreSdeVeScheduler(), {}, r"scheduler: expected .* got ScoreSdeVeScheduler with prediction_type"),
        (
            diffusers.DPMSolverMultistepScheduler(use_flow_sigmas=True),
            {},
            r"scheduler: expected .* got DPMSolverMultistepScheduler",
        ),
        (diffusers.DDIMScheduler(prediction_type="score"), {}, r"prediction_type: expected epsilon.* got 'score'"),
        ({"beta_start": 0.1}, {}, r"scheduler: .* got None"),
        ({"_class_name": "UNet2DModel"}, {}, r"scheduler: .* got 'UNet2DModel'"),
        ("ddim", {}, "scheduler: expected a scheduler of diffusers or its config, got str"),
    ):
        with pytest.raises(ValueError, match=message):
            from_diffusers(network, scheduler, **options)
    with pytest.raises(ValueError, match="network: expected a model of diffusers"):
        from_diffusers(torch.nn.Linear(2, 2), ddim)
