"""Guidance by a weaker denoiser: D_weak + w·(D_strong − D_weak)."""

from __future__ import annotations

from abc import abstractmethod

import torch

from diffspace._shapes import Tensor
from diffspace.checks import check_callable
from diffspace.guidance.wrapper import Guidance, GuidanceWeight, Rows, as_factor
from diffspace.networks.embedding import ConditionedNetwork
from diffspace.protocols import Cond, Denoiser, check_cond, sigma_range

_NO_NULL = "requires the denoiser's null condition, which is unknown"


def _levels(sigma: Tensor, rows: Rows) -> Tensor:
    return sigma if sigma.ndim == 0 else sigma[rows]


def _part(cond: Cond | None, rows: Rows) -> dict[str, Tensor] | None:
    return None if cond is None else {name: value[rows] for name, value in cond.items()}


def _indices(labels: Tensor) -> Tensor:
    if labels.dtype.is_floating_point:
        raise ValueError(f"labels: expected integers or vectors, got {labels.dtype} of shape {tuple(labels.shape)}")
    return labels.long()


class _Extrapolation(Guidance):
    """D_weak + w(σ)·(D − D_weak), with D_weak evaluated only for samples whose w is not 1."""

    neutral = 1.0

    @abstractmethod
    def _both(self, x: Tensor, sigma: Tensor, cond: Cond | None, rows: Rows) -> tuple[Tensor, Tensor]:
        """D of all samples, and D_weak of some."""

    def _guided(self, x: Tensor, sigma: Tensor, cond: Cond | None, weight: float | Tensor, rows: Rows) -> Tensor:
        strong, weak = self._both(x, sigma, cond, rows)
        chosen = strong[rows]
        factor = as_factor(weight if isinstance(weight, float) else _levels(weight, rows), chosen)
        guided = torch.lerp(weak, chosen, factor)
        return guided if isinstance(rows, slice) else strong.index_copy(0, rows, guided)


class AutoGuidance(_Extrapolation):
    """D_guide + w(σ)·(D − D_guide), by a weaker model of the same data (Karras et al. 2024, arXiv:2406.02507).

    `guide` is a smaller or less trained denoiser with the same conditions. `weight` is a number or a function of σ;
    where it is 1, `guide` is not evaluated. The range of σ is the one common to both. Two evaluations.
    """

    def __init__(self, denoiser: Denoiser, guide: Denoiser, weight: GuidanceWeight) -> None:
        super().__init__(denoiser, weight)
        check_callable("guide", guide, "D(x, sigma, cond)")
        self.guide = guide
        (low, high), (guide_low, guide_high) = sigma_range(denoiser), sigma_range(guide)
        self.sigma_min, self.sigma_max = max(low, guide_low), min(high, guide_high)

    def _both(self, x: Tensor, sigma: Tensor, cond: Cond | None, rows: Rows) -> tuple[Tensor, Tensor]:
        return self.denoiser(x, sigma, cond), self.guide(x[rows], _levels(sigma, rows), _part(cond, rows))


