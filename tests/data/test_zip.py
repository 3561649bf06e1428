"""ZIP archives of images, and dataset.json beside images: what is read, by how many at once, and what is refused."""

import json
import multiprocessing
import pickle
import stat
import struct
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import as_the_reference, pixels, png, write_zip

from diffspace.data import DataSet, ImageFolder, ImageZip, InMemory, batches, load_data, make_source

IMAGES = pixels(12, 4, 5, 3)
LABELS = [3, 0, 5, 5, 1, 0, 3, 3, 2, 1, 0, 5]
STACKED = torch.from_numpy(IMAGES).permute(0, 3, 1, 2)


def unpack(path: Path, folder: Path) -> Path:
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(params=["zip", "folder"])
def place(request, tmp_path: Path):
    """Writes members into an archive, or into a folder, and gives its source."""

    def write(members: dict, **options: object) -> DataSet:
        archive = write_zip(tmp_path / "data.zip", members)
        path = archive if request.param == "zip" else unpack(archive, tmp_path / "data")
        source = make_source(path, **options)
        assert isinstance(source, ImageZip if request.param == "zip" else ImageFolder)
        return source.load()

    return write


@pytest.mark.parametrize("cache_mb", [0, 100])
def test_the_reference_s_form(place, cache_mb: int) -> None:
    data = place(as_the_reference(IMAGES, LABELS), cache_mb=cache_mb)
    assert isinstance(data.rows, InMemory) == (cache_mb > 0)
    assert data.name == "data"
    assert torch.equal(data.raw(), STACKED)
    assert data.labels.tolist() == LABELS
    assert data.class_names == ("0", "1", "2", "3", "4", "5")  # as in the reference, to the greatest that there is
    assert not [note for note in data.notes if "no images" in note]
    some = torch.tensor([7, 7, 0])
    assert torch.equal(data.raw(some), STACKED[some])


def test_null_means_no_labels_though_there_are_sub_folders(place) -> None:
    members = as_the_reference(IMAGES, None)
    members = {name.replace("00000/", f"0000{i % 2}/"): content for i, (name, content) in enumerate(members.items())}
    data = place(members)
    assert (data.labels, data.class_names) == (None, ())


def test_labels_belong_to_names_in_whatever_order(place) -> None:
    members = as_the_reference(IMAGES, LABELS)
    pairs = json.loads(members["dataset.json"])["labels"]
    members["dataset.json"] = json.dumps(
        {"labels": [*pairs[::-1], ["not/there.png", 9]], "class_names": list("abcdef")}
    )
    data = place(dict(reversed(members.items())))
    assert data.labels.tolist() == LABELS
    assert data.class_names == tuple("abcdef")
    assert torch.equal(data.raw(), STACKED)


def test_sub_folders_are_classes_where_there_is_no_index(place) -> None:
    data = place({"dog/2.png": png(IMAGES[0]), "cat/9.png": png(IMAGES[1]), "cat/10.png": png(IMAGES[2])})
    assert data.class_names == ("cat", "dog")
    assert data.labels.tolist() == [0, 0, 1]
    assert torch.equal(data.raw(), STACKED[[2, 1, 0]])


def test_names_are_in_order_folder_by_folder(place) -> None:
    members = {name: png(IMAGES[i]) for i, name in enumerate(["a.b/1.png", "a/2.png", "a/10.png", "a-b/0.png"])}
    data = place(members, classes="none")
    assert torch.equal(data.raw(), STACKED[[2, 1, 3, 0]])  # a/10 a/2 a-b/0 a.b/1


