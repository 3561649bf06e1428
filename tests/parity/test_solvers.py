"""Every deterministic case of two public implementations of multistep and single-step solvers, through `sample()`."""

import pytest
import torch

from diffspace import (
    IPNDM,
    LMS,
    DPMSolver2,
    DPMSolverPP2M,
    DPMSolverPP2S,
    DPMSolverPP3M,
    EDMSteps,
    Euler,
    UniPC,
    count_evaluations,
    sample,
)
from golden import read_golden

GOLDEN, MIXTURE, LATENTS = read_golden("solvers")
SOLVERS = {
    "lms order=4": LMS(4),
    "dpm_2": DPMSolver2(),
    "dpmpp_2m": DPMSolverPP2M(),
    "dpmpp_2s (ancestral eta=0)": DPMSolverPP2S(),
    "euler": Euler(),
    "ipndm order=4": IPNDM(4),
    "dpm_pp order=3 (x0)": DPMSolverPP3M(),
    "unipc order=3 bh2 (x0)": UniPC(3, "bh2"),
    "unipc order=2 bh1 (x0)": UniPC(2, "bh1"),
}
CASES = {case["solver"]: case for case in GOLDEN["cases"]}


@pytest.mark.parametrize("name", SOLVERS)
def test_end_points_are_the_others(name):
    case, solver = CASES[name], SOLVERS[name]
    to_zero = "appended 0" in case["source"]
    steps = EDMSteps(6) if to_zero else EDMSteps(5, terminal="sigma_min")
    result = sample(MIXTURE, latents=LATENTS, steps=steps, solver=solver)
    expected = torch.tensor(case["x"], dtype=torch.float64)
    assert ((result.x - expected).abs() / expected.abs()).max() < 1e-9
    assert result.nfe == count_evaluations(solver, steps.num_steps, to_zero)


def test_no_deterministic_case_is_missing():
    stochastic = {"euler_ancestral eta=1", "dpmpp_2m_sde eta=1 midpoint", "dpmpp_3m_sde eta=1"}
    assert set(CASES) == set(SOLVERS) | stochastic
