"""The cases of hostile.py: a command, what is made in its folder beforehand, and the exit codes that are right."""
# ruff: noqa: E501

import io
import json
import os
import pickle
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SMALL = ["two-moons", "data.n=100", "network.width=8", "images=100", "batch_size=50", "ramp_images=0"]
OUT = ["--out", "run"]


@dataclass(frozen=True)
class Case:
    words: tuple[str, ...]
    prepare: Callable[[Path, Path], object]
    codes: tuple[int, ...]
    what: str = ""
    changes: tuple[str, ...] = ()
    limit: int | None = None  # the size that no file can exceed, as on a full disk
    names: tuple[str, ...] = ()  # one of which the error must contain


CASES: list[Case] = []


def case(*words, prepare=lambda place, base: None, codes=(2,), what="", changes=(), limit=None, names=()):
    CASES.append(Case(tuple(map(str, words)), prepare, codes, what, changes, limit, names))


def make_base(base):
    """What the cases copy or read: runs of points and pictures, pictures in a folder and a ZIP archive, arrays."""
    from diffspace.cli.app import main

    more = ["held_out_images=50", "ema_widths=[0.1]", "snapshot_images=50", "checkpoint_images=50"]
    assert main(["train", *SMALL, *more, "--out", str(base / "points")]) == 0
    tiny = [
        "network.model_channels=4",
        "network.channel_mult=[1]",
        "network.num_blocks=1",
        "network.attn_resolutions=[]",
    ]
    tiny += ["images=64", "batch_size=32", "preview_images=0", "score_images=0", "data.holdout=64"]
    assert main(["train", "digits", *tiny, "--out", str(base / "digits")]) == 0
    pictures(base / "pictures")
    assert main(["data", "prepare", str(base / "pictures"), str(base / "prepared.zip")]) == 0
    np.save(base / "points.npy", np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32))
    return 0


def pictures(folder, count=6, size=8):
    from PIL import Image

    values = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    for i, value in enumerate(values):
        path = folder / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(value).save(path)


def writes(name, text):
    """Prepare a file."""

    def prepare(place, base):
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)

    return prepare


def both(*steps):
    def prepare(place, base):
        for step in steps:
            step(place, base)

    return prepare


def copies(name, to, *changes):
    """Prepare a copy of something in the base, on which functions of its path work."""

    def prepare(place, base):
        copy = shutil.copytree if (base / name).is_dir() else shutil.copy
        copy(base / name, place / to)
        for change in changes:
            change(place / to)

    return prepare


def put(name, text):
    return lambda folder: (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)


def cut(name, share=0.5):
    def change(folder):
        path = folder / name
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])

    return change


def flip(name):
    def change(folder):
        text = bytearray((folder / name).read_bytes())
        text[len(text) // 2] ^= 255
        (folder / name).write_bytes(text)

    return change


def pipe(name):
    """A named pipe in the place of a file, at which nobody writes."""

    def change(folder):
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return change


def link(name, to):
    """A link in the place of a file or folder."""

    def change(folder):
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.symlink_to(to)

    return change


def config(**entries):
    """Changes in a model's config: a__b is an entry of an entry, None removes it."""

    def change(folder):
        values = json.loads((folder / "config.json").read_text())
        for name, value in entries.items():
            *path, last = name.split("__")
            inner = values
            for part in path:
                inner = inner[part]
            if value is None:
                inner.pop(last, None)
            else:
                inner[last] = value
        (folder / "config.json").write_text(json.dumps(values))

    return change


def zeros(megabytes):
    """(deflated zeros, their CRC): a bomb that is made at once, of a block of 16 MB again and again."""
    block, packer = bytes(2**24), zlib.compressobj(9, wbits=-15)
    piece = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    count, crc = megabytes // 16, 0
    for _ in range(count):
        crc = zlib.crc32(block, crc)
    end = zlib.compressobj(9, wbits=-15)
    return piece * count + end.flush(), crc


def bomb(name, member, head=b"", megabytes=2400):
    """An archive with a member that begins with `head` and goes on with zeros."""

    def prepare(place, base):
        packed, crc = zeros(megabytes)
        size = megabytes * 2**20
        if head:
            packer = zlib.compressobj(9, wbits=-15)
            packed = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH) + packed
            size, crc = size + len(head), 0  # nobody gets far enough to compare it
        fields = (20, 0, 8, 0, 33, crc, len(packed), size, len(member), 0)
        local = struct.pack("<I5H3I2H", 0x04034B50, *fields) + member.encode()
        central = struct.pack("<I6H3I5H2I", 0x02014B50, 20, *fields, 0, 0, 0, 0, 0) + member.encode()
        end = struct.pack("<I4H2IH", 0x06054B50, 0, 0, 1, 1, len(central), len(local) + len(packed), 0)
        (place / name).write_bytes(local + packed + central + end)

    return prepare


def torch_zip(name, program, more=()):
    """A file of torch.save with a pickle of one's own."""

    def prepare(place, base):
        with zipfile.ZipFile(place / name, "w") as archive:
            archive.writestr("archive/data.pkl", program)
            archive.writestr("archive/version", "3\n")
            for member, text in more:
                archive.writestr(member, text)

    return prepare


DEEP = b"\x80\x02)" + b"\x85" * 200_000 + b"."
DEEP_KEY = b"\x80\x02})" + b"\x85" * 200_000 + b"K\x01s."
EXPONENTIAL = b"\x80\x02})" + b"".join(b"2\x86" for _ in range(100)) + b"K\x01s."
COMMAND = b"\x80\x02cposix\nsystem\nX\x0b\x00\x00\x00touch owned\x85R."
NESTED = "[" * 100_000 + "]" * 100_000
LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))


