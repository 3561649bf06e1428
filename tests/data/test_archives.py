"""CIFAR's and MNIST's archives in their own formats, arrays, and the sources of packages that need not be there."""

import gzip
import io
import pickle
import pickletools
import struct
import sys
import tarfile
import tracemalloc
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import pixels, png

from diffspace.data import image_source, load_data, prepare

IMAGES = pixels(15, 3, 32, 32)
LABELS = [int(label) for label in pixels(1, 15)[0] % 10]
NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def python2_string(value: bytes) -> bytes:
    """The opcodes of a str of Python 2: SHORT_BINSTRING or BINSTRING."""
    return b"U" + bytes([len(value)]) + value if len(value) < 256 else b"T" + struct.pack("<i", len(value)) + value


def python2_pickle(entries: dict[str, object]) -> bytes:
    """A dictionary as cPickle of Python 2 wrote it with protocol 2: keys and data are str."""

    def item(value: object) -> bytes:
        if isinstance(value, str):
            return python2_string(value.encode())
        if isinstance(value, list):
            return b"](" + b"".join(map(item, value)) + b"e"
        if isinstance(value, int):
            return b"K" + bytes([value])
        assert isinstance(value, np.ndarray)
        shape = b"".join(b"M" + struct.pack("<H", length) for length in value.shape)
        return (
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
            b"(K\x01" + (b"(" + shape + b"t") + b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xff"
            b"J\xff\xff\xff\xffK\x00tb\x89" + python2_string(value.tobytes()) + b"tb"
        )

    return b"\x80\x02}(" + b"".join(python2_string(k.encode()) + item(v) for k, v in entries.items()) + b"u."


def tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def cifar10(images: np.ndarray = IMAGES, labels: list[int] = LABELS, dumps=python2_pickle) -> dict[str, bytes]:
    members = {}
    for i in range(5):
        part = slice(i * 3, i * 3 + 3)
        rows = images[part].reshape(3, -1)
        members[f"cifar-10-batches-py/data_batch_{i + 1}"] = dumps(
            {
                "batch_label": f"training batch {i + 1} of 5",
                "labels": labels[part],
                "data": rows,
                "filenames": ["x.png"] * 3,
            }
        )
    members["cifar-10-batches-py/readme.html"] = b"<html>"
    members["cifar-10-batches-py/batches.meta"] = dumps({"num_cases_per_batch": 3, "label_names": NAMES, "num_vis": 72})
    return members


def test_the_pickles_of_this_file_are_what_numpy_reads() -> None:
    content = pickle.loads(python2_pickle({"data": IMAGES[:2].reshape(2, -1), "labels": [1, 2]}), encoding="bytes")
    assert (content[b"data"] == IMAGES[:2].reshape(2, -1)).all()
    assert content[b"labels"] == [1, 2]


@pytest.mark.parametrize("dumps", [python2_pickle, lambda d: pickle.dumps(d, 2), lambda d: pickle.dumps(d, 4)])
def test_cifar10(tmp_path: Path, dumps) -> None:
    path = tar(tmp_path / "cifar-10-python.tar.gz", cifar10(dumps=dumps))
    data = load_data(path)
    assert torch.equal(data.raw(), torch.from_numpy(IMAGES))
    assert data.labels.tolist() == LABELS
    assert data.class_names == tuple(NAMES)
    prepare(image_source(path), tmp_path / "out.zip")
    again = load_data(tmp_path / "out.zip")
    assert torch.equal(again.raw(), data.raw())
    assert again.labels.tolist() == LABELS
    assert again.class_names == tuple(NAMES)


def test_cifar100(tmp_path: Path) -> None:
    members = {
        "cifar-100-python/train": python2_pickle(
            {"data": IMAGES.reshape(15, -1), "fine_labels": LABELS, "coarse_labels": [0] * 15}
        ),
        "cifar-100-python/meta": python2_pickle({"fine_label_names": NAMES, "coarse_label_names": ["x"]}),
    }
    data = load_data(tar(tmp_path / "cifar-100-python.tar.gz", members))
    assert torch.equal(data.raw(), torch.from_numpy(IMAGES))
    assert data.labels.tolist() == LABELS


