"""
A pickle of the reference
=========================

A network snapshot of NVlabs/edm, ``edm-cifar10-32x32-cond-vp.pkl`` for example, sampled without its code.
"""

import zlib
from pathlib import Path

import torch

import diffspace as ds
from diffspace.interop import convert

# %%
# The published files have 200 MB. This one is laid out like them (the tests of diffspace write such files), with a
# small network that draws icons; to try one of theirs, give its path.

path = "models/reference.pkl"
content = Path(path).read_bytes()
print(f"{len(content):,} bytes, CRC {zlib.crc32(content):08x}")

# %%
# A pickle is a program. Loading one with Python's ``pickle`` runs it, and theirs bring the source of their classes,
# which is executed too. diffspace reads the tensors and the settings, and executes nothing: the source in this file
# would end the program.

print("the source in it raises SystemExit:", b"raise SystemExit" in content)
model = ds.load(path)
print(model.show())

# %%
# What was recognised, and what was left out:

converted, report = convert(path)
print("\n".join(report.lines()))

# %%
# Samples, in the σ range and with the preconditioning of the file. ``diffspace sample FILE.pkl --seeds 0-31`` does the
# same, and ``diffspace convert FILE.pkl FOLDER`` keeps it as safetensors with a config.

labels = torch.arange(32) % 2
figure = ds.sample(model, seeds=range(32), cond={"labels": labels}, steps=ds.EDMSteps(12)).show()
