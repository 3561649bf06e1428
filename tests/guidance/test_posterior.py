"""Posterior sampling of linear inverse problems against the exact posterior."""

import math

import pytest
import torch
from small_networks import make_denoiser
from torch.nn.attention import SDPBackend, sdpa_kernel

from diffspace import EDMPreconditioning, Preconditioned, networks, sample
from diffspace.figures import affine_ends, posterior_error
from diffspace.guidance import DPS, MMPS, AveragePooling, Mask, Matrix, PiGDM
from diffspace.oracles import Gaussian, GaussianMixture
from diffspace.sampling import EDMSteps, Execution, Sampler, sample_from

D = 6
PLACES = torch.arange(D, dtype=torch.float64)
COVARIANCE = 0.25 * torch.exp(-(PLACES[:, None] - PLACES).abs() / 3)
PRIOR = Gaussian(torch.linspace(-0.3, 0.4, D, dtype=torch.float64), COVARIANCE)
PRIOR.sigma_data = 0.5  # the range of the paper's data
WHITE = Gaussian(torch.linspace(-0.3, 0.4, D, dtype=torch.float64), 0.25 * torch.eye(D, dtype=torch.float64))
MATRIX = torch.tensor([[1, 1, 0, 0, 0, 0], [0, 0, 1, 0, -1, 0], [0, 0.5, 0.5, 0.5, 0, 0]], dtype=torch.float64)
OPERATORS = {
    "matrix": Matrix(MATRIX),
    "mask": Mask(torch.tensor([True, False, False, True, False, True])),
    "pooling": lambda x: AveragePooling(2)(x[:, None])[:, 0],
    "affine": lambda x: 2 * x[:, :2].cumsum(1) + 0.7,
}
# A(v) − A(0) of an affine A loses what is small beside A(0)
ROUNDING = {"matrix": 1e-12, "mask": 1e-12, "pooling": 1e-12, "affine": 2e-11}
TRUTH = PRIOR.sample(1, generator=torch.Generator().manual_seed(1))
LEVELS = [0.002, 0.05, 0.5, 3.0, 80.0]


def level(sigma):
    return torch.tensor(sigma, dtype=torch.float64)


def noisy(gaussian, sigma, n=7):
    generator = torch.Generator().manual_seed(5)
    return gaussian.sample(n, generator=generator) + sigma * torch.randn(n, D, generator=generator, dtype=torch.float64)


def problem(name, prior=PRIOR, sigma_y=0.1):
    """The operator, a measurement and the exact posterior, whose own D is E[x₀ | x, y]."""
    operator = OPERATORS[name]
    y = operator(TRUTH) + 0.05
    return operator, y, prior.posterior(operator, y, sigma_y)


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("sigma", LEVELS)
@pytest.mark.parametrize("sigma_y", [0.0, 0.1])
def test_mmps_is_the_conditional_denoiser_of_a_gaussian_to_rounding(name, sigma, sigma_y):
    operator, y, exact = problem(name, sigma_y=sigma_y)
    x = noisy(exact, sigma)
    with torch.no_grad():
        denoised = MMPS(PRIOR, operator, y, sigma_y)(x, level(sigma))
    assert float((denoised - exact(x, level(sigma))).abs().max()) < ROUNDING[name]


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("sigma_y", [0.0, 0.1])
def test_pigdm_is_the_conditional_denoiser_of_data_that_vary_alike_in_all_directions(name, sigma_y):
    operator, y, exact = problem(name, WHITE, sigma_y)
    for sigma in LEVELS:
        x = noisy(exact, sigma)
        with torch.no_grad():
            denoised = PiGDM(WHITE, operator, y, sigma_y, sigma_data=0.5)(x, level(sigma))
        assert float((denoised - exact(x, level(sigma))).abs().max()) < ROUNDING[name]


def test_dps_is_its_closed_form():
    """x̂ + V·Aᵀ(y − A·x̂)/σ_y², where V = Σ − Σ(Σ + σ²)⁻¹Σ is Cov[x₀ | x]."""
    operator, y, _ = problem("matrix")
    for sigma in LEVELS:
        x, eye = noisy(PRIOR, sigma), torch.eye(D, dtype=torch.float64)
        variance = COVARIANCE - COVARIANCE @ torch.linalg.solve(COVARIANCE + sigma**2 * eye, COVARIANCE)
        mean = PRIOR(x, level(sigma))
        expected = mean + (y - mean @ MATRIX.T) / 0.1**2 @ MATRIX @ variance
        for w in (1.0, 0.3):
            guided = DPS(PRIOR, operator, y, 0.1, weight=w)(x, level(sigma))
            torch.testing.assert_close(guided, mean + w * (expected - mean), rtol=1e-9, atol=1e-10)


