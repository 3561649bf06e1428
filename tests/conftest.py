"""Shapes and types are checked on every call of diffspace under pytest: this runs before diffspace is imported."""

from jaxtyping import install_import_hook

install_import_hook("diffspace", "shape_checks.check")
