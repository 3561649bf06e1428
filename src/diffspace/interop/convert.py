"""From the checkpoint of others to a model of ours."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from diffspace.interop import nvidia, openai, score_sde
from diffspace.interop.files import read_content, sha256
from diffspace.interop.foreign import Foreign, Report, build
from diffspace.interop.pickles import shown
from diffspace.model import Model

__all__ = ["SUFFIXES", "convert"]

_READERS: tuple[tuple[Callable[[Mapping[str, Any]], bool], Callable[..., Foreign]], ...] = (
    (nvidia.recognise, nvidia.read),
    (openai.recognise, openai.read),
    (score_sde.recognise, score_sde.read),
)
SUFFIXES = (".pkl", ".pt", ".pth", ".safetensors")
"""How the names of foreign checkpoints end."""


def convert(source: str | Path, **options: Any) -> tuple[Model, Report]:
    """The model in a foreign checkpoint, with a report of what was recognised, matched and ignored.

    Read are NVIDIA's pickles of EDM and its baselines, state dicts of OpenAI's improved-diffusion and guided-diffusion,
    and checkpoints of Song's score_sde. Nothing in a file is executed. The options say what a file does not
    (`openai.read`, `score_sde.read`). ValueError, naming the file, for anything else.
    """
    path = Path(source)
    if not path.is_file():
        raise ValueError(f"source: there is no file {path}")
    try:
        content = read_content(path)
        reader = _reader(content)
        known = list(inspect.signature(reader).parameters)[1:]
        given = {name: value for name, value in options.items() if value is not None}
        for name in given:
            if name not in known:
                raise ValueError(f"{name}: has no effect on such a file; options: {', '.join(known) or 'none'}")
        return build(reader(content, **given), path.name, sha256(path))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    except (AttributeError, LookupError, RuntimeError, TypeError) as error:
        # names and shapes of a known kind around content of another
        reason = f"{type(error).__name__} {error}".splitlines()[0]
        raise ValueError(f"{path}: is not understood: {reason}") from None


def _reader(content: Any) -> Callable[..., Foreign]:
    """Who reads this content."""
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        raise ValueError(f"holds a {type(content).__name__}; want a checkpoint of a network")
    for recognise, read in _READERS:
        if recognise(content):
            return read
    first = ", ".join(shown(name) for name, _ in zip(content, range(5), strict=False))
    raise ValueError(
        f"holds {first or 'nothing'}; want NVIDIA's EDM, OpenAI's improved-diffusion or guided-diffusion, or score_sde"
    )