def sampled(denoiser, exact, num_steps):
    """Moments of the ends of what starts as the exact posterior with noise of σ_max."""

    def run(z):
        x = exact.mean + z * (exact.variances + 80.0**2).sqrt() @ exact.axes.T
        return sample_from(denoiser, x, 80.0, sampler=Sampler(EDMSteps(num_steps, 0.002))).x

    return affine_ends(run, D)


def test_samples_of_a_gaussian_posterior_without_drawing_any():
    """The flow is affine, so mean and covariance of its ends follow from D + 1 runs.

    MMPS has those of the exact posterior, to the order of the solver. ΠGDM and DPS have not, however fine the steps.
    """
    operator, y, exact = problem("matrix")
    mmps, pigdm = MMPS(PRIOR, operator, y, 0.1), PiGDM(PRIOR, operator, y, 0.1, sigma_data=0.5)
    errors = posterior_error(exact, {"exact": exact, "MMPS": mmps, "ΠGDM": pigdm}, steps=(48,))
    errors += posterior_error(exact, {"DPS": DPS(PRIOR, operator, y, 0.1)}, steps=(128,))
    errors = {result.name: result.error[0] for result in errors}
    print("\n  W₂ / spread: " + ", ".join(f"{name} {error:.5f}" for name, error in errors.items()))
    moments = {name: sampled(method, exact, 48) for name, method in (("exact", exact), ("MMPS", mmps))}
    for found, own in zip(moments["MMPS"], moments["exact"], strict=True):
        torch.testing.assert_close(found, own, rtol=0, atol=1e-11)
    torch.testing.assert_close(moments["MMPS"][0], exact.mean, rtol=0, atol=1e-4)
    assert errors["MMPS"] < 0.01
    assert errors["ΠGDM"] == pytest.approx(0.09, abs=0.02)
    assert errors["DPS"] == pytest.approx(0.43, abs=0.05)


def test_exact_samplers_converge_with_the_order_of_the_solver():
    operator, y, exact = problem("mask", WHITE)
    methods = {"MMPS": MMPS(WHITE, operator, y, 0.1), "ΠGDM": PiGDM(WHITE, operator, y, 0.1, sigma_data=0.5)}
    for result in posterior_error(exact, methods, steps=(16, 32)):
        assert result.nfe == (31, 63)
        assert 3.5 < result.error[0] / result.error[1] < 5.5


def test_drawn_samples_have_the_exact_mean_and_covariance_within_their_errors():
    operator, y, exact = problem("matrix")
    n = 4000
    x = sample(MMPS(PRIOR, operator, y, 0.1), shape=(D,), seeds=range(n), steps=EDMSteps(32)).x
    z = (x - exact.mean) @ exact.axes / exact.variances.sqrt()  # white, if exact
    assert float(z.mean(0).abs().max()) < 4.5 / math.sqrt(n)
    covariance = z.T @ z / n
    assert float((covariance - torch.eye(D)).abs().max()) < 4.5 * math.sqrt(2 / n) + 0.05  # 0.05: of 32 steps


def test_on_a_mixture_mmps_is_nearer_to_the_posterior_mean_than_the_others():
    means = torch.tensor([[0.8, 0.1], [-0.6, 0.6], [-0.2, -0.8]], dtype=torch.float64)
    prior = GaussianMixture(means, torch.tensor([0.1, 0.2, 0.15]))
    operator, y = Matrix(torch.tensor([[1.0, 0.5]], dtype=torch.float64)), torch.tensor([[0.3]], dtype=torch.float64)
    exact = prior.posterior(operator, y, 0.2)
    generator = torch.Generator().manual_seed(3)
    error = {}
    for sigma in (0.1, 0.3, 1.0):
        x = exact.sample(500, generator=generator)
        x = x + sigma * torch.randn(x.shape, generator=generator, dtype=torch.float64)
        truth = exact(x, level(sigma))
        for method in (
            MMPS(prior, operator, y, 0.2),
            PiGDM(prior, operator, y, 0.2, sigma_data=0.6),
            DPS(prior, operator, y, 0.2),
            prior,
        ):
            with torch.no_grad():
                found = method(x, level(sigma))
            error[type(method).__name__, sigma] = float((found - truth).square().mean().sqrt())
    print("\n  " + ", ".join(f"{name} at {sigma}: {e:.3f}" for (name, sigma), e in error.items()))
    for sigma in (0.1, 0.3, 1.0):
        assert error["MMPS", sigma] < 0.85 * error["GaussianMixture", sigma]
        assert error["MMPS", sigma] < error["PiGDM", sigma] < error["DPS", sigma]


class Counting:
    def __init__(self, denoiser):
        self.denoiser, self.calls = denoiser, 0

    def __call__(self, x, sigma, cond=None):
        self.calls += 1
        return self.denoiser(x, sigma, cond)


