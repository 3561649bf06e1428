"""Shapes are checked on every call of edmkit under pytest: this must run before edmkit is imported."""

import jaxtyping  # noqa: F401  (edmkit._shapes looks whether it is loaded)
from jaxtyping import install_import_hook

install_import_hook("edmkit", "beartype.beartype")
