"""How well samples follow their conditions: those of the training items that they are nearest to."""

from __future__ import annotations

from dataclasses import dataclass

from diffspace._shapes import Float, Tensor
from diffspace.metrics.neighbours import nearest_neighbours


@dataclass(frozen=True)
class ConditionScore:
    """How far the condition of the nearest training item is from the one asked for, by root mean square.

    `value` is that of samples, `real` that of held-out data and their own condition, `unrelated` that of held-out items
    and the condition of others, in the units of the condition as given, where `evaluate` has it standardised.
    """

    name: str
    value: float
    real: float
    unrelated: float


def condition_scores(
    samples: Float[Tensor, "n *dims"],
    train: Float[Tensor, "m *dims"],
    held_out: Float[Tensor, "k *dims"],
    conditions: dict[str, tuple[Tensor, Tensor, Tensor]],
) -> tuple[ConditionScore, ...]:
    """The score of each condition, of which there are the values of samples, of training and of held-out items."""
    if not conditions:
        return ()
    parts = {"samples": samples, "train": train, "held_out": held_out}
    for name, values in conditions.items():
        for (part, x), value in zip(parts.items(), values, strict=True):
            if len(value) != len(x) or value.shape[1:] != values[0].shape[1:]:
                raise ValueError(f"conditions: {name!r} of {part} has shape {tuple(value.shape)} for {len(x)} items")
    of_samples, of_held_out = (nearest_neighbours(x, train)[1] for x in (samples, held_out))
    return tuple(
        ConditionScore(name, _rms(known[of_samples], asked), _rms(known[of_held_out], own), _unrelated(own))
        for name, (asked, known, own) in conditions.items()
    )


def _rms(a: Tensor, b: Tensor) -> float:
    return float((a.cpu().double() - b.cpu().double()).square().mean().sqrt())


def _unrelated(values: Tensor) -> float:
    """The same of two items at random, the mean over all pairs."""
    return float((2 * values.cpu().double().var(0)).mean().sqrt())
