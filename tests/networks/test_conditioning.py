"""Named conditions in the networks: standardisation, null rows, dropping, images of smaller sides."""

import json

import pytest
import torch

import diffspace as ds
from diffspace.conditions import Condition
from diffspace.networks.embedding import _kept

PARAMS = torch.rand(32, 2, generator=torch.Generator().manual_seed(0)) * 5 + 1
SHAPES = [((1, 16), (2, 8)), ((1, 8, 8), (1, 4, 4)), ((1, 4, 4, 4), (1, 2, 2, 2))]


def randomised(network: torch.nn.Module) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(1)
    for p in network.parameters():
        p.data = torch.randn(p.shape, generator=generator) * 0.3
    return network.eval()


def unet(kind: type, shape: tuple[int, ...], low: tuple[int, ...], dropout: float = 0.3, **options) -> torch.nn.Module:
    image = Condition.of(torch.randn(32, *low, generator=torch.Generator().manual_seed(2)))
    conditioning = {"params": Condition.of(PARAMS), "low": image}
    network = kind(
        shape,
        model_channels=8,
        channel_mult=(1, 2),
        num_blocks=1,
        attn_resolutions=(),
        label_dropout=dropout,
        conditioning=conditioning,
        **options,
    )
    return randomised(network)


@pytest.mark.parametrize(("shape", "low"), SHAPES)
@pytest.mark.parametrize("kind", [ds.networks.DDPMpp, ds.networks.NCSNpp, ds.networks.ADM])
def test_conditions_reach_the_result_and_null_rows_are_what_is_missing(kind, shape, low) -> None:
    network = unet(kind, shape, low, label_dim=3)
    x, t = torch.randn(3, *shape), torch.zeros(3)
    cond = {"params": PARAMS[:3], "low": torch.randn(3, *low), "labels": torch.tensor([0, 1, 2])}
    y = network(x, t, cond)
    for name, other in (("params", PARAMS[3:6]), ("low", torch.randn(3, *low)), ("labels", torch.tensor([1, 2, 0]))):
        assert (network(x, t, cond | {name: other}) - y).abs().amax(tuple(range(1, x.ndim))).min() > 1e-4
        without = {key: value for key, value in cond.items() if key != name}
        like = network.one_hot(other) if name == "labels" else other
        assert torch.equal(network(x, t, cond | {name: network.null_rows(name, like, 3)}), network(x, t, without))
    # the mean of the training values is not the null condition
    mean = PARAMS.mean(0).expand(3, 2)
    assert (network(x, t, {"params": mean}) - network(x, t)).abs().max() > 1e-4


def test_config_builds_the_same_network() -> None:
    network = unet(ds.networks.ADM, (1, 8, 8), (1, 4, 4))
    config = json.loads(json.dumps(network.config))
    again = ds.networks.ADM(**config).eval()
    again.load_state_dict(network.state_dict())
    assert again.config == network.config
    cond, x, t = {"params": PARAMS[:2], "low": torch.randn(2, 1, 4, 4)}, torch.randn(2, 1, 8, 8), torch.ones(2)
    assert torch.equal(again(x, t, cond), network(x, t, cond))


def test_values_are_standardised() -> None:
    condition = Condition.of(PARAMS)
    z = condition.standardise(PARAMS)
    assert torch.allclose(z.mean(0), torch.zeros(2), atol=1e-6)
    assert torch.allclose(z.std(0, correction=0), torch.ones(2), atol=1e-6)
    # metres or millimetres: the same network
    units = [randomised(ds.networks.MLP((2,), conditioning={"v": Condition.of(PARAMS * unit)})) for unit in (1, 1000)]
    results = [net(torch.ones(4, 2), torch.zeros(4), {"v": PARAMS[:4] * unit}) for net, unit in zip(units, (1, 1000))]  # noqa: B905
    assert torch.allclose(*results, atol=1e-5)
    several = torch.tensor([[0, 1, 1], [1, 0, 1], [0, 0, 1]])
    assert torch.equal(Condition.of(several).standardise(several), several.float())


def test_smaller_images_are_repeated() -> None:
    small = unet(ds.networks.DDPMpp, (1, 8, 8), (1, 4, 4))
    large = unet(ds.networks.DDPMpp, (1, 8, 8), (1, 8, 8))
    large.conditioning["low"] = small.conditioning["low"].__class__(
        (1, 8, 8), small.conditioning["low"].shift, small.conditioning["low"].scale
    )
    x, t, low = torch.randn(2, 1, 8, 8), torch.zeros(2), torch.randn(2, 1, 4, 4)
    twice = low.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.equal(small(x, t, {"low": low}), large(x, t, {"low": twice}))
    # samples of another size, with images of the same share of it
    assert small(torch.randn(2, 1, 16, 8), t, {"low": torch.randn(2, 1, 8, 4)}).shape == (2, 1, 16, 8)