class ClassifierFree(_Extrapolation):
    """D(x; σ) + w(σ)·(D(x; σ, cond) − D(x; σ)): classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598).

    w = 0 is the unconditional model, w = 1 the conditional one, bit for bit. `weight` is a number or a function of σ.
    Both branches are one evaluation on a batch of up to 2·B samples; samples whose w is 1 have no second branch.

    The second branch has the conditions `negative` (1 or B rows; by default none) and those named in `keep`, such as a
    low-resolution image. In a batch a missing condition still needs rows: the library's networks have null rows.
    ValueError for such a network that was trained without `label_dropout`, unless its conditions are in both branches.
    For another denoiser pass its null condition as `negative`, or use `batched=False`, which evaluates twice.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        weight: GuidanceWeight,
        *,
        negative: Cond | None = None,
        keep: str | tuple[str, ...] = (),
        batched: bool = True,
    ) -> None:
        super().__init__(denoiser, weight)
        self.negative = dict(check_cond(negative))
        keep = (keep,) if isinstance(keep, str) else tuple(keep)
        if twice := sorted(set(keep) & set(self.negative)):
            raise ValueError(f"keep: {', '.join(map(repr, twice))} is in negative too; use one of the two")
        self.keep = keep
        self.batched = batched
        modules = denoiser.modules() if isinstance(denoiser, torch.nn.Module) else ()
        network = next((m for m in modules if isinstance(m, ConditionedNetwork)), None)
        # bound methods and a mapping, because the network itself would be registered here a second time
        self._one_hot = None if network is None else network.one_hot
        self._null_rows = None if network is None else network.null_rows
        self._required = {} if network is None else network.required
        if batched and not self.negative and network is None:
            raise ValueError(f"batched: True {_NO_NULL}; pass negative={{…}}, or batched=False to evaluate twice")
        if network is not None and not network.null_trained:
            own = [name for name in network.required if name == "labels" or name in network.conditioning]
            if missing := [name for name in own if name not in (*self.negative, *self.keep)]:
                name = missing[0]
                raise ValueError(f"negative: the network requires {name!r} in both branches; {network.required[name]}")

    def in_rows(self, dims: int) -> tuple[Tensor, ...]:
        """The conditions of the second branch."""
        return tuple(self.negative.values())

    def _second(self, x: Tensor, cond: Cond | None) -> dict[str, Tensor]:
        """The conditions of the second branch, one row for each sample."""
        if missing := sorted(set(self.keep) - set(cond or {})):
            raise ValueError(f"keep: {', '.join(map(repr, missing))} is not in cond, which holds {sorted(cond or {})}")
        own = {name: value for name, value in (cond or {}).items() if name in self.keep}
        if len(own) == len(cond or {}) and not self.negative:
            raise ValueError("cond: both branches have the same conditions, so guidance would have no effect")
        for name, value in self.negative.items():
            if value.ndim == 0 or len(value) not in (1, len(x)):
                raise ValueError(f"negative: {name!r} has shape {tuple(value.shape)}; expected 1 row or {len(x)}")
            own[name] = value.to(x.device).expand(len(x), *value.shape[1:])
        for name, remedy in self._required.items():
            if name not in own:  # the network would not see that its rows of zeros mean nothing
                raise ValueError(f"keep: the second branch requires {name!r} too: keep=({name!r},), or {remedy}")
        return own

    def _pair(self, name: str, first: Tensor | None, second: Tensor | None, counts: tuple[int, int]) -> Tensor:
        """One condition of the rows of both branches; null rows where a branch does not have it."""
        one_hot, null_rows = self._one_hot, self._null_rows
        given = [value for value in (first, second) if value is not None]
        if len(given) == 1 and null_rows is None:
            raise ValueError(f"negative: {name!r} in one branch {_NO_NULL}; pass it in both, or batched=False")
        if name == "labels" and one_hot is not None and not (len(given) == 2 and all(v.ndim == 1 for v in given)):
            # an index has no zero
            first, second = (v if v is None or v.ndim > 1 else one_hot(_indices(v)) for v in (first, second))
            given = [value for value in (first, second) if value is not None]
        if null_rows is not None:
            first = null_rows(name, given[0], counts[0]) if first is None else first
            second = null_rows(name, given[0], counts[1]) if second is None else second
        return torch.cat([value for value in (first, second) if value is not None])

    def _both(self, x: Tensor, sigma: Tensor, cond: Cond | None, rows: Rows) -> tuple[Tensor, Tensor]:
        second = _part(self._second(x, cond), rows) or {}
        weak_x, weak_sigma = x[rows], _levels(sigma, rows)
        if not self.batched:
            return self.denoiser(x, sigma, cond), self.denoiser(weak_x, weak_sigma, second or None)
        first, counts = cond or {}, (len(x), len(weak_x))
        paired = {name: self._pair(name, first.get(name), second.get(name), counts) for name in {**first, **second}}
        levels = sigma if sigma.ndim == 0 else torch.cat([sigma, weak_sigma])
        denoised = self.denoiser(torch.cat([x, weak_x]), levels, paired)
        return denoised[: len(x)], denoised[len(x) :]
