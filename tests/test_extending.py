"""The package of docs/extending*.md, as if it were installed: in Python, in a recipe, on the command line, in a folder.

And that nothing is imported because a file says so.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import diffspace as ds
from diffspace import parts
from diffspace.cli.app import main

DOCS = Path(__file__).parents[1] / "docs"
PAGES = [DOCS / f"extending{name}.md" for name in ("", "-network", "-package")]
FILE = re.compile(r"^```\w+\n# file: (\S+)\n(.*?)^```", re.MULTILINE | re.DOTALL)

USE = """
import diffspace as ds
from diffspace.cli.app import main
from diffspace.config import from_text, to_text
from diffspace.parts import kinds

assert main(["train", "--recipe", "named.yaml", "network.width=8", "--out", "run"]) == 0
words = ["--solver", "ralston3", "--schedule", "exponential", "--steps", "3"]
assert main(["sample", "run", *words, "--out", "a.npz"]) == 0
assert main(["inspect", "rings", "n=100"]) == 0
model = ds.load("run")
assert type(model.denoiser.network).__module__ == "perceptron"
solver = from_text("solver", "ralston3")
assert (type(solver).__module__, to_text("solver", solver)) == ("ralston", "ralston3")
ds.sample(model, seeds=[0], steps=ds.EDMSteps(2), solver=solver)
assert "exponential" in kinds("schedule")
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the package, its entry points among its metadata, and a model that was trained with its parts."""
    folder = tmp_path_factory.mktemp("otherlab")
    site = folder / "site"
    site.mkdir()
    for name, text in FILE.findall("".join(page.read_text(encoding="utf-8") for page in PAGES)):
        (site / Path(name).name).write_text(text, encoding="utf-8")
    project = tomllib.loads((site / "pyproject.toml").read_text())["project"]
    metadata = site / f"{project['name']}-{project['version']}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    points = (f"{name} = {value}\n" for name, value in project["entry-points"]["diffspace.plugins"].items())
    (metadata / "entry_points.txt").write_text("[diffspace.plugins]\n" + "".join(points))
    recipe = (
        (site / "rings.yaml").read_text().replace("rings:Rings", "rings").replace("perceptron:Perceptron", "perceptron")
    )
    (folder / "named.yaml").write_text(recipe)
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-c", USE]
    done = subprocess.run(command, cwd=folder, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
def at_hand(monkeypatch):
    """The state of a process in which nothing was registered or imported by name."""
    monkeypatch.setattr(parts, "_unregistered", {})
    monkeypatch.setattr(parts, "FAMILIES", {family: dict(kinds) for family, kinds in parts.FAMILIES.items()})
    monkeypatch.setattr(sys, "path", list(sys.path))


def test_a_folder_says_which_class_it_needs(installed, at_hand, monkeypatch):
    assert json.loads((installed / "run" / "config.json").read_text())["network"] == {
        "kind": "perceptron",
        "class": "perceptron:Perceptron",
        "shape": [2],
        "width": 8,
    }
    with pytest.raises(
        ValueError, match=r"'perceptron' is not registered, .*pass parts=\[Perceptron\], or use --part perc"
    ):
        ds.load(installed / "run")
    monkeypatch.syspath_prepend(installed / "site")
    from perceptron import Perceptron

    assert type(ds.load(installed / "run", parts=[Perceptron]).denoiser.network) is Perceptron
    with pytest.raises(ValueError, match="is not registered"):  # what is handed over is so for one call
        ds.load(installed / "run")
    ds.register("network", "perceptron", Perceptron)
    assert type(ds.load(installed / "run").denoiser.network) is Perceptron


def test_part_on_the_command_line(installed, at_hand, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["sample", str(installed / "run"), "--steps", "2", "--seeds", "0-1"]
    assert main(words) == 2
    assert "--part perceptron:Perceptron" in capsys.readouterr().err
    for module in ("perceptron", "ralston"):
        shutil.copy(installed / "site" / f"{module}.py", tmp_path)
    assert main([*words, "--part", "perceptron:Perceptron", "--solver", "ralston:Ralston3"]) == 0
    assert main([*words, "--part", "perceptron:Perceptron", "--solver", "ralston:Ralston4"]) == 2
    assert "the module ralston has no Ralston4" in capsys.readouterr().err


def test_a_file_never_imports_code(installed, at_hand, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "trap.py").write_text("open('sprung', 'w').close()\nclass Trap: pass\n")
    run = shutil.copytree(installed / "run", tmp_path / "run")

    described = json.loads((run / "config.json").read_text())
    for part in ("network", "preconditioning"):
        for trap in ({"kind": "trap:Trap"}, {"kind": "mine", "class": "trap:Trap"}, {"kind": "edm:x=trap:Trap"}):
            (run / "config.json").write_text(json.dumps(described | {part: trap}))
            with pytest.raises(ValueError, match=r"never imports code|is unknown|is not registered"):
                ds.load(run)
    sampler = {"format": "diffspace sampler 2", "steps": "edm", "process": {}, "churn": {}, "solver": "trap:Trap"}
    (run / "samplers").mkdir()
    (run / "samplers" / "trap.json").write_text(json.dumps(sampler))
    with pytest.raises(ValueError, match="never imports code"):
        ds.load_samplers(run)

    parts = {"data": "{source: digits}", "network": "mlp", "preconditioning": "edm", "noise": "lognormal", "images": 9}
    for name, trap in (("data", "{source: 'trap:Trap'}"), ("network", "trap:Trap"), ("noise", "{kind: 'trap:Trap'}")):
        (run / "recipe.yaml").write_text("".join(f"{key}: {value}\n" for key, value in (parts | {name: trap}).items()))
        for command in (["train", "--resume", str(run)], ["evaluate", str(run)]):
            assert main(command) == 2
            assert "never imports code" in capsys.readouterr().err
    assert not (tmp_path / "sprung").exists()
    assert "trap" not in sys.modules


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("solvers", "mine", int), "family: 'solvers' is unknown; did you mean 'solver'"),
        (("solver", "my:solver", int), "name: expected letters"),
        (("solver", "heun", int), "name: 'heun' is taken by the solver diffspace.sampling:Heun"),
        (("solver", "mine", "module"), 'part: expected a class, a function or "module:Class"'),
    ],
)
def test_mistakes_in_registering(at_hand, arguments, message):
    with pytest.raises(ValueError, match=message):
        ds.register(*arguments)


def test_a_module_that_does_not_exist_is_told_from_one_that_is_broken(at_hand, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken_part.py").write_text("import a_package_that_is_missing\n")
    with pytest.raises(ValueError, match="no module nowhere_at_all"):
        parts.import_part("nowhere_at_all:Mine")
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_missing"):
        parts.import_part("broken_part:Mine")
