"""Classifier-free guidance and autoguidance: closed forms on Gaussians, and what they cost."""

import copy

import pytest
import torch
from small_networks import make_denoiser

from diffspace import EDMPreconditioning, Preconditioned, networks, sample
from diffspace.guidance import AutoGuidance, ClassifierFree, Interval
from diffspace.oracles import ByClass, Gaussian
from diffspace.sampling import EDMSteps, Euler

MEAN = torch.tensor([0.5, -0.2], dtype=torch.float64)
NARROW = Gaussian(MEAN, torch.tensor([[0.05, 0.02], [0.02, 0.04]], dtype=torch.float64))
WIDE = Gaussian(0.1 * MEAN, torch.tensor([[0.4, -0.1], [-0.1, 0.3]], dtype=torch.float64))
BOTH = ByClass([NARROW, WIDE])
NULL = {"labels": torch.tensor([1])}
X = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = {"labels": torch.zeros(5, dtype=torch.long)}
LEVELS = torch.tensor([0.1, 0.5, 1.0, 2.0, 10.0], dtype=torch.float64)


class Counting:
    """A denoiser that notes the number of rows, σ and condition of each call."""

    def __init__(self, denoiser):
        self.denoiser, self.rows, self.sigmas, self.conds = denoiser, [], [], []

    def __call__(self, x, sigma, cond=None):
        self.rows.append(len(x))
        self.sigmas.append(sigma)
        self.conds.append(cond)
        return self.denoiser(x, sigma, cond)


def precision(gaussian, sigma):
    """(Σ + σ²I)⁻¹, of the noisy density."""
    covariance = gaussian.axes * gaussian.variances @ gaussian.axes.T
    return torch.linalg.inv(covariance + sigma**2 * torch.eye(2, dtype=torch.float64))


