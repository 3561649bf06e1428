"""Mistakes that are easily made in Python are named, with what was given and what is expected."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch

import diffspace as ds
from diffspace import metrics
from diffspace.averages import EMA, HalfLife
from diffspace.data import load_data, named_oracle
from diffspace.guidance import MMPS, ClassifierFree, Matrix, Replacement
from diffspace.oracles import Gaussian, GaussianMixture
from diffspace.sampling import Execution
from diffspace.solverlab import REFERENCE_SAMPLER, end_point_error, fit_multistep, optimize_steps, search_solver
from diffspace.train import LearningRate, Trainer

pytestmark = pytest.mark.usefixtures("unchecked")

EDM = ds.EDMPreconditioning(0.5)
MASK = torch.tensor([True, False])
RING = named_oracle("ring")
PLANE = Gaussian(torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64))
ROWS = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]], dtype=torch.float64)


def measured(y):
    return MMPS(PLANE, Matrix(torch.eye(2, dtype=torch.float64)), y, 0.01)


def network(**options):
    return ds.Preconditioned(ds.networks.MLP((2,), width=8, **options), EDM)


def truth(sigma_max=80.0, count=8):
    sampler = ds.Sampler(ds.EDMSteps(20, sigma_max=sigma_max), REFERENCE_SAMPLER.solver)
    return ds.reference(RING, seeds=range(count), sampler=sampler, execution=Execution(trajectory=True))


def plane_truth():
    execution = Execution(trajectory=True)
    return ds.reference(PLANE, seeds=range(4), sampler=REFERENCE_SAMPLER.with_num_steps(20), execution=execution)


class Positional(torch.nn.Module):
    def forward(self, x, sigma, **kwargs):
        return x


class Levels:
    """Four levels, whatever it says."""

    def __init__(self, num_steps, made_by=torch.tensor):
        self.num_steps, self.made_by = num_steps, made_by

    def sigmas(self, model_range=None, start=None):
        return self.made_by([10.0, 1.0, 0.1, 0.0])


class NoSteps(ds.Euler):
    def step(self, x, start, end, memory):
        return x, None


@dataclass(frozen=True)
class Square:
    """σ = t², and a slope of `factor`·t."""

    factor: float = 2.0

    def sigma(self, t):
        return t**2

    def sigma_inv(self, sigma):
        return sigma**0.5

    def sigma_dot(self, t):
        return self.factor * t


@dataclass(frozen=True)
class Fading:
    """s = 1/(1 + t), and `factor` times its slope."""

    factor: float = 1.0

    def s(self, t, sigma):
        return 1 / (1 + t)

    def s_dot(self, t, sigma, sigma_dot):
        return -self.factor / (1 + t) ** 2


def curved(slope=2.0, factor=1.0):
    return ds.Process(Square(slope), Fading(factor))


def classified(denoiser):
    return ds.sample(denoiser, seeds=range(2), cond={"labels": torch.tensor([1.9, 2.0])})


NET = network()


def trainer(rates=(0.1,), **options):
    given = {"learning_rate": LearningRate(100, 1e-3, 0), **options}
    groups = [{"params": list(NET.parameters())[k :: len(rates)], "lr": rate} for k, rate in enumerate(rates)]
    return Trainer(NET, ds.DenoisingLoss(), torch.optim.SGD(groups), **given)


class Answer(torch.nn.Module):
    def forward(self, x, c_noise, cond=None):
        return x, None


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda: ds.Preconditioned("net", EDM), "network: expected Module"),
        (lambda: ds.Preconditioned(Answer(), ds.EDMPreconditioning), "preconditioning: expected a preconditioning"),
        (lambda: ds.Preconditioned(Answer(), 0.5), r"preconditioning: .* got 0\.5"),
        (lambda: ds.Preconditioned(Answer(), EDM)(ROWS, torch.tensor(1.0)), "network: expected a tensor .* got tuple"),
        (
            lambda: ds.from_ddpm(lambda x, t: (x,), np.linspace(0.9, 0.1, 9))(ROWS, torch.tensor(1.0)),
            "function: expected a tensor .* got tuple",
        ),
        (lambda: ds.from_ddpm(lambda x, t: x, torch.ones(3, 3)), r"alphas_cumprod: .* got shape \(3, 3\)"),
        (lambda: EMA(Answer(), 0.999), r"profile: expected one such as HalfLife\(500_000\) .* got 0\.999"),
        (lambda: ds.DenoisingLoss(uncertainty=True), r"uncertainty: expected a callable u\(sigma\)"),
        (lambda: ds.DenoisingLoss(weight=1.0), r"weight: expected a callable weight\(sigma\)"),
        (lambda: ds.sample(RING, seeds=[0], steps=ds.EDMSteps), "steps: expected steps such as"),
        (lambda: ds.Model(network(label_dim=3), class_names=("a", "b")), "class_names: expected 3, one for each class"),
        (lambda: ds.Model(network(label_dim=3), class_names="abc"), "class_names: expected texts"),
        (lambda: ds.Model(network(label_dim=3), class_names=range(3)), "class_names: expected texts"),
        (lambda: ds.Model(network(), transform="x"), "transform: expected Transform"),
        (lambda: end_point_error(ROWS[:1], ROWS), r"x: expected the shape .*\(4, 2\), got \(1, 2\)"),
        (lambda: truth().error_of(ds.sample(RING, seeds=range(8))), "x: expected a tensor such as the x of samples"),
        (lambda: search_solver(RING, 4, ds.sample(RING, seeds=[0])), "truth: expected Reference"),
        (lambda: search_solver(RING, 4, truth(), validation=truth(20.0)), "validation: starts at σ = 20, truth at 80"),
        (lambda: search_solver(RING, 4, truth(), iterations=-1), "iterations: expected"),
        (lambda: search_solver(RING, 4, truth(), noise=-1.0), "noise: expected"),
        (lambda: fit_multistep(measured(ROWS), 3, plane_truth()), "denoiser: holds values of each sample"),
        (lambda: ds.GivenSteps(5), "levels: expected a sequence of numbers, got 5"),
        (lambda: ds.GivenSteps(torch.tensor(5.0)), "levels: expected a sequence of numbers"),
        (lambda: ds.Transform(shift=0.5), r"shift: expected a sequence of numbers, got 0\.5"),
        (lambda: ds.Transform(scale="12"), "scale: expected a sequence of numbers, got '12'"),
        (lambda: ds.networks.MLP(2), "shape: expected a sequence of numbers, got 2"),
        (lambda: ds.networks.ADM((3, 8, 8), channel_mult=2), "channel_mult: expected a sequence of numbers, got 2"),
        (lambda: Matrix(np.eye(2)), "matrix: expected a tensor, got ndarray"),
        (lambda: Matrix(torch.eye(2)[0]), r"matrix: expected shape \(m, d\), got \(2,\)"),
        (lambda: load_data(np.zeros((4, 2))), "data: expected a name or a path, got ndarray"),
        (lambda: ds.log_likelihood(PLANE, ROWS, trace="exact"), r"trace: expected ExactTrace\(\) or .* got 'exact'"),
        (lambda: ds.log_likelihood(PLANE, ROWS, prior=1.0), "prior: expected a callable"),
        (lambda: ds.sample(RING, seeds=[0], execution=Execution(device="abacus")), "device: 'abacus' is not available"),
        (lambda: optimize_steps(RING, ds.EulerAncestral(), 4, truth()), "sampler: EulerAncestral adds noise"),
        (lambda: trainer(averages=EMA(NET, HalfLife(9))), "averages: expected a sequence of EMA, got EMA"),
        (lambda: trainer(learning_rate=1e-3), r"learning_rate: expected LearningRate\(…\), got 0\.001"),
        (lambda: next(trainer().run([ROWS])), "batches: expected pairs .* got Tensor"),
        (lambda: ds.sample(lambda x, sigma: x, seeds=[0], shape=(2,)), r"denoiser: is called as .* takes \(x, sigma\)"),
        (lambda: ds.sample(partial(RING, cond=None), seeds=[0]), "denoiser: .* multiple values for argument 'cond'"),
        (lambda: ClassifierFree(Positional(), 2.0), r"denoiser: is called as .* takes \(x, sigma, \*\*kwargs\)"),
        (lambda: ds.sample(RING, seeds=[0], steps=Levels(2)), r"steps: .* num_steps \+ 1 = 3 levels, got \(4,\)"),
        (lambda: ds.sample(RING, seeds=[0], steps=Levels(3, np.array)), "steps: expected a tensor .* got a ndarray"),
        (lambda: ds.sample(RING, seeds=[0], solver=NoSteps()), "solver: NoSteps.step must yield Requests, got a tuple"),
        (lambda: ds.Process(Square()), "schedule: .* without scaling"),
        (lambda: ds.Process(EDM), "schedule: .* without sigma, sigma_dot"),
        (lambda: ds.sample(RING, seeds=[0], process=curved(1)), r"schedule\.sigma_dot: is .* where the slope is"),
        (lambda: ds.sample(RING, seeds=[0], process=curved(2, 0.9)), r"scaling\.s_dot: is .* where the slope is"),
        (lambda: classified(ClassifierFree(network(label_dim=3, label_dropout=0.1), 2.0)), "labels: expected integers"),
        (lambda: MMPS(PLANE, Matrix(torch.eye(2)), np.zeros((1, 2)), 0.1), "y: expected a tensor, got ndarray"),
        (lambda: Replacement(PLANE, MASK, torch.zeros(2, dtype=torch.uint8)), "known: expected floating-point"),
        (lambda: Gaussian(np.zeros(2), np.eye(2)), "mean: expected a tensor, got ndarray"),
        (lambda: GaussianMixture(np.zeros((1, 2)), stds=torch.ones(1)), "means: expected a tensor, got ndarray"),
        (lambda: trainer(precision="bf16"), "precision: expected 'float32', .* got 'bf16'"),
        (lambda: trainer(micro_batch=0), "micro_batch: expected an integer of at least 1, got 0"),
        (lambda: trainer(max_grad_norm=-1.0), "max_grad_norm: expected a number"),
        (lambda: trainer(max_skipped=0), "max_skipped: expected an integer of at least 1, got 0"),
        (lambda: trainer(rates=(1e-5, 1e-2)), r"optimizer: groups have the rates \[1e-05, 0\.01\]"),
        (lambda: next(trainer().run([(ROWS.numpy(), None)])), "batches: expected x as a tensor"),
        (lambda: next(trainer().run([(ROWS[:0], None)])), "batches: expected x as a tensor of one or more samples"),
        (lambda: next(trainer().run([(ROWS,)])), "batches: expected pairs .* got 1 in a tuple"),
    ],
)
def test_it_is_named(mistake, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        mistake()


def test_levels_of_any_sequence_become_a_tuple():
    levels = [80.0, 3.0, 0.5, 0.0]
    expected = ds.GivenSteps(tuple(levels))
    for given in (levels, torch.tensor(levels), np.array(levels)):
        assert ds.GivenSteps(given) == expected
        assert hash(ds.GivenSteps(given)) == hash(expected)
    times = ds.sampling.steps.GivenTimes
    assert times(torch.tensor([3.0, 0.0])) == times((3.0, 0.0))


@pytest.mark.parametrize(
    "denoiser",
    [
        measured(ROWS),
        Replacement(PLANE, MASK, ROWS),
        Replacement(measured(ROWS), MASK, ROWS[0]),
        ClassifierFree(lambda x, sigma, cond=None: x * 0 + cond["to"], 2.0, negative={"to": ROWS}, batched=False),
    ],
)
def test_what_a_denoiser_holds_of_each_sample_is_not_used_for_others(denoiser):
    """Batches of four would take the four rows for the samples 4 to 7 too."""
    cond = {"to": torch.zeros(8, 2, dtype=torch.float64)} if isinstance(denoiser, ClassifierFree) else None
    own = cond and {name: value[:4] for name, value in cond.items()}
    options = {"shape": (2,), "steps": ds.EDMSteps(3)}
    assert ds.sample(denoiser, seeds=range(4), cond=own, **options).x.shape == (4, 2)
    with pytest.raises(ValueError, match=r"^batch_size: 4 of 8 samples, but the denoiser holds values of 4"):
        ds.sample(denoiser, seeds=range(8), cond=cond, execution=Execution(batch_size=4), **options)
    with pytest.raises(ValueError, match=r"^batch_size: 2 of 4 samples"):
        ds.sample(denoiser, seeds=range(4), cond=own, execution=Execution(batch_size=2), **options)


def test_one_row_for_all_is_used_in_every_batch():
    denoiser = Replacement(measured(ROWS[:1]), MASK, ROWS[0])
    whole, cut = (
        ds.sample(denoiser, seeds=range(4), steps=ds.EDMSteps(3), execution=Execution(batch_size=size)).x
        for size in (None, 2)
    )
    torch.testing.assert_close(whole, cut)


def test_parts_of_others_that_are_right_are_taken():
    known = ds.Process(sigma=ds.Formula("t^2"), s=ds.Formula("1/(1+t)"))
    own, other = (ds.sample(RING, seeds=range(3), process=process).x for process in (curved(), known))
    torch.testing.assert_close(own, other)
    given = partial(lambda offset, x, sigma, cond: x * 0 + offset, 3.0)
    assert torch.equal(ds.sample(given, seeds=[0], shape=(2,)).x, torch.full((1, 2), 3.0, dtype=torch.float64))


def test_a_parameter_called_weight_is_no_training_weight():
    class Linear(torch.nn.Linear):
        def forward(self, x, sigma, cond=None):
            return super().forward(x)

    denoiser = Linear(2, 2).double()
    assert ds.DenoisingLoss(weight=ds.UniformWeight())(denoiser, ROWS).shape == (4,)
    with pytest.raises(ValueError, match="weight: the denoiser has no weight"):
        ds.DenoisingLoss()(denoiser, ROWS)


def test_a_training_that_learns_less_than_asked_for_says_so():
    with pytest.warns(UserWarning, match="the learning rate rises to 1e-08 of 0.001 only, since ramp_images"):
        trainer(learning_rate=LearningRate(100))
    told = []
    assert len(list(trainer(warn=told.append).run([(ROWS.float(), None)] * 3))) == 3
    assert told == ["batches: they end after 12 of 100 images"]
    told.clear()
    assert len(list(trainer(warn=told.append).run([(ROWS.float(), None)] * 30))) == 25
    assert told == []


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda a, b: metrics.kid(a, b), r"samples: expected Features\(…\), got"),
        (lambda a, b: metrics.kid(metrics.Features(a), b), r"reference: expected Features\(…\) .* got Tensor"),
        (lambda a, b: metrics.Features(a.numpy()), "values: expected a tensor, got ndarray"),
        (lambda a, b: metrics.precision_recall(*map(metrics.Features, (a, b)), k=0), "k: expected an integer"),
        (
            lambda a, b: metrics.kid(*map(metrics.Features, (a, b)), subsets=3, subset_size=20, seed=-1),
            "seed: expected",
        ),
    ],
)
def test_mistakes_with_scores_are_named(mistake, message):
    a, b = torch.randn(2, 60, 2, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=f"^{message}"):
        mistake(a, b)


@pytest.mark.parametrize("sigma_max", [80.0, 20_000.0])
def test_slopes_near_a_pole_and_of_knots_are_right(sigma_max):
    @dataclass(frozen=True)
    class Flow:
        scaling = ds.NoScaling()

        def sigma(self, t):
            return t / (1 - t)

        def sigma_dot(self, t):
            return 1 / (1 - t) ** 2 + 0 * math.sqrt(t)  # of floats alone

        def sigma_inv(self, sigma):
            return sigma / (1 + sigma)

    @dataclass(frozen=True)
    class Knots:
        """Piecewise linear, with the slope to the right."""

        scaling = ds.NoScaling()

        def sigma(self, t):
            return t + 9 * (t - 1) * (t > 1)

        def sigma_dot(self, t):
            return 1.0 + 9.0 * (t >= 1)

        def sigma_inv(self, sigma):
            return torch.where(sigma <= 1, sigma, (sigma + 9) / 10)

    for schedule in (Flow(), Knots()):
        steps = ds.GivenSteps((sigma_max, 1.0, 0.1, 0.0))
        assert ds.sample(RING, seeds=[0], steps=steps, process=ds.Process(schedule)).num_steps == 3
