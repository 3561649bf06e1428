"""Whatever the bytes of a pickle say: one line of ValueError, nothing executed, little time and memory."""

import collections
import copyreg
import functools
import io
import os
import pickle
import random
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch
from reference_pickle import reference_modules, snapshot, write_snapshot
from small_networks import make_denoiser

from diffspace.interop import convert
from diffspace.pickles import read_pickle


class Calls:
    """Pickled as a call."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.reduced


class HasState:
    def __init__(self, marker):
        self.marker = str(marker)

    def __setstate__(self, state):
        open(state["marker"], "w").close()


@pytest.fixture
def refused(tmp_path):
    """Asserts that bytes are refused with one line, in little memory and time, and that they executed nothing."""
    marker = tmp_path / "executed"

    def check(content, match=None):
        path = tmp_path / "attack.pkl"
        path.write_bytes(content)
        tracemalloc.start()
        start = time.perf_counter()
        try:
            with pytest.raises(ValueError, match=match) as error:
                convert(path)
            seconds, peak = time.perf_counter() - start, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        message = str(error.value)
        assert message.startswith(str(path))
        assert message.isprintable()
        assert len(message) < len(str(path)) + 400
        assert peak < 64e6 + 10 * len(content)
        assert seconds < 20
        assert not marker.exists()

    check.marker = marker
    return check


def dumps(content, protocol=4):
    with reference_modules():
        return pickle.dumps(content, protocol)


def touch(marker):
    return [
        Calls(os.system, f"touch {marker}"),
        Calls(eval, f"open({str(marker)!r}, 'w')"),
        Calls(exec, f"open({str(marker)!r}, 'w')"),
        Calls(open, str(marker), "w"),
        Calls(getattr, "", "format"),
        Calls(functools.partial, os.system, f"touch {marker}"),
        Calls(__import__, "os"),
        Calls(torch.load, str(marker)),
        Calls(collections.Counter, "abc"),
        HasState(marker),
    ]


@pytest.mark.parametrize("index", range(10))
@pytest.mark.parametrize("protocol", [2, 4])
def test_calls_anywhere_are_refused(refused, index, protocol):
    attack = touch(refused.marker)[index]
    for content in ({"ema": attack}, [attack], {"ema": {"state": [attack]}}, {"ema": None, "x": (attack,)}):
        refused(dumps(content, protocol), "not allowed|instruction")


def test_a_call_inside_the_state_of_a_module_is_refused(refused):
    with reference_modules():
        content = snapshot(make_denoiser())
        content["ema"]._modules["model"].__dict__["extra"] = Calls(os.system, f"touch {refused.marker}")
        data = pickle.dumps(content, 4)
    refused(data, r"asks for '(posix|nt)\.system'")


def typed_storage(tensor):
    return torch.storage.TypedStorage(wrap_storage=tensor.untyped_storage(), dtype=tensor.dtype, _internal=True)


def legacy(content):
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


def storage(inner):
    """A storage whose bytes are these."""
    return Calls(torch.storage._load_from_bytes, inner)


def test_a_call_inside_the_bytes_of_a_storage_is_refused(refused):
    attack = Calls(os.system, f"touch {refused.marker}")
    refused(dumps({"ema": storage(legacy({"x": attack}))}), r"asks for '(posix|nt)\.system'")
    refused(dumps({"ema": storage(pickle.dumps(attack))}), r"asks for '(posix|nt)\.system'")
    stream = io.BytesIO()
    torch.save({"x": attack}, stream)
    refused(dumps({"ema": storage(stream.getvalue())}), "instruction")
    nested = dumps({"ema": storage(dumps({"ema": storage(b"")}))})
    refused(nested, "asks for 'torch.storage._load_from_bytes'")


@pytest.mark.parametrize("change", ["count", "short", "long", "dtype", "keys", "magic"])
def test_storages_that_lie_are_refused(refused, change):
    data = legacy(typed_storage(torch.arange(5.0)))
    body = data[: -20 - 8]
    changed = {
        "count": body + struct.pack("<q", 2**60) + data[-20:],
        "short": data[:-1],
        "long": data + b"\x00",
        "dtype": data.replace(b"FloatStorage", b"ShortStorage"),
        "keys": data[: data.rindex(b"\x80\x02]")],
        "magic": data.replace(b"\x8a\x0al\xfc", b"\x8a\x0al\xfd"),
    }[change]
    assert changed != data
    refused(dumps({"ema": storage(changed)}), "storage|cut short|damaged")


def test_the_same_bytes_decoded_again_and_again_are_refused(refused):
    data = legacy(typed_storage(torch.zeros(100_000)))
    refused(dumps([storage(data) for _ in range(1000)]), "again and again")


@pytest.mark.parametrize("what", ["arguments", "set", "state"])
def test_the_same_values_copied_again_and_again_are_refused(read_all, what):
    values, function = {
        "arguments": (b"(" + b"N" * 200_000 + b"t", name("torch._utils", "_rebuild_parameter")),
        "set": (b"](" + text("x") * 200_000 + b"e\x85", name("builtins", "set")),
        "state": (b"}(" + b"".join(text(f"{i}") + b"N" for i in range(200_000)) + b"u", MODULES + b")\x81"),
    }[what]
    again = function + b"h\x00" + (b"b0" if what == "state" else b"R0")
    assert read_all([raw(values, b"q\x000", again * 60_000, b"N")]) == (0, 1)


def raw(*parts, end=b"."):
    return b"\x80\x04" + b"".join(parts) + end


def text(value):
    return b"\x8c" + bytes([len(value)]) + value.encode()


def name(module, attribute):
    return text(module) + text(attribute) + b"\x93"


MODULES = name("torch.nn.modules.container", "ModuleDict")
REBUILD, LOAD = name("torch._utils", "_rebuild_tensor_v2"), name("torch.storage", "_load_from_bytes")
PERSISTENT, DTYPE = name("torch_utils.persistence", "_reconstruct_persistent_obj"), name("numpy", "dtype")

# each list holds the one before twice: 2^100 leaves, if anybody walked through all
DOUBLED = b"".join(b"](h%sh%se\x94" % ((bytes([i]),) * 2) for i in range(100))

MADE_BY_HAND = {
    "empty": b"",
    "one byte": b"\x80",
    "stop alone": raw(),
    "two values": raw(b"NN"),
    "no stop": raw(b"N", end=b""),
    "open mark": raw(b"(N"),
    "mark without end": raw(b"e"),
    "huge memo": raw(b"Nr\xff\xff\xff\xff"),
    "memo of nothing": raw(b"r\x00\x00\x00\x00"),
    "missing memo": raw(b"j\x07\x00\x00\x00"),
    "huge bytes": raw(b"\x8e" + b"\xff" * 8),
    "huge bytearray": raw(b"\x96" + b"\xff" * 7 + b"\x7f"),
    "huge text": raw(b"\x8d" + b"\xff" * 8),
    "huge frame": raw(b"\x95" + b"\xff" * 8 + b"N"),
    "bad utf-8": raw(b"\x8c\x02\xff\xff"),
    "huge integer": raw(b"\x8b\xff\xff\xff\x00" + b"\x01" * 300),
    "extension": raw(b"\x82\x01"),
    "extension 2": raw(b"\x83\x01\x00"),
    "extension 4": raw(b"\x84\x01\x00\x00\x00"),
    "persistent id": raw(b"NQ"),
    "persistent id of text": raw(b"Pabc\n"),
    "instance": raw(b"(ios\nsystem\n"),
    "object": raw(b"(" + name("collections", "OrderedDict") + b"o"),
    "newobj_ex": raw(name("collections", "OrderedDict") + b")}\x92"),
    "next buffer": raw(b"\x97"),
    "python 2 integer": raw(b"I1\n"),
    "python 2 float": raw(b"F1\n"),
    "call of a text": raw(text("x") + b")R"),
    "call with a list": raw(name("collections", "OrderedDict") + b"]R"),
    "call of a result": raw(name("collections", "OrderedDict") + b")R)R"),
    "state of a list": raw(b"]}b"),
    "state of a dictionary": raw(name("collections", "OrderedDict") + b")R}b"),
    "state of a function": raw(LOAD + b"}b"),
    "state that is a list": raw(name("torch.nn.modules.container", "ModuleDict") + b")\x81]b"),
    "name that is no text": raw(b"NN\x93"),
    "dotted name": raw(name("collections", "OrderedDict.fromkeys")),
    "attribute of a name": raw(name("dnnlib.util", "EasyDict.__class__")),
    "module of text": raw(name("torch_utils.persistence", "_src_to_module")),
    "name without end": raw(b"cos" + b"x" * 400),
    "name in two lines": raw(b"cos\nsys"),
    "name with escapes": raw(name("\x1b[31m\n", "x" * 200)),
    "key that is a number": raw(b"}K\x01Ns"),
    "key that is a tuple": raw(b"})Ns"),
    "key without value": raw(b"}(" + text("a") + b"u"),
    "appending to a tuple": raw(b")Na"),
    "adding to a list": raw(b"](N\x90"),
    "itself": raw(b"]\x94h\x00a"),
    "ordered of something": raw(name("collections", "OrderedDict") + b"]\x85R"),
    "tensor of nothing": raw(REBUILD + b")R"),
    "tensor of texts": raw(REBUILD + b"(NNNNtR"),
    "persistent of nothing": raw(PERSISTENT + b")R"),
    "persistent of a list": raw(PERSISTENT + b"]\x85R"),
    "persistent of another version": raw(PERSISTENT + b"}(" + text("type") + text("class") + b"u\x85R"),
    "objects of numpy": raw(DTYPE + b"(" + text("O8") + b"\x89\x88tR"),
    "records of numpy": raw(DTYPE + b"(" + text("V8") + b"\x89\x88tR"),
    "type with fields": raw(DTYPE + text("f8") + b"\x85R(K\x03" + text("<") + b"N)}JJJKttb"),
    "number without bytes": raw(name("numpy.core.multiarray", "scalar") + DTYPE + text("f8") + b"\x85RN\x86R"),
    "number of few bytes": raw(name("numpy.core.multiarray", "scalar") + DTYPE + text("f8") + b"\x85RC\x01x\x86R"),
    "array of another class": raw(name("numpy.core.multiarray", "_reconstruct") + DTYPE + b"\x85R"),
    "array of another shape": raw(
        *(
            name("numpy.core.numeric", "_frombuffer"),
            b"(C\x02xx",
            DTYPE,
            text("u1"),
            b"\x85RK\x03\x85",
            text("C"),
            b"tR",
        )
    ),
    "encoding": raw(name("_codecs", "encode") + text("x") + text("zip") + b"\x86R"),
    "set of lists": raw(name("builtins", "set") + b"]]a\x85R"),
    "bytes of a number": raw(name("builtins", "bytes") + b"J\xff\xff\xff\x7f\x85R"),
}


@pytest.mark.parametrize("what", MADE_BY_HAND)
def test_instructions_are_refused(refused, what):
    refused(MADE_BY_HAND[what])


def test_extension_codes_are_refused_though_registered(refused):
    copyreg.add_extension("os", "system", 0x7A)
    try:
        refused(raw(b"\x82\x7a"), "instruction 0x82")
    finally:
        copyreg.remove_extension("os", "system", 0x7A)


ONE_NUMBER = legacy(typed_storage(torch.zeros(1)))
DEEP = {
    "open marks": raw(b"(" * 400_000),
    "nested tuples": raw(b"(" * 400_000 + b"t" * 400_000),
    "nested lists": raw(b"]" * 300_000 + b"a" * 299_999),
    "nested dictionaries": raw((b"}" + text("x")) * 100_000 + b"N" + b"s" * 100_000),
    "nested type": raw(DTYPE + b")" + b"\x85" * 500_000 + b"R"),
    "many axes": raw(
        *(REBUILD, b"(", LOAD, b"B", struct.pack("<I", len(ONE_NUMBER)), ONE_NUMBER, b"\x85RK\x00"),
        *(b"(\x8a\x20", b"\x7f" * 32, b"q\x00", b"h\x00" * 400_000, b"tq\x01h\x01tR"),
    ),
    "nested name": raw(b")" + b"\x85" * 500_000 + text("x") + b"\x93"),
    "nested key": raw(b"})" + b"\x85" * 500_000 + b"Ns"),
    "endless": raw(b"N0" * 2_000_000),
    "doubled lists": raw(b"}" + text("ema") + b"]\x94" + DOUBLED + b"s"),
    "doubled argument": raw(name("numpy", "dtype") + b"]\x94" + DOUBLED + b"\x85R"),
}
READ_ALL = """
import collections, pathlib, resource, sys, time
from diffspace.interop import convert
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (300 << 20),) * 2)
outcomes = collections.Counter()
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    start = time.process_time()
    try:
        convert(path)
        outcomes["read"] += 1
    except ValueError as error:
        line = str(error)
        assert line.startswith(str(path)) and len(line) < len(str(path)) + 200 and line.isprintable(), line
        outcomes["refused"] += 1
    assert time.process_time() - start < 20, path
