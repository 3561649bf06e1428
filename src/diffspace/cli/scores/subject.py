"""What `diffspace evaluate` scores, and what it is compared with."""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from diffspace.checks import first_line
from diffspace.cli.runs import load_data_of, open_recipe, trained_on, with_classes_of
from diffspace.cli.sample_files import LABELS
from diffspace.cli.scores.reading import read_data
from diffspace.cli.scores.scoring import default_size
from diffspace.data import DataSet
from diffspace.files import check_entries, read_json, reading
from diffspace.loading import load
from diffspace.metrics import FeatureStatistics, load_statistics
from diffspace.model import Model
from diffspace.train import RECIPE, Recipe
from diffspace.transform import PIXELS

_METRICS = {"inception": "fid", "dinov2": "fd_dinov2"}  # what edm2 calls the statistics of their features


@dataclass(frozen=True, eq=False)
class Subject:
    """A model, or samples from anywhere, with data or statistics to compare with.

    Args:
        model: whose samples are scored, or of whose data the samples are.
        samples: samples from anywhere.
        data: (other part, held-out part) of real data.
        statistics: of the features of real data, in the place of the held-out part.
        known: what the model was trained on, where that is not the other part of `data`.
        run: the folder of the run that trained the model.
        recipe: of that run.
    """

    model: Model | None
    samples: DataSet | None
    data: tuple[DataSet, DataSet] | None
    statistics: FeatureStatistics | None
    known: DataSet | None
    run: Path | None
    recipe: Recipe | None

    def sizes(self, n: int | None, sets: int) -> tuple[int, int]:
        """The number of samples in a set, and of sets: as many of n as there are samples from anywhere, or `sets`."""
        if self.samples is None:
            return n or default_size(self.data), sets
        if n is not None and n > len(self.samples):
            raise ValueError(f"--n: {n}, but --samples has {len(self.samples)}")
        n = n or (len(self.samples) if self.data is None else min(len(self.samples), default_size(self.data)))
        return n, min(sets, len(self.samples) // n)


def open_subject(
    model: str | None,
    samples: str | None,
    against: str | None,
    features: Sequence[str],
    device: torch.device,
    warn: Callable[[str], None],
) -> Subject:
    """Load and read what the words name; ValueError for words that do not belong together.

    Args:
        model: a model, or the folder of a run.
        samples: a folder, an archive or an array of samples.
        against: real data, or a file of statistics.
        features: the words of the extractors, which choose among the statistics of edm2's pickles.
        device: of the model.
        warn: is given one line.
    """
    if model is None and samples is None:
        raise ValueError("MODEL, --samples: expected a model or samples to score, got neither")
    if model is None and against is None:
        raise ValueError("--against: is missing; name real data, or statistics (.npz), to compare the samples with")
    is_run = model is not None and (against is None or (Path(model) / RECIPE).is_file())
    run = Path(model) if model is not None and is_run else None
    recipe = _recipe(run) if run is not None else None
    statistics = _load_statistics(against, features) if against is not None and has_statistics(against) else None
    loaded = None if model is None else load(model, device=device)
    data = known = None
    if against is not None and statistics is None:
        data = _parts(against, loaded)
        if run is not None and recipe is not None and loaded is not None:
            known = _known(run, recipe, loaded, warn)
            data = data[0], data[1] if known is None else _unseen(data[1], known, warn)
    elif run is not None and recipe is not None and loaded is not None:
        data = load_data_of(run, recipe, loaded, warn)
    read = None if samples is None else _read_samples(samples, loaded, data, warn)
    return Subject(loaded, read, data, statistics, known, run, recipe)


def _load_statistics(path: str, features: Sequence[str]) -> FeatureStatistics:
    metric = next((_METRICS[word] for word in features if word in _METRICS), None)
    try:
        return load_statistics(path, metric)
    except ValueError as error:
        words = " or ".join(_METRICS)
        raise ValueError(str(error).replace("metric: ", f"--features: {words} choose among statistics; ")) from None


def has_statistics(path: str) -> bool:
    """Whether a file has statistics of features: a .npz with mu and sigma, or a pickle."""
    if Path(path).suffix == ".pkl":
        return True
    if Path(path).suffix != ".npz" or not Path(path).is_file():
        return False
    with reading(Path(path)), zipfile.ZipFile(path) as archive:
        return {"mu.npy", "sigma.npy"} <= set(archive.namelist())


def _recipe(run: Path) -> Recipe:
    try:
        return open_recipe(run)
    except ValueError as error:
        if (run / RECIPE).is_file():
            raise
        raise ValueError(f"{error}; --against names real data to compare another model with") from None


def _known(run: Path, recipe: Recipe, model: Model, warn: Callable[[str], None]) -> DataSet | None:
    """What the model of a run was trained on; None, with a warning, where that cannot be read here."""
    try:
        return load_data_of(run, recipe, model, warn)[0]
    except (OSError, ValueError) as error:
        warn(f"copies are looked for in --against, since the data of {run} cannot be read: {first_line(error)}")
        return None


def _unseen(held_out: DataSet, known: DataSet, warn: Callable[[str], None]) -> DataSet:
    """The held-out part of --against without what the model was trained on, which a warning counts."""
    places = [place for place, seen in enumerate(trained_on(known, held_out)) if not seen]
    if len(places) == len(held_out):
        return held_out
    text = f"--against: {len(held_out) - len(places)} of the {len(held_out)} held-out items were trained on"
    if len(places) < 2:
        raise ValueError(f"{text}; leave it out, or name other data")
    warn(f"{text} and are left out")
    return held_out.subset(torch.tensor(places, dtype=torch.int64, device="cpu"))


def _parts(against: str, model: Model | None) -> tuple[DataSet, DataSet]:
    """The standard split of real data, in the classes of a model that knows some."""
    shape, transform = (None, None) if model is None else (model.sample_shape, model.transform)
    other, held_out = read_data("--against", against, shape, transform).split()
    return (other, held_out) if model is None else (with_classes_of(model, other), with_classes_of(model, held_out))


def _read_samples(
    samples: str, model: Model | None, data: tuple[DataSet, DataSet] | None, warn: Callable[[str], None]
) -> DataSet:
    """Samples from anywhere, with their classes if those are the ones of the model or of the data."""
    like = model if model is not None else data[1] if data is not None else None
    shape, transform = (None, None) if like is None else (like.sample_shape, like.transform)
    read = read_data("--samples", samples, shape, transform)
    if len(read) < 2:
        raise ValueError(f"--samples: {samples} has 1 sample; expected at least 2")
    if like is None and read.transform != PIXELS:
        raise ValueError(f"--samples: in which units {samples} is can only be told with MODEL, or with data --against")
    names = () if like is None else like.class_names
    labels = _named(read, Path(samples)) if names else None
    known = labels is not None and set(labels) <= set(names)
    if labels is not None and not known:
        other = next(name for name in labels if name not in names)
        warn(f"--samples: the classes are ignored, of which {other!r} is none of the data")
    if labels is None or not known:
        return dataclasses.replace(read, labels=None, class_names=(), conditions={})
    numbers = torch.tensor([names.index(name) for name in labels], dtype=torch.int64, device="cpu")
    return dataclasses.replace(read, labels=numbers, class_names=tuple(names), conditions={})


def _named(read: DataSet, folder: Path) -> list[str] | None:
    """The name of each sample's class: from the file that `diffspace sample` writes, or as the data have them."""
    beside = folder / LABELS
    if beside.is_file():
        found = read_json(beside)
        keys = [key.decode() for key in read.keys() or ()]
        with reading(beside):
            entries = check_entries(found, **dict.fromkeys(keys, object))
            return [str(entries[key]) for key in keys]
    if read.labels is None:
        return None
    return [read.class_names[k] for k in read.labels.tolist()]
