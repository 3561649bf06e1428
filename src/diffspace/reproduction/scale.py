"""How much is measured: trainings, samples and budgets of a quick, a default and a full run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType


@dataclass(frozen=True)
class Scale:
    """The numbers of a run; every measurement depends on them.

    Args:
        sources: data sets of Table 2; the other parts take the first.
        seeds: trainings of each configuration.
        images: length of a training, by data set.
        few: training items of the part on augmentation.
        few_images: length of its trainings.
        short_images: length of the training of a network that is imperfect on purpose.
        long_images: of a good one.
        samples: samples of a score.
        ends: of these, those whose distance from the end points of the ODE is measured.
        reference_steps: of the end points.
        budgets: evaluations of a sample for Figure 2, odd.
        churns: values of S_churn for Figure 4.
        churn_steps: numbers of steps for Figure 4.
        trials: combinations of the four parameters that optuna tries.
    """

    sources: tuple[str, ...] = ("digits",)
    seeds: int = 3
    images: Mapping[str, int] = field(default_factory=lambda: {"digits": 40_000, "mnist-5k": 8_000})
    few: int = 100
    few_images: int = 40_000
    short_images: int = 8_000
    long_images: int = 80_000
    samples: int = 500
    ends: int = 64
    reference_steps: int = 200
    budgets: tuple[int, ...] = (5, 9, 17, 35, 71, 141)
    churns: tuple[float, ...] = (0.0, 1.0, 2.0, 5.0, 10.0, 15.0)
    churn_steps: tuple[int, ...] = (9, 18, 36)
    trials: int = 16


SCALES: Mapping[str, Scale] = MappingProxyType(
    {
        "quick": Scale(
            seeds=2,
            images={"digits": 1_280},
            few_images=1_280,
            short_images=256,
            long_images=1_280,
            samples=80,
            ends=16,
            reference_steps=32,
            budgets=(5, 11),
            churns=(0.0, 2.0),
            churn_steps=(4, 8),
            trials=3,
        ),
        "default": Scale(),
        "full": replace(
            Scale(),
            sources=("digits", "mnist-5k"),
            images={"digits": 60_000, "mnist-5k": 8_000},
            few_images=80_000,
            long_images=200_000,
            samples=1000,
            ends=128,
            budgets=(5, 9, 17, 35, 71, 141, 281),
            trials=40,
        ),
    }
)
"""By the name of the option."""