def npy(header, data=b""):
    text = header.encode() + b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def npy_of(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def png(width, height, bits=8, color=2, data=b"\x00"):
    def chunk(kind, text):
        return struct.pack(">I", len(text)) + kind + text + struct.pack(">I", zlib.crc32(kind + text))

    head = struct.pack(">2I5B", width, height, bits, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def tar(name, members, mode="w"):
    def prepare(place, base):
        with tarfile.open(place / name, mode) as archive:
            for member, text in members:
                info = tarfile.TarInfo(member)
                if isinstance(text, bytes):
                    info.size = len(text)
                    archive.addfile(info, io.BytesIO(text))
                else:
                    info.type, info.linkname = text
                    archive.addfile(info)

    return prepare


def zipped(name, members):
    def prepare(place, base):
        with zipfile.ZipFile(place / name, "w") as archive:
            for member, text in members:
                archive.writestr(member, text)

    return prepare


# ---- recipes: key=value

for word in (
    *("images=0", "images=-5", "images=1.5", "images=nan", "images=[]", "images={a: 1}", "images=", "images=yes"),
    *(
        "batch_size=0",
        "batch_size=1.5",
        "batch_size=many",
        "learning_rate=nan",
        "learning_rate=-1",
        "learning_rate=fast",
    ),
    *("betas=[1, 2]", "betas=0.9", "betas=[0.9, 0.99, 0.999]", "betas=[a, b]", "eps=0", "ramp_images=-1"),
    *("decay_images=1000", "max_grad_norm=-1", "precision=float8", "precision=[float32]", "strategy=mpi", "seed=-1"),
    *("seed=1.5", "seed=99999999999999999999999", "network.width=0", "network.width=wide", "network.depth=10000000"),
    *("network=evil", "network=os:system", "network.kind=[1]", "noise=lognormal:P_std=0", "noise.P_mean=nan"),
    *("noise.P_mean=[1]", "noise=[1]", "preconditioning.sigma_data=0", "preconditioning.sigma_data=nan", "data=3"),
    *("data.n=-1", "data.n=lots", "data.holdout=2.5", "data.holdout=-1", "data.holdout=nan"),
    *("data.colour=red", "measure=evil", "measure=[os:system:every=1]", "=", "a=b=c", ".=1", "network..width=1"),
    *(f"images={NESTED}", "images=&a [*a]", "images=!!python/object/apply:os.system [touch owned]", "wandb=[1]"),
    *(
        "ema_widths=[nan]",
        "ema_widths=0.1",
        "checkpoint_minutes=-1",
        "keep_last=0",
        "micro_batch=0",
        "conditional=maybe",
    ),
    *("compile=2", "epochs=nan", "epochs=-1", "augment=evil", "augment=edm", "images=\x1b[31mred", "\x1b]0;evil\x07=1"),
):
    key = word.partition("=")[0]
    case("train", *(other for other in SMALL if other.partition("=")[0] != key), word, *OUT)
for word in (
    "data.n=1000000000000",
    "batch_size=1000000000000",
    "network.width=1000000000",
    "images=1000000000000000000000000000000000",
):
    key = word.partition("=")[0]
    short = [] if key == "images" else ["images=100"]
    dry = ["--dry-run"] if key == "images" else []
    rest = [other for other in SMALL if other.partition("=")[0] not in (key, "images")]
    case("train", *rest, *short, word, *dry, *OUT, codes=(0, 1, 2))
case("train", *SMALL[:3], *SMALL[4:], "learning_rate=1e30", "images=5000", *OUT, codes=(1,), what="a run that diverges")
case("train", *SMALL, "learning_rate=1e30", *OUT, codes=(1,), what="a short run that diverges")

# ---- recipes in files

RECIPES = {
    "binary": bytes(range(256)) * 10,
    "empty": "",
    "a list": "[1, 2]",
    "nested": "data: " + NESTED,
    "laughs": LAUGHS,
    "tags": "data: !!python/object/apply:os.system [touch owned]",
    "itself": "&a\ndata: *a",
    "UTF-16": "data: {source: digits}".encode("utf-16"),
    "numbers as keys": "1: 2\ndata: {source: two-moons}",
    "a list as data": "data: [source, digits]",
    "a number as source": "data: {source: 3}",
    "a number as network": "data: {source: two-moons}\nnetwork: 3",
}
for what, text in RECIPES.items():
    case("train", "--recipe", "r.yaml", "images=10", *OUT, prepare=writes("r.yaml", text), what=what)
case("train", "--recipe", "none.yaml", *OUT)
case("train", "--recipe", ".", *OUT)

# ---- models

MODELS = {
    "JSON cut short": cut("config.json"),
    "empty JSON": put("config.json", ""),
    "nested JSON": put("config.json", NESTED),
    "a list": put("config.json", "[]"),
    "binary": put("config.json", bytes(range(256))),
    "a huge number": put("config.json", '{"format": ' + "9" * 100_000 + "}"),
    "an unknown format": config(format="evil/1"),
    "depth 10^7": config(network__depth=10**7),
    "width 10^9": config(network__width=10**9),
    "depth -1": config(network__depth=-1),
    "a text as width": config(network__width="wide"),
    "an infinite width": config(network__width=1e400),
    "an unknown network": config(network__kind="os:system"),
    "no network": config(network=None),
    "a list as network": config(network=[]),
    "a shape of 10^12": config(network__shape=[10**6, 10**6]),
    "a negative shape": config(network__shape=[-2]),
    "sigma_data 0": config(preconditioning__sigma_data=0),
    "sigma_data NaN": config(preconditioning__sigma_data=float("nan")),
    "a list as preconditioning": config(preconditioning=[1]),
    "an unknown transform": config(transform__kind="evil"),
    "a list as transform": config(transform=[]),
    "numbers as class names": config(class_names=[1, 2]),
    "a text as class names": config(class_names="evil"),
    "a list as notes": config(notes=[1]),
    "weights cut short": cut("model.safetensors"),
    "empty weights": put("model.safetensors", ""),
    "a header of 2^63 bytes": put("model.safetensors", struct.pack("<Q", 2**63) + b"{}"),
    "a nested header": put("model.safetensors", struct.pack("<Q", len(NESTED)) + NESTED.encode()),
    "a pickle as weights": put("model.safetensors", COMMAND),
    "a pipe as config": pipe("config.json"),
    "pipes as weights": pipe("model.safetensors"),
    "a device as config": link("config.json", "/dev/zero"),
    "a device as weights": link("model.safetensors", "/dev/zero"),
    "a link to itself": link("config.json", "config.json"),
}
COMMANDS = [
    ["sample", "model", "--seeds", "0-3", "--out", "x.npz"],
    ["likelihood", "model", "BASE/points.npy", "--n", "2"],
    ["solvers", "model", "--nfe", "5", "--seeds", "0-3", "--solvers", "heun", "--steps", "edm"],
    ["train", *SMALL[:2], "images=50", "--transfer", "model", *OUT],
    ["evaluate", "model", "--n", "4", "--sets", "1"],
]
for i, (what, change) in enumerate(MODELS.items()):
    words = COMMANDS[0] if i % 2 else COMMANDS[i // 2 % len(COMMANDS)]
    case(*words, prepare=copies("points", "model", change), what=what)


def not_numbers(folder):
    from safetensors.torch import load_file, save_file

    save_file(
        {k: v * float("nan") for k, v in load_file(folder / "model.safetensors").items()}, folder / "model.safetensors"
    )


for words in COMMANDS:
    case(*words, prepare=copies("points", "model", not_numbers), codes=(1, 2), what="weights that are not numbers")
case("sample", "BASE/points/recipe.yaml", "--out", "x.png")
case("sample", "runs/typo", "--out", "x.png")
case("sample", "", "--out", "x.png")
case("sample", "a" * 5000, "--out", "x.png", codes=(1, 2))
case("sample", "\x1b[31mred", "--out", "x.png")
case("sample", "..", "--out", "x.png")

# ---- checkpoints of others

PICKLES = {
    "a command": COMMAND,
    "deep": DEEP,
    "a deep key": DEEP_KEY,
    "a key of exponential hash": EXPONENTIAL,
    "empty": b"",
    "cut short": pickle.dumps({"ema": [1] * 100})[:-40],
    "a number": pickle.dumps(1),
    "noise": bytes(range(256)) * 40,
    "2^31 bytes that are not there": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b".",
}
for what, text in PICKLES.items():
    case("convert", "x.pkl", "model", prepare=writes("x.pkl", text), what=what)
for what in ("a command", "deep", "a deep key", "a key of exponential hash"):
    case("convert", "x.pt", "model", prepare=torch_zip("x.pt", PICKLES[what]), what=f"torch, {what}")
    case("inspect", "x.pt", prepare=torch_zip("x.pt", PICKLES[what]), what=f"torch, {what}")
case("convert", "x.pt", "model", prepare=bomb("x.pt", "archive/data.pkl"), what="a bomb")
case("convert", "x.safetensors", "model", prepare=writes("x.safetensors", struct.pack("<Q", 2**40) + b"{}"))
case(
    "convert",
    "x.safetensors",
    "model",
    prepare=writes("x.safetensors", struct.pack("<Q", 2) + b"{}"),
    what="no weights",
)
case("convert", "x.pkl", "model", prepare=lambda place, base: (place / "x.pkl").mkdir(), what="a folder")
case("convert", "x.pkl", "model", prepare=lambda place, base: os.mkfifo(place / "x.pkl"), what="a pipe")
case(
    "convert", "x.pkl", "model", prepare=lambda place, base: (place / "x.pkl").symlink_to("/dev/zero"), what="a device"
)
case("convert", "none.pkl", "model")
case("convert", "BASE/points/model.safetensors", "model", "--size", "-1")
case("convert", "BASE/points/model.safetensors", "keep", "--overwrite", prepare=writes("keep/precious.txt", "mine"))
case("sample", "x.pt", "--out", "x.png", prepare=torch_zip("x.pt", DEEP_KEY), what="a deep key")

# ---- export

for name in ("x.onx", "x", "none/x.pt2", "/dev/null/x.pt2", "x.PT2"):
    case("export", "BASE/points", name)
case("export", "none", "x.pt2")
case("export", "BASE/points", "x.pt2", prepare=writes("x.pt2", "mine"), what="a file that exists")
case("export", "BASE/points", "x.pt2", "--overwrite", prepare=writes("x.pt2/mine", "mine"), what="a folder")
case("export", "x.pt2", "y.pt2", prepare=writes("x.pt2", "mine"), what="an exported model")
case("export", "x.pkl", "y.pt2", prepare=writes("x.pkl", EXPONENTIAL), what="a pickle")

# ---- data

ARRAYS = {
    "empty": b"",
    "noise": bytes(range(256)) * 10,
    "objects": npy_of(np.array([{}], dtype=object), allow_pickle=True),
    "a shape of 2^50": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1125899906842624, 2), }"),
    "a negative shape": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-4, 2), }", bytes(32)),
    "a header that is no mapping": npy("[1, 2]"),
    "a nested header": npy("{'descr': '<f4', 'fortran_order': False, 'shape': " + "(" * 3000 + ")" * 3000 + "}"),
    "no rows": npy_of(np.zeros((0, 2), np.float32)),
    "one row": npy_of(np.zeros((1, 2), np.float32)),
    "rows of nothing": npy_of(np.zeros((4, 0), np.float32)),
    "a number": npy_of(np.float32(1)),
    "numbers that are not finite": npy_of(np.full((10, 2), np.nan, np.float32)),
    "complex numbers": npy_of(np.zeros((10, 2), complex)),
    "texts": npy_of(np.array(["a", "b"] * 5)),
    "cut short": npy_of(np.zeros((100, 2), np.float32))[:300],
    "huge numbers": npy_of(np.full((10, 2), 3e38, np.float32) * np.array([[1], [-1]] * 5, np.float32)),
}
for i, (what, text) in enumerate(ARRAYS.items()):
    words = ["train", "x.npy", "images=50", *OUT] if i % 2 else ["inspect", "x.npy"]
    allowed = (0, 2) if what in ("one row", "huge numbers") else (2,)
    case(*words, prepare=writes("x.npy", text), codes=allowed, what=what)
