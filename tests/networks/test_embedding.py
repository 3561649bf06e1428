"""What the networks share: conditions, config, independence of samples, precision, compilation."""

from __future__ import annotations

import copy
import functools
import inspect
import json
import math
import subprocess
import sys
import textwrap
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffspace.networks import ADM, MLP, DDPMpp, NCSNpp
from diffspace.networks.embedding import ConditionedNetwork

LABELS, AUGMENT = 5, 3
MAKERS: dict[str, Callable[..., ConditionedNetwork]] = {
    "mlp": lambda **options: MLP((3, 2), **{"width": 16, "depth": 2, **options}),
    **{
        name: functools.partial(make, (2, 8, 6), model_channels=8, channel_mult=[1, 2], num_blocks=1)
        for name, make in {"ddpmpp": DDPMpp, "ncsnpp": NCSNpp, "adm": ADM}.items()
    },
}


@pytest.fixture(params=list(MAKERS))
def make(request: pytest.FixtureRequest) -> Callable[..., ConditionedNetwork]:
    return MAKERS[request.param]


def conditional(make: Callable[..., ConditionedNetwork], **options: object) -> ConditionedNetwork:
    """A network with all parameters drawn at random, so that everything has an effect, in evaluation mode."""
    torch.manual_seed(0)
    network = make(**{"label_dim": LABELS, "augment_dim": AUGMENT, "label_dropout": 0.1, **options})
    for p in network.parameters():
        nn.init.normal_(p, std=1 / math.sqrt(p[0].numel()) if p.ndim > 1 else 0.3)
    return network.eval()


def inputs(network: ConditionedNetwork, batch: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, *network.config["shape"], generator=generator)
    labels = torch.randint(LABELS, (batch,), generator=generator)
    augment = torch.randn(batch, AUGMENT, generator=generator)
    return x, torch.linspace(-1.5, 1.0, batch), {"labels": labels, "augment": augment}


def test_without_label_dropout_labels_may_be_missing_in_training_alone(make: Callable[..., ConditionedNetwork]) -> None:
    network = conditional(make, label_dropout=0.0)
    x, c_noise, cond = inputs(network, 2)
    assert not network.null_trained
    for given in (None, {"augment": cond["augment"]}):
        with pytest.raises(ValueError, match=r"^cond: \w+ requires .labels.; .* train with network.label_dropout=0.1$"):
            network(x, c_noise, given)
        network.train()(x, c_noise, given)
        network.eval()
    network(x, c_noise, {"labels": torch.zeros(2, LABELS)})
    assert conditional(make).null_trained
    assert conditional(make, label_dim=0, label_dropout=0.0).null_trained


def test_config_holds_every_argument_and_rebuilds_the_network(make: Callable[..., ConditionedNetwork]) -> None:
    network = conditional(make, dropout=0.25, label_dropout=0.125)
    assert list(network.config) == list(inspect.signature(type(network)).parameters)
    config = json.loads(json.dumps(network.config))
    assert config == network.config
    again = type(network)(**config)
    assert again.config == network.config
    again.load_state_dict(network.state_dict())
    x, c_noise, cond = inputs(network, 3)
    assert torch.equal(again.eval()(x, c_noise, cond), network(x, c_noise, cond))


def test_every_sample_is_independent_of_its_batch(make: Callable[..., ConditionedNetwork]) -> None:
    network = conditional(make)
    x, c_noise, cond = inputs(network, 7)
    together = network(x, c_noise, cond)
    for i in range(7):
        alone = network(x[i : i + 1], c_noise[i : i + 1], {name: v[i : i + 1] for name, v in cond.items()})
        torch.testing.assert_close(alone[0], together[i], rtol=1e-5, atol=1e-5)