def test_one_hot_vectors_are_classes(place) -> None:
    one_hot = np.eye(6)[LABELS].tolist()
    data = place(as_the_reference(IMAGES, one_hot))
    assert data.labels.tolist() == LABELS
    assert len(data.class_names) == 6


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[0.5, 0.5]] * 12, "labels: number 0 is 0.5 in every row, which conditions nothing; classes='none'"),
        ([[1, 1]] * 12, "labels: number 0 is 1 in every row"),
        ([[0, 0]] * 12, "labels: number 0 is 0 in every row"),
        ([[]] * 12, "labels: expected"),
        ([[1, 0]] * 11 + [[1, 0, 0]], "labels: expected"),
        ([[1, 0]] * 11 + [1], "labels: expected"),
        ([-1] * 12, "label of '00000/img00000000.png': expected a class number or a vector, got -1"),
        ([True] * 12, "label of .* got True"),
        (["cat"] * 12, "label of .* got 'cat'"),
        ([None] * 12, "label of .* got None"),
        ([1.0] * 12, "label of .* got 1.0"),
        ([2**40] * 12, "label of .* got 1099511627776"),
        ([[float("nan"), 1.0]] * 12, "label of .*nan|labels: 12 of 12 rows are not finite"),
    ],
)
def test_labels_that_are_no_classes_are_named(place, labels: list, message: str) -> None:
    with pytest.raises(ValueError, match=rf"(dataset\.json|data|data\.zip): {message}") as error:
        place(as_the_reference(IMAGES, labels))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("{", "is not JSON"),
        ("\x80" * 3, "has no label|is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", r'expected \{"labels"'),
        ("{}", r'expected \{"labels"'),
        ('{"labels": 3}', r'expected \{"labels"'),
        ('{"labels": [["a.png"]]}', r'expected \{"labels"'),
        ('{"labels": [[["a.png"], 1]]}', r'expected \{"labels"'),
        ('{"labels": []}', "has no label for 12 of 12 images, '00000/img00000000.png' among them"),
        ('{"labels": null, "class_names": [1]}', "class_names: expected a list of strings"),
    ],
)
def test_an_index_of_another_form_is_named(place, index: str, message: str) -> None:
    members = {**as_the_reference(IMAGES, LABELS), "dataset.json": index}
    with pytest.raises(ValueError, match=rf"dataset\.json: {message}"):
        place(members)


def test_more_labels_than_names(place) -> None:
    members = as_the_reference(IMAGES, LABELS)
    members["dataset.json"] = members["dataset.json"][:-1] + ', "class_names": ["a", "b"]}'
    with pytest.raises(ValueError, match=r"labels up to 5 with 2 class_names"):
        place(members)


def test_an_index_is_not_needed_without_classes(place) -> None:
    data = place({**as_the_reference(IMAGES, LABELS), "dataset.json": "{"}, classes="none")
    assert data.labels is None


def test_deflated_and_mixed_members(tmp_path: Path) -> None:
    members = as_the_reference(IMAGES, LABELS)
    path = write_zip(tmp_path / "x.zip", members, zipfile.ZIP_DEFLATED)
    data = load_data(path, cache_mb=0)
    assert torch.equal(data.raw(), STACKED)
    assert data.labels.tolist() == LABELS


def test_an_archive_after_other_bytes(tmp_path: Path) -> None:
    members = as_the_reference(IMAGES, LABELS)
    path = write_zip(tmp_path / "x.zip", members)
    path.write_bytes(b"#!/bin/sh\n" * 99 + path.read_bytes())
    assert torch.equal(load_data(path).raw(), STACKED)


def test_broken_members_are_left_out_with_their_labels(tmp_path: Path) -> None:
    members = as_the_reference(IMAGES, LABELS)
    members["00000/img00000003.png"] = b"no image"
    path = write_zip(tmp_path / "x.zip", members)
    with pytest.raises(ValueError, match=r"x\.zip/00000/img00000003\.png: cannot be read as an image: cannot identify"):
        load_data(path)
    with pytest.warns(UserWarning, match=r"left out: 1: 00000/img00000003\.png$"):
        data = load_data(path, on_error="skip")
    assert data.labels.tolist() == LABELS[:3] + LABELS[4:]


