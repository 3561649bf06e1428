"""Tar archives of samples, as WebDataset writes them: what is read, and what is refused."""

import contextlib
import gc
import io
import json
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from image_files import pixels, png

from diffspace.cli.app import main
from diffspace.data import ImageFolder, TarShards, batches, load_data, make_source, prepare
from diffspace.data.formats import CifarArchive
from diffspace.data.tar_shards import tar_files

IMAGES = pixels(12, 4, 5, 3)
LABELS = [3, 0, 5, 5, 1, 0, 3, 3, 2, 1, 0, 5]
STACKED = torch.from_numpy(IMAGES).permute(0, 3, 1, 2)


def tar(path: Path, members: dict[str, bytes | tarfile.TarInfo], format: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=format) as archive:
        for name, content in members.items():
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(content) if isinstance(content, bytes) else info.size
            archive.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return path


def samples(numbers: range, labels: list | None = LABELS) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for i in numbers:
        found[f"{i:06d}.png"] = png(IMAGES[i])
        if labels is not None:
            found[f"{i:06d}.cls"] = str(labels[i]).encode()
    return found


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    (tmp_path / "set").mkdir()
    for i in range(3):
        tar(tmp_path / "set" / f"train-{i:03d}.tar", samples(range(4 * i, 4 * i + 4)))
    return tmp_path / "set"


@pytest.mark.parametrize("cache_mb", [0, 100])
def test_a_folder_and_a_range_of_shards(shards: Path, cache_mb: int) -> None:
    (shards / "README.md").write_text("about")
    for spec in (shards, f"{shards}/train-{{000..002}}.tar"):
        source = make_source(spec, cache_mb=cache_mb)
        assert isinstance(source, TarShards)
        data = source.load()
        assert torch.equal(data.raw(), STACKED)
        assert data.labels.tolist() == LABELS
        assert data.class_names == tuple("012345")
        assert torch.equal(data.raw(torch.tensor([11, 0, 5])), STACKED[[11, 0, 5]])
    assert load_data(shards).name == "set"
    assert load_data(f"{shards}/train-{{000..002}}.tar").name == "train"
    assert load_data(f"{shards}/train-00{{1..2}}.tar").labels.tolist() == LABELS[4:]
    assert load_data(shards / "train-001.tar").name == "train-001"
    assert torch.equal(load_data(shards / "train-001.tar").raw(), STACKED[4:8])


def test_several_ranges(tmp_path: Path) -> None:
    for a in (9, 10):
        for b in (0, 1):
            tar(tmp_path / f"{a:02d}-{b}.tar", samples(range(2 * (a - 9) + b, 2 * (a - 9) + b + 1)))
    assert torch.equal(load_data(f"{tmp_path}/{{09..10}}-{{0..1}}.tar").raw(), STACKED[:4])
    assert load_data(f"{tmp_path}/{{09..10}}-{{0..1}}.tar").name == tmp_path.name
    with pytest.raises(ValueError, match=r"/11-0\.tar: cannot be read: No such file"):
        load_data(f"{tmp_path}/{{09..11}}-{{0..1}}.tar")
    with pytest.raises(ValueError, match=r"\{10\.\.9\}: expected 1 to 100000 names in all, got 0"):
        load_data(f"{tmp_path}/{{10..9}}-{{0..1}}.tar")


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # theirs
@pytest.mark.parametrize("format", ["cls", "json"])
def test_what_webdataset_writes(tmp_path: Path, format: str) -> None:
    webdataset = pytest.importorskip("webdataset")
    encoded = [{"png": png(image)} for image in IMAGES]
    with webdataset.ShardWriter(f"{tmp_path}/%04d.tar", maxcount=5, verbose=0) as writer:
        for i, image in enumerate(encoded):
            label = {"cls": LABELS[i]} if format == "cls" else {"json": {"label": LABELS[i], "text": "é"}}
            writer.write({"__key__": f"folder/sample{i:06d}", **image, **label, "caption.txt": f"number {i}"})
    data = load_data(tmp_path, cache_mb=0)
    assert torch.equal(data.raw(), STACKED)
    assert data.labels.tolist() == LABELS
    theirs = webdataset.WebDataset([str(path) for path in sorted(tmp_path.glob("*.tar"))], shardshuffle=False)
    keys = [sample["__key__"] for sample in theirs]
    del theirs
    gc.collect()
    names = data.rows.images.names
    assert [name.partition("/")[2].removesuffix(".png") for name in names] == keys