@pytest.mark.parametrize(
    "code",
    [
        b"cos\nsystem\nU\x0dtouch CANARY!\x85R.",
        b"c__builtin__\neval\nU\x04exit\x85R.",
        b"cposix\nsystem\n(U\x05falset R.",
        b"cnumpy.core.multiarray\n_reconstruct\n(cos\nsystem\nt R.",
        b"cnumpy\nload\nU\x01x\x85R.",
        b"cnumpy.testing._private.utils\nrunstring\nU\x01x}\x86R.",
        b"(U\x01xios\nsystem\n.",
        b"(cos\nsystem\nU\x01xo.",
        b"\x8c\x02os\x8c\x06system\x93.",
        b"Pname\n.",
        b"\x82\x01.",
    ],
)
def test_a_pickle_that_would_run_something_is_refused(
    tmp_path: Path, code: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = []
    monkeypatch.setattr("os.system", ran.append)
    members = {**cifar10(), "cifar-10-batches-py/data_batch_3": b"\x80\x02" + code}
    with pytest.raises(ValueError, match=r"cifar-10-batches-py/data_batch_3: cannot be read: ") as error:
        load_data(tar(tmp_path / "cifar-10-python.tar.gz", members))
    assert "\n" not in str(error.value)
    assert not ran
    assert not (tmp_path / "CANARY!").exists()


class _Evil:
    def __reduce__(self):
        return (exec, ("import sys; sys.diffspace_was_fooled = True",))


@pytest.mark.parametrize("protocol", range(6))
def test_malice_of_every_protocol(tmp_path: Path, protocol: int) -> None:
    evil = pickle.dumps({"data": _Evil(), "labels": []}, protocol)
    pickletools.genops(evil)
    members = {**cifar10(), "cifar-10-batches-py/batches.meta": evil}
    with pytest.raises(
        ValueError,
        match=r"batches\.meta: cannot be read: it (asks for '(builtins|__builtin__)\.exec'|has the instruction)",
    ):
        load_data(tar(tmp_path / "x.tar.gz", members))
    assert not hasattr(sys, "diffspace_was_fooled")


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (b"", "cannot be read"),
        (b"\x80\x02}", "cannot be read"),
        (b"\x80\x02K\x01.", "cannot be read: expected a mapping of names to values, got a int"),
        (python2_pickle({"labels": [1]}), r"data: expected an array of bytes of shape \(n, 3072\)"),
        (python2_pickle({"data": "abc", "labels": [1]}), "data: expected an array of bytes"),
        (python2_pickle({"data": IMAGES[:1], "labels": [1]}), "data: expected an array of bytes"),
        (pickle.dumps({"data": np.zeros((1, 3072), np.float32), "labels": [1]}, 2), "data: expected an array of bytes"),
        (
            pickle.dumps({"data": np.zeros((3072, 2), np.uint8).T, "labels": [1, 2]}, 2),
            "data: expected an array of bytes",
        ),
        (python2_pickle({"data": IMAGES[:3].reshape(3, -1), "labels": [1, 2]}), "labels: expected 3 numbers"),
        (python2_pickle({"data": IMAGES[:3].reshape(3, -1)}), "labels: expected 3 numbers"),
    ],
)
def test_a_batch_of_another_form(tmp_path: Path, batch: bytes, message: str) -> None:
    members = {**cifar10(), "cifar-10-batches-py/data_batch_1": batch}
    with pytest.raises(ValueError, match=rf"data_batch_1: {message}"):
        load_data(tar(tmp_path / "x.tar.gz", members))


