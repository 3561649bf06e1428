"""
Volumes
=======

The same networks in three dimensions: soft balls of any size and place in 8×8×8 voxels.
"""

from pathlib import Path
from tempfile import mkdtemp

import matplotlib.pyplot as plt
import numpy as np
import torch

import diffspace as ds
from diffspace.cli.app import main

# %%
# An array of shape (n, 8, 8, 8) would do as well as one with channels, (n, 1, 8, 8, 8).

generator = np.random.default_rng(0)
radius = generator.uniform(1.5, 3, (2000, 1, 1, 1))
centre = radius + (8 - 2 * radius) * generator.uniform(size=(3, 2000, 1, 1, 1))
places = np.stack(np.meshgrid(*[np.arange(8) + 0.5] * 3, indexing="ij"))[:, None]
balls = np.tanh(2 * (radius - np.sqrt(((places - centre) ** 2).sum(0)))).astype(np.float32)

if not Path("models/volumes").exists():
    file = Path(mkdtemp(), "balls.npy")
    np.save(file, balls[:, None])
    small = ["network.model_channels=8", "network.channel_mult=[1,2]", "network.attn_resolutions=[4]"]
    main(["train", str(file), "images=8000", "patience_images=0", *small, "--out", "runs/volumes"])
    ds.load("runs/volumes").save("models/volumes")

# %%
# Each row is a volume, in slices from front to back. The upper rows are data, the lower ones samples.

model = ds.load("models/volumes")
samples = model.decode(ds.sample(model, seeds=range(64), steps=ds.EDMSteps(12)).x).squeeze(1)
rows = torch.cat([torch.from_numpy(balls[:3]), samples[:5]])
figure, ax = plt.subplots(figsize=(6, 6), layout="constrained")
tiles = torch.nn.functional.pad(rows, (0, 1, 0, 1), value=1.0)
ax.imshow(torch.cat([torch.cat(list(volume), dim=1) for volume in tiles]), cmap="gray", vmin=-1, vmax=1)
ax.axhline(3 * 9 - 0.5, color="tab:blue")
ax.set_axis_off()

# %%
# Samples are as large as data are.

for name, volumes in (("data", torch.from_numpy(balls)), ("samples", samples)):
    inside = ((volumes + 1) / 2).sum((1, 2, 3))
    print(f"{name}: {inside.mean():.1f} ± {inside.std():.1f} voxels")
