"""Data in any unit: what is scaled by a factor gives samples scaled by it, and the paper's constants move along."""

import math

import numpy as np
import pytest
import torch
from small_runs import begin_and_train

import diffspace as ds
from diffspace.cli.app import main
from diffspace.data import ArrayFile
from diffspace.guidance import ClassifierFree
from diffspace.inspection import inspect
from diffspace.oracles import ByClass, FiniteData, Gaussian, GaussianMixture
from diffspace.sampling.steps import steps_for
from diffspace.solverlab import default_samplers, fit_multistep, moments, reference
from diffspace.train import Processes, Run, apply_overrides, default_config, make_data_recipe, make_recipe

F64 = torch.float64
POWERS = [-20, -6, -3, 1, 3, 6, 20]


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


MEANS, ROOTS = 0.4 * normal(3, 4), 0.2 * normal(3, 4, 4, seed=1)
ORACLES = {
    "gaussian": lambda c: Gaussian(c * MEANS[0], c**2 * ROOTS[0] @ ROOTS[0].T),
    "mixture": lambda c: GaussianMixture(c * MEANS, c * torch.tensor([0.1, 0.2, 0.05], dtype=F64)),
    "full mixture": lambda c: GaussianMixture(c * MEANS, covariances=c**2 * ROOTS @ ROOTS.mT),
    "points": lambda c: FiniteData(c * normal(50, 4)),
    "classes": lambda c: ByClass([Gaussian(c * m, c**2 * r @ r.T) for m, r in zip(MEANS, ROOTS, strict=True)]),
}
SAMPLERS = {
    "default": ds.Sampler(),
    "ab": ds.Sampler(ds.LogLinearSteps(10), ds.AdamsBashforth(4, "x0", "log_sigma")),
    "unipc, ve": ds.Sampler(ds.VESteps(10), ds.UniPC()),
    "deis": ds.Sampler(ds.EDMSteps(12), ds.DEIS()),
    "vp time": ds.Sampler(ds.EDMSteps(12), ds.AdamsBashforth(3, "v", "vp")),
    "dopri5": ds.Sampler(ds.EDMSteps(4), ds.DormandPrince()),
    "churn": ds.Sampler(churn=ds.Churn(10)),
    "sde": ds.Sampler(solver=ds.DPMSolverPP2MSDE()),
}


def drawn(oracle, sampler):
    cond = {"labels": torch.arange(6) % 3} if isinstance(oracle, ByClass) else None
    noise = (lambda k, like: normal(6, 4, seed=k)) if sampler.adds_noise else None  # Brownian paths depend on σ itself
    return ds.sample(oracle, latents=normal(6, 4, seed=99), sampler=sampler, cond=cond, noise=noise).x


@pytest.mark.parametrize("make", ORACLES.values(), ids=ORACLES)
@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_oracles_of_scaled_data_give_scaled_samples(make, sampler):
    once = drawn(make(1.0), sampler)
    for k in POWERS:
        scaled = drawn(make(10.0**k), sampler) / 10.0**k
        assert (scaled - once).abs().max() < 1e-5


@pytest.mark.parametrize("make", ORACLES.values(), ids=ORACLES)
def test_sigma_data_of_an_oracle_is_the_exact_standard_deviation(make):
    oracle = make(1.0)
    if isinstance(oracle, ByClass):
        parts = [part.sample(20_000, generator=torch.Generator().manual_seed(0)) for part in oracle.oracles]
        x = torch.cat(parts)
    else:
        x = oracle.sample(60_000, generator=torch.Generator().manual_seed(0))
    assert oracle.sigma_data == pytest.approx(float(x.std(correction=0)), rel=0.02)
    assert make(2.0**-20).sigma_data == pytest.approx(2.0**-20 * oracle.sigma_data, rel=1e-12)
    assert Gaussian(torch.zeros(2), torch.zeros(2, 2)).sigma_data is None


def plain(x, sigma, cond=None):
    return x