print(outcomes["read"], outcomes["refused"])
"""


@pytest.fixture
def read_all(tmp_path):
    """How many of some contents are read and how many refused, in a process of its own.

    There shapes of calls are not checked, which takes long, and the memory is limited.
    """

    def run(contents):
        folder = tmp_path / "contents"
        folder.mkdir()
        for i, content in enumerate(contents):
            (folder / f"{i:04}.pkl").write_bytes(content)
        done = subprocess.run([sys.executable, "-c", READ_ALL, str(folder)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return tuple(map(int, done.stdout.split()))

    return run


def test_depth_and_length_neither_overflow_nor_take_long(read_all):
    assert read_all(DEEP.values()) == (0, len(DEEP))


def test_modules_that_hold_themselves_or_another_twice_are_refused(refused):
    with reference_modules():
        content = snapshot(make_denoiser())
        unet = content["ema"]._modules["model"]
        unet._modules["twice"] = unet._modules["map_layer0"]
        refused(pickle.dumps(content, 4), "occurs elsewhere")
        inert = MODULES + b")\x81\x94"
    # a container that is its own child, as the model
    tables = b"}(" + text("_parameters") + b"}" + text("_buffers") + b"}" + text("_modules") + b"}" + text("model")
    refused(raw(b"}" + text("ema") + inert + tables + b"h\x00su" + b"bs"))


@pytest.mark.parametrize(
    "array",
    [np.array([None]), np.array([{}], dtype=object), np.zeros(2, "f4,i4"), np.array(["x"]), np.datetime64("now")],
)
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_arrays_of_anything_but_numbers_are_refused(refused, array, protocol):
    refused(dumps({"ema": array}, protocol), "dtype|not allowed")


def test_strides_do_not_make_a_tensor_larger_than_its_storage(refused):
    small = torch.zeros(4)
    for tensor in (small.expand(10**6, 4), small.as_strided((10**12,), (0,))):
        with reference_modules():
            refused(pickle.dumps({"ema": tensor}, 4), "storage of 4 elements")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_snapshot(
        tmp_path_factory.mktemp("whole") / "x.pkl", make_denoiser(model_channels=4, num_blocks=1)
    ).read_bytes()


def test_truncated_files_are_refused(whole, read_all):
    ends = {*range(0, 2000, 50), *range(2000, len(whole), len(whole) // 150), len(whole) - 1}
    assert read_all(whole[:end] for end in ends) == (0, len(ends))


def test_changed_bytes_give_a_model_or_one_line(whole, read_all):
    random_ = random.Random(0)

    def changed():
        data = bytearray(whole)
        for _ in range(random_.choice([1, 1, 1, 3, 20])):
            data[random_.randrange(len(data))] = random_.randrange(256)
        return data

    read, refused = read_all(changed() for _ in range(200))
    assert read > 20  # of weights most bytes will do
    assert refused > 20


def test_values_come_out_as_they_went_in(tmp_path):
    values = {
        "ints": [0, 1, -1, 255, 256, 65535, 65536, -(2**31), 2**31, 2**63, -(2**100)],
        "floats": [0.5, -1e300, float("inf")],
        "texts": ["", "σ", "x" * 300, "y" * 70000],
        "tuples": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
        "flags": [None, True, False],
        "set": {"a", "b"},
        "ordered": collections.OrderedDict(a=1, b=collections.OrderedDict()),
        "numpy": [np.float64(0.5), np.float32(0.25), np.int64(-3), np.bool_(True), np.float16(2), np.uint8(200)],
    }
    again = values["texts"]
    path = tmp_path / "x.pkl"
    for protocol in (2, 3, 4, 5):
        path.write_bytes(pickle.dumps(values | {"again": again}, protocol))
        read = read_pickle(path)
        assert read["again"] is read["texts"]
        assert {name: read[name] for name in values} == values


def test_tensors_of_every_type_and_view_come_out_as_they_went_in(tmp_path):
    base = torch.arange(24).reshape(4, 6)
    tensors = [base.to(dtype) for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64)]
    tensors += [base.to(dtype) for dtype in (torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)]
    tensors += [
        base.T,
        base[1:, ::2],
        base[:0],
        torch.tensor(3.0),
        torch.zeros(2, 3, 4, 4).to(memory_format=torch.channels_last),
    ]
    tensors += [torch.nn.Parameter(torch.randn(3))]
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps({"x": tensors}, 4))
    for read, tensor in zip(read_pickle(path)["x"], tensors, strict=True):
        assert read.dtype == tensor.dtype
        assert read.stride() == tensor.stride()
        assert torch.equal(read, tensor)


def test_dictionaries_and_arrays_come_out_in_plain_form(tmp_path):
    path = tmp_path / "x.pkl"
    table = np.arange(6, dtype=np.uint8).reshape(2, 3)
    path.write_bytes(dumps({1: "a", "array": table, "turned": table.T, "bytes": b"ab"}))
    read = read_pickle(path)
    assert (read["1"], bytes(read["bytes"])) == ("a", b"ab")
    for name, by_columns in (("array", False), ("turned", True)):
        state = read[name].state
        assert (state["dtype"], state["by_columns"], bytes(state["data"])) == ("u1", by_columns, bytes(range(6)))


@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_torch_come_out_as_they_went_in(tmp_path, zipped):
    base = torch.arange(24.0).reshape(4, 6)
    layer = torch.nn.Linear(2, 3, dtype=torch.bfloat16)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1, 2, dtype=torch.bfloat16)).sum().backward()
    optimizer.step()
    content = {"views": [base.T, base[1:, ::2], base[:0]], "layer": layer.state_dict(), "adam": optimizer.state_dict()}
    path = tmp_path / "x.pt"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    for read in (read_pickle(path), read_pickle(path.read_bytes())):
        for ours, theirs in zip(read["views"], content["views"], strict=True):
            assert ours.stride() == theirs.stride()
            assert torch.equal(ours, theirs)
        assert read["layer"].keys() == content["layer"].keys()
        assert all(torch.equal(read["layer"][name], value) for name, value in content["layer"].items())
        assert torch.equal(read["adam"]["state"]["0"]["exp_avg"], content["adam"]["state"][0]["exp_avg"])


def rewritten(path, change):
    """A zip file whose entries are what `change` makes of (name, content), with its compression."""
    with zipfile.ZipFile(path) as archive:
        entries = [change(name, archive.read(name)) for name in archive.namelist()]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content, compression in entries:
            archive.writestr(name, content, compression)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("where", "content", "compression", "message"),
    [
        ("/data/0", b"\0" * 10_000_000, zipfile.ZIP_DEFLATED, "compressed"),
        ("/data.pkl", b"\x80\x02N" * 10_000_000, zipfile.ZIP_DEFLATED, "compressed"),
        ("/data/0", b"\0" * 8, zipfile.ZIP_STORED, "storage of 4 elements in 8 bytes"),
        ("/byteorder", b"big", zipfile.ZIP_STORED, "big-endian"),
        ("/data.pkl", b"\x80\x02cos\nsystem\n.", zipfile.ZIP_STORED, "asks for 'os.system'"),
        ("/data.pkl", b"\x80\x02(X\x07\0\0\0storagectorch\nFloatStorage\n", zipfile.ZIP_STORED, "cut short"),
    ],
)
def test_zip_files_that_lie_are_refused(tmp_path, refused, where, content, compression, message):
    path = tmp_path / "x.pt"
    torch.save({"x": torch.zeros(4)}, path)

    def change(name, old):
        return (name, content, compression) if name.endswith(where) else (name, old, zipfile.ZIP_STORED)

    refused(rewritten(path, change), message)


def test_changed_zip_files_give_one_line(tmp_path, read_all):
    path = tmp_path / "x.pt"
    torch.save({"x": torch.zeros(2)}, path)
    whole, random_ = path.read_bytes(), random.Random(0)

    def changed():
        data = bytearray(whole)
        for _ in range(random_.choice([1, 3, 20])):
            data[random_.randrange(len(data))] = random_.randrange(256)
        return data

    ends = range(2, len(whole), len(whole) // 50)
    assert read_all([*(whole[:end] for end in ends), *(changed() for _ in range(200))]) == (0, len(ends) + 200)


def test_strides_of_zero_do_not_make_a_small_file_large(tmp_path):
    path = tmp_path / "shared.pt"
    torch.save({f"w{i}": torch.zeros(1).expand(1000, 1000) for i in range(3)}, path)
    with pytest.raises(ValueError, match="storage of 1 elements"):
        read_pickle(path)