def read_all(data: DataSet) -> torch.Tensor:
    return torch.stack([data.raw(torch.tensor([i]))[0] for i in torch.randperm(len(data)).tolist()]).sum(0)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_threads_read_at_once(tmp_path: Path, compression: int) -> None:
    images = pixels(64, 16, 16, 3)
    data = load_data(write_zip(tmp_path / "x.zip", as_the_reference(images, None), compression), cache_mb=0)
    expected = torch.from_numpy(images).permute(0, 3, 1, 2).sum(0, dtype=torch.uint8)
    with ThreadPoolExecutor(8) as pool:
        for total in pool.map(read_all, [data] * 16):
            assert torch.equal(total.to(torch.uint8), expected)


def child(data: DataSet, seed: int, results) -> None:
    torch.set_num_threads(1)  # as a DataLoader does; OpenMP does not survive a fork
    torch.manual_seed(seed)
    results.put([read_all(data).to(torch.uint8).tolist() for _ in range(5)])


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_processes_read_at_once(tmp_path: Path, method: str) -> None:
    images = pixels(64, 16, 16, 3)
    data = load_data(write_zip(tmp_path / "x.zip", as_the_reference(images, None)), cache_mb=0)
    expected = torch.from_numpy(images).permute(0, 3, 1, 2).sum(0, dtype=torch.uint8).tolist()
    context = multiprocessing.get_context(method)
    results = context.Queue()
    workers = [
        context.Process(target=child, args=(data, seed, results)) for seed in range(2 if method == "spawn" else 4)
    ]
    for worker in workers:
        worker.start()
    mine = [read_all(data).to(torch.uint8).tolist() for _ in range(5)]
    theirs = [results.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    for sums in [mine, *theirs]:
        assert sums == [expected] * 5


def test_a_copy_opens_the_archive_for_itself(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", as_the_reference(IMAGES, LABELS))
    data = load_data(path, cache_mb=0)
    stored = pickle.dumps(data.rows)
    copy = pickle.loads(stored)
    del data
    assert torch.equal(copy.read(torch.arange(12)), STACKED)
    write_zip(path, as_the_reference(IMAGES[:5], LABELS[:5]))
    with pytest.raises(ValueError, match=r"x\.zip: has changed since it was opened"):
        pickle.loads(stored).read(torch.arange(12))


def test_training_batches_read_ahead(tmp_path: Path) -> None:
    data = load_data(write_zip(tmp_path / "x.zip", as_the_reference(IMAGES, LABELS)), cache_mb=0)
    by_label = {tuple(STACKED[i].flatten().tolist()): LABELS[i] for i in range(12)}
    stream = batches(data, 5, seed=0, prefetch=2)
    for _ in range(6):
        x, labels = next(stream)
        for image, label in zip(data.transform.inverse(x), labels, strict=True):
            assert by_label[tuple(image.flatten().tolist())] == label


# ---- what is refused


def refused(path: Path, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        load_data(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["../x.png", "/x.png", "a/../../x.png", "C:/x.png", "C:x.png", "//host/share/x.png"])
def test_names_that_lead_out(tmp_path: Path, name: str) -> None:
    path = write_zip(tmp_path / "x.zip", {"a.png": png(IMAGES[0]), name: png(IMAGES[1])})
    refused(path, rf"member '{name}': expected a name inside the archive")


def test_backslashes(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", {"a_..~~x.png": png(IMAGES[0])})
    path.write_bytes(path.read_bytes().replace(b"a_..~~x.png", b"..\\..\\x.png"))
    refused(path, "expected a name inside the archive")


def test_links(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("link.png")
    info.create_system = 3
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info, "/etc/passwd")
    refused(path, "member 'link.png' is a link")


def test_names_that_are_there_twice(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", png(IMAGES[0]))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.png", png(IMAGES[1]))
    refused(path, "holds 1 names more than once, 'a.png' among them")


def test_encrypted_members(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", {"a.png": png(IMAGES[0])})
    content = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + flags] |= 1
    path.write_bytes(bytes(content))
    refused(path, "member 'a.png' is encrypted")


def test_other_kinds_of_compression(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", {"a.png": png(IMAGES[0])}, zipfile.ZIP_LZMA)
    refused(path, "member 'a.png' is compressed by method 14; expected stored or deflated")


def test_a_bomb_that_is_honest(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", {"a.png": bytes(2**25)}, zipfile.ZIP_DEFLATED)
    refused(path, r"member 'a.png' claims 33554432 bytes out of \d+: a decompression bomb")


def forge(path: Path, name: str, content: bytes, claimed: int) -> None:
    """An archive with one deflated member that claims another size than it has."""
    packed = zlib.compress(content, 9)[2:-4]
    common = struct.pack("<5H3I", 20, 0, 8, 0, 33, zlib.crc32(content), len(packed), claimed)
    local = b"PK\x03\x04" + common + struct.pack("<2H", len(name), 0) + name.encode()
    central = b"PK\x01\x02\x14\x00" + common + struct.pack("<5H2I", len(name), 0, 0, 0, 0, 0, 0) + name.encode()
    body = local + packed
    end = b"PK\x05\x06" + struct.pack("<4H2IH", 0, 0, 1, 1, len(central), len(body), 0)
    path.write_bytes(body + central + end)


@pytest.mark.parametrize("claimed", [10, 999, 1001, 50_000, 2**32 - 2])
def test_a_bomb_that_lies(tmp_path: Path, claimed: int) -> None:
    path = tmp_path / "x.zip"
    forge(path, "a.png", bytes(1000), claimed)
    refused(path, "member 'a.png' (is damaged or cut short|claims 4294967294 bytes)")


def test_a_lie_costs_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    forge(path, "a.png", bytes(2**27), 100)
    import tracemalloc

    tracemalloc.start()
    try:
        refused(path, "damaged or cut short")
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def test_members_that_overlap(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", {"a.png": png(IMAGES[0]), "b.png": png(IMAGES[0])})
    content = bytearray(path.read_bytes())
    second = content.rindex(b"PK\x01\x02")
    content[second + 42 : second + 46] = bytes(4)  # the second is said to lie where the first does
    path.write_bytes(bytes(content))
    refused(path, "member 'a.png' runs into what follows it|overlap")


def test_an_archive_that_is_cut_short(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", as_the_reference(IMAGES, LABELS))
    content = path.read_bytes()
    for length in (0, 1, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        refused(path, r"x\.zip: cannot be read as a ZIP archive: ")


def test_a_flipped_byte_in_a_member_is_found(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", as_the_reference(IMAGES, LABELS))
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 20] ^= 1
    path.write_bytes(bytes(content))
    refused(path, r"img00000000\.png: cannot be read as an image: .*member '00000/img00000000.png' is damaged")


def test_any_flipped_byte_gives_the_data_or_one_line(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", as_the_reference(IMAGES[:2], LABELS[:2]), zipfile.ZIP_DEFLATED)
    content = path.read_bytes()
    survived, lines = 0, []
    for at in range(0, len(content), 3):
        flipped = bytearray(content)
        flipped[at] ^= 0xFF
        path.write_bytes(bytes(flipped))
        try:
            survived += torch.equal(load_data(path).raw(), STACKED[:2])
        except ValueError as error:
            lines.append(str(error))
    assert not [line for line in lines if "\n" in line]
    assert survived > 10  # times and rights do not matter


def test_an_archive_without_images(tmp_path: Path) -> None:
    refused(write_zip(tmp_path / "x.zip", {}), r"x\.zip: holds no images$")
    refused(
        write_zip(tmp_path / "x.zip", {"a.txt": "a", ".b.png": "b"}),
        "holds no images; files that are not images, .*: 1",
    )
    path = write_zip(tmp_path / "mac.zip", {"a.png": png(IMAGES[0]), "__MACOSX/._a.png": b"resource fork"})
    assert len(load_data(path)) == 1
