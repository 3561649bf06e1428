"""Snapshots of power-function averages: the files from which averages of other widths are made after training."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from diffspace._shapes import Tensor
from diffspace.averages.ema import EMA, PowerFunction, width_to_exponent
from diffspace.checks import check_choice
from diffspace.files import write_tensors
from diffspace.sharding import whole

SNAPSHOTS = "snapshots"


@dataclass(frozen=True)
class Snapshot:
    """One average on disk: of which width, after how many images."""

    images: int
    width: float
    path: Path

    def tensors(self) -> Iterator[tuple[str, Tensor, bool]]:
        """Name, value, and whether it is a parameter, which is averaged, or a buffer; read one at a time.

        ValueError, at the latest after the last one, where the file is damaged.
        """
        from safetensors import SafetensorError, safe_open

        checksum = 0
        try:
            with safe_open(self.path, "pt") as file:
                facts = file.metadata() or {}
                buffers = set(json.loads(facts["buffers"]))
                for name in sorted(file.keys()):
                    value = file.get_tensor(name)
                    checksum = _checksum(value, checksum)
                    yield name, value, name not in buffers
        except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(f"snapshot: {self.path} is damaged: {reason}") from None
        if f"{checksum:08x}" != facts.get("crc32"):
            raise ValueError(f"snapshot: {self.path} is damaged: its contents are not what was written")


class Snapshots:
    """The folder `snapshots` of a run: files `<images, 12 digits>-<width>.safetensors`.

    Parameters are stored in `dtype`, float16 as in EDM2 or float32, which takes twice the room; buffers in their own.
    float16 costs a relative RMS error of the weights of 2·10⁻⁴ (measured), times the norm of the coefficients, which is
    about 1 between the widths of the snapshots and grows outside of them, to 5 at 0.03 for 0.05 and 0.1.
    """

    def __init__(self, run: str | Path, dtype: torch.dtype = torch.float16) -> None:
        check_choice("dtype", dtype, (torch.float16, torch.float32))
        self.run, self.folder, self.dtype = Path(run), Path(run) / SNAPSHOTS, dtype

    def write(self, average: EMA[Any], images: int, *, writer: bool = True) -> None:
        """Write an average with the profile `PowerFunction` after `images` images, atomically.

        Where its parameters are sharded, every process has to call, and the one with `writer` writes. ValueError where
        a weight is too large for the dtype or not finite.
        """
        if not isinstance(average.profile, PowerFunction):
            raise ValueError(f"average: expected one with the profile PowerFunction, got {average.profile}")
        parameters = {name for name, _ in average.module.named_parameters(remove_duplicate=False)}
        state = {}
        for name, value in average.module.state_dict().items():
            everything = whole(value)
            if writer:
                dtype = self.dtype if name in parameters and everything.is_floating_point() else everything.dtype
                state[name] = everything.detach().to("cpu", dtype, copy=True).contiguous()
                if not bool(state[name].isfinite().all()):
                    raise ValueError(f"average: {name} is not finite, or beyond the range of {self.dtype}")
        if not writer:
            return
        checksum = 0
        for name in sorted(state):
            checksum = _checksum(state[name], checksum)
        facts = {"buffers": json.dumps(sorted(state.keys() - parameters)), "crc32": f"{checksum:08x}"}
        self.folder.mkdir(parents=True, exist_ok=True)
        write_tensors(self.folder / f"{images:012d}-{average.profile.width!r}.safetensors", state, facts)

    def forget(self, after: int) -> None:
        """Remove the snapshots of more than `after` images, of a run that begins again from there."""
        for path in self.folder.glob("*.safetensors"):
            if path.name.partition("-")[0].isdecimal() and int(path.name.partition("-")[0]) > after:
                path.unlink()

    def all(self) -> list[Snapshot]:
        """Every snapshot, by images and width; ValueError where there is none."""
        found = []
        for path in self.folder.glob("*.safetensors"):
            match = re.fullmatch(r"(\d{12,})-(\d[\d.e-]*)\.safetensors", path.name)
            if match is None:
                continue
            try:
                width = float(match[2])
                width_to_exponent(width)
            except ValueError:
                raise ValueError(f"snapshot: {path} has no width in its name") from None
            found.append(Snapshot(int(match[1]), width, path))
        if not found:
            raise ValueError(f"{self.run}: has no snapshots; train with ema_widths and snapshot_images to make them")
        return sorted(found, key=lambda s: (s.images, s.width))


def _checksum(value: Tensor, start: int) -> int:
    return zlib.crc32(value.reshape(-1).view(torch.uint8).numpy().data, start)
