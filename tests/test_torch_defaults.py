"""torch's global defaults have no effect: no factory relies on them, and the same seed gives the same bits."""

import ast
from pathlib import Path

import pytest
import torch

import diffspace as ds
from diffspace.guidance import ClassifierFree
from diffspace.metrics import train_classifier
from diffspace.objective import loss_by_sigma

SOURCE = Path(ds.__file__).parent
FACTORIES = (
    "tensor as_tensor asarray arange range zeros ones full empty eye linspace logspace rand randn randint randperm "
    "normal scalar_tensor tril_indices triu_indices complex hann_window"
)
# parameters and buffers of layers follow the defaults as those of torch.nn do; `plain_defaults` is for them
EXEMPT = {"networks/layers.py"}


def unstated(code):
    """Line and text of each call of a factory of torch without a dtype and a device."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in FACTORIES.split():
            stated = {keyword.arg for keyword in node.keywords}
            if ast.unparse(node.func.value) == "torch" and not {"dtype", "device"} <= stated:
                yield node.lineno, ast.unparse(node)


def test_every_factory_states_dtype_and_device():
    assert list(unstated("torch.zeros(3, dtype=x.dtype); x.new_zeros(3); torch.eye(2, dtype=a, device=b)"))
    files = [path for path in SOURCE.rglob("*.py") if path.relative_to(SOURCE).as_posix() not in EXEMPT]
    assert len(files) > 100
    assert {(path.name, *found) for path in files for found in unstated(path.read_text("utf-8"))} == set()


@pytest.fixture
def odd_defaults():
    """Called, it sets defaults under which any factory that relies on them fails or gives other numbers."""

    def set_them():
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")

    yield set_them
    torch.set_default_device(None)
    torch.set_default_dtype(torch.float32)


SOLVERS = [ds.Heun(), ds.sampling.UniPC(), ds.sampling.DormandPrince(1e-2, 1e-2), ds.sampling.DPMSolverPP3MSDE()]


def everything(folder):
    """Results of the main calls, as tensors and text; the model is read from a folder."""
    means = torch.tensor([[1.0, 0.0], [-1.0, 0.5]], dtype=torch.float64, device="cpu")
    oracle = ds.oracles.GaussianMixture(means, torch.full((2,), 0.2, dtype=torch.float64, device="cpu"))
    model = ds.load(folder)
    seeds, labels = range(3), {"labels": ds.random_labels(range(3), model.sample_shape, 3)}
    x = model.transform.forward(ds.initial_latents(seeds, model.sample_shape).mul(40).add(128).clamp(0, 255).byte())
    sampler = ds.Sampler(ds.EDMSteps(5), churn=ds.Churn(4))
    yield ds.sample(model, seeds=seeds, sampler=sampler, cond=labels).x
    x_vp = ds.sample(model, seeds=seeds, steps=ds.VPSteps(4), process=ds.Process(ds.VPSchedule()), cond=labels).x
    yield model.decode(x_vp)
    yield ds.sample(ClassifierFree(model, 2.0), seeds=seeds, steps=ds.IDDPMSteps(3), cond=labels).x
    for solver in SOLVERS:
        yield ds.sample(oracle, seeds=seeds, shape=(2,), steps=ds.EDMSteps(20), solver=solver).x
    short = ds.Sampler(ds.EDMSteps(3, terminal="sigma_min"))
    yield ds.log_likelihood(
        oracle, oracle.sample(3, generator=torch.Generator().manual_seed(0)).float(), sampler=short
    ).log_prob
    yield ds.bits_per_dim(model, model.decode(x), seeds=seeds, trace=ds.Hutchinson(2), cond=labels, sampler=short).bits
    loss = ds.DenoisingLoss(ds.LogNormal(), uncertainty=ds.objective.Uncertainty())
    yield loss(model, x, labels, generator=torch.Generator().manual_seed(0)).detach()
    levels = torch.tensor([0.1, 1.0], dtype=torch.float64, device="cpu")
    yield loss_by_sigma(model, x, labels, sigmas=levels).mse
    network = train_classifier(x, labels["labels"], 3, epochs=1).network
    yield network(x)


def test_results_are_the_same_under_other_defaults(tmp_path, odd_defaults):
    torch.manual_seed(0)
    options = {"model_channels": 4, "channel_mult": (1, 1), "num_blocks": 1}
    network = ds.networks.DDPMpp((1, 8, 8), label_dim=3, label_dropout=0.1, **options)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    pixels = ds.Transform((127.5,), (127.5,), 0, 255, "integer", "uint8")
    ds.Model(ds.Preconditioned(network, ds.EDMPreconditioning()), pixels, ("a", "b", "c")).save(tmp_path)
    expected = list(everything(tmp_path))
    odd_defaults()
    for k, (found, wanted) in enumerate(zip(everything(tmp_path), expected, strict=True)):
        assert (found.device, found.dtype) == (wanted.device, wanted.dtype), k
        assert torch.equal(found, wanted), k
