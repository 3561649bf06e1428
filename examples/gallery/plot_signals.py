"""
Signals with parameters
=======================

A model of signals that is asked for a frequency and an amplitude.
"""

from pathlib import Path
from tempfile import mkdtemp

import matplotlib.pyplot as plt
import numpy as np
import torch

import diffspace as ds
from diffspace.cli.app import main

# %%
# Arrays beside ``x`` in an ``.npz`` file are conditions, with a row for each sample.

file = Path(mkdtemp(), "waves.npz")
generator = np.random.default_rng(0)
params = np.stack([generator.uniform(1, 5, 2000), generator.uniform(0.5, 2, 2000)], axis=1)
phase = generator.uniform(0, 2 * np.pi, (2000, 1))
x = params[:, 1:] * np.sin(2 * np.pi * params[:, :1] * np.arange(64) / 64 + phase)
np.savez(file, x=x[:, None], params=params)

if not Path("models/signals").exists():
    main(
        ["train", str(file), "images=24000", "patience_images=0", "network.model_channels=16", "--out", "runs/signals"]
    )
    ds.load("runs/signals").save("models/signals")

# %%
# The network standardises the values itself; you give them in your units.

model = ds.load("models/signals")
print(model.conditioning)
asked = torch.tensor([[1.5, 0.7], [2.5, 1.0], [4.0, 1.8]])
samples = ds.sample(model, seeds=range(24), cond={"params": asked.repeat_interleave(8, 0)}, steps=ds.EDMSteps(18))
signals = model.decode(samples.x).squeeze(1)

figure, axes = plt.subplots(1, 3, figsize=(9, 2.6), sharey=True, layout="constrained")
for ax, (frequency, amplitude), lines in zip(axes, asked.tolist(), signals.split(8), strict=True):
    ax.plot(lines.T, lw=0.9)
    ax.set_title(f"frequency {frequency:g}, amplitude {amplitude:g}")

# %%
# How near are they to what was asked for? Frequency and amplitude of a signal are those of the nearest sine wave.

candidates = torch.linspace(0.5, 6, 1101)
angle = 2 * torch.pi * candidates[:, None] * torch.arange(64) / 64
basis, _ = torch.linalg.qr(torch.stack([angle.sin(), angle.cos()], 2))  # of each candidate, orthonormal
power = torch.einsum("ktc,nt->nkc", basis, signals.float()).square().sum(2)
found = candidates[power.argmax(1)]
for (frequency, _), values in zip(asked.tolist(), found.split(8), strict=True):
    print(f"asked for {frequency:g}, found {values.mean():.3f} ± {values.std():.3f}")
