"""Pictures of a model in training, from noise that stays the same."""

from __future__ import annotations

from pathlib import Path

import torch

from diffspace.figures import save_samples
from diffspace.files import atomic_path
from diffspace.model import Model
from diffspace.sampling import Execution, sample


def draw_preview(model: Model, path: Path) -> None:
    """Eight columns of samples from the seeds 0, 1, …, the classes in turn, one row each where there are few."""
    classes = len(model.class_names)
    count = 64 if not classes else 8 * min(classes, 10)
    if len(model.sample_shape) == 1:
        count = 2000
    cond = {"labels": torch.arange(count) // 8 % classes} if classes else None
    samples = sample(model, seeds=range(count), cond=cond, execution=Execution(batch_size=256))
    with atomic_path(path) as temporary:
        save_samples(temporary, model.decode(samples.x), model.transform, columns=8)
