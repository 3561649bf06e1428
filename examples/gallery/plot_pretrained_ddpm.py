"""
A pretrained DDPM
=================

A network ε(x, t) that was trained by a table of ᾱ is sampled by Heun's method, in fewer evaluations than by DDIM.
"""

import matplotlib.pyplot as plt
import torch

import diffspace as ds
from diffspace.data import named_oracle
from diffspace.sampling import LevelSteps

# %%
# Nothing is downloaded here, so that ε is the best that a network could learn of a mixture of Gaussians fitted to
# digits: it comes from the exact denoiser. With diffusers it would be
# ``from_diffusers(pipeline.unet, pipeline.scheduler)``.

exact = named_oracle("mixture")
alphas = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)


def epsilon(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """The noise in x = √ᾱ·x₀ + √(1 − ᾱ)·ε at the integer time t."""
    a = alphas[t].reshape(-1, 1, 1, 1)
    sigma = ((1 - a) / a).sqrt()
    return (x / a.sqrt() - exact(x / a.sqrt(), sigma.flatten())) / sigma


# %%
# D(x; σ_n) = x − σ_n·ε(x/√(σ_n² + 1), n), at the noise levels σ_n = √((1 − ᾱ_n)/ᾱ_n) of the table.

denoiser = ds.from_ddpm(epsilon, alphas, rounded=True, shape=(1, 8, 8), dtype=torch.float64)
print(f"σ from {denoiser.sigma_min:.4f} to {denoiser.sigma_max:.1f}")


def levels(count: int) -> LevelSteps:
    """`count` of the levels of the table."""
    return LevelSteps(count, spacing="trailing")


fine = ds.Sampler(levels(500), ds.Heun())
truth = ds.sample(denoiser, seeds=range(48), sampler=fine).x

# %%
# Euler's method on such levels is DDIM. In the space of the paper Heun's needs no other network and no training.

methods = {
    "Euler (DDIM)": (ds.Euler(), (9, 15, 25, 49, 99)),
    "Heun": (ds.Heun(), (5, 8, 13, 25, 50)),
    "Adams–Bashforth 4": (ds.AdamsBashforth(4), (9, 15, 25, 49, 99)),
}
figure, ax = plt.subplots(figsize=(5, 3.5), layout="constrained")
for name, (solver, counts) in methods.items():
    runs = [ds.sample(denoiser, seeds=range(48), solver=solver, steps=levels(n)) for n in counts]
    errors = [float((run.x - truth).square().mean().sqrt()) for run in runs]
    ax.loglog([run.nfe for run in runs], errors, "o-", label=name)
ax.set(xlabel="evaluations of the network", ylabel="RMS distance from the end of the ODE")
ax.legend()

# %%
# The digits of Heun's method with 25 steps.

figure = ds.sample(denoiser, seeds=range(32), steps=levels(25), solver=ds.Heun()).show()
