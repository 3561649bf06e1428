"""Images in a data set of the Hugging Face `datasets` library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edmkit.data._options import package
from edmkit.data.files import Files
from edmkit.data.folder import ImageSource
from edmkit.data.numbered import NumberedFiles

__all__ = ["HubImages"]

_IMAGES = ("image", "img")
_LABELS = ("label", "labels", "fine_label")


@dataclass(frozen=True)
class HubImages(ImageSource):
    """Images in a data set of the Hugging Face Hub, hf:owner/name or hf:owner/name:split, or in a folder into which
    `datasets` saved one; needs `datasets`. The split is "train" where there are several and none is given.

    Images are the column "image" or "img", class numbers the column "label", "labels" or "fine_label".
    """

    @property
    def name(self) -> str:
        return str(self.path).removeprefix("hf:").rstrip("/").rpartition("/")[2].partition(":")[0]

    def files(self) -> Files:
        datasets = package("datasets", "a data set of the Hugging Face Hub")
        try:
            table = _table(datasets, str(self.path))
            images = _column(table, _IMAGES)
            if images is None:
                raise ValueError(f"has no column {_IMAGES[0]!r} or {_IMAGES[1]!r}, but {', '.join(table.column_names)}")
            return _HubFiles(Path(self.path), table.cast_column(images, datasets.Image(decode=False)), images)
        except (OSError, ValueError, TypeError) as error:  # it raises its own kinds of these
            raise ValueError(f"{self.path}: cannot be read: {' '.join(str(error).split())}") from None


class _HubFiles(NumberedFiles):
    def __init__(self, path: Path, table: Any, images: str) -> None:
        self._table, self._images = table, images
        key = _column(table, _LABELS)
        labels = None if key is None else list(table[key])
        class_names: Sequence[str] = () if key is None else getattr(table.features[key], "names", None) or ()
        super().__init__(path, len(table), str(table._fingerprint), labels, class_names)

    def read(self, number: int) -> bytes:
        image = self._table[number][self._images]
        content = image["bytes"]
        return Path(image["path"]).read_bytes() if content is None else bytes(content)


def _table(datasets: Any, spec: str) -> Any:
    if not spec.startswith("hf:"):
        found = datasets.load_from_disk(str(Path(spec).expanduser()))
        return found["train"] if isinstance(found, dict) else found
    name, _, split = spec.removeprefix("hf:").partition(":")
    return datasets.load_dataset(name, split=split or "train")


def _column(table: Any, names: Sequence[str]) -> str | None:
    return next((name for name in names if name in table.column_names), None)
