import dataclasses
import json
import math

import pytest
import torch

import diffspace as ds
from diffspace.config import from_config, from_text, split_list, to_config, to_text
from diffspace.parts import FAMILIES, find


@pytest.mark.parametrize(
    ("family", "thing"),
    [
        ("preconditioning", ds.EDMPreconditioning(0.7, sigma_max=math.inf)),
        ("preconditioning", ds.VPPreconditioning(M=500)),
        ("preconditioning", ds.EpsilonPrediction(ds.LevelIndex(ds.IDDPMLevels(M=10)))),
        ("preconditioning", ds.VPrediction(ds.ContinuousTime(ds.CosineSchedule(), factor=1.0))),
        ("preconditioning", ds.EpsilonPrediction(ds.LevelIndex(ds.DiscreteLevels((0.1, 1.0, 7.0))))),
        ("noise", ds.LogUniform(0.1, 20.0)),
        ("steps", ds.EDMSteps(12, rho=5.0, terminal="sigma_min")),
        ("steps", ds.GivenSteps((3.0, 1.0, 0.0))),
        ("solver", ds.Heun(2 / 3)),
        ("solver", ds.LMS(3)),
        ("solver", ds.UniPC(2, "bh1")),
        ("solver", ds.DormandPrince(atol=math.inf)),
        ("solver", ds.AnalyticalFirstStep(ds.IPNDM(2), 0.5)),
        ("steps", ds.BetaSteps(7, schedule=ds.FlowSchedule(), alpha=0.4)),
        ("schedule", ds.VPSchedule(10.0, 0.2)),
    ],
)
def test_objects_survive_json(family, thing):
    text = json.dumps(to_config(family, thing), allow_nan=False)
    assert from_config(family, json.loads(text)) == thing


def test_networks_survive_json_with_the_same_keys():
    network = ds.networks.DDPMpp((1, 8, 8), label_dim=3, model_channels=8, channel_mult=(1, 2), num_blocks=1)
    copy = from_config("network", json.loads(json.dumps(to_config("network", network))))
    assert copy.config == network.config
    assert {k: v.shape for k, v in copy.state_dict().items()} == {k: v.shape for k, v in network.state_dict().items()}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"kind": "huen"}, r"solver.kind: 'huen' is unknown; did you mean 'heun'"),
        ({"kind": "heun", "alhpa": 1.0}, r"solver.alhpa: 'heun' has no such option; did you mean 'alpha'"),
        ({}, r"^solver.kind: is missing; known: ab, "),
        ({"kind": "heun", "alpha": 3.0}, r"^solver.alpha: "),
        ({"kind": "heun", "alpha": "half"}, r"solver.alpha: expected a number, got 'half'"),
        ({"kind": "heun", "alpha": True}, r"solver.alpha: expected a number, got True"),
        ({"kind": "dopri5", "max_steps": 2.5}, r"solver.max_steps: expected an integer, got 2.5"),
        ({"kind": "unipc", "lower_final": 0}, r"solver.lower_final: expected true or false, got 0"),
        ({"kind": "unipc", "variant": "bh3"}, r"solver.variant: expected 'bh1' or 'bh2', got 'bh3'"),
        ({"kind": "lms", "k": [2]}, r"solver.k: expected an integer, got \[2\]"),
        ({"kind": "afs", "solver": 3}, r"solver.solver: expected a solver, got 3"),
        ({"kind": "fitted", "levels": [1, 0]}, r"solver.rows: expected rows of 1, 2, … 1 numbers, got \[\]"),
        (
            {"kind": "fitted", "levels": [1, 0], "rows": [1]},
            r"solver.rows: expected a list \(a list \(a number each\) each\), got \[1\]",
        ),
    ],
)
def test_mistakes_are_named(config, message):
    with pytest.raises(ValueError, match=message):
        from_config("solver", config)


def test_what_has_no_name_cannot_be_written():
    @dataclasses.dataclass
    class Mine:
        order: int = 1

    with pytest.raises(ValueError, match="Mine"):
        to_config("solver", Mine())


