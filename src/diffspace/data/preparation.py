"""From images in any source to a data set as the reference stores them, and whether it is still what was written.

The result is a ZIP archive, or a folder, of PNGs of one size that are not compressed, 00000/img00000000.png and so on,
with their labels in dataset.json, and the hash of each file and the options in manifest.json.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

from diffspace.checks import check_integer
from diffspace.data.archives import INDEX, MANIFEST, ZipImages, list_files, most_text
from diffspace.data.partial_work import PartialWork, check_destination
from diffspace.data.stored_images import ImageRows, ImageSource
from diffspace.files import atomic_path, check_entries, file_sha256, manifest_text, read_bytes, read_manifest, writing

_PART = 1000  # images in a part; the reference puts as many into a folder
_AT_ONCE = 64  # images held in memory
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first time that a ZIP archive can name

Phase: TypeAlias = Literal["headers", "images", "writing"]
Track: TypeAlias = Callable[[Phase, int, int], None]


@dataclass(frozen=True)
class Prepared:
    """What has been written: images of shape (C, H, W), whether they have labels, the names of those that could not be
    read, and notes. `sha256` is the manifest's hash of itself; it stands for everything that was written.
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

    PNGs that need no change keep their bytes. Images keep their number in the source, so that one that is left out
    leaves a gap, as in the reference. The same call gives the same bytes. The destination appears when it is complete;
    until then the work is beside it in `destination`.partial, where the same call resumes it after an interruption.

    ValueError for a destination that exists (unless `overwrite`, and only what was prepared), for work begun with other
    options or data, and for unreadable images; see `ImageSource`.

    Args:
        source: The images, with the options for size, colours and labels.
        destination: A .zip archive, or a folder.
        max_images: Take at most the first ones.
        overwrite: Replace what was prepared there before.
        track: Called with the phase, the numbers of items done and of all items.
    """
    if max_images is not None:
        check_integer("max_images", max_images, 1)
    if source.conditions:
        raise ValueError("conditions: have no effect here; name them where the prepared images are read")
    target = Path(destination).expanduser()
    if target.suffix.lower() not in ("", ".zip"):
        raise ValueError(f"destination: expected .zip or a folder, got {target}")
    check_destination(target, Path(source.path).expanduser(), overwrite)
    images = source.open()
    total = min(len(images.names), max_images or len(images.names))
    place = PartialWork(target)
    options = {**source.options, "max_images": max_images}
    track = track or (lambda *_: None)

    def write() -> tuple[Path, Prepared]:
        rows, notes = source.survey(images, max_images, functools.partial(track, "headers"))
        rows.reader.check_png()
        parts = _write_parts(place.folder, source, rows, functools.partial(track, "images"))
        written = {name: int(name.partition("img")[2][:-4]) for part in parts for name in part.names}
        if not written:
            raise ValueError(f"{images.path}: none of its {total} images can be read")
        labels, class_names = images.labels(list(written.values())) if source.classes == "auto" else (None, ())
        index: dict[str, Any] = {"labels": None if labels is None else list(zip(written, labels, strict=True))}
        if class_names:
            index["class_names"] = class_names
        manifest: dict[str, Any] = {"source": source.name, "options": options, "versions": versions("pillow")}
        members = _members(parts, index, manifest, lambda done: track("writing", done, len(written)))
        complete = place.folder / f"whole{target.suffix}"
        if target.suffix:
            with atomic_path(complete) as temporary:
                _write_zip(temporary, members)
        else:
            _write_folder(complete, members)
        return complete, Prepared(
            path=target,
            images=len(written),
            shape=rows.reader.shape,
            labelled=labels is not None,
            left_out=tuple(images.names[i] for i in sorted(set(range(total)) - set(written.values()))),
            notes=tuple(notes),
            sha256=json.loads(manifest_text(manifest))["sha256"],
        )

    state = {**options, "source": source.name, **versions("pillow"), "contents": images.fingerprint()}
    return place.complete(state, write, lambda: check_destination(target, Path(source.path).expanduser(), overwrite))


def _write_parts(
    folder: Path, source: ImageSource, rows: ImageRows, track: Callable[[int, int], None]
) -> list[ZipImages]:
    """The images that can be read, in archives of which those that exist are kept."""
    parts = []
    for begin in range(0, len(rows), _PART):
        numbers = rows.numbers[begin : begin + _PART]
        path = folder / f"{begin // _PART:05d}.zip"
        if not path.exists():
            with atomic_path(path) as temporary:
                _write_zip(temporary, _pngs(source, rows, numbers))
        parts.append(ZipImages(path))
        track(begin + len(numbers), len(rows))
    return parts


def _pngs(source: ImageSource, rows: ImageRows, numbers: Sequence[int]) -> Iterator[tuple[str, bytes]]:
    """The images with these numbers that can be read."""
    for begin in range(0, len(numbers), _AT_ONCE):
        some = numbers[begin : begin + _AT_ONCE]
        pngs = source.try_each(lambda number: rows.reader.png(rows.images, number), some, rows.threads)
        yield from ((f"{number // _PART:05d}/img{number:08d}.png", png) for number, png in pngs.items())


def _members(
    parts: Sequence[ZipImages], index: Mapping[str, Any], manifest: dict[str, Any], track: Callable[[int], None]
) -> Iterator[tuple[str, bytes]]:
    """Everything that is written, in order; the manifest comes last, and receives the hashes of the others."""
    hashes = manifest["files"] = {}
    for part in parts:
        for number, name in enumerate(part.names):
            content = part.open(number)
            hashes[name] = hashlib.sha256(content).hexdigest()
            yield name, content
        track(len(hashes))
    content = json.dumps(index).encode()
    hashes[INDEX] = hashlib.sha256(content).hexdigest()
    yield INDEX, content
    yield MANIFEST, manifest_text(manifest)


def _write_zip(target: Path | _Comparison, members: Iterable[tuple[str, bytes]]) -> None:
    """A ZIP archive of stored members without times or rights: the same members give the same bytes."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name, _EPOCH)
            info.create_system = 3  # otherwise it names the system on which it was written
            info.external_attr = 0o100644 << 16
            archive.writestr(info, content)


