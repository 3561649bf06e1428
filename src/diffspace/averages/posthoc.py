"""Averages of any width, after training, from snapshots of a few (Karras et al. 2024, arXiv:2312.02696, Section 3.2).

A snapshot taken at t with exponent γ is the mean of all weights until then under p(τ) = (γ + 1)·τ^γ/t^(γ + 1), and a
linear combination of snapshots is the mean under the same combination of their profiles. The coefficients are
those that come nearest to the required profile, in least squares.
"""

from __future__ import annotations

import itertools
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from diffspace._shapes import Float, Tensor
from diffspace.averages.ema import EMA, LARGEST_WIDTH, PowerFunction, width_to_exponent
from diffspace.checks import check_choice
from diffspace.files import parse_json, reading, write_tensors
from diffspace.sharding import whole

SNAPSHOTS = "snapshots"
MISMATCH = 0.1
"""No average is reconstructed whose profile is matched worse, ‖Σ x_i·p_i − p‖ > 0.1·‖p‖."""

Averages = Sequence[tuple[float, float]]
"""Averages by the images after which they were taken and their width."""


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
        from safetensors import safe_open

        checksum = 0
        with reading(self.path, "a snapshot"), safe_open(self.path, "pt") as file:
            facts = file.metadata() or {}
            buffers = set(parse_json(facts["buffers"]))
            for name in sorted(file.keys()):
                value = file.get_tensor(name)
                checksum = _checksum(value, checksum)
                yield name, value, name not in buffers
            if f"{checksum:08x}" != facts.get("crc32"):
                raise ValueError("its contents are not what was written")


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

        Where its parameters are sharded, every process has to call, and the one with `writer` writes.
        FloatingPointError where a weight is too large for the dtype or not finite.
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
                    raise FloatingPointError(f"average: {name} is not finite, or beyond the range of {self.dtype}")
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
        for snapshot in self._found():
            if snapshot.images > after:
                snapshot.path.unlink()

    def all(self) -> list[Snapshot]:
        """Every snapshot, by images and width; ValueError where there is none."""
        found = self._found()
        if not found:
            raise ValueError(f"{self.run}: has no snapshots; train with ema_widths and snapshot_images to make them")
        return sorted(found, key=lambda s: (s.images, s.width))

    def _found(self) -> list[Snapshot]:
        name = re.compile(r"(\d{12,})-(\d(?:\.\d+)?(?:e-\d+)?)\.safetensors")
        matches = ((path, name.fullmatch(path.name)) for path in self.folder.glob("*.safetensors"))
        return [Snapshot(int(match[1]), float(match[2]), path) for path, match in matches if match]


def _checksum(value: Tensor, start: int) -> int:
    return zlib.crc32(value.reshape(-1).view(torch.uint8).numpy().data, start)


def _profiles(averages: Averages) -> tuple[Tensor, Tensor]:
    """Times and exponents in float64, checked."""
    if not averages:
        raise ValueError("averages: expected at least one")
    if not all(time > 0 for time, _ in averages):
        raise ValueError(f"averages: expected positive numbers of images, got {min(averages)[0]}")
    pairs = [(time, width_to_exponent(width)) for time, width in averages]
    times, exponents = torch.tensor(pairs, dtype=torch.float64, device="cpu").unbind(1)
    return times, exponents


def correlation(a: Averages, b: Averages) -> Float[Tensor, "n m"]:
    """⟨p_i, q_j⟩ = ∫ p_i(τ)·q_j(τ) dτ of power-function profiles, per image, in float64 (Appendix C).

    With t_a ≤ t_b it is (γ_a + 1)·(γ_b + 1)/(γ_a + γ_b + 1) · (t_a/t_b)^γ_b/t_b.
    """
    times_a, gamma_a = (v[:, None] for v in _profiles(a))
    times_b, gamma_b = _profiles(b)
    late = torch.maximum(times_a, times_b)
    gamma_late = torch.where(times_a > times_b, gamma_a, gamma_b)
    scale = (gamma_a + 1) * (gamma_b + 1) / (gamma_a + gamma_b + 1)
    product: Tensor = scale * torch.pow(torch.minimum(times_a, times_b) / late, gamma_late) / late
    return product


def solve(given: Averages, required: Averages) -> Float[Tensor, "n m"]:
    """The coefficients x_ij, Σ_i x_ij = 1, with which n given averages make m others, in float64 (Appendix C).

    They minimise ‖Σ_i x_ij·p_i − q_j‖² before they are divided by their sum. ValueError where two given are equal.
    """
    if len(set(given)) < len(given):
        raise ValueError("averages: expected each once")
    gram = correlation(given, given)
    # profiles of unit norm: early ones are tall, and their squares would drown the others in rounding
    norm = gram.diagonal().sqrt()
    target = correlation(given, required) / norm[:, None]
    x: Tensor = torch.linalg.solve(gram / (norm[:, None] * norm), target) / norm[:, None]
    return x / x.sum(0)