def test_batches_are_random_access(shards: Path) -> None:
    data = load_data(shards, cache_mb=0)
    own = batches(data, 5, seed=1, start=3)
    again = batches(pickle.loads(pickle.dumps(data)), 5, seed=1, start=3, prefetch=2)
    for _ in range(4):
        (x, y), (a, b) = next(own), next(again)
        assert torch.equal(x, a)
        assert torch.equal(y, b)
        for image, label in zip(data.transform.inverse(x), y, strict=True):
            number = next(i for i in range(12) if torch.equal(STACKED[i], image))
            assert LABELS[number] == label


def test_labels(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    assert load_data(tar(path, samples(range(3), None))).labels is None
    tar(path, {**samples(range(3)), "000003.png": png(IMAGES[3])})
    with pytest.raises(ValueError, match=r"has no label for 1 of 4 images, 'x\.tar/000003\.png' among them; classes="):
        load_data(path)
    assert load_data(path, classes="none").labels is None
    tar(path, {**samples(range(3), None), **samples(range(3, 4))})
    with pytest.raises(ValueError, match=r"has no label for 3 of 4 images, 'x\.tar/000000\.png' among them"):
        load_data(path)
    for content in (b"cat", b"-1", b"", b"1.5", b"[1]", b"9" * 100, str(2**40).encode()):
        tar(path, {"1.png": png(IMAGES[0]), "1.cls": content})
        with pytest.raises(ValueError, match=r"x\.tar: member '1\.cls': expected a class number, got .*; classes="):
            load_data(path)
    for value in ("cat", True, -1, 1.5, [1]):
        tar(path, {"1.png": png(IMAGES[0]), "1.json": json.dumps({"label": value}).encode()})
        with pytest.raises(ValueError, match=r"x\.tar: member '1\.json': expected a class number"):
            load_data(path)
    for content in (b"{}", b'{"caption": "a cat"}', b'{"label": null}'):
        assert load_data(tar(path, {"1.png": png(IMAGES[0]), "1.json": content})).labels is None
    for content in (b"{", b"[" * 100_000):
        tar(path, {"1.png": png(IMAGES[0]), "1.json": content})
        with pytest.raises(ValueError, match=r"x\.tar: member '1\.json': expected a class number"):
            load_data(path)


def test_samples_have_one_image(tmp_path: Path) -> None:
    path = tar(tmp_path / "x.tar", {"1.png": png(IMAGES[0]), "1.jpg": b""})
    with pytest.raises(ValueError, match=r"x\.tar: expected one image a sample, got 2, '1\.png', '1\.jpg'"):
        load_data(path)
    tar(path, {"1.png": png(IMAGES[0]), "1.PNG": b""})
    with pytest.raises(ValueError, match=r"x\.tar: holds member '1\.PNG' twice"):
        load_data(path)
    # of other suffixes, without any, hidden; and names that come again later, as in several archives put together
    others = {"2.txt": b"text", "2.seg.png": b"", "README": b"", ".a.png": b""}
    data = load_data(tar(path, {**samples(range(2)), **others, "b/000000.png": png(IMAGES[2]), "b/000000.cls": b"1"}))
    assert torch.equal(data.raw(), STACKED[:3])
    assert data.notes == ("files that are not images, ignored: 2",)
    tar(path, others)
    with pytest.raises(ValueError, match=r"holds no images; files that are not images, ignored: 2$"):
        load_data(path)


def test_broken_images_are_named_or_left_out(tmp_path: Path) -> None:
    path = tar(tmp_path / "x.tar", {**samples(range(3)), "000001.png": b"no image"})
    with pytest.raises(ValueError, match=r"/x\.tar/000001\.png: cannot be read as an image: cannot identify"):
        load_data(path)
    with pytest.warns(UserWarning, match=r"left out: 1: x\.tar/000001\.png$"):
        data = load_data(path, on_error="skip")
    assert data.labels.tolist() == [LABELS[0], LABELS[2]]


def test_an_archive_that_changes(shards: Path) -> None:
    data = load_data(shards, cache_mb=0)
    tar(shards / "train-001.tar", samples(range(2)))
    assert torch.equal(data.raw(torch.tensor([0, 11])), STACKED[[0, 11]])
    with pytest.raises(ValueError, match=r"train-001\.tar.* has changed since it was opened"):
        data.raw(torch.tensor([4]))


def test_preparing_and_the_command_line(shards: Path, tmp_path: Path, capsys) -> None:
    assert main(["data", "prepare", f"{shards}/train-{{000..002}}.tar", str(tmp_path / "out.zip")]) == 0
    data = load_data(tmp_path / "out.zip")
    assert torch.equal(data.raw(), STACKED)
    assert data.labels.tolist() == LABELS
    assert "12 images of 3×4×5 with labels" in capsys.readouterr().out
    prepare(TarShards(shards), tmp_path / "again.zip")
    assert torch.equal(load_data(tmp_path / "again.zip").raw(), STACKED)


def test_what_is_a_folder_of_shards(shards: Path, tmp_path: Path) -> None:
    (shards / "1.png").write_bytes(png(IMAGES[0]))
    assert isinstance(make_source(shards), ImageFolder)
    (tmp_path / "cifar.tar").write_bytes(b"cifar-10-batches-py/".ljust(1024, b"\0"))
    assert isinstance(make_source(tmp_path / "cifar.tar"), CifarArchive)


# ---- headers


def files_of(path: Path) -> list[tuple[str, int, int]]:
    """(name, offset, size) of the files in an archive."""
    with path.open("rb") as file:
        return [(member.name, member.offset_data, member.size) for member in tar_files(path, file)]


@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_characters="\0/\\:"), min_size=1, max_size=120).filter(
            lambda name: ".." not in name
        ),
        st.binary(max_size=1100),
        max_size=6,
    ),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_any_archive_that_tarfile_writes(tmp_path_factory, members: dict[str, bytes], format: int) -> None:
    path = tar(tmp_path_factory.mktemp("tar") / "x.tar", members, format)
    content = path.read_bytes()
    found = {name: content[offset : offset + size] for name, offset, size in files_of(path)}
    assert found == members


