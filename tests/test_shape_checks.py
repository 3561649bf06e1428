import jaxtyping
import pytest
import shape_checks
import torch

from diffspace import EDMPreconditioning


def test_a_wrong_shape_is_found():
    with pytest.raises(jaxtyping.TypeCheckError):
        EDMPreconditioning().weight("high")


def test_only_the_first_calls_of_a_test_are_checked():
    weight = EDMPreconditioning().weight
    for _ in range(shape_checks.CALLS + 1):
        weight(torch.tensor(1.0))
    with pytest.raises(TypeError, match="full_like"):
        weight("high")