NPZ = {
    "nothing": npz(),
    "labels without data": npz(labels=np.zeros(4, np.int64)),
    "labels of another length": npz(x=np.zeros((4, 2), np.float32), labels=np.zeros(3, np.int64)),
    "negative labels": npz(x=np.random.default_rng(0).normal(size=(4, 2)), labels=np.full(4, -1)),
    "huge labels": npz(x=np.random.default_rng(0).normal(size=(4, 2)), labels=np.full(4, 10**12)),
    "labels that are not finite": npz(x=np.random.default_rng(0).normal(size=(4, 2)), labels=np.full(4, np.nan)),
    "objects": npz(x=np.array([{}], dtype=object)),
    "cut short": npz(x=np.zeros((100, 2), np.float32))[:300],
}
for what, text in NPZ.items():
    case(
        "inspect",
        "x.npz",
        prepare=writes("x.npz", text),
        codes=(0, 2) if what[:4] in ("nega", "huge") else (2,),
        what=what,
    )
head = npy(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({2400 * 2**20 // 8}, 2), }}")
case("inspect", "x.npz", prepare=bomb("x.npz", "x.npy", head), what="a bomb")
case("inspect", "x.npz", prepare=bomb("x.npz", "x.npy"), what="a bomb without a header")

CSVS = {
    "empty": "",
    "no columns": "file\na/0.png\n",
    "NUL": "file,v\na/0.png,\0\n",
    "bytes": bytes(range(256)),
    "a cell of megabytes": "file,v\na/0.png," + "1" * 2**24,
    "an open quote": 'file,v\n"a/0.png,1\n' * 10_000,
    "huge numbers": "file,v\n" + "".join(f"{'ab'[k % 2]}/{k}.png,{k}e400\n" for k in range(6)),
    "a name of a condition that cannot be": "file,a=b\n" + "".join(f"{'ab'[k % 2]}/{k}.png,{k}\n" for k in range(6)),
    "many columns": ",".join(map(str, range(10**6))) + "\n" + ",".join(["1"] * 10**6),
}
for what, text in CSVS.items():
    prepare = both(copies("pictures", "p"), writes("v.csv", text))
    case("inspect", "p", "conditions=v.csv", prepare=prepare, what=f"a CSV, {what}")
case(
    "inspect",
    "p",
    "conditions=p",
    prepare=both(copies("pictures", "p"), writes("p/a/0.bmp", "")),
    what="an empty image beside",
)
case("inspect", "p", "conditions=q", prepare=both(copies("pictures", "p"), writes("q", "")), what="no folder")
for what, text in {"odd labels": npz(labels=np.zeros((3, 10**6))), "noise": b"PKnoise"}.items():
    prepare = both(copies("digits", "m"), writes("x.npz", text))
    case("sample", "m", "--cond", "x.npz", prepare=prepare, what=f"{what} as conditions")

IMAGES = {
    "empty": b"",
    "noise": bytes(range(256)) * 10,
    "50,000 × 50,000": png(50_000, 50_000),
    "2^31 pixels wide": png(2**31 - 1, 1),
    "no pixels": png(0, 0),
    "cut short": png(8, 8, data=bytes(200))[:50],
    "an animation of another size": b"GIF89a" + struct.pack("<2H", 9, 9) + b"\x00\x00\x00;",
    "a text": b"hello",
}
for i, (what, text) in enumerate(IMAGES.items()):
    steps = copies("pictures", "p", put("a/0.png", text))
    words = [["inspect", "p"], ["data", "prepare", "p", "d.zip"], ["train", "p", "images=10", *OUT]][i % 3]
    case(*words, prepare=steps, codes=(0, 2) if what == "cut short" else (2,), what=what)
FOLDERS = {
    "no images": lambda folder: [path.unlink() for path in folder.rglob("*.png")],
    "a pipe": pipe("a/0.png"),
    "a device": link("a/0.png", "/dev/zero"),
    "a broken link": link("a/0.png", "nowhere"),
    "a link to itself": link("a/0.png", "0.png"),
    "a folder as an image": lambda folder: (folder / "a" / "9.png").mkdir(),
    "nested labels": put("dataset.json", NESTED),
    "labels of nothing": put("dataset.json", '{"labels": [["nothing.png", 1]]}'),
    "texts as labels": put("dataset.json", '{"labels": [["a/0.png", "x"], ["b/1.png", {}]]}'),
    "a pipe as labels": pipe("dataset.json"),
    "a device as labels": link("dataset.json", "/dev/zero"),
}
for i, (what, change) in enumerate(FOLDERS.items()):
    words = [["data", "prepare", "p", "d.zip"], ["inspect", "p"], ["data", "prepare", "p", "d"]][i % 3]
    unread = what in ("a folder as an image", "a pipe as labels", "a device as labels")
    case(*words, prepare=copies("pictures", "p", change), codes=(0, 2) if unread else (1, 2), what=what)
case(
    "inspect",
    "p",
    prepare=copies("pictures", "p", link("a/loop", "..")),
    codes=(0, 2),
    what="a link to the folder above",
)


def labyrinth(folder):
    """Two links in each of 23 folders: 2^23 paths to one picture."""
    place = folder / "deep"
    place.mkdir()
    for i in range(23):
        (place / f"f{i}").mkdir()
        (place / f"f{i}" / "0").symlink_to(f"../f{i + 1}")
        (place / f"f{i}" / "1").symlink_to(f"../f{i + 1}")
    shutil.copytree(folder / "a", place / "f23")


case("inspect", "p", prepare=copies("pictures", "p", labyrinth), codes=(0, 2), what="2^23 paths through links")
case("data", "prepare", "p", "d.zip", prepare=copies("pictures", "p", labyrinth), codes=(0, 2), what="2^23 paths")


def escapes(folder):
    (folder / "a" / "\x1b[2J\x1b[31mred\n.png").write_bytes(b"no image")


case("data", "prepare", "p", "d.zip", prepare=copies("pictures", "p", escapes), what="control characters in a name")
case(
    "data",
    "prepare",
    "p",
    "d.zip",
    "--on-error",
    "skip",
    codes=(0,),
    what="control characters in a name that is skipped",
)
CASES[-1] = Case(CASES[-1].words, copies("pictures", "p", escapes), (0,), CASES[-1].what)
ZIPS = {
    "noise": writes("x.zip", bytes(range(256)) * 10),
    "empty": writes("x.zip", b""),
    "no images": zipped("x.zip", [("a.txt", "text")]),
    "names that lead out": zipped("x.zip", [("../../evil.png", png(8, 8, data=bytes(200)))]),
    "a bomb as an image": bomb("x.zip", "a.png"),
    "a bomb as labels": bomb("x.zip", "dataset.json"),
    "nested labels": zipped("x.zip", [("a.png", png(8, 8, data=bytes(200))), ("dataset.json", NESTED)]),
    "control characters": zipped("x.zip", [("\x1b[31m.png", b"no image")]),
}
for i, (what, prepare) in enumerate(ZIPS.items()):
    words = ["data", "prepare", "x.zip", "d.zip"] if i % 2 else ["inspect", "x.zip"]
    case(*words, prepare=prepare, codes=(0, 2) if what == "names that lead out" else (2,), what=what)
BATCH = "cifar-10-batches-py/data_batch_1"
TARS = {
    "CIFAR, a command": tar("cifar-10-python.tar.gz", [(BATCH, COMMAND)], "w:gz"),
    "CIFAR, a deep key": tar("cifar-10-python.tar.gz", [(BATCH, DEEP_KEY)], "w:gz"),
    "CIFAR, exponential hash": tar("cifar-10-python.tar.gz", [(BATCH, EXPONENTIAL)], "w:gz"),
    "CIFAR, a device": tar("cifar-10-python.tar.gz", [(BATCH, (tarfile.CHRTYPE, ""))], "w:gz"),
    "CIFAR, a link": tar("cifar-10-python.tar.gz", [(BATCH, (tarfile.SYMTYPE, "/etc/passwd"))], "w:gz"),
    "CIFAR, unwanted members": tar("cifar-10-python.tar.gz", [("big", bytes(3 * 10**8)), (BATCH, b"")], "w:gz"),
    "noise": writes("cifar-10-python.tar.gz", bytes(range(256))),
}
for what, prepare in TARS.items():
    case("inspect", "cifar-10-python.tar.gz", prepare=prepare, what=what)
case("inspect", "x.tar", prepare=tar("x.tar", [("../evil.png", b"no image"), ("a.json", b"{")]), what="no images")
case("inspect", "x.tar", prepare=tar("x.tar", [("a.png", (tarfile.SYMTYPE, "/dev/zero"))]), what="a link")
case("inspect", "x-{000000..999999999}.tar")
case("inspect", "{0..99999}-{0..99999}-{0..99999}.tar")
case("inspect", "train-images-idx3-ubyte.gz", prepare=writes("train-images-idx3-ubyte.gz", b"\x1f\x8bnoise"))
case(
    "inspect",
    "x-images-idx3-ubyte",
    prepare=writes("x-images-idx3-ubyte", struct.pack(">4I", 2051, 2**31, 2**15, 2**15)),
)
case("inspect", "x.parquet", prepare=writes("x.parquet", b"PAR1noise"))
case("inspect", "lmdb", prepare=writes("lmdb/data.mdb", bytes(8192)), what="LMDB of zeros")
case("inspect", "latents", prepare=both(writes("latents/latents.npy", b""), writes("latents/manifest.json", NESTED)))
case("inspect", "x.npy", prepare=lambda place, base: os.mkfifo(place / "x.npy"), what="a pipe")
case("inspect", "x.zip", prepare=lambda place, base: (place / "x.zip").symlink_to("/dev/zero"), what="a device")
case("inspect", "hf:../../evil")
case("inspect", "none")
case("inspect", "")
case("inspect", "os:system")
case("inspect", "digits", "n=1")
case("data", "verify", "x.zip", prepare=writes("x.zip", b"noise"))
case("data", "verify", "BASE/pictures", what="pictures that were not prepared")
case("data", "verify", "x.zip", prepare=copies("prepared.zip", "x.zip", flip("")), codes=(1, 2), what="a flipped byte")
case("data", "verify", "d", prepare=writes("d/manifest.json", NESTED), codes=(1, 2))
case("data", "verify", "d", prepare=writes("d/manifest.json", '{"files": {"../../../etc/passwd": "x"}}'), codes=(1, 2))
for size in ("0", "-1", "axb", "99999999", "10x", "1" * 5000):
    case("data", "prepare", "BASE/pictures", "d.zip", "--size", size)
case("data", "prepare", "BASE/pictures", "d.zip", "--max-images", "0")
case("data", "prepare", "BASE/pictures", "none/d.zip")
case("data", "prepare", "BASE/pictures", "d.rar")
case("data", "prepare", "BASE/pictures", "BASE/pictures/inside.zip")
case("data", "prepare", "BASE/pictures", "keep", "--overwrite", prepare=writes("keep/precious.txt", "mine"))
case("data", "prepare", "BASE/pictures", "d.zip", prepare=writes("d.zip", "mine"))
case(
    "data",
    "prepare",
    "BASE/pictures",
    "d.zip",
    prepare=writes("d.zip.partial/precious", "mine"),
    what="a partial of others",
)
case(
    "data",
    "prepare",
    "BASE/pictures",
    "d.zip",
    prepare=writes("d.zip.partial/state.json", NESTED),
    what="a nested state",
)
case("data", "encode", "BASE/pictures", "d", "--encoder", "none")

# ---- options of sampling

MODEL = "BASE/digits"
for option in (
    *(
        "--seeds=",
        "--seeds=-1",
        "--seeds=5-1",
        "--seeds=a",
        "--seeds=0-1000000000000",
        "--seeds=4294967296",
        "--seeds=1.5",
    ),
    *(
        "--steps=0",
        "--steps=-1",
        "--steps=1000000000000",
        "--steps=edm:num_steps=nan",
        "--steps=evil",
        "--steps=edm:evil=1",
    ),
    *(
        "--sigma-min=-1",
        "--sigma-min=nan",
        "--sigma-max=inf",
        "--sigma-max=0",
        "--sigma-min=100",
        "--rho=0",
        "--rho=nan",
    ),
    *(
        "--solver=evil",
        "--solver=ab:k=1000000",
        "--solver=heun:alpha=0",
        "--alpha=nan",
        "--S-churn=-1",
        "--S-churn=nan",
    ),
    *("--S-noise=2", "--M=0", "--disc=iddpm:M=1000000000000", "--schedule=evil", "--scaling=evil", "--beta-d=1"),
    *(
        "--class=evil",
        "--class=",
        "--class=99",
        "--class=-1",
        "--batch=0",
        "--batch=-1",
        "--columns=0",
        "--precision=half",
    ),
    *("--device=evil", "--device=cuda:99", "--sampler=evil", "--sampler=../../etc/passwd", "--part=evil"),
    *("--out=x.jpg", "--out=none/x.png", "--out=x.png/y.png", "--subdirs", f"--steps={NESTED}"),
):
    case("sample", MODEL, "--out", "x.png", option)
case("sample", MODEL, "--out", "x.npz", "--columns", "3")
case("sample", MODEL, "--out", "keep.png", prepare=writes("keep.png", "mine"))
case("sample", MODEL, "--out", "keep", prepare=writes("keep/1.png", "mine"))
case("sample", MODEL, "--out", "keep.png", "--overwrite", prepare=writes("keep.png/precious", "mine"))
case(
    "sample",
    MODEL,
    "--out",
    "link.png",
    prepare=both(writes("keep.png", "mine"), lambda p, b: (p / "link.png").symlink_to("keep.png")),
)
case("sample", MODEL, "--seeds", "0,0", "--out", "x")
case("sample", "BASE/points", "--out", "x", what="points as pictures")
case("sample", "BASE/points", "--class", "0,7", "--out", "x.npz")
case("sample", MODEL, "--sampler", "s.json", "--out", "x.png", prepare=writes("s.json", NESTED))
case(
    "sample",
    MODEL,
    "--sampler",
    "s.json",
    "--out",
    "x.png",
    prepare=writes("s.json", '{"format": "diffspace/sampler/1"}'),
)
INIT = ["sample", MODEL, "--seeds", "0-3", "--out", "x.png", "--sigma-start", "1", "--init"]
for name, make in (
    ("none.png", lambda place, base: None),
    ("text.png", writes("text.png", "text")),
    ("cut.png", writes("cut.png", png(8, 8, data=b"x"))),
    ("large.png", writes("large.png", png(60000, 60000))),
    ("pipe.png", lambda place, base: pipe("pipe.png")(place)),
    ("pipe.npy", lambda place, base: pipe("pipe.npy")(place)),
    ("text.npy", writes("text.npy", "text")),
    ("objects.npy", writes("objects.npy", npy_of(np.array([{}], dtype=object), allow_pickle=True))),
    ("words.npy", writes("words.npy", npy_of(np.array(["a"] * 64).reshape(1, 8, 8)))),
    ("nan.npy", writes("nan.npy", npy_of(np.full((1, 8, 8), np.nan)))),
    ("other.npy", writes("other.npy", npy_of(np.zeros((2, 3))))),
    ("none.npz", writes("none.npz", "PK")),
):
    case(*INIT, name, prepare=make, names=(name,))
    case(*INIT[:-3], "--inpaint", "BASE/pictures/a/0.png", "--mask", name, prepare=make, what="mask", names=(name,))
for words in ("--guidance=evil", "--guidance=2:", "--guidance=nan", f"--guidance={NESTED}", "--resamplings=0",
              "--guide=none", "--processes=0", "--processes=9"):  # fmt: skip
    case("sample", MODEL, "--out", "x.png", words)
for content in (NESTED, "[]", "{}", '{"format": 3}', '{"format": "diffspace samples 1", "seeds": null}'):
    case("sample", MODEL, "--out", "x", "--seeds", "0-3", prepare=writes("x/samples.json", content), names=("x",))
case("likelihood", MODEL, "--n", "0")
case("likelihood", MODEL, "none")
case("likelihood", MODEL, "BASE/points.npy")
case("likelihood", MODEL, "--probes", "0")
case("likelihood", "BASE/points", "--steps", "1000000000000", "--n", "2")
for words in (["--nfe", "0"], ["--nfe", "a"], ["--nfe", "1000000000000"], ["--solvers", "evil"], ["--steps", "5"],
              ["--reference-steps", "0"], ["--fit-seeds", "1"], ["--out", "x.jpg"], ["--json", "none/x.json"]):  # fmt: skip
    case("solvers", "BASE/points", "--seeds", "0-3", *words)
case("solvers", "oracle:none")
case("evaluate", "none")
case("evaluate", "BASE/pictures")
case("evaluate", MODEL, "--n", "1")
SCORED = ["evaluate", "BASE/points", "--n", "4", "--sets", "1", "--no-report", "--out", "scored"]
for words in (["--samples", "none"], ["--samples", "BASE/pictures"], ["--samples", "BASE/points.npy", "--guidance", "2"],
              ["--features", "evil"], ["--features", "os:system"], ["--features", NESTED], ["--features", "inception", "--weights", "none"],
              ["--against", "none"], ["--against", "BASE/prepared.zip"], ["--processes", "0"], ["--sets", "0"],
              ["--n", "1000000"], ["--keep", "x.jpg"], ["--out", "BASE/points.npy"]):  # fmt: skip
    case(*SCORED, *words, codes=(1, 2))
for content in ("", "PK", NESTED, "\x93NUMPY"):
    case(*SCORED, "--samples", "x.npz", prepare=writes("x.npz", content))
    case(*SCORED, "--against", "x.npz", prepare=writes("x.npz", content))
    case(*SCORED, "--samples", "x.zip", prepare=writes("x.zip", content))
    case(*SCORED, "--against", "x.pkl", prepare=writes("x.pkl", content))
case(*SCORED, "--samples", "x.npy", prepare=lambda place, base: os.mkfifo(place / "x.npy"), what="a pipe")
case(*SCORED, "--against", "x.npz", prepare=lambda place, base: os.mkfifo(place / "x.npz"), what="a pipe")
case("nothing")
case("train")
case("train", "two-moons", "--processes", "0", *OUT)
case("train", "two-moons", "--device", "evil", *OUT)
case("sample", "--nothing")

# ---- runs

RUN = ["train", "--resume", "run", "images=150"]
OWN = ("run/*", "run/*/*")  # what a run may change


def recipe(**entries):
    def change(folder):
        import yaml

        values = yaml.safe_load((folder / "recipe.yaml").read_text()) | entries
        (folder / "recipe.yaml").write_text(yaml.safe_dump(values))

    return change


def newest(change):
    """A change of the newest checkpoint."""
    return lambda folder: change(max((folder / "checkpoints").iterdir()))


def resealed(change):
    """A checkpoint with another state, whose SHA-256 is right."""

    def damage(path):
        import torch

        text = path.read_bytes()
        *_, facts, _, _ = text.split(b"\n")
        state = change(torch.load(io.BytesIO(text[: text.rindex(facts) - 1]), weights_only=True))
        file = io.BytesIO()
        if isinstance(state, bytes):
            file.write(state)
        else:
            torch.save(state, file)
        body = file.getvalue() + b"\n" + facts + b"\n"
        import hashlib

        path.write_bytes(body + hashlib.sha256(body).hexdigest().encode() + b"\n")

    return newest(damage)


def deep_state(state):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", DEEP_KEY)
        archive.writestr("archive/version", "3\n")
    return file.getvalue()


def precious(folder):
    (folder.parent / "precious").mkdir()
    (folder.parent / "precious" / "000000000001.pt").write_text("mine")
    (folder.parent / "precious.txt").write_text("mine")


RUNS = {
    "an empty recipe": put("recipe.yaml", ""),
    "a nested recipe": put("recipe.yaml", NESTED),
    "laughs": put("recipe.yaml", LAUGHS),
    "a recipe of texts": recipe(images="many"),
    "a recipe of an unknown key": recipe(evil=1),
    "a recipe of another network": recipe(network={"kind": "mlp", "width": 9}),
    "a pipe as recipe": pipe("recipe.yaml"),
    "a device as recipe": link("recipe.yaml", "/dev/zero"),
}


def on_run(*changes):
    return copies("points", "run", *changes)


for what, change in RUNS.items():
    case(*RUN, prepare=on_run(change), what=what)
LINKED = {
    "run.lock": "../precious.txt",
    "log.jsonl": "../precious.txt",
    "checkpoints": "../precious",
    "snapshots": "../precious",
    "previews": "../precious",
}
for name, to in LINKED.items():
    case(*RUN, prepare=on_run(precious, link(name, to)), what=f"{name} as a link")
case(*RUN, prepare=on_run(pipe("run.lock")), what="a pipe as lock")
case(*RUN, prepare=on_run(pipe("log.jsonl")), changes=OWN, what="a pipe as log")
case(*RUN, prepare=on_run(put("run.lock", NESTED)), codes=(0,), changes=OWN, what="a nested lock")
case(*RUN, prepare=on_run(put("log.jsonl", NESTED + "\n")), codes=(0,), changes=OWN, what="a nested log")
case(*RUN, prepare=on_run(put("log.jsonl", '{"images": "x"}\n{"images": 1e400}\n[]\n\xff')), codes=(0,), changes=OWN)
case(
    *RUN,
    prepare=on_run(newest(lambda path: path.write_bytes(b""))),
    codes=(0,),
    changes=OWN,
    what="an empty checkpoint",
)
case(
    *RUN,
    prepare=on_run(lambda folder: [os.truncate(path, 99) for path in (folder / "checkpoints").iterdir()]),
    what="all short",
)
case(
    *RUN, prepare=on_run(newest(lambda path: (path.unlink(), os.mkfifo(path)))), codes=(0,), changes=OWN, what="a pipe"
)
for what, change in {
    "a number": lambda state: 1,
    "a list": lambda state: [],
    "nothing": lambda state: {},
    "no trainer": lambda state: state | {"trainer": {}},
    "a number as trainer": lambda state: state | {"trainer": 1},
    "a number as recipe": lambda state: state | {"trainer": state["trainer"] | {"recipe": 1}},
    "a nested recipe": lambda state: state | {"trainer": state["trainer"] | {"recipe": NESTED}},
    "texts as scores": lambda state: state | {"trainer": state["trainer"] | {"hooks": {"score": "x", "held_out": "y"}}},
    "a number as hooks": lambda state: state | {"trainer": state["trainer"] | {"hooks": 1}},
    "a text as step": lambda state: state | {"trainer": state["trainer"] | {"step": "x"}},
    "a negative step": lambda state: state | {"trainer": state["trainer"] | {"step": -5, "images": -5}},
    "no weights": lambda state: state | {"denoiser": {}},
    "texts as weights": lambda state: state | {"denoiser": dict.fromkeys(state["denoiser"], "x")},
    "numbers as optimizer": lambda state: state | {"optimizer": dict.fromkeys(state["optimizer"], 1)},
    "an unknown parameter": lambda state: state | {"optimizer": {"evil": {}}},
    "no averages": lambda state: state | {"averages": {}},
    "a text as skipped": lambda state: state | {"trainer": state["trainer"] | {"skipped": "x"}},
    "a deep key": deep_state,
}.items():
    case(*RUN, prepare=on_run(resealed(change)), changes=("run/run.lock",), what=f"a checkpoint of {what}")
case("train", "--resume", "none")
case("train", "--resume", "BASE/pictures")
case("train", *SMALL, "--out", "keep", prepare=writes("keep/precious", "mine"))
case("train", *SMALL, "--out", "keep", prepare=writes("keep", "mine"))
case("train", *SMALL, "--out", "a/b/c/" + "d" * 300)
case("train", *SMALL, "--out", "/proc/none")
LOGS = {
    "nested": NESTED,
    "texts": '{"images": "x", "loss": "y", "step": {}}\n' * 3,
    "nulls": '{"images": 1, "loss": null, "step": 1}\n' * 3,
    "infinite": '{"images": 1e400, "loss": -1e400, "step": 1}\n' * 3,
    "binary": bytes(range(256)) * 10,
    "control characters": '{"images": 1, "loss": 1, "\\u001b[31m": 2, "x": "\\u001b[31m"}\n' * 3,
    "lists": '{"images": [1], "loss_by_sigma": {"sigma": [1], "loss": "x", "count": null}}\n',
    "huge": '{"images": ' + "9" * 4000 + ', "loss": 1}\n',
}
for i, (what, text) in enumerate(LOGS.items()):
    words = ["watch", "run", "--out", "x.png"] if i % 2 else ["watch", "run", "--once"]
    case(*words, prepare=on_run(put("log.jsonl", text)), codes=(0, 2), what=what)
case("watch", "run", "--once", prepare=on_run(pipe("log.jsonl")), codes=(0, 2), what="a pipe")
case("watch", "run", "--once", prepare=on_run(link("log.jsonl", "/dev/zero")), codes=(0, 2), what="a device")
case("watch", "run", "--once", prepare=on_run(put("recipe.yaml", NESTED)), what="a nested recipe")
case("watch", "none", "--once")
case("watch", "run", "run", "--once", prepare=on_run())
case("watch", "run", "--every", "nan", prepare=on_run())
case("watch", "run", "--out", "x.jpg", prepare=on_run())
for width in ("0", "-1", "nan", "9", "1e400"):
    case("ema", "BASE/points", "--width", width, "--out", "m")
case("ema", "BASE/points", "--sweep", "a")
case("ema", "BASE/points", "--width", "0.1", "--images", "-1", "--out", "m")
case("ema", "BASE/digits", "--list")
SNAPSHOT = "000000000100-0.1.safetensors"
for what, change in {
    "cut short": cut(f"snapshots/{SNAPSHOT}"),
    "noise": put(f"snapshots/{SNAPSHOT}", bytes(range(256))),
    "a pipe": pipe(f"snapshots/{SNAPSHOT}"),
    "a nested header": put(f"snapshots/{SNAPSHOT}", struct.pack("<Q", len(NESTED)) + NESTED.encode()),
}.items():
    case("ema", "run", "--width", "0.1", "--out", "m", prepare=on_run(change), what=what)

# ---- a full disk: the old output stays whole, and the error names the file


def full(*words, prepare=lambda place, base: None, limit=500, names=(), **options):
    case(
        *words,
        prepare=prepare,
        codes=(1, 2),
        limit=limit,
        names=names,
        what=f"a disk with {limit} bytes left",
        **options,
    )


def old(*names):
    return both(*(writes(name, "the old output\n" * 100) for name in names))


PICTURES = [f"old/{i:06d}.png" for i in range(6)]

full("train", *SMALL, *OUT, names=("run/recipe.yaml",))
full(*RUN, "network.width=8", prepare=on_run(), names=("run/",), changes=("run/run.lock",))
full(*RUN, prepare=on_run(), limit=5000, names=("run/",), changes=("run/run.lock", "run/log.jsonl", "run/recipe.yaml"))
full("sample", MODEL, "--seeds", "0-3", "--out", "old.png", "--overwrite", prepare=old("old.png"), names=("old.png",))
full("sample", MODEL, "--seeds", "0-3", "--out", "old.npz", "--overwrite", prepare=old("old.npz"), names=("old.npz",))
full("sample", MODEL, "--seeds", "0-3", "--out", "old", "--overwrite", limit=60,
     prepare=both(old(*PICTURES), writes("old/samples.json", '{"format": "diffspace samples 1"}')), names=("old/",))  # fmt: skip
case("sample", MODEL, "--seeds", "0-3", "--out", "old", "--overwrite", prepare=old(*PICTURES), names=("old",),
     codes=(2,), what="a folder of pictures that are not samples")  # fmt: skip
full(
    "solvers",
    "BASE/points",
    *COMMANDS[2][2:],
    "--out",
    "old.png",
    "--overwrite",
    prepare=old("old.png"),
    names=("old.png",),
)
full(
    "solvers",
    "BASE/points",
    *COMMANDS[2][2:],
    "--json",
    "old.json",
    "--overwrite",
    prepare=old("old.json"),
    names=("old.json",),
)
full("watch", "BASE/points", "--out", "old.png", "--overwrite", prepare=old("old.png"), names=("old.png",))
full("evaluate", "model", "--n", "4", "--sets", "1", prepare=copies("points", "model", put("scores.json", "old")), limit=50,
     names=("model/scores.json",))  # fmt: skip
full("ema", "BASE/points", "--width", "0.1", "--out", "m", "--overwrite", prepare=copies("points", "n"), names=("m/",))
full(
    "data",
    "prepare",
    "BASE/pictures",
    "d.zip",
    "--overwrite",
    prepare=copies("prepared.zip", "d.zip"),
    names=("d.zip",),
)
full("data", "prepare", "BASE/pictures", "d", names=("d.partial", "d/"), limit=100)
