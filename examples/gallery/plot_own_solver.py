"""
A solver of your own
====================

A solver is a class with one method. Measure its order, then use it wherever one of diffspace's is used.
"""

from dataclasses import dataclass

import matplotlib.pyplot as plt
import torch

import diffspace as ds

# %%
# This is Ralston's method of third order. Where it needs the denoiser, it yields a request and is sent D.


@dataclass(frozen=True)
class Ralston3(ds.Solver):
    """x⁺ = x + h/9·(2k₁ + 3k₂ + 4k₃)."""

    order = 3

    def step(self, x, start, end, memory):
        h = end.t - start.t
        k1 = start.slope(x, (yield start.request(x)))
        second, y = start.toward(end, 1 / 2), x + h / 2 * k1
        k2 = second.slope(y, (yield second.request(y)))
        third, y = start.toward(end, 3 / 4), x + 3 * h / 4 * k2
        k3 = third.slope(y, (yield third.request(y)))
        return x + h / 9 * (2 * k1 + 3 * k2 + 4 * k3), None


# %%
# Its order shows where the steps end above σ = 0: on logarithmic axes, errors fall along a line of slope −3.

denoiser = ds.oracles.Gaussian(torch.zeros(2), 0.25 * torch.eye(2))
latents = ds.initial_latents(range(16), (2,))


def end(num_steps: int, solver: ds.Solver) -> torch.Tensor:
    steps = ds.EDMSteps(num_steps, sigma_min=0.1, terminal="sigma_min")
    return ds.sample(denoiser, latents=latents, steps=steps, solver=solver).x


exact = end(1, ds.DormandPrince(rtol=1e-11, atol=1e-11))
counts = torch.tensor([10, 20, 40, 80, 160])
figure, ax = plt.subplots(figsize=(5, 3.5), layout="constrained")
for solver in (ds.Euler(), ds.Heun(), Ralston3()):
    errors = torch.tensor([float((end(n, solver) - exact).square().mean().sqrt()) for n in counts.tolist()])
    order = (errors[-2] / errors[-1]).log2()
    ax.loglog(counts, errors, "o-", label=f"{type(solver).__name__}: order {order:.2f}")
ax.set(xlabel="steps", ylabel="RMS error")
ax.legend()

# %%
# It goes with every process, and by a registered name into recipes, model folders and sampler files; on the command
# line it is ``--solver module:Ralston3``.

ds.register("solver", "ralston", Ralston3)
curved = ds.Process(sigma=ds.Formula("80 t^3"), s=ds.Formula("1 / (1 + t)"))
samples = ds.sample(denoiser, seeds=range(2000), shape=(2,), steps=ds.EDMSteps(20), solver=Ralston3(), process=curved)
print(f"{samples.nfe} evaluations, standard deviation {float(samples.x.std()):.3f} of 0.5")
