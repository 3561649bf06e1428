"""Averages of the weights: exponential moving averages, snapshots of them, averages made after training."""

from diffspace.averages.ema import (
    EMA as EMA,
    HalfLife as HalfLife,
    PowerFunction as PowerFunction,
    Profile as Profile,
    exponent_to_width as exponent_to_width,
    width_to_exponent as width_to_exponent,
)
from diffspace.averages.posthoc import (
    Reconstruction as Reconstruction,
    Snapshot as Snapshot,
    Snapshots as Snapshots,
    attainable as attainable,
    reconstruct as reconstruct,
)
