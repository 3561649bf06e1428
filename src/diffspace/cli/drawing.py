"""What is drawn for each seed: samples, variations of an image, or what is missing in one; a batch at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch

import diffspace as ds
from diffspace._shapes import Bool, Shaped, Tensor
from diffspace.config import to_options
from diffspace.guidance import Replacement, repaint
from diffspace.metrics.feature_files import Batches
from diffspace.metrics.features import fingerprint
from diffspace.protocols import Cond, Denoiser
from diffspace.sampling import initial_latents
from diffspace.sampling.driver import make_grid

Progress = Callable[[int, ds.State], None]


class Drawn(NamedTuple):
    """A batch: the raw values on the CPU, and the run that made them, without its samples."""

    raw: Shaped[Tensor, "batch *dims"]
    run: ds.Samples


@dataclass(frozen=True)
class Start:
    """Images in the model's space (n, *dims), to which noise of level `sigma` is added: sampling goes on from there."""

    images: Tensor
    sigma: float


@dataclass(frozen=True)
class Known:
    """Raw values (n, *dims) that are kept where `anew` is False; the rest is drawn by `repaint`."""

    raw: Tensor
    anew: Bool[Tensor, "*dims"]
    resamplings: int


@dataclass(frozen=True)
class Drawing:
    """A request for samples, of which any batch can be drawn: batches are cut alike on any number of processes.

    Args:
        model: whose transform samples are decoded with.
        denoiser: the model, or with guidance around it.
        sampler: how to sample.
        seeds: of the samples.
        cond: named conditions, one row for each seed.
        batch: samples in a batch.
        given: an image to start from, or one to complete; of several, one for each seed in turn.
    """

    model: ds.Model
    denoiser: Denoiser
    sampler: ds.Sampler
    seeds: Sequence[int]
    cond: Cond | None = None
    batch: int = 64
    given: Start | Known | None = None

    @property
    def batches(self) -> Batches:
        """How the seeds are cut."""
        return Batches(len(self.seeds), self.batch)

    @property
    def states(self) -> int:
        """How often the progress of a batch is reported, less one."""
        return self.sampler.steps.num_steps * (self.given.resamplings if isinstance(self.given, Known) else 1)

    def sigmas(self) -> list[float]:
        """The noise levels of the steps; ValueError where they are not in the range of the model."""
        start = self.given.sigma if isinstance(self.given, Start) else None
        if isinstance(self.given, Known) and self.sampler.churn.S_churn:
            raise ValueError("--inpaint: churn is not supported; leave --S-churn out")
        try:
            return make_grid(self.denoiser, self.sampler, start=start).sigmas
        except ValueError as error:
            raise ValueError(str(error).replace("sigma_start", "--sigma-start")) from None

    def facts(self) -> dict[str, Any]:
        """What determines the samples besides seeds and guidance, in JSON types."""
        facts = {"model": identity(self.model), **to_options(self.sampler)}
        facts |= {name: fingerprint([value]) for name, value in (self.cond or {}).items()}
        if isinstance(self.given, Start):
            facts |= {"init": fingerprint([self.given.images]), "sigma_start": self.given.sigma}
        elif isinstance(self.given, Known):
            facts |= {"inpaint": fingerprint([self.given.raw]), "mask": fingerprint([self.given.anew])}
            facts |= {"resamplings": self.given.resamplings}
        return facts

    def draw(self, number: int, progress: Progress | None = None) -> Drawn:
        """Draw a batch."""
        own, given = self.batches.rows(number), self.given
        rows = slice(own.start, own.stop)
        seeds = self.seeds[rows]
        cond = self.cond and {name: value[rows] for name, value in self.cond.items()}
        execution = ds.Execution(progress=progress)
        common: dict[str, Any] = {"seeds": seeds, "sampler": self.sampler, "cond": cond, "execution": execution}
        in_turn = torch.arange(rows.start, rows.stop, dtype=torch.int64, device="cpu")
        if isinstance(given, Start):
            noise = initial_latents(seeds, self.model.sample_shape)
            x = given.images[in_turn % len(given.images)] + given.sigma * noise
            run = ds.sample_from(self.denoiser, x, given.sigma, **common)
        elif isinstance(given, Known):
            known = given.raw[in_turn % len(given.raw)]
            replaced = Replacement(self.denoiser, ~given.anew, self.model.transform.forward(known))
            run = repaint(replaced, resamplings=given.resamplings, **common)
        else:
            run = ds.sample(self.denoiser, **common)
        raw = self.model.decode(run.x.cpu())
        if isinstance(given, Known):
            raw = torch.where(given.anew, raw, known)  # to the last bit
        return Drawn(raw, replace(run, x=run.x[:0].cpu(), transform=None))


def identity(model: ds.Model) -> str:
    """Sixteen hexadecimal digits that differ between models: of the weights and of what stands beside them."""
    facts = (fingerprint(model.state_dict().values()), model.transform, model.denoiser.preconditioning)
    text = repr((*facts, model.sampling_range, model.class_names, model.sample_shape))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
