"""Shape annotations such as `Float[Tensor, "batch *dims"]`: checked in tests, without cost elsewhere.

If jaxtyping was imported before diffspace, as in the tests, these are jaxtyping's annotations, and its import hook
checks every call. Otherwise `Float[...]` is `Tensor`, and jaxtyping need not be installed.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import Tensor

__all__ = ["Batch", "Bool", "Float", "Int", "Shaped", "Sigma", "Tensor"]

if TYPE_CHECKING or "jaxtyping" in sys.modules:
    from jaxtyping import Bool, Float, Int, Shaped
else:

    class _Unchecked:
        def __class_getitem__(cls, item: Any) -> type[Tensor]:
            return Tensor

    Bool = Float = Int = Shaped = _Unchecked

Batch: TypeAlias = Float[Tensor, "batch *dims"]
"""A batch of samples, (B, *dims)."""

Sigma: TypeAlias = Float[Tensor, ""] | Float[Tensor, "batch"]
"""One noise level for all samples, or one for each."""
