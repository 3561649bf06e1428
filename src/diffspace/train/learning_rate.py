"""The learning rate over a training run."""

from __future__ import annotations

import math
from dataclasses import dataclass

from diffspace.checks import check_number


@dataclass(frozen=True)
class LearningRate:
    """A rate that rises linearly over `ramp_images` and falls to 0 by a half cosine over the last `decay_images`.

    With `decay_images` = 0 it stays constant after the ramp, as in the paper (Appendix F.2).
    """

    total_images: int
    learning_rate: float = 1e-3
    ramp_images: int = 10_000_000
    decay_images: int = 0

    def __post_init__(self) -> None:
        check_number("total_images", self.total_images, "(0, inf)")
        check_number("learning_rate", self.learning_rate, "(0, inf)")
        check_number("ramp_images", self.ramp_images, "[0, inf)")
        check_number("decay_images", self.decay_images, f"[0, {self.total_images}]")

    def at(self, images: int) -> float:
        """The learning rate of the step that begins after `images` images."""
        rate = self.learning_rate
        if images < self.ramp_images:
            rate *= images / self.ramp_images
        left = self.total_images - images
        if left < self.decay_images:
            rate *= 0.5 - 0.5 * math.cos(math.pi * left / self.decay_images)
        return rate
