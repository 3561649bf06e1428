"""
Likelihood
==========

The density of any point under a model, by the ODE that carries data to noise, beside the exact one.
"""

import matplotlib.pyplot as plt
import torch

import diffspace as ds
from diffspace.likelihood import log_likelihood
from diffspace.oracles import GaussianMixture

# %%
# The density along the way changes by the divergence of the velocity. In two dimensions its trace is exact.

mixture = GaussianMixture(torch.tensor([[0.9, 0.1], [-0.6, 0.7], [-0.2, -0.8]]), stds=torch.tensor([0.2, 0.3, 0.15]))
side = torch.linspace(-1.6, 1.6, 33)
points = torch.cartesian_prod(side, side).double()


def sampler(count: int) -> ds.Sampler:
    """The way up begins at σ_min, since at σ = 0 there is no slope."""
    return ds.Sampler(ds.EDMSteps(count, terminal="sigma_min"), ds.Heun(0.5))


found = log_likelihood(mixture, points, sampler=sampler(24))
exact = mixture.log_prob(points, found.sigmas[0])
largest = float((found.log_prob - exact)[exact > -5].abs().max())
print(f"{found.nfe} evaluations; largest difference where p > e⁻⁵: {largest:.3f} nats")

figure, axes = plt.subplots(1, 2, figsize=(8, 3.8), layout="constrained", sharey=True)
for ax, (name, values) in zip(axes, {"ln p by the ODE": found.log_prob, "exact": exact}.items(), strict=True):
    shown = ax.pcolormesh(side, side, values.reshape(33, 33).T, vmin=-8, vmax=1, cmap="viridis")
    ax.set(title=name, aspect="equal")
figure.colorbar(shown, ax=axes)

# %%
# With more steps the difference falls with the square of their number, the order of Heun's method.

x = mixture.sample(64, generator=torch.Generator().manual_seed(0))
for count in (8, 16, 32, 64):
    found = log_likelihood(mixture, x, sampler=sampler(count))
    error = found.log_prob - mixture.log_prob(x, found.sigmas[0])
    print(f"{count:3} steps: RMS error {float(error.square().mean().sqrt()):.4f} nats")