@pytest.mark.parametrize("method", [MMPS, DPS, lambda *a: PiGDM(*a, sigma_data=0.5)])
def test_each_evaluation_is_one_of_the_denoiser(method):
    operator, y, _ = problem("matrix")
    count = Counting(PRIOR)
    result = sample(method(count, operator, y, 0.5), shape=(D,), seeds=range(3), steps=EDMSteps(5, sigma_max=2.0))
    assert count.calls == result.nfe == 9


def test_backward_passes_are_as_many_as_iterations_and_one():
    passes = []

    class Noting(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            passes.append(len(gradient))
            return gradient

    def noting(x, sigma, cond=None):
        return PRIOR(Noting.apply(x), sigma)

    operator, y, _ = problem("matrix")
    x = noisy(PRIOR, 1.0)
    for method, expected in (
        (DPS(noting, operator, y, 0.1), 1),
        (PiGDM(noting, operator, y, 0.1, sigma_data=0.5), 1),
        (MMPS(noting, operator, y, 0.1, iterations=2), 3),
        (MMPS(noting, operator, y, 0.1, iterations=3), 4),
        (MMPS(noting, operator, y, 0.1, weight=0.0), 0),
    ):
        passes.clear()
        method(x, level(1.0))
        assert len(passes) == expected


@pytest.mark.parametrize("method", [MMPS, DPS, lambda *a: PiGDM(*a, sigma_data=0.5)])
def test_rows_are_apart_whatever_their_level_measurement_and_batch(method):
    operator = Matrix(MATRIX)
    y = operator(PRIOR.sample(4, generator=torch.Generator().manual_seed(4)))
    x, sigma = noisy(PRIOR, 1.0, 4), torch.tensor([0.01, 0.3, 2.0, 40.0], dtype=torch.float64)
    together = method(PRIOR, operator, y, 0.1)(x, sigma)
    for i in range(4):
        alone = method(PRIOR, operator, y[i : i + 1], 0.1)(x[i : i + 1], sigma[i])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("method", [MMPS, DPS, lambda *a: PiGDM(*a, sigma_data=0.5)])
def test_gradients_go_through(method):
    """By x and by y, of a denoiser that is not linear."""
    mixture = GaussianMixture(torch.tensor([[0.5, 0.2], [-0.6, 0.1]], dtype=torch.float64), torch.tensor([0.3, 0.4]))
    operator = Matrix(torch.tensor([[1.0, 0.5]], dtype=torch.float64))
    x = torch.tensor([[0.3, -0.5], [1.0, 0.7]], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([[0.2], [0.4]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, y: method(mixture, operator, y, 0.4)(x, level(0.6)), (x, y))
    steps = EDMSteps(2, sigma_max=1.0, sigma_min=0.1)
    assert torch.autograd.gradcheck(
        lambda z, y: (
            sample(method(mixture, operator, y, 0.4), latents=z, steps=steps, execution=Execution(grad=True)).x
        ),
        (x, y),
    )


def test_gradients_by_the_parameters_of_a_network():
    model = make_denoiser(networks.DDPMpp, shape=(1, 8, 8)).double()
    y = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    start = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    parameter = model.network.map_layer0.bias

    def end():
        method = MMPS(model, AveragePooling(2), y, 0.3, iterations=2)
        with sdpa_kernel(SDPBackend.MATH):  # other kernels of attention have no second derivative
            return sample(
                method, latents=start, steps=EDMSteps(2, sigma_max=1.0), execution=Execution(grad=True)
            ).x.sum()

    (slope,) = torch.autograd.grad(end(), parameter)
    with torch.no_grad():
        parameter[3] += 1e-5
        above = end()
        parameter[3] -= 2e-5
        below = end()
        parameter[3] += 1e-5
    assert float(slope[3]) == pytest.approx(float(above - below) / 2e-5, rel=1e-5)


@pytest.mark.parametrize("method", [MMPS, PiGDM])
@pytest.mark.parametrize("sigma", [0.01, 0.5, 20.0])
def test_of_a_network_in_single_precision(method, sigma):
    """One that was never trained, F = 0, is the exact denoiser of N(0, σ_data²·I)."""
    model = Preconditioned(networks.MLP((1, 8, 8), width=16), EDMPreconditioning(0.5)).eval()
    prior = Gaussian(torch.zeros(1, 8, 8), 0.25 * torch.eye(64))
    operator, y = AveragePooling(2), torch.linspace(-1, 1, 16).reshape(1, 1, 4, 4)
    exact = prior.posterior(operator, y, 0.05)
    x = sigma * torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = method(model, operator, y, 0.05)(x, torch.tensor(sigma))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact(x, torch.tensor(sigma)), rtol=1e-4, atol=1e-5)


def test_sigma_data_is_read_from_the_model():
    model = make_denoiser(networks.DDPMpp, shape=(1, 8, 8))
    y = torch.zeros(1, 1, 4, 4)
    assert PiGDM(model, AveragePooling(2), y, 0.1).sigma_data == 0.5
    assert PiGDM(MMPS(model, AveragePooling(2), y, 0.1), AveragePooling(2), y, 0.1).sigma_data == 0.5


def test_operators_are_what_they_say():
    x = torch.arange(2 * 4 * 6, dtype=torch.float64).reshape(1, 2, 4, 6)
    assert torch.equal(AveragePooling(2)(x), torch.nn.functional.avg_pool2d(x, 2))
    assert torch.equal(AveragePooling(3)(x[:, :, :3]), torch.nn.functional.avg_pool2d(x[:, :, :3], 3))
    volume = torch.randn(2, 1, 4, 2, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(AveragePooling(2)(volume), torch.nn.functional.avg_pool3d(volume, 2))
    assert torch.equal(AveragePooling(2)(x[0]), torch.nn.functional.avg_pool1d(x[0], 2))
    mask = torch.zeros(4, 6, dtype=torch.bool)
    mask[1, 2] = mask[3, 0] = True
    assert Mask(mask)(x).tolist() == [[float(x[0, c, i, j]) for c in (0, 1) for i, j in ((1, 2), (3, 0))]]
    torch.testing.assert_close(Matrix(torch.eye(48)[3:5])(x), x.flatten(1)[:, 3:5])


def test_a_direction_of_no_positive_variance_is_left_out():
    """A Jacobian that is negative where the exact one cannot be: D stays, and does not explode."""

    def odd(x, sigma, cond=None):
        return x * torch.tensor([-0.3, 0.4], dtype=torch.float64)

    x, y = torch.ones(1, 2, dtype=torch.float64), torch.tensor([[2.0]], dtype=torch.float64)
    wrong = MMPS(odd, lambda v: v[:, :1], y, 0.0)(x, level(1.0))
    assert torch.equal(wrong, odd(x, None))
    right = MMPS(odd, lambda v: v[:, 1:], y, 0.0)(x, level(1.0))
    torch.testing.assert_close(right, torch.tensor([[-0.3, 2.0]], dtype=torch.float64))


LINE = Matrix(MATRIX)
Y = torch.zeros(1, 3, dtype=torch.float64)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MMPS(PRIOR, LINE, Y, -0.1), "sigma_y: .* got -0.1"),
        (lambda: MMPS(PRIOR, LINE, Y * torch.nan, 0.1), "y: expected finite measurements"),
        (lambda: MMPS(PRIOR, LINE, Y, 0.1, iterations=0), "iterations: .* got 0"),
        (lambda: DPS(PRIOR, LINE, Y, 0.1, iterations=3), "iterations: has no effect on DPS"),
        (lambda: PiGDM(lambda x, sigma, cond=None: x, LINE, Y, 0.1), "sigma_data: the denoiser does not state"),
        (lambda: PiGDM(PRIOR, LINE, Y, 0.1, sigma_data=0.0), "sigma_data: .* got 0.0"),
        (lambda: DPS(PRIOR, LINE, Y, 0.0), "sigma_y: .* got 0.0"),
        (lambda: DPS(PRIOR, LINE, Y, 0.1, weight=math.inf), "weight: .* got inf"),
        (
            lambda: MMPS(PRIOR, LINE, Y.expand(2, 3), 0.1)(TRUTH, level(1.0)),
            r"y: expected .* \(1, 3\), or 1 row, got \(2, 3\)",
        ),
        (
            lambda: MMPS(PRIOR, LINE, Y[:, :2], 0.1)(TRUTH, level(1.0)),
            r"y: expected .* \(1, 3\), or 1 row, got \(1, 2\)",
        ),
        (
            lambda: MMPS(torch.no_grad()(lambda x, s, c: 0.5 * x), LINE, Y, 0.1)(TRUTH, level(1.0)),
            "denoiser: its value has no",
        ),
        (lambda: MMPS(PRIOR, lambda x: LINE(x.detach()), Y, 0.1)(TRUTH, level(1.0)), "operator: its value has no"),
        (lambda: LINE(torch.zeros(1, 5)), r"matrix: shape \(3, 6\) for samples of 5 numbers"),
        (lambda: Mask(torch.ones(3, dtype=torch.bool))(torch.zeros(1, 5)), r"mask: shape \(3,\) for samples of shape"),
        (lambda: AveragePooling(0), "factor: .* got 0"),
        (lambda: AveragePooling(2)(torch.zeros(1, 1, 4, 5)), r"factor: 2 does not divide the sides \(4, 5\)"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
