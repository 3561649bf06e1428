"""
Inverse problems
================

Digits of which only a part, or a small version, has been seen: a denoiser is all that is needed.
"""

import matplotlib.pyplot as plt
import torch

import diffspace as ds
from diffspace.data import load_data, named_oracle
from diffspace.guidance import MMPS, AveragePooling, Replacement, repaint

# %%
# The prior is a mixture of ten Gaussians that was fitted to digits. Any denoiser takes its place.

prior = named_oracle("mixture")
digits = load_data("digits").batch()[:8].double()

# %%
# **A known part.** The upper half is given. ``repaint`` fills in the rest, with pieces of the way made again so that
# both halves agree.

mask = torch.zeros(1, 8, 8, dtype=torch.bool)
mask[:, :4] = True
filled = repaint(
    Replacement(prior, mask, digits), seeds=range(8), sampler=ds.Sampler(ds.EDMSteps(12), ds.Heun()), resamplings=4
).x

# %%
# **A small version**, with noise of 0.1. ``MMPS`` is exact for a Gaussian, and near to exact here.

generator = torch.Generator().manual_seed(0)
small = AveragePooling(2)(digits)
small = small + 0.1 * torch.randn(small.shape, generator=generator, dtype=torch.float64)
enlarged = ds.sample(MMPS(prior, AveragePooling(2), small, sigma_y=0.1), seeds=range(8), steps=ds.EDMSteps(18)).x

rows = {
    "digit": digits,
    "upper half": torch.where(mask, digits, 0.0),
    "filled in": filled,
    "small": small.repeat_interleave(2, 2).repeat_interleave(2, 3),
    "enlarged": enlarged,
}
figure, axes = plt.subplots(len(rows), 1, figsize=(6.5, 4.4), layout="constrained")
for ax, (name, images) in zip(axes, rows.items(), strict=True):
    strip = torch.cat(list(torch.nn.functional.pad(images[:, 0], (1, 1, 0, 0), value=-1)), dim=1)
    ax.imshow(strip, cmap="gray_r", vmin=-1, vmax=1)
    ax.set(xticks=[], yticks=[])
    ax.set_ylabel(name, rotation=0, ha="right", va="center")
    ax.spines[:].set_visible(False)

print(f"known part: largest difference {float((filled - digits)[:, :, :4].abs().max()):.1e}")
difference = AveragePooling(2)(enlarged) - small
print(f"small version: RMS difference {float(difference.square().mean().sqrt()):.3f}, where the noise is 0.1")
