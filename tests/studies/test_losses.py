"""The weighted loss of a small training, from that of an untrained network down to the attainable one."""

import math

import pytest
import torch

from diffspace.objective import LogNormal
from diffspace.studies import loss_stages, three_modes


def test_loss_of_a_training_on_the_spot():
    data = three_modes()
    points = data.sample(4000, generator=torch.Generator().manual_seed(1)).float()
    found = loss_stages(data, points, steps=200)
    start, way, end = found.stages
    # F = 0 has the loss λ·σ²σ_d²/(σ² + σ_d²) = 1
    assert start.loss.tolist() == pytest.approx([1.0] * len(start.loss), abs=0.05)
    middle = (end.sigma > 0.1) & (end.sigma < 0.5)
    best = found.attainable.loss
    assert bool((end.loss[middle] < way.loss[middle]).all())
    assert bool((end.loss > best - 0.02).all())
    assert float((end.loss - best)[middle].max()) < 0.15
    assert float(best.min()) < 0.6
    # p_train over ln σ
    assert float(torch.trapezoid(found.density, found.sigma.log())) == pytest.approx(1, abs=1e-3)
    peak = float(found.sigma[found.density.argmax()])
    assert math.log(peak) == pytest.approx(LogNormal.for_data(math.sqrt(data.moments()[1])).P_mean, abs=0.1)
