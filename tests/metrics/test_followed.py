"""How well samples follow their conditions, where the answer is known."""

import pytest
import torch

from diffspace.metrics import evaluate


def points(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Points (n, 3) along a line, and where they are on it, of standard deviation 1."""
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(n, 1, generator=generator)
    return v * torch.tensor([1.0, -2.0, 0.5]) + 0.05 * torch.randn(n, 3, generator=generator), v


def test_the_nearest_training_item_has_the_condition() -> None:
    (train, known), (held_out, own) = points(4000, 0), points(1000, 1)
    followed, asked = points(1000, 2)
    given = {"seeds": range(1000), "scores": ["frechet"]}
    good = evaluate(followed, train, held_out, conditions={"v": (asked, known, own)}, **given)
    other = evaluate(followed, train, held_out, conditions={"v": (asked.roll(1, 0), known, own)}, **given)
    assert good.conditions[0].real == pytest.approx(0.05 / 5.25**0.5, rel=0.5)  # the noise along the line
    assert good.conditions[0].value == pytest.approx(good.conditions[0].real, rel=0.2)
    assert good.conditions[0].unrelated == pytest.approx(2**0.5, rel=0.1)
    assert other.conditions[0].value == pytest.approx(2**0.5, rel=0.1)
    row = next(row for row in good.rows() if row.name == "v")
    assert float(row.value) == pytest.approx(good.conditions[0].value, rel=0.01)
    assert good.as_dict()["conditions"][0]["name"] == "v"
    with pytest.raises(ValueError, match=r"conditions: 'v' of train has shape \(1000, 1\) for 4000 items"):
        evaluate(followed, train, held_out, conditions={"v": (asked, own, own)}, **given)


def test_unrelated_items_are_any_two_in_whatever_order_the_data_are() -> None:
    v = torch.linspace(0, 1, 500)[:, None]
    found = evaluate(v, v, v, seeds=range(500), scores=["frechet"], conditions={"v": (v, v, v)})
    assert found.conditions[0].unrelated == pytest.approx(2**0.5 * float(v.std()), rel=1e-5)