def test_archives_of_another_form(tmp_path: Path) -> None:
    members = cifar10()
    with pytest.raises(ValueError, match="holds no folder cifar-10-batches-py or cifar-100-python"):
        load_data(tar(tmp_path / "a.tar.gz", {"x.png": b""}))
    with pytest.raises(ValueError, match="has no cifar-10-batches-py/data_batch_2"):
        load_data(tar(tmp_path / "b.tar.gz", {k: v for k, v in members.items() if not k.endswith("2")}))
    whole = tar(tmp_path / "c.tar.gz", members).read_bytes()
    for content in (b"", b"x" * 1000, whole[: len(whole) // 2], whole[:100] + b"\0" * 50 + whole[150:]):
        (tmp_path / "d.tar.gz").write_bytes(content)
        with pytest.raises(ValueError, match=r"d\.tar\.gz: (cannot be read|holds no|has no)") as error:
            load_data(tmp_path / "d.tar.gz")
        assert "\n" not in str(error.value)
    with tarfile.open(tmp_path / "e.tar.gz", "w:gz") as archive:
        link = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(ValueError, match="member 'cifar-10-batches-py/data_batch_1' is a link"):
        load_data(tmp_path / "e.tar.gz")


def test_a_tar_that_claims_too_much(tmp_path: Path) -> None:
    info = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
    info.size = 2**40
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(info.tobuf() + bytes(1024)))
    with pytest.raises(ValueError, match="member 'cifar-10-batches-py/data_batch_1' claims 1099511627776 bytes"):
        load_data(tmp_path / "x.tar.gz")


# ---- MNIST

DIGITS = pixels(7, 28, 28)
DIGIT_LABELS = np.array([5, 0, 4, 1, 9, 2, 1], dtype=np.uint8)


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_mnist(tmp_path: Path, suffix: str) -> None:
    pack = gzip.compress if suffix else bytes
    path = tmp_path / f"train-images-idx3-ubyte{suffix}"
    path.write_bytes(pack(idx(DIGITS)))
    assert load_data(path).labels is None
    (tmp_path / f"train-labels-idx1-ubyte{suffix}").write_bytes(pack(idx(DIGIT_LABELS)))
    data = load_data(path)
    assert torch.equal(data.raw(), torch.from_numpy(DIGITS)[:, None])
    assert data.labels.tolist() == DIGIT_LABELS.tolist()
    prepare(image_source(path, size=32, crop="pad"), tmp_path / "out.zip")
    padded = np.pad(DIGITS, [(0, 0), (2, 2), (2, 2)])  # what the reference does
    assert torch.equal(load_data(tmp_path / "out.zip").raw(), torch.from_numpy(padded)[:, None])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as an IDX file"),
        (idx(DIGIT_LABELS) + b"x", "cannot be read as an IDX file: expected 3 dimensions of bytes"),
        (b"\0\0\x0d" + idx(DIGITS)[3:], "expected 3 dimensions of bytes"),
        (idx(DIGITS)[:-1], "expected 5488 bytes of values as its header says, got 5487"),
        (idx(DIGITS) + b"x", "expected 5488 bytes of values as its header says, got more"),
        (idx(DIGITS[:0]), "expected 3 dimensions of bytes, 1 to"),
        (struct.pack(">4B3I", 0, 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1), "expected 3 dimensions of bytes, 1 to"),
    ],
)
def test_idx_files_of_another_form(tmp_path: Path, content: bytes, message: str) -> None:
    for path, stored in ((tmp_path / "x-idx3-ubyte", content), (tmp_path / "x-idx3-ubyte.gz", gzip.compress(content))):
        path.write_bytes(stored)
        with pytest.raises(ValueError, match=rf"ubyte(\.gz)?: .*{message}"):
            load_data(path)
    path.write_bytes(gzip.compress(idx(DIGITS))[:-20])
    with pytest.raises(ValueError, match=r"ubyte\.gz: cannot be read"):
        load_data(path)


def test_small_files_do_not_take_all_memory(tmp_path: Path) -> None:
    bomb = tmp_path / "x-idx3-ubyte.gz"
    bomb.write_bytes(gzip.compress(idx(np.zeros((2**15, 32, 32), np.uint8))))
    with pytest.raises(ValueError, match="decompression bomb"):
        load_data(bomb)
    members = cifar10()
    members["cifar-10-batches-py/data_batch_1"] = b"\x80\x02}r" + struct.pack("<I", 2**31) + b"."  # a memo with gaps
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"data_batch_1: data: expected an array of bytes"):
        load_data(tar(tmp_path / "cifar-10-python.tar.gz", members))
    assert tracemalloc.get_traced_memory()[1] < 2**26
    tracemalloc.stop()


def test_labels_of_another_number(tmp_path: Path) -> None:
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(DIGITS))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(DIGIT_LABELS[:3]))
    with pytest.raises(ValueError, match=r"train-labels-idx1-ubyte: 3 labels for 7 images"):
        load_data(tmp_path / "train-images-idx3-ubyte")


# ---- arrays


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_arrays_of_bytes(tmp_path: Path, channels: int) -> None:
    images = pixels(9, 6, 5, channels)
    np.savez(tmp_path / "x.npz", images=images, labels=np.arange(9) % 3 * 10)
    options = {"channels": "RGBA"} if channels == 4 else {}
    prepare(image_source(tmp_path / "x.npz", **options), tmp_path / "out.zip")
    data = load_data(tmp_path / "out.zip", **options)
    assert torch.equal(data.raw(), torch.from_numpy(images).permute(0, 3, 1, 2))
    assert data.labels.tolist() == [0, 1, 2] * 3
    assert data.class_names == ("0", "10", "20")


def test_arrays_that_are_no_images(tmp_path: Path) -> None:
    for dtype, shape in (("f8", (3, 8, 8)), ("i2", (3, 8, 8, 3)), ("u1", (3, 8)), ("u1", (3, 2, 8, 8))):
        np.save(tmp_path / "x.npy", np.zeros(shape, dtype))
        with pytest.raises(ValueError, match=r"x\.npy: expected images of uint8 with 1, 3 or 4 channels, got "):
            prepare(image_source(tmp_path / "x.npy"), tmp_path / "out.zip")
    with pytest.raises(ValueError, match="digits is not a source of images"):
        image_source("digits")


