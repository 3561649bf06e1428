import dataclasses
import json
import math

import pytest
import torch

import diffspace as ds
from diffspace.registry import FAMILIES, from_config, to_config


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
        ({}, r"solver.kind: None"),
        ({"kind": "heun", "alpha": 3.0}, r"alpha: 3.0"),
        ({"kind": "heun", "alpha": "half"}, r"solver.alpha: 'half'; want a number"),
        ({"kind": "heun", "alpha": True}, r"solver.alpha: True; want a number"),
        ({"kind": "dopri5", "max_steps": 2.5}, r"solver.max_steps: 2.5; want a whole number"),
        ({"kind": "unipc", "lower_final": 0}, r"solver.lower_final: 0; want true or false"),
        ({"kind": "unipc", "variant": "bh3"}, r"solver.variant: 'bh3'; want 'bh1', 'bh2'"),
        ({"kind": "lms", "k": [2]}, r"solver.k: \(2,\); want a whole number"),
        ({"kind": "afs", "solver": 3}, r"solver.solver: 3; want Solver"),
        ({"kind": "fitted", "levels": [1, 0]}, r"solver.weights: is missing; 'fitted' wants a list"),
        ({"kind": "fitted", "levels": [1, 0], "weights": [1]}, r"solver.weights: \(1,\); want a list, each of a list"),
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
        for kind, cls in kinds.items():
            required = {
                name
                for name, field in getattr(cls, "__dataclass_fields__", {}).items()
                if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            }
            if dataclasses.is_dataclass(cls) and not required:
                assert from_config(family, {"kind": kind}) == cls()


def test_presets_agree_with_the_weights_of_table_1():
    from diffspace import presets

    sigma = torch.tensor([0.05, 0.7, 9.0], dtype=torch.float64)
    for preset in (presets.VP, presets.VE, presets.IDDPM):
        torch.testing.assert_close(preset.preconditioning.weight(sigma), ds.InverseVariance()(sigma))
    torch.testing.assert_close(presets.EDM.preconditioning.weight(sigma), ds.EDMWeight(0.5)(sigma))
