"""What `import diffspace` costs, and what its top level offers at run time and to a type checker."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import diffspace as ds

PACKAGE = Path(ds.__file__).parent

IMPORTS = """
import json, sys
before = set(sys.modules)
import diffspace
bare = set(sys.modules) - before
import torch
before = set(sys.modules)
diffspace.Heun
print(json.dumps([sorted(bare), sorted(set(sys.modules) - before)]))
"""


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_needs_no_torch_and_its_names_need_torch_and_the_standard_library_alone():
    """How long they take, benchmarks/import_time.py tells."""
    bare, full = json.loads(run(IMPORTS))
    assert {name for name in bare if name.startswith("diffspace")} == {"diffspace", "diffspace._version"}
    assert {name.partition(".")[0] for name in [*bare, *full]} - set(sys.stdlib_module_names) == {"diffspace"}
    assert "diffspace.sampling.solvers" in full


def test_networks_are_made_without_torch_s_compiler():
    """Arithmetic of tensors on the meta device, on which networks are checked, imports it, for a second."""
    code = """
import sys, torch, diffspace as ds
with torch.device("meta"):
    for make in (ds.networks.DDPMpp, ds.networks.NCSNpp, ds.networks.ADM):
        make((3, 16, 16), model_channels=32, channel_mult=(1, 2), num_blocks=1)
    ds.networks.MLP((2,))
print("torch._dynamo" in sys.modules)
"""
    assert run(code) == "False\n"


def test_dir_lists_what_there_is():
    assert {"Heun", "sample", "load", "networks", "presets", "__version__"} <= set(dir(ds))
    assert dir(ds) == sorted(dir(ds)) == ds.__all__
    for name in dir(ds):
        assert getattr(ds, name) is getattr(ds, name)
    assert {name for name in dir(ds) if isinstance(getattr(ds, name), ModuleType)} == {
        "guidance",
        "networks",
        "oracles",
        "presets",
    }


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Huen'"):
        ds.Huen  # noqa: B018
    with pytest.raises(ImportError, match="Huen"):
        from diffspace import Huen  # noqa: F401


def test_no_name_is_that_of_a_module_beside_it():
    """Importing a module sets it as an attribute of its package, and would replace the function."""
    modules = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert not modules & set(dir(ds)) - {"guidance", "networks", "oracles", "presets"}


@pytest.mark.parametrize("first", ["diffspace.sampling.runs", "diffspace.loading", "diffspace.networks.mlp"])
def test_names_are_the_same_after_a_submodule_was_imported(first):
    code = f"""
import {first}, types
import diffspace as ds
names = {{name: getattr(ds, name) for name in dir(ds)}}
import diffspace.metrics, diffspace.likelihood.bits
assert all(getattr(ds, name) is value for name, value in names.items())
assert isinstance(ds.sample, types.FunctionType) and isinstance(ds.reference, types.FunctionType)
from diffspace import networks, sample
from diffspace import *
assert Heun is ds.Heun and sample is ds.sample
"""
    run(code)


@pytest.mark.slow
def test_a_type_checker_knows_every_name_and_refuses_others(tmp_path):
    lines = ["import diffspace as ds", *(f"ds.{name}" for name in dir(ds))]
    (tmp_path / "right.py").write_text("\n".join(lines))
    (tmp_path / "wrong.py").write_text("import diffspace as ds\nds.Huen\nds.ModuleType\nds.Heun(aplha=1.0)\n")
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "right.py", "wrong.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    places = [line.rpartition("error:")[0].strip() for line in done.stdout.splitlines() if "error:" in line]
    assert places == ["wrong.py:2:", "wrong.py:3:", "wrong.py:4:"], done.stdout
