import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

from diffspace.transform import Transform

PIXELS = Transform((127.5,), (127.5,), lowest=0.0, highest=255.0, kind="integer", dtype="uint8")


def test_bytes_come_back_exactly() -> None:
    raw = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    x = PIXELS.forward(raw)
    assert x.dtype == torch.float32
    assert (x.min().item(), x.max().item()) == (-1, 1)
    assert torch.equal(x.double(), ((raw.double() - 127.5) / 127.5).float().double())
    assert torch.equal(PIXELS.inverse(x), raw)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64"])
@settings(deadline=None, max_examples=25)
@given(shift=st.floats(-100, 100), scale=st.floats(0.5, 1000))
def test_integers_come_back_exactly(dtype: str, shift: float, scale: float) -> None:
    transform = Transform((shift,), (scale,), kind="integer", dtype=dtype)
    raw = torch.arange(-128, 128).to(getattr(torch, dtype)).reshape(2, -1)
    assert torch.equal(transform.inverse(transform.forward(raw)), raw)


def test_channels_have_their_own_shift_and_scale() -> None:
    transform = Transform((1.0, 2.0), (4.0, 8.0))
    raw = torch.tensor([[[1.0, 5.0], [2.0, 10.0]]])
    x = transform.forward(raw)
    assert x.tolist() == [[[0, 1], [0, 1]]]
    assert torch.equal(transform.inverse(x), raw)


def test_float64_keeps_the_digits_that_float32_has_not() -> None:
    raw = 1.7e9 + torch.arange(5, dtype=torch.float64)[:, None]
    transform = Transform((1.7e9 + 2,), (2.0,), dtype="float64")
    x = transform.forward(raw)
    assert x.flatten().tolist() == [-1, -0.5, 0, 0.5, 1]
    assert torch.equal(transform.inverse(x), raw)


def test_inverse_clips_to_the_bounds_and_rounds() -> None:
    x = torch.tensor([[-3.0, -1.0, 0.0, 1.0, 3.0]])
    assert PIXELS.inverse(x).tolist() == [[0, 0, 128, 255, 255]]  # 127.5 rounds to even


def test_inverse_never_wraps_round_the_type() -> None:
    for dtype, low, high in (("uint8", 0, 255), ("int8", -128, 127), ("int16", -32768, 32767)):
        transform = Transform((0.0,), (1.0,), kind="integer", dtype=dtype)
        assert transform.inverse(torch.tensor([[-1e6, 1e6]])).tolist() == [[low, high]]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused_both_ways(bad: float) -> None:
    with pytest.raises(ValueError, match=r"raw: .*not finite"):
        Transform().forward(torch.tensor([[0.0, bad]]))
    with pytest.raises(ValueError, match=r"x: .*not finite"):
        PIXELS.inverse(torch.tensor([[0.0, bad]]))


def test_raw_values_out_of_bounds_are_named() -> None:
    transform = Transform((0.5,), (0.5,), lowest=0.0, highest=1.0)
    with pytest.raises(ValueError, match=r"raw: expected values in the transform's bounds \[0, 1\], got \[0, 255\]"):
        transform.forward(torch.tensor([[0.0, 255.0]]))
    with pytest.raises(ValueError, match="-inf, 1"):
        Transform(highest=1.0).forward(torch.tensor([[2.0]]))


def test_a_wrong_number_of_channels_is_named() -> None:
    transform = Transform((0.0,) * 3, (1.0,) * 3)
    with pytest.raises(ValueError, match=r"raw: expected 3 channels in dimension 1, got shape \(2, 4, 5\)"):
        transform.forward(torch.zeros(2, 4, 5))
    with pytest.raises(ValueError, match=r"x: .* got shape \(2, 4\)"):
        transform.inverse(torch.zeros(2, 4))


def test_an_empty_batch_passes() -> None:
    assert PIXELS.forward(torch.zeros(0, 1, 2, 2, dtype=torch.uint8)).shape == (0, 1, 2, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shift": (), "scale": ()}, "shift, scale"),
        ({"shift": (0.0, 1.0)}, "shift, scale: .* got 2 and 1"),
        ({"shift": (math.nan,)}, "shift"),
        ({"scale": (0.0,)}, "scale"),
        ({"scale": (math.inf,)}, "scale"),
        ({"lowest": 1.0, "highest": 1.0}, "lowest < highest"),
        ({"dtype": "float31"}, "dtype"),
        ({"dtype": "nn"}, "dtype"),
        ({"dtype": "complex64"}, "dtype"),
        ({"dtype": "uint8"}, "kind='integer'"),
    ],
)
def test_nonsense_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Transform(**arguments)