def test_every_parameter_and_input_receives_a_gradient(make: Callable[..., ConditionedNetwork]) -> None:
    network = conditional(make).train()
    x, c_noise, cond = inputs(network, 4)
    leaves = [x.requires_grad_(), c_noise.requires_grad_(), cond["augment"].requires_grad_()]
    network(x, c_noise, cond).square().sum().backward()
    missing = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert missing == []
    assert all(leaf.grad is not None and leaf.grad.abs().sum() > 0 for leaf in leaves)


def test_single_and_double_precision_agree(make: Callable[..., ConditionedNetwork]) -> None:
    network = conditional(make)
    x, c_noise, cond = inputs(network, 4)
    double = copy.deepcopy(network).double()(x.double(), c_noise.double(), cond)
    assert double.dtype == torch.float64
    torch.testing.assert_close(network(x, c_noise, cond).double(), double, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.01), (torch.bfloat16, 0.05)])
def test_half_precision_is_near_single(
    make: Callable[..., ConditionedNetwork], dtype: torch.dtype, tolerance: float
) -> None:
    network = conditional(make)
    x, c_noise, cond = inputs(network, 4)
    c_noise = c_noise + 900  # where half precision has no phase: c_noise stays in float32
    exact = network(x, c_noise, cond)
    half = copy.deepcopy(network).to(dtype)(x.to(dtype), c_noise, cond)
    assert half.dtype == dtype
    assert (half.float() - exact).norm() < tolerance * exact.norm()


def test_autocast_is_near_single_precision(make: Callable[..., ConditionedNetwork]) -> None:
    network = conditional(make).train()
    x, c_noise, cond = inputs(network, 4)
    exact = network.eval()(x, c_noise, cond)
    with torch.autocast("cpu", torch.bfloat16):
        low = network(x, c_noise, cond)
    assert low.dtype == torch.bfloat16
    assert (low.float() - exact).norm() < 0.05 * exact.norm()
    low.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_forms_of_labels_agree(make: Callable[..., ConditionedNetwork]) -> None:
    network = conditional(make)
    x, c_noise, cond = inputs(network, 6)
    indices = cond["labels"]
    expected = network(x, c_noise, {"labels": indices})
    one_hot = F.one_hot(indices, LABELS)
    for labels in (indices.int(), indices.to(torch.uint8), one_hot, one_hot.float(), one_hot.double(), one_hot.bool()):
        assert torch.equal(network(x, c_noise, {"labels": labels}), expected)
    assert not torch.allclose(network(x, c_noise, {"labels": (indices + 1) % LABELS}), expected)


def test_missing_conditions_are_zeros(make: Callable[..., ConditionedNetwork]) -> None:
    network = conditional(make)
    x, c_noise, cond = inputs(network, 4)
    zeros = {"labels": torch.zeros(4, LABELS), "augment": torch.zeros(4, AUGMENT)}
    null = network(x, c_noise, zeros)
    assert torch.equal(network(x, c_noise), null)
    assert torch.equal(network(x, c_noise, {}), null)
    for name, value in cond.items():
        expected = network(x, c_noise, {**zeros, name: value})
        assert torch.equal(network(x, c_noise, {name: value}), expected)
        assert not torch.allclose(expected, null)


def test_label_dropout_drops_the_labels_of_single_samples_in_training(make: Callable[..., ConditionedNetwork]) -> None:
    network = conditional(make, label_dropout=0.25, dropout=0.0)
    x, c_noise, cond = inputs(network, 400)
    labelled, null = network(x, c_noise, cond), network(x, c_noise, {"augment": cond["augment"]})
    output = network.train()(x, c_noise, cond)

    def matches(expected: Tensor) -> Tensor:
        return (output - expected).abs().flatten(1).amax(1) < 1e-4

    dropped, kept = matches(null), matches(labelled)
    assert (dropped ^ kept).all()
    assert abs(dropped.sum().item() - 100) < 4 * math.sqrt(400 * 0.25 * 0.75)