def test_what_a_denoiser_states_is_the_range_of_steps():
    network = ds.networks.MLP((2,), width=8)
    edm = ds.EDMPreconditioning(sigma_data=5e-4)
    stated = ds.Preconditioned(network, edm, (0.03, 7.0))
    cases = {
        (plain, ds.EDMSteps()): (0.002, 80.0),
        (plain, ds.VESteps()): (0.02, 100.0),
        (ds.Preconditioned(network, ds.EDMPreconditioning()), ds.EDMSteps()): (0.002, 80.0),
        (ds.Preconditioned(network, edm), ds.EDMSteps()): (2e-6, 0.08),
        (ds.Preconditioned(network, edm), ds.VESteps()): (2e-5, 0.1),
        (ds.Preconditioned(network, edm), ds.EDMSteps(sigma_max=3.0)): (2e-6, 3.0),
        (stated, ds.EDMSteps()): (0.03, 7.0),
        (stated, ds.VPSteps()): (0.03, 7.0),
        (stated, ds.EDMSteps(sigma_min=0.5)): (0.5, 7.0),
        (ClassifierFree(stated, 1.0), ds.EDMSteps()): (0.03, 7.0),
        (ds.Preconditioned(network, ds.VPPreconditioning(), (1e-9, 50.0)), ds.EDMSteps()): (0.0010005, 50.0),
    }
    for (denoiser, steps), expected in cases.items():
        placed = steps_for(denoiser, steps)
        assert (placed.sigma_min, placed.sigma_max) == pytest.approx(expected, rel=1e-3)
    run = ds.sample(stated, seeds=[0], shape=(2,), steps=ds.EDMSteps(3))
    assert [float(run.sigmas[0]), float(run.sigmas[-2])] == pytest.approx([7.0, 0.03])
    for wrong in ((7.0, 0.03), (0.0, 1.0), (1.0, math.inf)):
        with pytest.raises(ValueError, match=r"^sampling_range: expected"):
            ds.Preconditioned(network, edm, wrong)


def test_the_default_noise_of_the_loss_goes_with_the_data():
    network = ds.networks.MLP((2,), width=8)
    for sigma_data in (0.5, 1e-3):
        denoiser, loss = ds.Preconditioned(network, ds.EDMPreconditioning(sigma_data)), ds.DenoisingLoss()
        loss(denoiser, sigma_data * torch.randn(8, 2))
        assert loss.noise == ds.LogNormal(-1.2 + math.log(2 * sigma_data))
    with pytest.warns(UserWarning, match=r"^noise: LogNormal.* is for data .* states 0.001; use LogNormal.for_data"):
        ds.DenoisingLoss(ds.LogNormal())(denoiser, torch.randn(8, 2))


def test_comparison_and_fit_of_solvers_go_with_the_data():
    found = {}
    for scale in (1.0, 1e-4):
        oracle = ORACLES["mixture"](scale)
        truth = reference(oracle, latents=normal(8, 4), execution=ds.Execution(trajectory=True))
        lows = {s.steps.sigma_min for s in default_samplers(*moments(truth), ["heun"]).values()} - {None}
        levels = fit_multistep(oracle, 4, truth, iterations=1).steps.levels
        found[scale] = [truth.sigma_max, *sorted(lows), *levels[:-1]]
    assert found[1e-4] == pytest.approx([1e-4 * value for value in found[1.0]], rel=1e-5)


DATA = np.random.default_rng(0).normal(size=(300, 2)) @ np.array([[0.3, 0.1], [0.0, 0.02]]) + np.array([0.2, 0.0])
DATA = DATA.astype(np.float32)


def test_arrays_of_reals_look_the_same_in_any_unit(tmp_path):
    first = None
    for k in range(-20, 21):
        np.save(tmp_path / "x.npy", DATA * np.float32(2.0**k))
        data = ArrayFile(tmp_path / "x.npy").load()
        proposals = tuple(p.value for p in inspect(data).proposals)
        first = first or (data.batch(), proposals, data.transform)
        assert torch.equal(data.batch(), first[0])
        assert proposals == first[1]
        outside = 3 * first[0]
        assert torch.equal(data.transform.inverse(outside) / 2.0**k, first[2].inverse(outside) / 2.0**-20)
    for k in POWERS[1:-1]:
        np.save(tmp_path / "x.npy", DATA.astype(np.float64) * 10.0**k)
        assert torch.allclose(ArrayFile(tmp_path / "x.npy").load().batch(), first[0], atol=1e-6)


def test_trained_models_draw_the_same_in_any_unit(tmp_path):
    first = None
    for k in (0, -20, 20):
        folder = tmp_path / str(k)
        folder.mkdir()
        np.save(folder / "x.npy", DATA * np.float32(2.0**k))
        read_as = make_data_recipe({"source": str(folder / "x.npy")})
        data = ArrayFile(folder / "x.npy").load()
        config = default_config(data, read_as, inspect(data), images=640)
        words = ["network.width=16", "held_out_images=0", "patience_images=0"]
        recipe = make_recipe(apply_overrides(config, words))
        begin_and_train(Run(recipe, data, folder / "run", processes=Processes(torch.device("cpu"))))
        assert main(["sample", str(folder / "run"), "--seeds", "0-9", "--out", str(folder / "s.npz")]) == 0
        with np.load(folder / "s.npz") as archive:
            x = archive["x"] / np.float32(2.0**k)
        model = ds.load(folder / "run")
        assert np.array_equal(model.decode(ds.sample(model, seeds=range(10)).x) / np.float32(2.0**k), x)
        assert model.sampling_range == (recipe.sigma_min, recipe.sigma_max) != (0.002, 80.0)
        first = x if first is None else first
        assert np.array_equal(x, first)
