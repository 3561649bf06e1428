"""Nothing is taken from others without a word: what they change in place, what their wrappers hide, what they round."""

import functools
import math

import pytest
import torch

import diffspace as ds
from diffspace.oracles import Gaussian, GaussianMixture
from diffspace.protocols import stated
from diffspace.sampling import Execution, sample, sample_from, sample_states

MIXTURE = GaussianMixture(
    torch.tensor([[-1.0, 0.5], [1.0, -0.5]], dtype=torch.float64), torch.tensor([0.1, 0.2]).double()
)
SOLVERS = [ds.Euler(), ds.Heun(), ds.DPMSolverPP2M(), ds.UniPC(3), ds.AdamsBashforth(4), ds.RungeKutta4()]
BUFFER = torch.empty(4, 2, dtype=torch.float64)


def into_x(x, sigma, cond=None):
    return x.copy_(MIXTURE(x, sigma))


def moves_x(x, sigma, cond=None):
    x -= 0.1
    return MIXTURE(x + 0.1, sigma)


def into_a_buffer(x, sigma, cond=None):
    return BUFFER.copy_(MIXTURE(x, sigma))


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("denoiser", [into_x, moves_x])
def test_a_denoiser_that_changes_its_input_is_refused(denoiser, solver):
    with pytest.raises(ValueError, match="denoiser: it changed its x, or a result that it gave before, in place"):
        sample(denoiser, seeds=range(4), shape=(2,), solver=solver)


@pytest.mark.parametrize("solver", [ds.Heun(), ds.DPMSolverPP2M(), ds.UniPC(3)])
def test_a_denoiser_that_overwrites_a_result_that_is_still_needed_is_refused(solver):
    with pytest.raises(ValueError, match="in place; expected a new tensor each time"):
        sample(into_a_buffer, seeds=range(4), shape=(2,), solver=solver)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_denoiser_may_return_its_input(solver):
    found = sample(lambda x, sigma, cond=None: x, seeds=range(4), shape=(2,), solver=solver)
    torch.testing.assert_close(found.x, 80 * ds.initial_latents(range(4), (2,)).double())


def test_states_that_are_changed_are_refused_and_replaced_ones_are_not():
    def change(state):
        state.x.mul_(2)

    for at in (0, 3):
        states = sample_states(MIXTURE, seeds=range(4))
        change(next(state for state in states if state.step == at))
        with pytest.raises(ValueError, match="states: x or denoised of one was changed in place"):
            next(states)
    with pytest.raises(ValueError, match="states: x or denoised of one was changed in place"):
        sample(MIXTURE, seeds=range(4), execution=Execution(progress=lambda first, state: change(state)))
    with torch.inference_mode():
        assert torch.equal(sample(MIXTURE, seeds=range(4)).x, sample(MIXTURE, seeds=range(4)).x)


def test_each_evaluation_gets_all_conditions():
    seen = []

    def denoiser(x, sigma, cond):
        seen.append(sorted(cond))
        cond.clear()
        return MIXTURE(x, sigma)

    sample(denoiser, seeds=range(2), shape=(2,), cond={"labels": torch.tensor([0, 1])})
    assert seen == [["labels"]] * 35


@pytest.mark.parametrize(
    "wrap",
    [
        lambda model: functools.partial(model),
        torch.nn.DataParallel,
        torch.optim.swa_utils.AveragedModel,
        lambda model: functools.partial(torch.nn.DataParallel(model)),
        lambda model: ds.guidance.AutoGuidance(model, model, 1.0),
    ],
)
def test_wrappers_state_what_the_model_states(wrap):
    network = ds.networks.MLP((2,), width=16)
    model = ds.Preconditioned(network, ds.EDMPreconditioning(5.0)).eval()
    model.round_sigma = lambda sigma: torch.where(sigma > 0, (10 * sigma).round().clamp_min(1) / 10, sigma)
    expected = sample(model, seeds=range(4), shape=(2,))
    wrapped = wrap(model)
    assert expected.sigmas[0] == 800
    found = sample(wrapped, seeds=range(4), shape=(2,))
    assert torch.equal(found.sigmas, expected.sigmas)
    torch.testing.assert_close(found.x, expected.x)
    assert stated(wrapped, "sigma_data") == 5
    assert stated(wrapped, "nothing", 3) == 3


