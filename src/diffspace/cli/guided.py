"""`--guidance` and `--guide`: the wrappers of `diffspace.guidance` around a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import diffspace as ds
from diffspace.checks import check_number
from diffspace.guidance import AutoGuidance, ClassifierFree, GuidanceWeight, Interval
from diffspace.networks.embedding import ConditionedNetwork
from diffspace.protocols import Cond, Denoiser


def parse_weight(text: str) -> GuidanceWeight:
    """`2` as a weight, `2:0.3,5` as the weight 2 where 0.3 < σ ≤ 5."""
    first, colon, ends = text.partition(":")
    try:
        weight, *limits = map(float, [first, *ends.split(",")] if colon else [first])
        if len(limits) not in (0, 2):
            raise ValueError(f"{len(limits)} ends of an interval")
        check_number("W", weight)
        return Interval(weight, *limits) if limits else weight
    except ValueError as error:
        reason = f"expected W or W:low,high such as 2 or 2:0.3,5, got {text!r}: {error}"
        raise ValueError(f"--guidance: {reason}") from None


def guide_model(
    model: ds.Model, guidance: str | None, guide: ds.Model | None, sigmas: Sequence[float], cond: Cond | None
) -> Denoiser:
    """The model, guided by its null condition or by another model; ValueError where that has no effect.

    `sigmas` are the levels at which samples are drawn, `cond` their conditions.
    """
    if guidance is None:
        if guide is not None:
            raise ValueError("--guide: has no effect without --guidance W, the weight")
        return model
    weight = parse_weight(guidance)
    high, low = sigmas[0], sigmas[-1] or sigmas[-2]
    if isinstance(weight, Interval) and not (weight.low < high and weight.high >= low):
        raise ValueError(f"--guidance: {guidance} has no effect on steps from σ = {high:g} to {low:g}")
    if guide is not None:
        _check_guide(model, guide)
        return AutoGuidance(model, guide, weight)
    network = model.denoiser.network
    required: Mapping[str, str] = getattr(network, "required", {})
    if not set(cond or ()) - set(required):
        why = next(iter(required.values()), "the samples have no condition, such as a class")
        raise ValueError(f"--guidance: there is no null condition to guide from: {why}; or use --guide MODEL")
    return ClassifierFree(model, weight, keep=tuple(required), batched=isinstance(network, ConditionedNetwork))


def _check_guide(model: ds.Model, guide: ds.Model) -> None:
    """ValueError for a guide that is not a model of the same data."""
    own, other = model.sample_shape, guide.sample_shape
    if own != other:
        there, here = ("×".join(map(str, shape)) for shape in (other, own))
        raise ValueError(f"--guide: its samples are {there}; expected {here}, as the model's")
    classes = [getattr(m.denoiser.network, "label_dim", len(m.class_names)) for m in (model, guide)]
    if classes[0] != classes[1] or model.class_names != guide.class_names:
        names = [
            f"{count} classes ({', '.join(m.class_names[:3])}, …)" if count else "no classes"
            for count, m in zip(classes, (model, guide), strict=True)
        ]
        raise ValueError(f"--guide: has {names[1]}; expected those of the model, {names[0]}")
    shapes = [{name: each.shape for name, each in m.conditioning.items()} for m in (model, guide)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"--guide: has the conditions {shapes[1] or 'none'}; expected {shapes[0] or 'none'}")
    if model.transform != guide.transform:
        raise ValueError(f"--guide: has {guide.transform}; expected that of the model, {model.transform}")
    if not max(model.sigma_min, guide.sigma_min) < min(model.sigma_max, guide.sigma_max):
        raise ValueError(f"--guide: is defined for σ in [{guide.sigma_min:g}, {guide.sigma_max:g}] alone")
