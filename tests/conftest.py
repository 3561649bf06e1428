"""Shapes and types are checked on calls of diffspace under pytest: the hook comes before diffspace is imported."""

import shape_checks
from jaxtyping import install_import_hook

install_import_hook("diffspace", "shape_checks.check")


def pytest_runtest_setup() -> None:
    shape_checks.restart()