def mismatch(given: Averages, required: Averages) -> Float[Tensor, "m"]:
    """‖Σ_i x_ij·p_i − q_j‖/‖q_j‖ with the coefficients of `solve`.

    It is the relative error in what the noise of training leaves in an average; below about 1e-8 it is rounding.
    """
    x = solve(given, required)
    time, gamma = _profiles(required)
    own = (gamma + 1) ** 2 / ((2 * gamma + 1) * time)
    square = (x * (correlation(given, given) @ x - 2 * correlation(given, required))).sum(0) + own
    return (square / own).clamp(min=0).sqrt()


def attainable(snapshots: Sequence[Snapshot], images: int) -> tuple[float, float]:
    """The smallest and the largest width, around those of the snapshots until `images`, with a mismatch ≤ `MISMATCH`.

    They are known to about a hundredth of themselves.
    """
    present = [s.width for s in snapshots if s.images == images]
    grid = sorted(
        {*torch.logspace(-3, 0, 700, dtype=torch.float64, device="cpu").mul(LARGEST_WIDTH).tolist()[:-1], *present}
    )
    errors = mismatch(_until(snapshots, images), [(images, width) for width in grid]).tolist()
    good = {width for width, error in zip(grid, errors, strict=True) if error <= MISMATCH} | set(present)
    low = list(itertools.takewhile(good.__contains__, (w for w in reversed(grid) if w <= min(present))))
    high = list(itertools.takewhile(good.__contains__, (w for w in grid if w >= max(present))))
    return low[-1], high[-1]


def _until(snapshots: Sequence[Snapshot], images: int) -> Averages:
    return [(s.images, s.width) for s in snapshots if s.images <= images]


@dataclass(frozen=True)
class Reconstruction:
    """The average of a width at a number of images: which snapshots make it, with which coefficients."""

    width: float
    images: int
    parts: Mapping[Snapshot, float]
    mismatch: float

    @classmethod
    def plan(cls, snapshots: Sequence[Snapshot], width: float, images: int | None = None) -> Reconstruction:
        """From the snapshots until `images` (None: the last), of which one has to be at `images`.

        ValueError, which says what is possible, where there is no snapshot or the width is out of reach.
        """
        times = sorted({s.images for s in snapshots})
        images = times[-1] if images is None else images
        if images not in times:
            near = ", ".join(map(str, sorted(sorted(times, key=lambda t: abs(t - images))[:2])))
            raise ValueError(f"images: there is no snapshot after {images}; the nearest are after {near}")
        width_to_exponent(width)
        for snapshot in snapshots:
            if (snapshot.images, snapshot.width) == (images, width):
                return cls(width, images, {snapshot: 1.0}, 0.0)
        used = _until(snapshots, images)
        error = float(mismatch(used, [(images, width)]))
        if error > MISMATCH:
            low, high = attainable(snapshots, images)
            raise ValueError(f"width: {width:g} is outside of what the snapshots allow, {low:.3g} to {high:.3g}")
        coefficients = solve(used, [(images, width)])[:, 0].tolist()
        parts = zip((s for s in snapshots if s.images <= images), coefficients, strict=True)
        return cls(width, images, dict(parts), error)

    def compute(self) -> dict[str, Tensor]:
        """The state dict of the averaged module, float32; summed in float64, one snapshot in memory at a time.

        ValueError names a snapshot that is damaged or of another module.
        """
        total: dict[str, Tensor] = {}
        shapes: dict[str, torch.Size] = {}
        newest = max(self.parts, key=lambda s: s.images)
        for snapshot, coefficient in self.parts.items():
            here = {}
            for name, value, averaged in snapshot.tensors():
                here[name] = value.shape
                if shapes and shapes.get(name) != value.shape:
                    break
                if averaged:
                    part = value.double().mul_(coefficient)
                    total[name] = part if name not in total else total[name].add_(part)
                elif snapshot == newest:
                    total[name] = value
            shapes = shapes or here
            if here != shapes:
                raise ValueError(f"snapshot: {snapshot.path} is of another network than those before it")
        return {name: value.float() if value.dtype == torch.float64 else value for name, value in total.items()}


def reconstruct(folder: str | Path, width: float, images: int | None = None) -> dict[str, Tensor]:
    """The averaged weights of a width from the snapshots of a run: `Reconstruction.plan` and `compute`."""
    return Reconstruction.plan(Snapshots(folder).all(), width, images).compute()
