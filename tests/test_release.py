"""What a release is made of: one version everywhere, and files that parse."""

import re
from pathlib import Path

import yaml

import diffspace as ds

ROOT = Path(__file__).parents[1]


def test_the_version_is_the_same_everywhere():
    released = re.findall(
        r"^## \[(\d.*?)\] - (\S+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert released[0] == (ds.__version__, str(citation["date-released"]))
    assert str(citation["version"]) == ds.__version__


def test_workflows_and_hooks_parse_and_name_what_exists():
    for path in (ROOT / ".github").rglob("*.yml"):
        assert yaml.safe_load(path.read_text(encoding="utf-8")), path
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        for job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values():
            assert all("run" in step or "uses" in step for step in job["steps"])
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert [repo["repo"] for repo in hooks] == ["local"]
