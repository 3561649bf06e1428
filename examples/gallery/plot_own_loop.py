"""
A training loop of your own
===========================

The core is a loss and a denoiser around any network; the loop stays yours. Trained here, in seconds.
"""

import matplotlib.pyplot as plt
import torch

import diffspace as ds
from diffspace.averages import EMA, HalfLife
from diffspace.data import named_oracle


class Network(torch.nn.Module):
    """F(x, c_noise, cond), with a result of the shape of x."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            *(torch.nn.Linear(3, 64), torch.nn.SiLU()),
            *(torch.nn.Linear(64, 64), torch.nn.SiLU()),
            *(torch.nn.Linear(64, 64), torch.nn.SiLU()),
            torch.nn.Linear(64, 2),
        )

    def forward(self, x: torch.Tensor, c_noise: torch.Tensor, cond: object = None) -> torch.Tensor:
        joined = torch.cat([x.flatten(1), c_noise[:, None]], dim=1)
        return self.layers(joined).reshape(x.shape)


# %%
# The data are points around eight places on a circle, of which the exact denoiser is known.

torch.manual_seed(0)
ring = named_oracle("ring")
data = ring.sample(20_000, generator=torch.Generator().manual_seed(0)).float()

denoiser = ds.Preconditioned(Network(), ds.EDMPreconditioning(sigma_data=float(data.std())))
loss = ds.DenoisingLoss(ds.LogNormal())
average = EMA(denoiser, HalfLife(ramp_ratio=0.1))
optimizer = torch.optim.Adam(denoiser.parameters(), lr=1e-2)
rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 2000)
for step in range(2000):
    x0 = data[torch.randint(len(data), (256,))]
    optimizer.zero_grad()
    loss(denoiser, x0).mean().backward()
    optimizer.step()
    rates.step()
    average.follow(denoiser, images=step * 256, batch=256)

# %%
# Beside samples of the average are those of the exact denoiser, from the same seeds.

trained = average.module
points = {
    "trained": ds.sample(trained, seeds=range(1000), shape=(1, 1, 2)).x,
    "exact": ds.sample(ring, seeds=range(1000)).x,
}
figure, axes = plt.subplots(1, 2, figsize=(8, 4), layout="constrained", sharex=True, sharey=True)
for ax, (name, x) in zip(axes, points.items(), strict=True):
    ax.scatter(*x.flatten(1).T, s=3, alpha=0.6, lw=0)
    ax.set(title=name, aspect="equal")

# %%
# The error at each noise level, beside the least that any network can reach.

found = ds.loss_by_sigma(trained, data[:4000], sigmas=torch.tensor([0.05, 0.1, 0.2, 0.5, 1.0, 2.0]), oracle=ring)
for sigma, error, least in zip(found.sigma, found.mse, found.attainable, strict=True):
    print(f"σ = {sigma:5.2f}: error {error:.4f}, attainable {least:.4f}")
