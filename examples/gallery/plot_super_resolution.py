"""
Super-resolution
================

An image as condition: digits of 8×8 from means of 2×2 pixels.
"""

from pathlib import Path
from tempfile import mkdtemp

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch.nn.functional import avg_pool2d

import diffspace as ds
from diffspace.cli.app import main
from diffspace.data import load_data

# %%
# An array of images beside ``x`` is a condition of its name. Its sides divide those of the samples. The digits that are
# held out here are not in the file.

training, held_out = load_data("digits").split()
if not Path("models/super-resolution").exists():
    file = Path(mkdtemp(), "digits.npz")
    np.savez(file, x=training.batch().numpy(), low=avg_pool2d(training.batch(), 2).numpy())
    words = ["images=24000", "patience_images=0", "network.model_channels=16", "conditional=true"]
    main(["train", str(file), *words, "--out", "runs/super-resolution"])
    ds.load("runs/super-resolution").save("models/super-resolution")

# %%
# Three samples for each small image: what is not known differs between them.

model = ds.load("models/super-resolution")
truth = held_out.batch()[:12]
low = avg_pool2d(truth, 2)
rows = {"given": low, "digit": truth}
for seed in range(3):
    seeds = range(100 * seed, 100 * seed + len(truth))
    rows[f"sample {seed + 1}"] = model.decode(ds.sample(model, seeds=seeds, cond={"low": low}, steps=ds.EDMSteps(18)).x)

figure, axes = plt.subplots(len(rows), 1, figsize=(8, 3.6), layout="constrained")
for ax, (name, images) in zip(axes, rows.items(), strict=True):
    large = images.repeat_interleave(8 // images.shape[-1], 2).repeat_interleave(8 // images.shape[-1], 3)
    strip = torch.cat(list(torch.nn.functional.pad(large[:, 0], (1, 1, 0, 0), value=-1)), dim=1)
    ax.imshow(strip, cmap="gray_r", vmin=-1, vmax=1)
    ax.set(xticks=[], yticks=[])
    ax.set_ylabel(name, rotation=0, ha="right", va="center")
    ax.spines[:].set_visible(False)

# %%
# A sample made small again is the given image, nearly.

error = avg_pool2d(rows["sample 1"], 2) - low
print(f"RMS difference {error.square().mean().sqrt():.3f}; the given images spread by {low.std():.3f}")