@pytest.mark.parametrize("make", ["classifier-free", "autoguidance"])
@pytest.mark.parametrize("w", [0.0, 0.3, 1.5, 4.0])
@pytest.mark.parametrize("sigma", [0.02, 0.7, 30.0])
def test_the_guided_score_is_that_of_a_product_of_gaussians(make, w, sigma):
    """p_strong^w·p_weak^{1−w} has the precision P = w·P_s + (1−w)·P_w, and the mean P⁻¹(w·P_s·μ_s + (1−w)·P_w·μ_w)."""
    if make == "autoguidance":
        denoised = AutoGuidance(NARROW, WIDE, w)(X, torch.tensor(sigma, dtype=torch.float64))
    else:
        denoised = ClassifierFree(BOTH, w, negative=NULL)(X, torch.tensor(sigma, dtype=torch.float64), LABELS)
    strong, weak = precision(NARROW, sigma), precision(WIDE, sigma)
    total = w * strong + (1 - w) * weak
    pull = w * strong @ NARROW.mean + (1 - w) * weak @ WIDE.mean
    torch.testing.assert_close(denoised, X - sigma**2 * (X @ total - pull), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("w", [0.0, 1.0, 2.0, 3.0])
def test_samples_of_guided_gaussians_have_the_standard_deviation_of_the_closed_solution(w):
    """Of N(0, s²) guided away from N(0, S²), the ODE multiplies x by Π(√(v/(v + σ_max²)))^{w or 1−w}, v = s² and S²."""
    s, wide, top = 0.3, 0.9, 80.0
    parts = [Gaussian(torch.zeros(1), torch.tensor([[v**2]], dtype=torch.float64)) for v in (s, wide)]
    latents = torch.ones(1, 1, dtype=torch.float64)
    guided = AutoGuidance(*parts, weight=w)
    end = float(sample(guided, latents=latents, steps=EDMSteps(400)).x)

    def factor(v, power):
        return (v**2 / (v**2 + top**2)) ** (power / 2)

    assert end == pytest.approx(top * factor(s, w) * factor(wide, 1 - w), rel=2e-3)
    assert end == pytest.approx(s**w * wide ** (1 - w), rel=3e-3)  # for σ_max → ∞


def test_weight_one_is_the_conditional_model_bit_for_bit_and_costs_nothing():
    count = Counting(BOTH)
    denoised = ClassifierFree(count, 1.0, negative=NULL)(X, LEVELS, LABELS)
    assert torch.equal(denoised, BOTH(X, LEVELS, LABELS))
    assert count.rows == [5]
    one, other = (Counting(part) for part in (NARROW, WIDE))
    assert torch.equal(AutoGuidance(one, other, 1.0)(X, LEVELS), NARROW(X, LEVELS))
    assert (one.rows, other.rows) == ([5], [])


@pytest.mark.parametrize("sigma", [torch.tensor(0.5, dtype=torch.float64), LEVELS])
def test_both_branches_are_one_call_on_twice_the_rows(sigma):
    count = Counting(BOTH)
    denoised = ClassifierFree(count, 2.0, negative=NULL)(X, sigma, LABELS)
    assert count.rows == [10]
    assert count.sigmas[0].shape == (sigma.shape if sigma.ndim == 0 else (10,))
    apart = Counting(BOTH)
    twice = ClassifierFree(apart, 2.0, negative=NULL, batched=False)(X, sigma, LABELS)
    assert apart.rows == [5, 5]
    torch.testing.assert_close(denoised, twice, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("batched", [True, False])
def test_outside_of_the_interval_the_second_branch_has_no_rows(batched):
    count = Counting(BOTH)
    guided = ClassifierFree(count, Interval(3.0, 0.5, 2.0), negative=NULL, batched=batched)
    always = ClassifierFree(BOTH, 3.0, negative=NULL)
    inside = torch.tensor([False, False, True, True, False])  # low < σ ≤ high
    expected = torch.where(inside[:, None], always(X, LEVELS, LABELS), BOTH(X, LEVELS, LABELS))
    torch.testing.assert_close(guided(X, LEVELS, LABELS), expected, rtol=1e-13, atol=1e-13)
    assert count.rows == ([7] if batched else [5, 2])
    for sigma, rows in ((0.5, [5]), (2.0, [10]), (2.1, [5]), (0.51, [10])):
        count.rows.clear()
        guided(X, torch.tensor(sigma, dtype=torch.float64), LABELS)
        assert count.rows == (rows if batched or rows == [5] else [5, 5])


def test_the_guide_is_asked_for_the_guided_samples_alone():
    strong, guide = Counting(BOTH), Counting(BOTH)
    labels = torch.tensor([0, 1, 0, 1, 0])
    AutoGuidance(strong, guide, Interval(2.0, 0.5, 2.0))(X, LEVELS, {"labels": labels})
    assert (strong.rows, guide.rows) == ([5], [2])
    assert guide.sigmas[0].tolist() == [1.0, 2.0]
    assert guide.conds[0]["labels"].tolist() == [0, 1]


def test_evaluations_of_a_run():
    steps = EDMSteps(10, 0.01, 20.0)
    sigmas = steps.sigmas()[:-1]
    within = int(((sigmas > 0.1) & (sigmas <= 5)).sum())
    assert 0 < within < 10
    for weight, expected in ((3.0, 20), (1.0, 10), (Interval(3.0, 0.1, 5.0), 10 + within)):
        count = Counting(BOTH)
        guided = ClassifierFree(count, weight, negative=NULL)
        cond = {"labels": torch.zeros(1, dtype=torch.long)}
        result = sample(guided, shape=(2,), seeds=[0], cond=cond, steps=steps, solver=Euler())
        assert sum(count.rows) == expected
        assert len(count.rows) == result.nfe == 10


def test_a_weight_may_be_any_function_of_sigma():
    def rising(sigma):
        return 1 + 2 * sigma

    guided = AutoGuidance(NARROW, WIDE, rising)
    strong, weak = NARROW(X, LEVELS), WIDE(X, LEVELS)
    expected = weak + rising(LEVELS)[:, None] * (strong - weak)
    torch.testing.assert_close(guided(X, LEVELS), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(guided(X, LEVELS[2]), AutoGuidance(NARROW, WIDE, 3.0)(X, LEVELS[2]))
    nested = AutoGuidance(NARROW, WIDE, Interval(rising, 0.5, 2.0))(X, LEVELS)
    torch.testing.assert_close(nested[2:4], expected[2:4], rtol=1e-12, atol=1e-12)
    assert torch.equal(nested[[0, 1, 4]], strong[[0, 1, 4]])


def test_a_weight_can_be_learnt():
    w = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    for sigma in (LEVELS, LEVELS[2]):
        guided = AutoGuidance(NARROW, WIDE, lambda sigma: w * torch.ones_like(sigma))(X, sigma)
        (slope,) = torch.autograd.grad(guided.sum(), w)
        assert float(slope) == pytest.approx(float((NARROW(X, sigma) - WIDE(X, sigma)).sum()), rel=1e-12)


def small(kind):
    if kind == "mlp":
        torch.manual_seed(0)
        network = networks.MLP((3, 8, 8), label_dim=4, label_dropout=0.1, augment_dim=2, width=16, depth=1)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        return Preconditioned(network, EDMPreconditioning(0.5)).double().eval()
    network = {"ddpmpp": networks.DDPMpp, "adm": networks.ADM}[kind]
    return make_denoiser(network, label_dim=4, augment_dim=2, image_channels=1).double()


def conditions(kind, vectors):
    generator = torch.Generator().manual_seed(2)
    labels = torch.tensor([3, 0, 2])
    cond = {"labels": torch.nn.functional.one_hot(labels, 4).float() if vectors else labels}
    cond["augment"] = torch.randn(3, 2, generator=generator, dtype=torch.float64)
    if kind != "mlp":
        cond["image"] = torch.randn(3, 1, 8, 8, generator=generator, dtype=torch.float64)
    return cond


@pytest.mark.parametrize("kind", ["mlp", "ddpmpp", "adm"])
@pytest.mark.parametrize("vectors", [True, False])
@pytest.mark.parametrize("keep", [(), ("augment",)])
def test_a_missing_condition_of_a_network_is_batched_as_zeros(kind, vectors, keep):
    model, cond = small(kind), conditions(kind, vectors)
    keep += ("image",) if "image" in cond else ()
    x = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    sigma = torch.tensor([0.3, 1.0, 7.0], dtype=torch.float64)
    with torch.no_grad():
        conditional, unconditional = model(x, sigma, cond), model(x, sigma, {name: cond[name] for name in keep} or None)
    assert float((conditional - unconditional).abs().max()) > 1e-3
    rows = []
    model.network.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    with torch.no_grad():
        guided = ClassifierFree(model, 2.5, keep=keep)(x, sigma, cond)
    assert rows == [6]
    expected = unconditional + 2.5 * (conditional - unconditional)
    torch.testing.assert_close(guided, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("vectors", [True, False])
@pytest.mark.parametrize("negative_vectors", [True, False])
@pytest.mark.parametrize("rows", [1, 3])
def test_a_negative_condition_takes_the_place_of_none(vectors, negative_vectors, rows):
    model, cond = small("mlp"), conditions("mlp", vectors)
    x = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    sigma = torch.tensor(0.8, dtype=torch.float64)
    index = torch.tensor([1, 2, 0])[:rows]
    negative = {"labels": torch.nn.functional.one_hot(index, 4).double() if negative_vectors else index}
    away = model(x, sigma, {"labels": index.expand(3)})
    for told in (cond, None):
        guided = ClassifierFree(model, 2.0, negative=negative)(x, sigma, told)
        torch.testing.assert_close(guided, 2 * model(x, sigma, told) - away, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("batched", [True, False])
def test_an_untrained_null_condition_is_refused(batched):
    untrained = Preconditioned(networks.MLP((2,), label_dim=4), EDMPreconditioning(0.5)).eval()
    for wrapped in (untrained, AutoGuidance(untrained, untrained, 2.0)):
        with pytest.raises(ValueError, match=r"^negative: the network requires .labels. .*, or train with"):
            ClassifierFree(wrapped, 2.0, batched=batched)
    x, sigma, labels = torch.ones(1, 2), torch.tensor(1.0), {"labels": torch.tensor([1])}
    assert ClassifierFree(untrained, 2.0, negative={"labels": torch.tensor([0])})(x, sigma, labels).shape == x.shape


def test_labels_are_checked_as_the_network_does():
    x, sigma = torch.zeros(1, 3, 8, 8, dtype=torch.float64), torch.tensor(1.0)
    guided = ClassifierFree(small("mlp"), 2.0)
    with pytest.raises(ValueError, match="labels: expected class indices from 0 to 3, got 4"):
        guided(x, sigma, {"labels": torch.tensor([4])})
    with pytest.raises(ValueError, match="does not know 'class'"):
        guided(x, sigma, {"class": torch.zeros(1, 4)})


@pytest.mark.parametrize("batched", [True, False])
def test_a_required_condition_is_required_in_both_branches(batched):
    model, cond = small("ddpmpp"), conditions("ddpmpp", False)
    x, sigma = torch.zeros(3, 3, 8, 8, dtype=torch.float64), torch.tensor(1.0)
    with pytest.raises(ValueError, match=r"keep: the second branch requires 'image' too: keep=\('image',\), or pass"):
        ClassifierFree(model, 2.0, batched=batched)(x, sigma, cond)
    ClassifierFree(model, 2.0, batched=batched, negative={"image": torch.zeros(1, 1, 8, 8)})(x, sigma, cond)


def test_the_network_is_registered_once():
    model = small("mlp")
    guided = ClassifierFree(model, 2.0)
    assert len(guided.state_dict()) == len(model.state_dict())
    other = copy.deepcopy(guided)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert any(bool(parameter.any()) for parameter in other.parameters())


def test_the_range_is_what_both_models_know():
    model = small("mlp")
    guide = copy.deepcopy(model)
    model.sigma_min, model.sigma_max, guide.sigma_min, guide.sigma_max = 0.01, 50.0, 0.002, 20.0
    guided = AutoGuidance(model, guide, 2.0)
    assert (guided.sigma_min, guided.sigma_max) == (0.01, 20.0)
    assert AutoGuidance(NARROW, WIDE, 2.0).sigma_max == float("inf")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ClassifierFree(BOTH, 2.0), r"batched: True.*negative.*batched=False"),
        (lambda: ClassifierFree(BOTH, float("nan"), negative=NULL), "weight: expected a number .* got nan"),
        (lambda: ClassifierFree(BOTH, 2.0, negative=NULL, keep=("labels",)), "keep: 'labels' is in negative too"),
        (lambda: Interval(2.0, 1.0, 1.0), r"low, high: expected 0 ≤ low < high, got 1\.0, 1\.0"),
        (lambda: Interval(2.0, float("nan")), "low, high: .* got nan"),
        (lambda: Interval(float("inf")), "weight: .* got inf"),
        (lambda: Interval(2.0, outside=float("nan")), "outside: .* got nan"),
        (lambda: ClassifierFree(BOTH, 2.0, batched=False)(X, LEVELS), "cond: both branches have the same conditions"),
        (lambda: ClassifierFree(BOTH, 2.0, batched=False, keep=("labels",))(X, LEVELS, LABELS), "cond: both branches"),
        (lambda: ClassifierFree(BOTH, 2.0, batched=False, keep="lables")(X, LEVELS, LABELS), "keep: 'lables' is not"),
        (lambda: ClassifierFree(BOTH, 2.0, batched=False, keep=("lables",))(X, LEVELS, LABELS), "keep: 'lables'"),
        (lambda: ClassifierFree(BOTH, 2.0, negative=NULL)(X, LEVELS), "negative: 'labels' in one branch requires"),
        (
            lambda: ClassifierFree(BOTH, 2.0, negative={"labels": torch.tensor([1, 1])})(X, LEVELS, LABELS),
            r"negative: 'labels' has shape \(2,\); expected 1 row or 5",
        ),
        (lambda: AutoGuidance(NARROW, WIDE, lambda s: torch.ones(3) * 2)(X, LEVELS), r"weight: returned shape \(3,\)"),
        (lambda: AutoGuidance(NARROW, WIDE, lambda s: s / 0)(X, LEVELS), "weight: returned values that are not finite"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
