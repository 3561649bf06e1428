"""A look at a data set before anything is trained on it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from diffspace._shapes import Float, Shaped, Tensor
from diffspace.data.dataset import DataSet
from diffspace.data.moments import Moments, channel_moments
from diffspace.inspection.proposals import Proposals, propose
from diffspace.transform import Transform

__all__ = ["Inspection", "inspect"]

# how much is looked at: this many samples, or elements, but no fewer samples than the last
_SAMPLES, _ELEMENTS, _AT_LEAST = 4096, 2**24, 32
_FEW, _SIMPLE = 5000, 3  # samples of more than three elements are few below 5000
_IMBALANCE = 10


@dataclass(frozen=True)
class Inspection:
    """What a data set holds, and what that proposes.

    `measured` of the `count` samples were looked at, drawn by a fixed seed or of a stream the first, for all but the
    classes. `mean` and `std` are those of the channels in the model's space, which `space` names; `raw_range` is in
    that of the file.
    """

    name: str
    count: int
    measured: int
    shape: tuple[int, ...]
    dtype: str
    raw_range: tuple[float, float]
    space: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[tuple[str, int], ...]
    proposals: Proposals
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    def lines(self) -> list[str]:
        """The whole as text."""
        low, high = self.raw_range
        looked = "" if self.measured == self.count else f" ({self.measured} of them looked at)"
        result = [
            f"{self.name}: {self.count} samples of shape {self.shape}{looked}",
            f"stored as {self.dtype} in [{low:g}, {high:g}]",
            f"the model sees {self.space}: mean {_spread(self.mean)}, standard deviation {_spread(self.std)}",
        ]
        if self.classes:
            counts = [count for _, count in self.classes]
            least, most = min(counts), max(counts)
            sizes = f"{least} to {most}" if least < most else f"{least}"
            result.append(f"{len(self.classes)} classes of {sizes} samples")
        for p in self.proposals:
            result.append(f"{p.name} = {p.value:.3g} (paper: {p.paper:g}): {p.reason}")
        return result + [f"note: {note}" for note in self.notes] + [f"warning: {text}" for text in self.warnings]


def inspect(data: DataSet) -> Inspection:
    """Measure a data set; ValueError where all its values are the same.

    At most 4096 samples are looked at, and of large ones as many as have 2²⁴ elements together (at least 32),
    so that it takes seconds. The result depends on the data alone.
    """
    size = torch.Size(data.sample_shape).numel()
    measured = min(len(data), _SAMPLES, max(_AT_LEAST, _ELEMENTS // size))
    raw = data.raw(data.some(measured))
    x = data.transform.forward(raw)
    moments = channel_moments(x[i : i + _AT_LEAST] for i in range(0, len(x), _AT_LEAST))
    if moments.low.min() == moments.high.max():
        raise ValueError(f"{data.name}: every value is {float(raw.flatten()[0]):g}; there is nothing to learn")
    distinct = _distinct(raw)
    low, high = torch.aminmax(raw)
    return Inspection(
        name=data.name,
        count=len(data),
        measured=measured,
        shape=data.sample_shape,
        dtype=data.transform.dtype,
        raw_range=(float(low), float(high)),
        space=_space(data.transform),
        mean=tuple(moments.mean.tolist()),
        std=tuple(moments.var.sqrt().tolist()),
        classes=_class_counts(data),
        proposals=propose(x[distinct], _step(data.transform, moments.var)),
        notes=data.notes,
        warnings=tuple(_warnings(data, moments, measured, measured - len(distinct))),
    )


def _distinct(raw: Shaped[Tensor, "n *dims"]) -> Tensor:
    """The places of the samples that are no copy of an earlier one."""
    first: dict[bytes, int] = {}
    for i, row in enumerate(raw.contiguous().numpy()):
        first.setdefault(row.tobytes(), i)
    return torch.tensor(list(first.values()))


def _step(transform: Transform, var: Float[Tensor, "channels"]) -> float | None:
    """The distance of neighbouring values in the model's space, where raw values are whole numbers."""
    if transform.kind == "real":
        return None
    scale = torch.tensor(transform.scale, dtype=torch.float64).abs().expand(len(var))
    return 1 / float(scale[var > 0].max())


def _class_counts(data: DataSet) -> tuple[tuple[str, int], ...]:
    if data.labels is None:
        return ()
    counts = torch.bincount(data.labels, minlength=len(data.class_names)).tolist()
    return tuple(zip(data.class_names, counts, strict=True))


def _warnings(data: DataSet, moments: Moments, measured: int, copies: int) -> list[str]:
    found = []
    if copies:
        found.append(f"{copies} of {measured} samples looked at are exact copies of others")
    if constant := [str(i) for i, v in enumerate(moments.var.tolist()) if v == 0]:
        found.append(f"channels that never change: {', '.join(constant)}")
    mean = float(moments.mean.mean())
    std = float((moments.var + (moments.mean - mean) ** 2).mean().sqrt())
    if abs(mean) > std:
        found.append(
            f"the mean is {mean:.2g}, far from 0 beside a standard deviation of {std:.2g}; "
            "the preconditioning assumes a mean near 0"
        )
    counts = dict(_class_counts(data))
    if counts and max(counts.values()) > _IMBALANCE * min(counts.values()):
        rare, common = min(counts, key=lambda c: counts[c]), max(counts, key=lambda c: counts[c])
        found.append(f"classes are uneven: {counts[rare]} of {rare!r}, {counts[common]} of {common!r}")
    if len(data) < _FEW and torch.Size(data.sample_shape).numel() > _SIMPLE:
        found.append(
            f"{len(data)} samples are few, and a model may learn them by heart: watch the held-out loss "
            "and the distance of samples to their nearest neighbours, and augment"
        )
    return found


def _space(transform: Transform) -> str:
    if len(transform.shift) > 1:
        return "x = (raw − shift)/scale for each channel"
    shift, scale = transform.shift[0], transform.scale[0]
    if (shift, scale) == (0, 1):
        return "x = raw"
    return f"x = (raw − {shift:g})/{scale:g}"


def _spread(values: tuple[float, ...]) -> str:
    """Each of a few numbers, or the range of many."""
    if len(values) <= 4:
        return ", ".join(f"{value:.3g}" for value in values)
    return f"{min(values):.3g} to {max(values):.3g} over {len(values)} channels"