def of_kind(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (tarfile.TarInfo("../x.png"), r"member '\.\./x\.png': expected a name inside the archive"),
        (tarfile.TarInfo("/x.png"), "member '/x.png': expected a name inside"),
        (tarfile.TarInfo("C:x.png"), "member 'C:x.png': expected a name inside"),
        (tarfile.TarInfo("a\\x.png"), "expected a name inside"),
        (of_kind("../folder", tarfile.DIRTYPE), "expected a name inside"),
        (of_kind("x.png", tarfile.SYMTYPE, "/etc/passwd"), "member 'x.png' is a link"),
        (of_kind("x.png", tarfile.LNKTYPE, "000000.png"), "member 'x.png' is a link"),
        (of_kind("x.png", tarfile.CHRTYPE), "member 'x.png' is not a plain file or folder"),
        (of_kind("x.png", tarfile.FIFOTYPE), "member 'x.png' is not a plain file or folder"),
        (of_kind("x.png", tarfile.GNUTYPE_SPARSE), "member 'x.png' is not a plain file or folder"),
    ],
)
def test_members_that_are_refused(tmp_path: Path, member: tarfile.TarInfo, message: str) -> None:
    path = tar(tmp_path / "x.tar", {**samples(range(1)), "bad": member})
    with pytest.raises(ValueError, match=rf"^{path}: .*{message}") as error:
        load_data(path)
    assert "\n" not in str(error.value)


def with_size(header: bytes, size: bytes) -> bytes:
    changed = bytearray(header)
    changed[124:136] = size
    changed[148:156] = b" " * 8
    changed[148:156] = f"{sum(changed):06o}\0 ".encode()
    return bytes(changed)