def test_each_condition_is_dropped_with_the_probability() -> None:
    torch.manual_seed(0)
    kept = _kept(0.2, 100_000, 3, torch.device("cpu"))
    assert (~kept).double().mean(0) == pytest.approx([0.2] * 3, abs=0.005)
    assert float((~kept).all(1).double().mean()) == pytest.approx(0.1 + 0.9 * (0.1 / 0.9) ** 3, abs=0.004)
    assert _kept(0.3, 100_000, 1, torch.device("cpu")).double().mean() == pytest.approx(0.7, abs=0.005)


def test_training_drops_to_what_evaluation_calls_null() -> None:
    network = unet(ds.networks.DDPMpp, (1, 8, 8), (1, 4, 4), dropout=0.5)
    network.dropout = 0.0
    for module in network.modules():
        if hasattr(module, "dropout"):
            module.dropout = 0.0
    x, t = torch.randn(1, 1, 8, 8).repeat(64, 1, 1, 1), torch.zeros(64)
    cond = {"params": PARAMS[:1].expand(64, 2), "low": torch.randn(1, 1, 4, 4).expand(64, 1, 4, 4)}
    torch.manual_seed(0)
    seen = network.train()(x, t, cond)
    network.eval()
    params, low = {"params": cond["params"][:1]}, {"low": cond["low"][:1]}
    forms = torch.cat([network(x[:1], t[:1], form) for form in (params | low, params, low, {})])
    distance, form = (seen[:, None] - forms[None]).abs().flatten(2).amax(2).min(1)
    assert distance.max() < 1e-5
    assert set(form.tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("cond", "message"),
    [
        ({"low": torch.zeros(2, 1, 4, 4)}, "DDPMpp requires 'params'; it was never trained without .* of shape"),
        ({"params": torch.zeros(2, 3)}, r"params: expected shape \(2, 2\), for each sample 2 numbers, in training 1"),
        ({"low": torch.zeros(2, 1, 5, 4)}, r"low: expected shape \(2, 1, 4, 4\)"),
        ({"parms": torch.zeros(2, 2)}, "does not know 'parms'; it takes params, low"),
    ],
)
def test_mistakes_are_named(cond: dict[str, torch.Tensor], message: str) -> None:
    network = unet(ds.networks.DDPMpp, (1, 8, 8), (1, 4, 4), dropout=0.0)
    full = {"params": PARAMS[:2], "low": torch.zeros(2, 1, 4, 4)}
    given = cond if "requires" in message else full | cond
    with pytest.raises(ValueError, match=message):
        network(torch.zeros(2, 1, 8, 8), torch.zeros(2), given)


@pytest.mark.parametrize(
    ("conditioning", "message"),
    [
        (
            {"low": {"shape": [1, 3, 4]}},
            "low: its sides are 3×4, those of the samples 8×8; expected the same, or whole",
        ),
        ({"low": {"shape": [1, 4]}}, "low: its sides are 4, those of the samples 8×8"),
        ({"v": {"shape": [2], "scale": [1.0, 0.0]}}, "conditioning.v.scale: expected no 0"),
        ({"v": {"shape": [2], "shift": [1.0, 0.0, 1.0]}}, "conditioning.v.shift: expected 2 numbers"),
        ({"v": {"shape": []}}, r"conditioning.v.shape: expected \(1,\)"),
        ({"augment": {}}, "'augment' cannot be the name of a condition"),
        ({"a=b": {}}, "'a=b' cannot be the name"),
    ],
)
def test_conditions_that_cannot_be(conditioning: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ds.networks.DDPMpp((1, 8, 8), model_channels=8, channel_mult=(1,), num_blocks=1, conditioning=conditioning)


def test_values_that_say_nothing() -> None:
    with pytest.raises(ValueError, match="1 of 4 rows are not finite, the first is number 2"):
        Condition.of(torch.tensor([0.0, 1.0, torch.nan, 1.0]))
    with pytest.raises(ValueError, match="number 1 is 3 in every row"):
        Condition.of(torch.tensor([[0.0, 3.0], [1.0, 3.0]]))


def test_guidance_compares_with_the_null_condition() -> None:
    network = unet(ds.networks.DDPMpp, (1, 8, 8), (1, 4, 4))
    denoiser = ds.Preconditioned(network, ds.EDMPreconditioning()).eval()
    x, sigma = torch.randn(2, 1, 8, 8), torch.tensor(1.0)
    cond = {"params": PARAMS[:2], "low": torch.randn(2, 1, 4, 4)}
    guided = ds.guidance.ClassifierFree(denoiser, 3.0)(x, sigma, cond)
    free, given = denoiser(x, sigma), denoiser(x, sigma, cond)
    assert torch.allclose(guided, free + 3 * (given - free), atol=1e-4)
    kept = ds.guidance.ClassifierFree(denoiser, 3.0, keep=("low",))(x, sigma, cond)
    low = denoiser(x, sigma, {"low": cond["low"]})
    assert torch.allclose(kept, low + 3 * (given - low), atol=1e-4)
    never = ds.Preconditioned(unet(ds.networks.DDPMpp, (1, 8, 8), (1, 4, 4), dropout=0.0), ds.EDMPreconditioning())
    with pytest.raises(ValueError, match="requires 'params' in both branches; it was never trained without"):
        ds.guidance.ClassifierFree(never, 3.0)