def test_every_dataclass_of_a_family_can_be_made_from_its_defaults_or_says_what_is_missing():
    for family, kinds in FAMILIES.items():
        for kind in kinds:
            cls = find(family, kind)
            required = {
                name
                for name, field in getattr(cls, "__dataclass_fields__", {}).items()
                if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            }
            if dataclasses.is_dataclass(cls) and not required and kind != "transforms":  # which needs one that is on
                assert from_config(family, {"kind": kind}) == cls()


def test_presets_agree_with_the_weights_of_table_1():
    from diffspace import presets

    sigma = torch.tensor([0.05, 0.7, 9.0], dtype=torch.float64)
    for preset in (presets.VP, presets.VE, presets.IDDPM):
        torch.testing.assert_close(preset.preconditioning.weight(sigma), ds.InverseVariance()(sigma))
    torch.testing.assert_close(presets.EDM.preconditioning.weight(sigma), ds.EDMWeight(0.5)(sigma))


@pytest.mark.parametrize(
    ("family", "text", "thing"),
    [
        ("solver", "heun", ds.Heun()),
        ("solver", "heun:alpha=0.5", ds.Heun(0.5)),
        ("solver", "ab:k=4,prediction=x0", ds.AdamsBashforth(4, "x0")),
        ("steps", "edm:rho=10,sigma_min=0.02", ds.EDMSteps(rho=10, sigma_min=0.02)),
        ("steps", "loglinear", ds.LogLinearSteps()),
        ("steps", "given:levels=[80.0,1.5,0.0]", ds.GivenSteps((80.0, 1.5, 0.0))),
        (
            "solver",
            "afs:solver=(ab:k=4,prediction=x0),mean=0.1",
            ds.AnalyticalFirstStep(ds.AdamsBashforth(4, "x0"), mean=0.1),
        ),
        ("solver", "afs:solver=euler,sigma_data=0.5", ds.AnalyticalFirstStep(ds.Euler(), 0.5)),
        ("steps", "schedule:schedule=(vp:beta_d=10)", ds.ScheduleSteps(schedule=ds.VPSchedule(10.0))),
    ],
)
def test_words_there_and_back(family, text, thing):
    assert from_text(family, text) == thing
    assert from_text(family, to_text(family, thing)) == thing


def test_what_is_a_default_is_not_said():
    assert to_text("solver", ds.Heun(1.0)) == "heun"
    assert to_text("steps", ds.EDMSteps(9, rho=5), omit=("num_steps",)) == "edm:rho=5"
    assert to_text("steps", ds.EDMSteps(9)) == "edm:num_steps=9"


def test_a_list_with_commas_inside():
    text = "heun,ab:k=4,prediction=x0, given:levels=[80,1,0] ,afs:solver=(ab:k=2,prediction=x0),mean=0.1"
    words = ["heun", "ab:k=4,prediction=x0", "given:levels=[80,1,0]", "afs:solver=(ab:k=2,prediction=x0),mean=0.1"]
    assert split_list(text) == words


@pytest.mark.parametrize(
    ("family", "text", "message"),
    [
        ("solver", "huen", "solver.kind: 'huen' is unknown; did you mean 'heun'"),
        ("solver", "heun:aplha=1", "solver.aplha: 'heun' has no such option; did you mean 'alpha'"),
        ("solver", "heun:alpha", "heun:alpha: no module heun; expected module:Class, or kind:option=value"),
        ("solver", "heun:alpha=", "expected kind:option=value"),
        ("solver", "heun:alpha=1,alpha=1", "solver.alpha: is given twice"),
        ("solver", "heun:alpha=3", "^solver.alpha: "),
        ("solver", "heun:alpha=half", "solver.alpha: expected a number, got 'half'"),
        ("solver", "fitted", "solver.levels: is missing; expected a list \\(a number each\\)"),
        ("steps", "given:levels=3", "steps.levels: expected a list \\(a number each\\), got 3"),
        ("solver", "afs:solver=(huen)", "solver.kind: 'huen' is unknown"),
        ("solver", "afs:solver=(ab:k=4", "solver.kind: '\\(ab' is unknown"),
        ("steps", "", "steps.kind: '' is unknown"),
        ("solver", "diffspace.sampling:Solver", "^solver: diffspace.sampling.solvers.base:Solver is abstract"),
    ],
)
def test_mistakes_in_words_are_named(family, text, message):
    with pytest.raises(ValueError, match=message):
        from_text(family, text)
