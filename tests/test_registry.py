import dataclasses
import json
import math

import pytest
import torch

import edmkit as ek
from edmkit.registry import FAMILIES, from_config, to_config


@pytest.mark.parametrize(
    ("family", "thing"),
    [
        ("preconditioning", ek.EDMPreconditioning(0.7, sigma_max=math.inf)),
        ("preconditioning", ek.VPPreconditioning(M=500)),
        ("preconditioning", ek.EpsilonPrediction(ek.LevelIndex(ek.IDDPMLevels(M=10)))),
        ("preconditioning", ek.VPrediction(ek.ContinuousTime(ek.CosineSchedule(), factor=1.0))),
        ("preconditioning", ek.EpsilonPrediction(ek.LevelIndex(ek.DiscreteLevels((0.1, 1.0, 7.0))))),
        ("noise", ek.LogUniform(0.1, 20.0)),
        ("steps", ek.EDMSteps(12, rho=5.0, terminal="sigma_min")),
        ("steps", ek.GivenSteps((3.0, 1.0, 0.0))),
        ("solver", ek.Heun(2 / 3)),
        ("solver", ek.LMS(3)),
        ("solver", ek.UniPC(2, "bh1")),
        ("solver", ek.DormandPrince(atol=math.inf)),
        ("solver", ek.AnalyticalFirstStep(ek.IPNDM(2), 0.5)),
        ("steps", ek.BetaSteps(7, schedule=ek.FlowSchedule(), alpha=0.4)),
        ("schedule", ek.VPSchedule(10.0, 0.2)),
    ],
)
def test_objects_survive_json(family, thing):
    text = json.dumps(to_config(family, thing), allow_nan=False)
    assert from_config(family, json.loads(text)) == thing


def test_networks_survive_json_with_the_same_keys():
    network = ek.networks.DDPMpp((1, 8, 8), label_dim=3, model_channels=8, channel_mult=(1, 2), num_blocks=1)
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
    from edmkit import presets

    sigma = torch.tensor([0.05, 0.7, 9.0], dtype=torch.float64)
    for preset in (presets.VP, presets.VE, presets.IDDPM):
        torch.testing.assert_close(preset.preconditioning.weight(sigma), ek.InverseVariance()(sigma))
    torch.testing.assert_close(presets.EDM.preconditioning.weight(sigma), ek.EDMWeight(0.5)(sigma))