def _write_folder(target: Path, members: Iterable[tuple[str, bytes]]) -> None:
    """The members as files; a folder that exists is replaced."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for name, content in members:
        path = target / name
        with writing(path):
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
    if hasattr(os, "sync"):
        os.sync()


def versions(*packages: str) -> dict[str, str]:
    """The versions of what determines the bytes."""
    return {name: importlib.metadata.version(name) for name in ("diffspace", *packages)}


# ---- verification


def verify(path: str | Path, track: Callable[[int, int], None] | None = None) -> list[str]:
    """What is wrong with a prepared data set, file by file; an empty list if nothing is.

    Every file is read and its SHA-256 compared with the manifest, and the manifest with its own; the bytes between the
    members of a ZIP archive must be those that `prepare` writes as well. `track` is called with the numbers of files
    done and of all files. ValueError names a path that is not a prepared data set.
    """
    root = Path(path).expanduser()
    archive = None if root.is_dir() else ZipImages(root)
    member = {} if archive is None else {name: i for i, name in enumerate(archive.members)}

    def digest(name: str) -> str:
        return file_sha256(root / name) if archive is None else hashlib.sha256(archive.read(member[name])).hexdigest()

    names = set(list_files(root) if archive is None else member)
    if MANIFEST not in names:
        raise ValueError(f"{root / MANIFEST}: does not exist; expected a data set written by `diffspace data prepare`")
    try:
        content = read_bytes(root / MANIFEST, most_text(names)) if archive is None else archive.read(member[MANIFEST])
        hashes = check_entries(read_manifest(content), files=dict)["files"]
        if not all(isinstance(value, str) for value in hashes.values()):
            raise ValueError
    except ValueError:
        return [f"{root / MANIFEST}: is not what was written; the other files were not checked"]
    problems = []
    for done, (name, expected) in enumerate(hashes.items(), start=1):
        try:
            if name not in names:
                problems.append(f"{root / name}: is missing")
            elif digest(name) != expected:
                problems.append(f"{root / name}: is not what was written")
        except (ValueError, OSError) as error:
            reason = getattr(error, "strerror", None) or "is damaged or cut short"
            problems.append(f"{root / name}: {reason}")
        if track is not None:
            track(done, len(hashes))
    problems += [f"{root / name}: is not in the manifest" for name in sorted(names - {MANIFEST} - set(hashes))]
    if archive is None or problems:
        return problems
    with root.open("rb") as file:
        comparison = _Comparison(file)
        _write_zip(comparison, ((name, archive.read(i)) for name, i in member.items()))
        at = comparison.first_difference()
    return [] if at is None else [f"{root}: what begins at byte {at}, outside the files in it, is not what was written"]


class _Comparison(io.RawIOBase):
    """A file that compares what is written to it with another one. `zipfile` writes each header twice, first without
    the member's length: what counts is the last write at a place.
    """

    def __init__(self, other: IO[bytes]) -> None:
        self._other, self._differing = other, set[int]()

    def first_difference(self) -> int | None:
        """The place of the first write that differs, or of the end if the other file is longer."""
        end = self.tell()
        return min(self._differing | ({end} if self._other.read(1) else set()), default=None)

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._other.tell()

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        return self._other.seek(position, whence)

    def write(self, content: Any) -> int:
        start = self.tell()
        if self._other.read(len(content)) == content:
            self._differing.discard(start)
        else:
            self._differing.add(start)
        self.seek(start + len(content))
        return len(content)