# ---- packages that need not be there


def test_packages_that_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("lmdb", "datasets"):
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / "data.mdb").touch()
    with pytest.raises(ValueError, match=r"LMDB folder requires the package lmdb, .*: pip install lmdb"):
        load_data(tmp_path)
    with pytest.raises(ValueError, match=r"requires the package datasets, .*: pip install datasets"):
        load_data("hf:owner/name")


def test_lmdb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = pixels(4, 6, 7, 3)
    stored = {f"{i:04x}".encode(): png(image) for i, image in enumerate(images)}
    stored[b"0002"] = b"broken"

    class Transaction:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def cursor(self):
            return self

        def iternext(self, keys: bool, values: bool):
            assert keys
            assert not values
            return iter(sorted(stored))

        def get(self, key: bytes):
            return stored[key]

    class Environment:
        begin = staticmethod(Transaction)

    def opened(path: str, *, readonly: bool, lock: bool, create: bool):
        assert readonly
        assert not lock
        assert not create
        assert path == str(tmp_path / "church_lmdb")
        return Environment()

    monkeypatch.setitem(sys.modules, "lmdb", types.SimpleNamespace(open=opened, Error=RuntimeError))
    (tmp_path / "church_lmdb").mkdir()
    (tmp_path / "church_lmdb" / "data.mdb").touch()
    done = prepare(image_source(tmp_path / "church_lmdb", on_error="skip"), tmp_path / "out.zip")
    assert (done.images, done.labelled, done.left_out) == (3, False, ("00000002.png",))
    assert torch.equal(load_data(tmp_path / "out.zip").raw(), torch.from_numpy(images[[0, 1, 3]]).permute(0, 3, 1, 2))


class FakeTable:
    """What diffspace asks of `datasets.Dataset`."""

    def __init__(self, rows: list[dict], names: list[str] | None) -> None:
        self.rows, self.column_names, self._fingerprint = rows, list(rows[0]), "f"
        self.features = {"label": types.SimpleNamespace(names=names)}
        self.data = types.SimpleNamespace(nbytes=1000)

    def select(self, numbers) -> list[dict]:
        return [self.rows[i] for i in numbers]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key):
        return [row[key] for row in self.rows] if isinstance(key, str) else self.rows[key]

    def cast_column(self, name: str, feature) -> "FakeTable":
        assert name == "image"
        assert feature == ("Image", False)
        return self


def test_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = pixels(3, 6, 7, 3)
    (tmp_path / "2.png").write_bytes(png(images[2]))
    rows = [
        {"image": {"bytes": png(images[0]), "path": None}, "label": 1, "caption": "a cat"},
        {"image": {"bytes": png(images[1]), "path": "1.png"}, "label": 0, "caption": "a dog"},
        {"image": {"bytes": None, "path": str(tmp_path / "2.png")}, "label": 1, "caption": "a cat"},
    ]
    table = FakeTable(rows, ["cat", "dog"])
    asked = []

    def load_dataset(name: str, split: str):
        asked.append((name, split))
        if name == "owner/none":
            raise FileNotFoundError("no such\ndata set")
        return table

    fake = types.SimpleNamespace(
        load_dataset=load_dataset, load_from_disk=lambda _: {"train": table}, Image=lambda decode: ("Image", decode)
    )
    monkeypatch.setitem(sys.modules, "datasets", fake)
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "dataset_dict.json").touch()
    for spec in ("hf:owner/pets", "hf:owner/pets:validation", str(tmp_path / "saved")):
        data = load_data(spec)
        assert torch.equal(data.raw(), torch.from_numpy(images).permute(0, 3, 1, 2))
        assert (data.labels.tolist(), data.class_names) == ([1, 0, 1], ("cat", "dog"))
        assert data.notes == ("columns that nothing uses: caption",)
        assert list(data.keys()) == [png(images[0]), png(images[1]), str(tmp_path / "2.png").encode()]
    assert asked == [("owner/pets", "train"), ("owner/pets", "validation")]
    done = prepare(image_source("hf:owner/pets", size=4), tmp_path / "out.zip")
    assert (done.images, done.shape) == (3, (3, 4, 4))
    with pytest.raises(ValueError, match=r"hf:owner/none: cannot be read: no such data set"):
        load_data("hf:owner/none")
    table.column_names = ["text"]
    with pytest.raises(ValueError, match=r"has no column 'image' or 'img', but text"):
        load_data("hf:owner/pets")