def test_a_partial_of_a_module_is_evaluated_without_dropout():
    class Drops(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.dropout = torch.nn.Dropout(0.5)

        def forward(self, x, c_noise, cond=None):
            return self.dropout(x)

    held = functools.partial(ds.Preconditioned(Drops().train(), ds.EDMPreconditioning(0.5)))
    first, second = (sample(held, seeds=range(4), shape=(2,)).x for _ in range(2))
    assert torch.equal(first, second)
    assert held.func.network.training


@pytest.mark.parametrize("given", [1.15, 1.25, 1.4, 1.55, 1.6])
def test_a_given_state_keeps_its_level_where_others_are_rounded(given):
    normal = Gaussian(torch.zeros(500, dtype=torch.float64), 0.25 * torch.eye(500, dtype=torch.float64))

    def coarse(x, sigma, cond=None):
        return normal(x, sigma)

    coarse.round_sigma = lambda sigma: torch.where(
        sigma > 0, 1.2 ** (sigma.clamp_min(1e-9).log() / math.log(1.2)).round(), sigma
    )
    x = math.sqrt(0.25 + given**2) * ds.initial_latents(range(20), (500,)).double()
    found = sample_from(coarse, x, given, sampler=ds.Sampler(ds.EDMSteps(60, 0.002)))
    assert found.sigmas[0] == given
    assert float(found.x.std()) == pytest.approx(0.5, abs=0.002)  # a level of 1.2 times as much would be 0.05 away


@pytest.mark.parametrize(
    ("s", "wrong"), [("1 - t", "got -1"), ("0 t", "got 0 at"), ("cos(t/10)", "got -0.99"), ("1/t", "got inf at t = 0")]
)
def test_a_scaling_that_is_not_positive_is_refused(s, wrong):
    process = ds.Process(s=ds.Formula(s))
    with pytest.raises(ValueError, match=rf"process: expected a positive s\(t\), {wrong}"):
        sample(MIXTURE, seeds=range(2), process=process)


def test_levels_that_fall_into_one_are_refused_by_solvers_that_divide_by_their_distance():
    def coarse(x, sigma, cond=None):
        return MIXTURE(x, sigma)

    coarse.round_sigma = lambda sigma: torch.where(sigma > 1, sigma.round(), sigma)
    steps = ds.EDMSteps(40, 1.0, 3.0)
    for solver in (ds.DPMSolverPP2M(), ds.UniPC(2), ds.LMS(3)):
        with pytest.raises(ValueError, match=r"steps: .* needs levels that differ, got σ = 3 twice; use fewer steps"):
            sample(coarse, seeds=range(2), shape=(2,), steps=steps, solver=solver)
    assert bool(torch.isfinite(sample(coarse, seeds=range(2), shape=(2,), steps=steps).x).all())
    coarse.round_sigma = lambda sigma: 3 - sigma
    with pytest.raises(ValueError, match="steps: expected levels that fall, but step 0 goes from σ = 0 to"):
        sample(coarse, seeds=range(2), shape=(2,), steps=steps)


@pytest.mark.parametrize("rho", [1e17, 1e-3])
def test_a_rho_beyond_float64_is_refused(rho):
    with pytest.raises(ValueError, match="rho"):
        ds.EDMSteps(5, rho=rho).sigmas()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
def test_v_takes_its_scale_from_the_denoiser(scale):
    denoiser = GaussianMixture(scale * MIXTURE.means, scale * MIXTURE.variances.flatten().sqrt())
    found, given = (
        sample(denoiser, seeds=range(8), solver=ds.AdamsBashforth(3, "v", "angle", sigma_data=known)).x
        for known in (None, denoiser.sigma_data)
    )
    assert torch.equal(found, given)
    exact = ds.reference(denoiser, seeds=range(8))
    assert exact.error_of(found).rms < 0.1 * scale
    first = sample(denoiser, seeds=range(8), solver=ds.AnalyticalFirstStep(ds.Heun())).x
    assert torch.equal(
        first, sample(denoiser, seeds=range(8), solver=ds.AnalyticalFirstStep(ds.Heun(), denoiser.sigma_data)).x
    )


def test_an_analytical_step_needs_to_know_the_data():
    with pytest.raises(ValueError, match="sigma_data: the denoiser does not state it"):
        sample(lambda x, sigma, cond=None: MIXTURE(x, sigma), seeds=[0], shape=(2,), solver=ds.AnalyticalFirstStep())
    with pytest.raises(ValueError, match="solver: AnalyticalFirstStep knows D at high noise"):
        ds.encode(
            MIXTURE,
            torch.zeros(1, 2),
            sampler=ds.Sampler(ds.EDMSteps(9, terminal="sigma_min"), ds.AnalyticalFirstStep()),
        )


@pytest.mark.parametrize("last", [1e-3, 0.02, 0.5, 80.0])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_deis_is_exact_down_to_zero(last, k):
    """For ε constant, and for ε a polynomial in the time of the VP schedule, of which the integral is known."""
    from diffspace.sampling.solvers.multistep import polynomial_weights
    from diffspace.sampling.solvers.quadrature import _VP

    nodes = tuple(last * 1.5**i for i in range(k))
    weights = polynomial_weights("epsilon", "vp", nodes, 0.0)
    assert sum(weights) == pytest.approx(-last, rel=1e-9)
    if k > 1:  # ∫ u dσ by steps of σ that are fine near 0
        sigma = last * torch.linspace(0, 1, 200_001, dtype=torch.float64) ** 2
        u = _VP.sigma_inv(sigma)
        exact = float((0.5 * (u[1:] + u[:-1]) * (sigma[1:] - sigma[:-1])).sum())
        at = [float(_VP.sigma_inv(torch.tensor(node, dtype=torch.float64))) for node in nodes]
        assert sum(w * value for w, value in zip(weights, at, strict=True)) == pytest.approx(-exact, rel=1e-6)


def test_scores_keep_their_digits_in_float32():
    x = (MIXTURE.means + 0.01).float()
    for sigma in (0.002, 0.02, 1.0):
        level = torch.tensor(sigma)
        exact = MIXTURE.score(x.double(), level.double())
        torch.testing.assert_close(ds.score(MIXTURE)(x, level), exact.float(), rtol=3e-7, atol=0)
    with pytest.raises(ValueError, match="sigma: expected positive noise levels, got 0"):
        ds.score(MIXTURE)(x, torch.tensor([1.0, 0.0]))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ds.Process().perturb(torch.arange(3), torch.ones(3), torch.ones(3)), "x0: expected floating"),
        (lambda: ds.guidance.Mask(torch.tensor([1, 0, 1])), "mask: expected a tensor of bool"),
        (lambda: ds.guidance.Replacement(MIXTURE, [True], torch.zeros(1)), "mask: .* got list"),
        (lambda: ds.interpolate(torch.arange(3), torch.arange(3), 4), "a: expected floating-point numbers"),
        (lambda: sample(lambda x, s, c=None: x.numpy(), seeds=[0], shape=(2,)), "denoiser: .* got a ndarray"),
        (lambda: sample(lambda x, s, c=None: x + 1j, seeds=[0], shape=(2,)), "denoiser: .* of torch.complex128"),
        (lambda: sample(MIXTURE, latents=torch.tensor(1.0)), "latents: expected a batch"),
        (lambda: ds.Process("vp"), "schedule: expected one such as VPSchedule"),
        (lambda: ds.Process(sigma="t^2"), r"sigma: .*ds.Formula\('t\^2'\)"),
        (lambda: ds.GivenSteps((1.0, None)), "levels: expected a number"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_by_its_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_injected_noise_that_is_the_same_for_each_batch_is_refused():
    churned = {"latents": torch.ones(4, 2).double(), "churn": ds.Churn(40), "execution": Execution(batch_size=2)}

    def by_number(k, like):
        return torch.randn(like.shape, generator=torch.Generator().manual_seed(k), dtype=like.dtype)

    with pytest.raises(
        ValueError, match=r"noise: noise\(0, like\) is the same for each batch; sample without batch_size"
    ):
        sample(MIXTURE, noise=by_number, **churned)
    together = sample(MIXTURE, noise=by_number, **churned | {"execution": Execution()}).x
    assert not torch.equal(together[:2], together[2:])
    generator = torch.Generator().manual_seed(0)
    sample(MIXTURE, noise=lambda k, like: torch.randn(like.shape, generator=generator, dtype=like.dtype), **churned)
    sample(MIXTURE, noise=lambda k, like: torch.zeros_like(like), **churned)


def test_an_analytical_step_is_refused_where_data_are_no_gaussian():
    x = MIXTURE.sample(3, generator=torch.Generator().manual_seed(0))
    with pytest.raises(
        ValueError, match=r"solver: AnalyticalFirstStep takes .* wrong at σ = 1, below 3 times sigma_data"
    ):
        sample_from(MIXTURE, x, 1.0, sampler=ds.Sampler(solver=ds.AnalyticalFirstStep()))
    fitted = ds.sampling.FittedSolver((80.0, 1.0, 0.0), ((1.0,), (1.0, 0.0)), mean=0.1)
    with pytest.raises(ValueError, match="solver: FittedSolver has a first D of its own; use it as it is"):
        ds.AnalyticalFirstStep(fitted)


def test_states_that_end_in_nan_are_no_result():
    def broken(x, sigma, cond=None):
        return torch.where(sigma < 1, torch.nan, MIXTURE(x, sigma))

    with pytest.raises(FloatingPointError, match=r"not finite, in samples \[0, 1\]"):
        list(sample_states(broken, seeds=range(2), shape=(2,)))


@pytest.mark.parametrize("prediction", ["epsilon", "x0", "v"])
@pytest.mark.parametrize("variable", ["sigma", "log_sigma", "angle", "vp"])
@pytest.mark.parametrize(("start", "end"), [(80.0, 0.002), (0.6, 0.002), (2.0, 50.0)])
def test_weights_are_exact_for_any_length_of_step(prediction, variable, start, end):
    """∫ dμ is known: the change of σ, of 1/σ, or of the angle."""
    from diffspace.sampling.solvers.multistep import polynomial_weights

    exact = {
        "epsilon": end - start,
        "x0": 1 - end / start,
        "v": math.hypot(end, 0.5) * (math.atan(start / 0.5) - math.atan(end / 0.5)),
    }
    (weight,) = polynomial_weights(prediction, variable, (start,), end, 0.5)
    assert weight == pytest.approx(exact[prediction], rel=1e-13)


def test_the_first_order_method_is_the_same_in_every_variable():
    for prediction in ("epsilon", "x0", "v"):
        ends = [
            sample(
                MIXTURE,
                seeds=range(8),
                steps=ds.EDMSteps(3, terminal="sigma_min"),
                solver=ds.AdamsBashforth(1, prediction, variable),
            ).x
            for variable in ("sigma", "log_sigma", "angle", "vp")
        ]
        for other in ends[1:]:
            torch.testing.assert_close(other, ends[0], rtol=1e-12, atol=1e-12)
