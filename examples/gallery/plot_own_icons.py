"""
Your own icons
==============

A folder of pictures with a sub-folder for each class becomes a model that draws new ones.
"""

from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import torch
from PIL import Image

import diffspace as ds
from diffspace.cli.app import main
from diffspace.figures import trajectory_figure

# %%
# The data are 1,000 discs and squares here. Yours are any pictures; they need not have one size.

folder = Path(mkdtemp(), "icons")
generator = np.random.default_rng(0)
y, x = np.mgrid[:16, :16]
for kind in ("disc", "square"):
    (folder / kind).mkdir(parents=True)
    for number in range(500):
        row, column, size = generator.uniform(5, 11), generator.uniform(5, 11), generator.uniform(2, 5)
        far = np.hypot(y - row, x - column) if kind == "disc" else np.maximum(abs(y - row), abs(x - column))
        icon = (255 * np.clip(size - far + 0.5, 0, 1)).astype(np.uint8)
        Image.fromarray(icon).save(folder / kind / f"{number}.png")

# %%
# ``diffspace inspect`` says what is odd in the data, and what it proposes for the noise.

main(["inspect", str(folder)])

# %%
# ``diffspace train`` trains. Each list of words is a line in a shell, such as
# ``diffspace train icons images=20000 network.model_channels=16``.

if not Path("models/icons").exists():
    main(["train", str(folder), "images=20000", "network.model_channels=16", "--out", "runs/icons"])
    ds.load("runs/icons").save("models/icons")

# %%
# A sample belongs to its seed. Here the classes are taken in turn.

model = ds.load("models/icons")
labels = torch.arange(32) % 2
samples = ds.sample(model, seeds=range(32), cond={"labels": labels}, steps=ds.EDMSteps(12))
print(model.class_names, "by", samples.nfe, "evaluations of the network")
figure = samples.show()

# %%
# How a sample comes about: above the state at each noise level, scaled to the range of the data, below it what the
# network makes of it.

paths = ds.sample(model, seeds=range(3), cond={"labels": labels[:3]}, execution=ds.Execution(trajectory=True))
figure = trajectory_figure(paths, model.transform)
