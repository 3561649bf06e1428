"""Features of items, taken where a batch of them is drawn or read, and kept in files by the first process."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffspace._shapes import Tensor
from diffspace.cli.console import Stages
from diffspace.cli.drawing import Drawing
from diffspace.cli.sample_files import SampleWriter
from diffspace.data import DataSet
from diffspace.metrics import FeatureExtractor, Features
from diffspace.metrics.evaluation import as_ranges
from diffspace.metrics.feature_files import Batches, FeatureFiles, FeaturesInMemory
from diffspace.sampling import State
from diffspace.train import Processes
from diffspace.transform import Transform

_ITEMS, _LOGITS = "items", "logits of "
_KEPT_BYTES = 2**31  # of the items themselves, in which copies are looked for


@dataclass(frozen=True)
class Items:
    """What features are taken of, a batch at a time.

    Args:
        name: of the folder of their features.
        shape: of one item.
        transform: from raw values to the model's space.
        batches: how they are cut.
        facts: what determines them, in JSON types.
        read: gives a batch, in the model's space and as raw values; it calls its second argument after each step.
        labels: their classes, where these are known.
        steps: the number of steps of a batch.
    """

    name: str
    shape: tuple[int, ...]
    transform: Transform
    batches: Batches
    facts: Mapping[str, Any]
    read: Callable[[int, Callable[[State | None], None]], tuple[Tensor, Tensor]]
    labels: Tensor | None = None
    steps: int = 1


@dataclass(frozen=True, eq=False)
class Taken:
    """Items in the model's space, of large ones the first, their classes, and what extractors made of all of them."""

    x: Tensor
    labels: Tensor | None
    arrays: Mapping[str, Tensor]

    def of(self, extractor: FeatureExtractor) -> Features:
        """What an extractor made."""
        return Features(self.arrays[extractor.name], extractor.name, self.arrays.get(_LOGITS + extractor.name))


def drawn_items(drawing: Drawing, facts: Mapping[str, Any]) -> Items:
    """The samples of a request, which further `facts` determine as well, clipped and rounded as they are stored."""
    model = drawing.model

    def read(number: int, step: Callable[[State | None], None]) -> tuple[Tensor, Tensor]:
        raw = drawing.draw(number, lambda first, state: step(state) if state.step else None).raw
        return model.transform.forward(raw), raw

    facts = {"seeds": as_ranges(drawing.seeds), **drawing.facts(), **facts}
    labels = (drawing.cond or {}).get("labels") if model.class_names else None
    return Items("samples", model.sample_shape, model.transform, drawing.batches, facts, read, labels, drawing.states)


def data_items(name: str, data: DataSet, numbers: Tensor, batch: int) -> Items:
    """The items of data with these numbers."""
    batches = Batches(len(numbers), batch)

    def read(number: int, step: Callable[[State | None], None]) -> tuple[Tensor, Tensor]:
        rows = batches.rows(number)
        raw = data.raw(numbers[rows.start : rows.stop])
        step(None)
        return data.transform.forward(raw), raw

    facts = {"data": data.name, **data.fingerprint(), "transform": repr(data.transform)}
    return Items(name, data.sample_shape, data.transform, batches, facts, read, data.classes(numbers))


def take_features(
    items: Items,
    extractors: Sequence[FeatureExtractor],
    group: Processes,
    stage: Stages,
    folder: Path | None = None,
    writer: SampleWriter | None = None,
) -> Taken | None:
    """Features of all items, on the first process; None on the others, which call the same.

    A batch is read, and its features are taken, by each process in turn. In a folder, what a killed command left there
    is kept. On the first process a writer may keep the items themselves.
    """
    kept = min(items.batches.total, max(2, _KEPT_BYTES // (4 * max(1, math.prod(items.shape)))))
    request = {"of": items.name, **items.facts, "extractors": [each.name for each in extractors]}
    files: FeatureFiles | FeaturesInMemory | None = None
    if group.first and folder is not None:
        files = FeatureFiles(folder / items.name, request, items.batches, {_ITEMS: kept})
    elif group.first:
        files = FeaturesInMemory(items.batches)

    def work(number: int) -> tuple[int, dict[str, Tensor], Tensor | None]:
        x, raw = items.read(number, show)
        first = items.batches.rows(number).start
        arrays = {_ITEMS: x[: max(0, kept - first)].flatten(1)}
        for each in extractors:
            arrays |= _of_extractor(each, x)
        return number, arrays, None if writing is False else raw

    with contextlib.ExitStack() as stack:
        for each in (files, writer):
            stack.enter_context(each or contextlib.nullcontext())
        writing, missing = group.broadcast(None if files is None else _missing(files, writer))
        reports, total = itertools.count(1), -(-len(missing) // group.count) * items.steps

        def show(state: State | None) -> None:
            stage.show(next(reports), total, f"σ = {state.sigma:.3g}" if state else "")

        for number, arrays, raw in group.spread(work, missing):
            if files is not None:
                files.add(number, arrays)
            if writer is not None and raw is not None:
                writer.add(number, raw)
    if files is None:
        return None
    arrays = files.read()
    return Taken(arrays.pop(_ITEMS).reshape(-1, *items.shape), items.labels, arrays)


def _missing(files: FeatureFiles | FeaturesInMemory, writer: SampleWriter | None) -> tuple[bool, list[int]]:
    """Whether raw values are kept, and the batches that are missing anywhere."""
    return writer is not None, sorted({*files.missing, *(() if writer is None else writer.missing)})


def _of_extractor(extractor: Any, x: Tensor) -> dict[str, Tensor]:
    """The features of a batch by name, and the logits of an extractor that has them."""
    if hasattr(extractor, "features_and_logits"):
        features, logits = extractor.features_and_logits(x)
        return {extractor.name: features, _LOGITS + extractor.name: logits}
    return {extractor.name: extractor(x)}