def test_unknown_conditions_are_refused_by_name(make: Callable[..., ConditionedNetwork]) -> None:
    network = make()
    x, c_noise, cond = inputs(network, 2)
    with pytest.raises(ValueError, match="'augment', 'labels'; it takes no conditions"):
        network(x, c_noise, cond)
    with pytest.raises(ValueError, match="'label'; it takes labels, augment"):
        conditional(make)(x, c_noise, {"label": cond["labels"]})


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0, LABELS]), f"labels: expected class indices from 0 to {LABELS - 1}, got {LABELS}"),
        (torch.tensor([-1, 0]), "labels: expected class indices .*, got -1"),
        (torch.tensor([0.0, 1.0]), r"labels: expected integers of shape \(2,\) .*, got torch.float32 of shape \(2,\)"),
        (torch.tensor([0, 1, 2]), r"labels: .* of shape \(3,\)"),
        (torch.zeros(2, LABELS + 1), rf"vectors of shape \(2, {LABELS}\)"),
    ],
)
def test_wrong_labels_are_refused(make: Callable[..., ConditionedNetwork], labels: Tensor, message: str) -> None:
    network = conditional(make)
    x, c_noise, _ = inputs(network, 2)
    with pytest.raises(ValueError, match=message):
        network(x, c_noise, {"labels": labels})


def test_wrong_shapes_are_refused(make: Callable[..., ConditionedNetwork]) -> None:
    network = conditional(make)
    x, c_noise, _ = inputs(network, 2)
    with pytest.raises(ValueError, match=rf"augment: expected shape \(2, {AUGMENT}\), got \(2, 1\)"):
        network(x, c_noise, {"augment": torch.zeros(2, 1)})
    with pytest.raises(ValueError, match=r"x: expected shape .*, got \(2, 1, "):
        network(x[:, :1], c_noise)
    with pytest.raises(ValueError, match=r"c_noise: expected shape \(3,\), got \(2,\)"):
        network.embed(3, c_noise, {})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_dim": -1}, "label_dim: .* got -1"),
        ({"augment_dim": -2}, "augment_dim: .* got -2"),
        ({"dropout": 1.0}, r"dropout: expected a number in \[0, 1\), got 1.0"),
        ({"label_dim": 2, "label_dropout": -0.1}, "label_dropout: .* got -0.1"),
        ({"label_dropout": 0.1}, "label_dropout: 0.1 has no effect if label_dim is 0"),
    ],
)
def test_wrong_options_are_refused(
    make: Callable[..., ConditionedNetwork], options: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_networks_compile_into_one_graph() -> None:
    # in a process of its own: the checks of shapes that the tests run with cannot be traced
    code = """
        import torch
        from diffspace.networks import ADM, MLP, DDPMpp, NCSNpp

        conditions = dict(label_dim=3, augment_dim=2, label_dropout=0.5)
        networks = [
            MLP((2,), width=16, **conditions),
            DDPMpp((1, 5, 7), image_channels=1, model_channels=8, num_blocks=1, **conditions),
            NCSNpp((1, 9), model_channels=8, num_blocks=1, **conditions),
            ADM((1, 2, 4, 3), channel_mult=(1, 2), model_channels=8, num_blocks=1, **conditions),
            DDPMpp((1, 4, 4), checkpointing=True, model_channels=8, num_blocks=1, channel_mult=(1,), **conditions),
        ]
        for network in networks:
            for p in network.parameters():
                torch.nn.init.normal_(p, std=0.2)
            x, c_noise = torch.randn(2, *network.config["shape"]), torch.randn(2)
            cond = {"labels": torch.tensor([1, 2]), "augment": torch.randn(2, 2)}
            if "image" in network.required:
                cond["image"] = torch.randn_like(x)
            torch.manual_seed(0)
            expected = network(x, c_noise, cond)
            torch.manual_seed(0)
            compiled = torch.compile(network, fullgraph=True, backend="eager")(x, c_noise, cond)
            torch.testing.assert_close(compiled, expected)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
