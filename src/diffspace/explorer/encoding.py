"""What goes to the page: JSON, in which tensors are base64 of their bytes: no digit is lost, and none is parsed."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from typing import Any

import torch

from diffspace._shapes import Tensor


def encode(value: Any) -> bytes:
    """JSON with {"shape": […], "f8": base64} for a tensor, "f4" for float32; numbers that are not finite are null."""
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        kind = {torch.float32: "f4", torch.uint8: "u1"}.get(value.dtype, "f8")
        array = (value if kind != "f8" else value.double()).detach().cpu().contiguous().numpy()
        return {"shape": list(value.shape), kind: base64.b64encode(array.tobytes()).decode()}
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def decode(body: bytes) -> Any:
    """JSON of a request; ValueError for what JSON does not have, such as NaN, and for what is nested too deeply."""

    def refuse(word: str) -> Any:
        raise ValueError(f"{word} is not a number of JSON")

    try:
        return json.loads(body, parse_constant=refuse)
    except RecursionError:
        raise ValueError("the request is nested too deeply") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"the request is not JSON: {error}") from None
    except ValueError as error:  # such as a number of thousands of digits
        raise ValueError(f"the request is not JSON: {str(error).partition(';')[0]}") from None
