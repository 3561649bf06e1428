"""A look at a data set before anything is trained on it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from diffspace._shapes import Shaped, Tensor
from diffspace.data import DataSet
from diffspace.inspection.proposals import Proposals, propose
from diffspace.transform import Moments, Transform, channel_moments

_SAMPLES, _ELEMENTS, _LEAST = 4096, 2**24, 32  # at most: samples, elements in all; at least: samples
_FEW, _SIMPLE = 5000, 3  # samples of more than three elements are few below 5000
_IMBALANCE = 10


@dataclass(frozen=True)
class Inspection:
    """What a data set holds, and which settings follow from it.

    `measured` of the `count` samples were read, drawn with a fixed seed, or the first of a stream, for all but the
    classes. `mean` and `std` are those of the channels in the model's space, which `space` describes; `raw_range` is
    that of the stored values.
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
        read = "" if self.measured == self.count else f" ({self.measured} of them measured)"
        result = [
            f"{self.name}: {self.count} samples of shape {self.shape}{read}",
            f"stored as {self.dtype} in [{low:g}, {high:g}]",
            f"the model sees {self.space}: mean {_range(self.mean)}, standard deviation {_range(self.std)}",
        ]
        if self.classes:
            counts = sorted(count for _, count in self.classes)
            sizes = f"{counts[0]} to {counts[-1]}" if counts[0] < counts[-1] else f"{counts[0]}"
            result.append(f"{len(self.classes)} classes of {sizes} samples")
        result += [f"{p.name} = {p.value:.3g} (paper: {p.paper:g}): {p.reason}" for p in self.proposals]
        return result + [f"note: {note}" for note in self.notes] + [f"warning: {text}" for text in self.warnings]


def inspect(data: DataSet) -> Inspection:
    """Measure a data set; ValueError if all its values are the same.

    At most 4096 samples are read, and of large ones as many as have 2²⁴ elements together (at least 32), so that it
    takes seconds. The result depends on the data alone.
    """
    size = torch.Size(data.sample_shape).numel()
    measured = min(len(data), _SAMPLES, max(_LEAST, _ELEMENTS // size))
    raw = data.raw(data.sample_numbers(measured))
    low, high = map(float, torch.aminmax(raw))
    x = data.transform.forward(raw)
    moments = channel_moments(iter(torch.split(x, _LEAST)))
    if moments.low.min() == moments.high.max():
        what = f"every value is {low:g}" if low == high else "its values do not differ as the model sees them"
        raise ValueError(f"{data.name}: {what}; there is nothing to learn")
    distinct = _distinct(raw)
    step = None
    if data.transform.kind == "integer":  # neighbouring values differ by 1/scale
        scale = torch.tensor(data.transform.scale, dtype=torch.float64, device="cpu").abs().expand(len(moments.var))
        step = 1 / float(scale[moments.var > 0].max())
    classes = tuple(zip(data.class_names, data.class_counts, strict=False))
    return Inspection(
        name=data.name,
        count=len(data),
        measured=measured,
        shape=data.sample_shape,
        dtype=data.transform.dtype,
        raw_range=(low, high),
        space=_space(data.transform),
        mean=tuple(moments.mean.tolist()),
        std=tuple(moments.var.sqrt().tolist()),
        classes=classes,
        proposals=propose(x[distinct], step),
        notes=data.notes,
        warnings=tuple(_warnings(len(data), size, moments, dict(classes), measured, measured - len(distinct))),
    )


def _distinct(raw: Shaped[Tensor, "n *dims"]) -> Tensor:
    """The places of the samples that are no copy of an earlier one."""
    first: dict[bytes, int] = {}
    for i, row in enumerate(raw.contiguous().numpy()):
        first.setdefault(row.tobytes(), i)
    return torch.tensor(list(first.values()), dtype=torch.int64, device="cpu")


def _warnings(
    count: int, size: int, moments: Moments, classes: dict[str, int], measured: int, copies: int
) -> list[str]:
    found = []
    if copies:
        found.append(f"{copies} of {measured} samples measured are exact copies of others")
    if constant := [str(i) for i, v in enumerate(moments.var.tolist()) if v == 0]:
        found.append(f"channels that never change: {', '.join(constant)}")
    mean = float(moments.mean.mean())
    std = float((moments.var + (moments.mean - mean) ** 2).mean().sqrt())
    if abs(mean) > std:
        found.append(
            f"the mean is {mean:.2g}, far from 0 compared with a standard deviation of {std:.2g}; "
            "the preconditioning assumes a mean near 0"
        )
    if empty := [name for name, samples in classes.items() if not samples]:
        more = f" and {len(empty) - 10} more" if len(empty) > 10 else ""
        names = ", ".join(map(repr, empty[:10])) + more
        found.append(f"{len(empty)} of {len(classes)} classes have no samples, and will not be drawn: {names}")
        classes = {name: samples for name, samples in classes.items() if samples}
    if classes and max(classes.values()) > _IMBALANCE * min(classes.values()):
        rare, common = min(classes, key=lambda c: classes[c]), max(classes, key=lambda c: classes[c])
        found.append(f"classes are uneven: {classes[rare]} of {rare!r}, {classes[common]} of {common!r}")
    if count < _FEW and size > _SIMPLE:
        found.append(
            f"{count} samples are few, and a model may memorise them: watch the held-out loss "
            "and the distance of samples to their nearest neighbours, and use augmentation"
        )
    return found


def _space(transform: Transform) -> str:
    if len(transform.shift) > 1:
        return "x = (raw − shift)/scale for each channel"
    shift, scale = transform.shift[0], transform.scale[0]
    return "x = raw" if (shift, scale) == (0, 1) else f"x = (raw − {shift:g})/{scale:g}"


def _range(values: tuple[float, ...]) -> str:
    """Each of a few numbers, or the range of many."""
    if len(values) <= 4:
        return ", ".join(f"{value:.3g}" for value in values)
    return f"{min(values):.3g} to {max(values):.3g} over {len(values)} channels"
