"""From images wherever they lie to a data set as the reference stores them.

The result is a ZIP archive, or a folder, of PNGs of one size that are not compressed, 00000/img00000000.png and so on,
with their labels in dataset.json, and the hash of each file and the options in manifest.json.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from diffspace.data._options import whole_number
from diffspace.data.files import INDEX, MANIFEST, Files
from diffspace.data.folder import ImageSource
from diffspace.data.labels import find_labels
from diffspace.data.manifest import manifest_text, sha256, write_folder, write_zip
from diffspace.data.partial_work import PartialWork, check_destination, versions
from diffspace.data.zip_files import ZipFiles
from diffspace.files import atomic_path

if TYPE_CHECKING:
    from diffspace.data.images import ImageReader

__all__ = ["Prepared", "Track", "prepare"]

_PART = 1000  # images in a part; the reference puts as many into a folder
_AT_ONCE = 64  # images that are held in memory

Phase: TypeAlias = Literal["headers", "images", "writing"]
Track: TypeAlias = Callable[[Phase, int, int], None]


@dataclass(frozen=True)
class Prepared:
    """What has been written: images of shape (C, H, W), with labels or without, the names of those that could not
    be read, and remarks. `sha256` is the hash that the manifest has of itself; it stands for all that was written.
    """

    path: Path
    images: int
    shape: tuple[int, int, int]
    labelled: bool
    left_out: tuple[str, ...]
    notes: tuple[str, ...]
    sha256: str


def prepare(
    source: ImageSource,
    destination: str | Path,
    *,
    max_images: int | None = None,
    overwrite: bool = False,
    track: Track | None = None,
) -> Prepared:
    """Write the images of a source to `destination`, a .zip archive or a folder.

    PNGs that are already what is wanted keep their bytes. Images keep their number in the source, so that one
    that is left out leaves a gap, as in the reference; `max_images` takes the first ones. The same call gives
    the same bytes.

    The destination appears when it is whole. Until then the work lies beside it in `destination`.partial, where
    the same call takes it up again after it was interrupted; `track(phase, done, all)` is told how far it is.

    Errors: ValueError for a destination that exists (unless `overwrite`, and for a folder only one that was
    prepared), for work begun with other options or data, and for images that cannot be read; see `ImageSource`.
    """
    if max_images is not None:
        whole_number("max_images", max_images, least=1)
    target = Path(destination).expanduser()
    if target.suffix.lower() not in ("", ".zip"):
        raise ValueError(f"destination: {target} ends in {target.suffix}; want .zip, or a folder")
    check_destination(target, Path(source.path).expanduser(), overwrite)
    files = source.files()
    place = PartialWork(target)
    work = _Work(source, files, place, max_images, track or (lambda *_: None))
    place.begin({**work.options, "source": source.name, **versions("pillow"), "contents": files.fingerprint()})
    try:
        prepared, whole = work.write()
    except ValueError:
        place.abandon()
        raise
    place.finish(whole)
    return prepared


@dataclass(frozen=True)
class _Work:
    """Preparation under way: parts of a thousand images, each a ZIP archive of its own, in a folder."""

    source: ImageSource
    files: Files
    place: PartialWork
    max_images: int | None
    track: Track

    @property
    def options(self) -> dict[str, Any]:
        """What decides what is written, in JSON's types."""
        names = ("size", "crop", "channels", "classes", "on_error")
        options = {**{name: getattr(self.source, name) for name in names}, "max_images": self.max_images}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}

    def write(self) -> tuple[Prepared, Path]:
        """Write what is missing; what there is then, and where the whole of it lies."""
        survey = self.source.survey(self.files, self.max_images, lambda *at: self.track("headers", *at))
        plan = [(f"{i // _PART:05d}/img{i:08d}.png", i) for i in survey.numbers]
        parts = []
        for begin in range(0, len(plan), _PART):
            parts.append(self._part(begin // _PART, plan[begin : begin + _PART], survey.reader))
            self.track("images", min(begin + _PART, len(plan)), len(plan))
        there = {name for part in parts for name in part.names}
        written = {name: number for name, number in plan if name in there}
        if not written:
            raise ValueError(f"{self.files.path}: none of its {survey.total} images can be read")
        index = self._index(written)
        manifest: dict[str, Any] = {"source": self.source.name, "options": self.options, "versions": versions("pillow")}
        members = self._members(parts, len(written), index, manifest)
        if self.place.target.suffix:
            whole = self.place.folder / "whole.zip"
            with atomic_path(whole) as temporary:
                write_zip(temporary, members)
        else:
            whole = self.place.folder / "whole"
            write_folder(whole, members)
        return Prepared(
            path=self.place.target,
            images=len(written),
            shape=survey.reader.shape,
            labelled=index["labels"] is not None,
            left_out=tuple(self.files.names[i] for i in sorted(set(range(survey.total)) - set(written.values()))),
            notes=survey.notes,
            sha256=json.loads(manifest_text(manifest))["sha256"],
        ), whole

    def _part(self, number: int, plan: Sequence[tuple[str, int]], reader: ImageReader) -> ZipFiles:
        """The images of a part, written unless an earlier run did so."""
        path = self.place.folder / f"{number:05d}.zip"
        if not path.exists():
            with atomic_path(path) as temporary:
                write_zip(temporary, self._encoded(plan, reader))
        return ZipFiles(path)

    def _encoded(self, plan: Sequence[tuple[str, int]], reader: ImageReader) -> Iterator[tuple[str, bytes]]:
        for begin in range(0, len(plan), _AT_ONCE):
            some = plan[begin : begin + _AT_ONCE]
            pngs = self.source.try_each(lambda number: reader.png(self.files, number), [number for _, number in some])
            yield from ((name, pngs[number]) for name, number in some if number in pngs)

    def _index(self, written: Mapping[str, int]) -> dict[str, Any]:
        auto = self.source.classes == "auto"
        originals = [self.files.names[number] for number in written.values()]
        labels, class_names = find_labels(self.files, originals) if auto else (None, ())
        if labels is None:
            return {"labels": None}
        index: dict[str, Any] = {"labels": [list(pair) for pair in zip(written, labels, strict=True)]}
        return {**index, "class_names": list(class_names)} if class_names else index

    def _members(
        self, parts: Sequence[ZipFiles], total: int, index: Mapping[str, Any], manifest: dict[str, Any]
    ) -> Iterator[tuple[str, bytes]]:
        """All that is written, in order; the manifest last, which learns the hash of what comes by."""
        hashes = manifest["files"] = {}
        for part in parts:
            for name, content in zip(part.names, map(part.image, range(len(part.names))), strict=True):
                hashes[name] = sha256(content)
                yield name, content
            self.track("writing", len(hashes), total)
        content = json.dumps(index).encode()
        hashes[INDEX] = sha256(content)
        yield INDEX, content
        yield MANIFEST, manifest_text(manifest)
