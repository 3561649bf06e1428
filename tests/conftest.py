"""Shapes and types are checked on every call of edmkit under pytest: this runs before edmkit is imported."""

from jaxtyping import install_import_hook

install_import_hook("edmkit", "shape_checks.check")
