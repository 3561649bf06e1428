"""The discrete Heun sampler for a pretrained DDPM, compared with diffusers' HeunDiscreteScheduler on the same levels.

    python examples/ddpm_heun.py                                   # a small random network, offline
    python examples/ddpm_heun.py google/ddpm-cifar10-32 --steps 18

A DDPM is trained on noise levels σ_n = √((1 − ᾱ_n)/ᾱ_n). Sampling chooses N of them, σ_0 > … > σ_{N−1}, and σ_N = 0.
With d = (x − D)/σ = ε, one step of Heun is x' = x + h·d, x⁺ = x + ½h·(d + d'), h = σ_{i+1} − σ_i, and the last is
x⁺ = D (Algorithm 1 with σ = t, s = 1).
"""

import argparse

import torch
from diffusers import DDPMPipeline, DDPMScheduler, HeunDiscreteScheduler, UNet2DModel

import diffspace as ds
from diffspace.interop.diffusers import from_diffusers
from diffspace.sampling import LevelSteps


def pretrained(name: str | None) -> tuple[UNet2DModel, DDPMScheduler]:
    """The network and the scheduler of a pipeline; a small random network if `name` is None."""
    if name is not None:
        pipeline = DDPMPipeline.from_pretrained(name)
        return pipeline.unet.eval(), pipeline.scheduler
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
    network = UNet2DModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, attention_head_dim=8, **blocks
    )
    # from_config passes on only explicit values, so these defaults are given explicitly
    return network.eval(), DDPMScheduler(beta_start=1e-4, beta_end=0.02)


@torch.no_grad()
def with_diffusers(network: UNet2DModel, scheduler: HeunDiscreteScheduler, x: torch.Tensor) -> torch.Tensor:
    """The sampling loop of a pipeline, from x at the first level."""
    for t in scheduler.timesteps:
        output = network(scheduler.scale_model_input(x, t), t).sample
        x = scheduler.step(output, t, x).prev_sample
    return x


def main(arguments: list[str] | None = None) -> float:
    """Sample with both and return the largest difference."""
    parser = argparse.ArgumentParser(description="Heun's method for a pretrained DDPM")
    parser.add_argument("name", nargs="?", help="a DDPMPipeline on the Hub or in a folder")
    parser.add_argument("--steps", type=int, default=18)
    parser.add_argument("--seeds", type=int, default=4)
    options = parser.parse_args(arguments)

    network, trained = pretrained(options.name)
    denoiser = from_diffusers(network, trained, rounded=True)
    steps = LevelSteps(options.steps, spacing="trailing")
    samples = ds.sample(denoiser, seeds=range(options.seeds), steps=steps, solver=ds.Heun())

    scheduler = HeunDiscreteScheduler.from_config(trained.config, timestep_spacing="trailing")
    scheduler.set_timesteps(options.steps)
    start = ds.initial_latents(range(options.seeds), denoiser.sample_shape) * scheduler.init_noise_sigma
    theirs = with_diffusers(network, scheduler, start)

    difference = float((samples.x - theirs).abs().max())
    print(f"levels: {', '.join(f'{sigma:.4g}' for sigma in samples.sigmas.tolist())}")
    print(f"{samples.num_steps} steps, {samples.nfe} evaluations, largest element {samples.x.abs().max():.4g}")
    print(f"largest difference from HeunDiscreteScheduler: {difference:.2g}")
    return difference


if __name__ == "__main__":
    main()
