"""Averages of the weights: exponential moving averages, snapshots of them, averages made after training."""

from diffspace.averages.ema import EMA as EMA
from diffspace.averages.ema import HalfLife as HalfLife
from diffspace.averages.ema import PowerFunction as PowerFunction
from diffspace.averages.ema import Profile as Profile
from diffspace.averages.ema import exponent_to_width as exponent_to_width
from diffspace.averages.ema import width_to_exponent as width_to_exponent
from diffspace.averages.posthoc import Reconstruction as Reconstruction
from diffspace.averages.posthoc import attainable as attainable
from diffspace.averages.posthoc import reconstruct as reconstruct
from diffspace.averages.snapshots import Snapshot as Snapshot
from diffspace.averages.snapshots import Snapshots as Snapshots
