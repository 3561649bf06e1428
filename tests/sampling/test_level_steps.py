"""Steps on the levels of a table, against their indices written down."""

import pytest
import torch

import diffspace as ds
from diffspace import DiscreteLevels, IDDPMLevels, IDDPMSteps
from diffspace.sampling import LevelSteps
from diffspace.sampling.steps import steps_for

LEVELS = DiscreteLevels(tuple((n + 1) / 10 for n in range(10)))  # σ_n = (n + 1)/10


def indices(**options):
    sigmas = LevelSteps(levels=LEVELS, **options).sigmas().tolist()
    assert sigmas == sorted(set(sigmas), reverse=True)
    return [round(10 * sigma) - 1 for sigma in sigmas]  # −1 is σ = 0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"num_steps": 4}, [9, 6, 3, 0, -1]),
        ({"num_steps": 3}, [9, 4, 0, -1]),  # 4.5 to the even neighbour
        ({"num_steps": 1}, [9, -1]),
        ({"num_steps": 10}, [9, 8, 7, 6, 5, 4, 3, 2, 1, 0, -1]),
        ({"num_steps": 3, "terminal": "sigma_min"}, [9, 6, 3, 0]),
        ({"num_steps": 4, "spacing": "leading"}, [6, 4, 2, 0, -1]),
        ({"num_steps": 4, "spacing": "leading", "offset": 1}, [7, 5, 3, 1, -1]),
        ({"num_steps": 4, "spacing": "leading", "terminal": "sigma_min"}, [8, 6, 4, 2, 0]),
        ({"num_steps": 4, "spacing": "trailing"}, [9, 7, 4, 1, -1]),  # 10, 7.5 → 8, 5, 2.5 → 2, less one
        ({"num_steps": 1, "spacing": "trailing"}, [9, -1]),
        ({"num_steps": 2, "sigma_max": 0.75}, [6, 0, -1]),
        ({"num_steps": 3, "sigma_min": 0.45}, [9, 6, 4, -1]),  # of the six levels from 4: 2.5 to the even neighbour
    ],
)
def test_indices(options, expected):
    assert indices(**options) == expected


def test_the_paper_s_steps_are_those_from_u_8_up_to_the_rounding_of_a_half():
    u = IDDPMLevels().table()
    for n in (2, 10, 32, 100, 992):
        ours = LevelSteps(n, sigma_max=float(u[999 - 8]), levels=IDDPMLevels()).sigmas()
        torch.testing.assert_close(ours, IDDPMSteps(n).sigmas(), rtol=0, atol=0)


def test_a_start_keeps_the_number_of_steps():
    sigmas = LevelSteps(3, levels=LEVELS).sigmas(start=0.62)
    assert sigmas.tolist() == pytest.approx([0.62, 0.3, 0.1, 0.0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spacing": "even"}, "spacing: expected 'linspace', 'leading' or 'trailing', got 'even'"),
        ({"spacing": "trailing", "terminal": "sigma_min"}, "terminal: spacing='trailing' does not reach"),
        ({"offset": 1}, "offset: expected 0, .* got 1"),
        ({"offset": -1, "spacing": "leading"}, "offset: expected 0, .* got -1"),
        ({"offset": 1, "spacing": "leading", "terminal": "sigma_min"}, "offset: expected 0, .* got 1"),
    ],
)
def test_options_are_checked(options, message, monkeypatch):
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
    with pytest.raises(ValueError, match=message):
        LevelSteps(4, levels=LEVELS, **options)


def test_there_must_be_as_many_levels():
    with pytest.raises(ValueError, match=r"num_steps: 11, but only 10 levels are in \[0.1, 1\]"):
        LevelSteps(11, levels=LEVELS).sigmas()
    with pytest.raises(ValueError, match="offset: 4 with 4 steps leads beyond the 10 levels"):
        LevelSteps(4, levels=LEVELS, spacing="leading", offset=4).sigmas()


def test_the_table_is_that_of_the_denoiser():
    def rounded(x, sigma, cond=None):
        return x

    rounded.levels = LEVELS
    assert steps_for(rounded, LevelSteps(4)).sigmas().tolist() == LevelSteps(4, levels=LEVELS).sigmas().tolist()
    network = ds.networks.MLP((2,), width=8)
    times = ds.LevelIndex(IDDPMLevels())
    denoiser = ds.Preconditioned(network, ds.EpsilonPrediction(times))
    told = steps_for(denoiser, LevelSteps(4))
    assert told.levels == IDDPMLevels()
    for wrapped in (ds.Model(denoiser), ds.guidance.AutoGuidance(denoiser, denoiser, 2.0)):
        assert steps_for(wrapped, LevelSteps(4)) == told
    with pytest.raises(ValueError, match="levels: no table is given, and the denoiser states none"):
        steps_for(lambda x, sigma, cond=None: x, LevelSteps(4))
