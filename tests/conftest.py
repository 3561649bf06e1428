"""Shapes and types are checked on calls of diffspace under pytest: the hook comes before diffspace is imported."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import shape_checks
import warm
from jaxtyping import install_import_hook

install_import_hook("diffspace", "shape_checks.check")


def pytest_runtest_setup() -> None:
    shape_checks.restart()


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the command `diffspace` of `warm`."""
    with warm.commands(tmp_path_factory.mktemp("warm")) as folder:
        yield folder


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a user: without the checks of shapes and types that tests make."""
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