@pytest.mark.parametrize(
    "size",
    [
        b"77777777777\0",
        b"\x80" + (2**62).to_bytes(11, "big"),
        b"\xff" * 11 + b"\x00",  # −256, which leads tarfile round in circles
        b"-0000000512\0",
        b"        9\0 \0",
    ],
)
def test_sizes_that_lie(tmp_path: Path, size: bytes) -> None:
    path = tar(tmp_path / "x.tar", {"1.png": b""})
    content = path.read_bytes()
    path.write_bytes(with_size(content[:512], size) + content[512:])
    with pytest.raises(ValueError, match=r"x\.tar: (member '1\.png' claims|cannot be read)"):
        load_data(path)


@pytest.mark.parametrize(
    "records",
    [
        b"16 size=9999999\n",
        b"11 size=-1\n",
        b"13 size=-512\n",
        b"19 path=../out.png\n",
        b"24 GNU.sparse.map=0,512\n25 GNU.sparse.size=99999\n",
        b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n",
        b"99 path=a\n",
        b"0 path=a\n",
        b"path=a\n",
        b"10 path=abc",
    ],
)
def test_extended_headers_that_lie(tmp_path: Path, records: bytes) -> None:
    """Whatever tarfile makes of them, it is one line, or the image under the name that it has."""
    path = tmp_path / "x.tar"
    header = tarfile.TarInfo("pax")
    header.type, header.size = b"x", len(records)
    body = header.tobuf(tarfile.USTAR_FORMAT) + records.ljust(512, b"\0")
    path.write_bytes(body + tar(path, {"1.png": png(IMAGES[0])}).read_bytes())
    if b"-" in records or b"9999" in records or b".." in records:
        with pytest.raises(ValueError, match=r"claims|expected a name|not a plain file"):
            load_data(path)
    with contextlib.suppress(ValueError):
        assert torch.equal(load_data(path).raw(), STACKED[:1])


def test_headers_that_claim_too_much_memory(tmp_path: Path) -> None:
    for kind in (b"x", b"g", b"L", b"K"):
        header = tarfile.TarInfo("long")
        header.type, header.size = kind, 2**33 - 1
        (tmp_path / "x.tar").write_bytes(header.tobuf(tarfile.USTAR_FORMAT) + bytes(2**10))
        with pytest.raises(ValueError, match=r"x\.tar: ") as error:
            load_data(tmp_path / "x.tar")
        assert "\n" not in str(error.value)


def test_archives_that_are_cut_or_damaged(tmp_path: Path) -> None:
    path = tar(tmp_path / "x.tar", samples(range(3)))
    content = path.read_bytes()
    end = max(offset for _, offset, _ in files_of(path)) + 512
    for length in (0, 100, 512, 1000, end - 512, end - 1, end):
        path.write_bytes(content[:length])
        with pytest.raises(
            ValueError, match=r"x\.tar: (is damaged or cut short at byte|member .* claims|cannot be read)"
        ) as error:
            load_data(path)
        assert "\n" not in str(error.value)
    place = files_of(tar(path, samples(range(3))))[2][1] - 512
    path.write_bytes(content[:place] + b"Z" + content[place + 1 :])
    with pytest.raises(ValueError, match=rf"x\.tar: is damaged or cut short at byte {place}$"):
        load_data(path)
    for other in (b"\x1f\x8b" + bytes(600), bytes(range(256)) * 4):
        path.write_bytes(other)
        with pytest.raises(ValueError, match=r"x\.tar: cannot be read as a tar archive that is not compressed"):
            load_data(path)


def test_any_flipped_byte_of_a_header_gives_the_data_or_one_line(tmp_path: Path) -> None:
    path = tar(tmp_path / "x.tar", samples(range(2)))
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    headers = [offset - 512 for _, offset, _ in files_of(path)]
    for place in headers:
        for at in rng.integers(0, 512, 40):
            flipped = bytearray(content)
            flipped[place + at] ^= 0xFF
            path.write_bytes(bytes(flipped))
            with pytest.raises(ValueError, match=r"damaged|cannot be read as a tar archive") as error:
                load_data(path)
            assert "\n" not in str(error.value)
