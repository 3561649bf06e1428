"""Classifier guidance, thresholding, and how all wrappers go with one another and with sampling."""

import copy
import math
import pickle

import pytest
import torch
from small_networks import make_denoiser

from diffspace import DenoisingLoss, IDDPMPreconditioning, LogNormal, encode, networks, sample, sample_states
from diffspace.guidance import (
    DPS,
    MMPS,
    AutoGuidance,
    ClassifierFree,
    ClassifierGuidance,
    DynamicThresholding,
    Interval,
    Matrix,
    PiGDM,
    Replacement,
)
from diffspace.oracles import ByClass, Gaussian, GaussianMixture
from diffspace.sampling import Churn, EDMSteps, Euler, Execution, Sampler, sample_from

MEANS = torch.tensor([[0.8, 0.1], [-0.6, 0.6], [-0.2, -0.8]], dtype=torch.float64)
STDS = torch.tensor([0.1, 0.3, 0.2], dtype=torch.float64)
CLASSES = ByClass(
    [Gaussian(mean, std**2 * torch.eye(2, dtype=torch.float64)) for mean, std in zip(MEANS, STDS, strict=True)]
)
ALL = GaussianMixture(MEANS, STDS)
WITH_NULL = ByClass([*CLASSES.oracles, ALL])
NULL = {"labels": torch.tensor([3])}
LABELS = torch.tensor([0, 1, 2, 1])
X = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def classify(x, sigma, cond):
    """The exact ln p(label | x; σ)."""
    joint = torch.stack([oracle.log_prob(x, sigma) for oracle in CLASSES.oracles], 1)
    return joint.log_softmax(1).gather(1, cond["labels"][:, None]).squeeze(1)


def guided_by_classifier(weight=1.0):
    return ClassifierGuidance(ALL, classify, weight, classifier_only=("labels",))


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("sigma", [0.01, 0.3, 1.0, 80.0, None])
def test_the_exact_classifier_makes_the_unconditional_denoiser_the_conditional_one(grad, sigma):
    """Bayes' rule: D + σ²·∇ ln p(y | x; σ) = E[x₀ | x, y]."""
    level = torch.tensor(sigma or [0.05, 0.2, 0.9, 5.0], dtype=torch.float64)
    x = MEANS[LABELS] + level.reshape(-1, 1) * X
    with torch.set_grad_enabled(grad):
        denoised = guided_by_classifier()(x, level, {"labels": LABELS})
    torch.testing.assert_close(denoised, CLASSES(x, level, {"labels": LABELS}), rtol=1e-10, atol=1e-10)


def test_samples_by_the_exact_classifier_are_those_of_the_conditional_denoiser():
    options = {"latents": X, "cond": {"labels": LABELS}, "steps": EDMSteps(8)}
    found, expected = (sample(denoiser, **options).x for denoiser in (guided_by_classifier(), CLASSES))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_classifier_and_classifier_free_guidance_are_the_same_where_both_are_exact():
    level = torch.tensor([0.1, 0.5, 1.0, 3.0], dtype=torch.float64)
    by_classifier = guided_by_classifier(2.5)(X, level, {"labels": LABELS})
    free = ClassifierFree(WITH_NULL, 2.5, negative=NULL)(X, level, {"labels": LABELS})
    torch.testing.assert_close(by_classifier, free, rtol=1e-9, atol=1e-9)


def test_a_classifier_of_no_weight_is_not_asked():
    asked = []

    def noting(x, sigma, cond):
        asked.append(len(x))
        return classify(x, sigma, cond)

    interval = Interval(2.0, 0.2, 1.0, outside=0.0)
    guided = ClassifierGuidance(ALL, noting, interval, classifier_only=("labels",))
    cond = {"labels": LABELS}
    for sigma, calls in ((0.2, 0), (1.0, 1), (1.1, 0)):
        asked.clear()
        level = torch.tensor(sigma, dtype=torch.float64)
        expected = guided_by_classifier(2.0)(X, level, cond) if calls else ALL(X, level)
        assert torch.equal(guided(X, level, cond), expected)
        assert len(asked) == calls
    mixed = torch.tensor([0.1, 0.5, 1.0, 3.0], dtype=torch.float64)
    expected = torch.where(
        (mixed > 0.2)[:, None] & (mixed <= 1)[:, None], guided_by_classifier(2.0)(X, mixed, cond), ALL(X, mixed)
    )
    torch.testing.assert_close(guided(X, mixed, cond), expected, rtol=1e-13, atol=1e-13)


def test_the_denoiser_is_told_what_is_not_the_classifier_s_alone():
    told = []

    def denoiser(x, sigma, cond=None):
        told.append(cond)
        return 0.5 * x

    image = torch.zeros(4, 1)
    cond = {"labels": LABELS, "image": image}
    ClassifierGuidance(denoiser, classify, classifier_only=("labels",))(X, torch.tensor(1.0), cond)
    ClassifierGuidance(denoiser, classify, classifier_only=("labels", "image"))(X, torch.tensor(1.0), cond)
    ClassifierGuidance(denoiser, classify)(X, torch.tensor(1.0), cond)
    assert [sorted(c or {}) for c in told] == [["image"], [], ["image", "labels"]]
    assert told[1] is None


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9, 0.995, 1.0])
@pytest.mark.parametrize("dims", [(1,), (7,), (3, 8, 8)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_dynamic_thresholding_scales_back_what_is_beyond_its_percentile(share, dims, dtype):
    scales = torch.tensor([0.2, 1.0, 3.0]).reshape(-1, *(1 for _ in dims))
    x = (scales * torch.randn(3, *dims, generator=torch.Generator().manual_seed(0))).to(dtype)
    found = DynamicThresholding(lambda x, sigma, cond=None: x, share, bound=1.5)(x, torch.tensor(1.0))
    s = torch.quantile(x.double().flatten(1).abs(), share, dim=1).clamp_min(1.5).reshape(scales.shape)
    expected = torch.minimum(torch.maximum(x.double(), -s), s) / s * 1.5
    assert found.dtype == dtype
    assert float(found.abs().max()) <= 1.5 * (1 + 2 * torch.finfo(dtype).eps)
    torch.testing.assert_close(found.double(), expected, rtol=4 * torch.finfo(dtype).eps, atol=1e-12)


def test_what_is_within_the_bound_stays_bit_for_bit():
    x = torch.rand(2, 5, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for percentile in (0.9, None):
        assert torch.equal(DynamicThresholding(lambda x, s, c=None: x, percentile)(x, torch.tensor(1.0)), x)


def test_static_clipping_is_the_plain_one():
    x = 3 * X
    assert torch.equal(DynamicThresholding(lambda x, s, c=None: x, None, 0.7)(x, torch.tensor(1.0)), x.clamp(-0.7, 0.7))


def stack():
    """Most of them, inside one another."""
    guided = ClassifierFree(WITH_NULL, Interval(lambda sigma: 1 + sigma, 0.1, 2.0), negative=NULL)
    weaker = GaussianMixture(MEANS, torch.tensor([0.3, 0.5, 0.4]))
    auto = AutoGuidance(guided, lambda x, sigma, cond=None: weaker(x, sigma), 1.5)
    line = Matrix(torch.tensor([[1.0, 0.5]], dtype=torch.float64))
    known = MMPS(auto, line, torch.tensor([[0.2]], dtype=torch.float64), 0.3)
    return DynamicThresholding(ClassifierGuidance(known, classify, 0.2), 0.9, bound=0.7)


def by_hand(x, sigma, labels):
    """The same in one piece, for one σ."""
    s, line = float(sigma), torch.tensor([[1.0, 0.5]], dtype=torch.float64)
    weaker = GaussianMixture(MEANS, torch.tensor([0.3, 0.5, 0.4]))

    def auto(x, labels):
        strong, weak = WITH_NULL(x, sigma, {"labels": labels}), weaker(x, sigma)
        guided = strong + (s if 0.1 < s <= 2 else 0) * (strong - ALL(x, sigma))
        return weak + 1.5 * (guided - weak)

    rows = []
    for row, label in zip(x, labels[:, None], strict=True):
        (d,) = auto(row[None], label)
        v = s**2 * torch.autograd.functional.jacobian(lambda r, label=label: auto(r[None], label)[0], row).T
        total = float(0.09 + line @ v @ line.T)  # guidance may make it negative, which no covariance is
        rows.append(d + (v @ line.T / total * (0.2 - d @ line.T)).flatten() if total > 0 else d)
    at = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(classify(at, sigma, {"labels": labels}).sum(), at)
    pulled = torch.stack(rows) + 0.2 * s**2 * slope
    bound = torch.quantile(pulled.abs(), 0.9, dim=1, keepdim=True).clamp_min(0.7)
    return torch.minimum(torch.maximum(pulled, -bound), bound) / bound * 0.7


@pytest.mark.parametrize("sigma", [0.05, 0.6, 5.0])
def test_wrappers_inside_wrappers_do_what_they_say(sigma):
    level = torch.tensor(sigma, dtype=torch.float64)
    torch.testing.assert_close(stack()(X, level, {"labels": LABELS}), by_hand(X, level, LABELS), rtol=1e-8, atol=1e-9)


def test_they_sample_by_batches_with_churn_and_encode():
    options = {"seeds": range(4), "shape": (2,), "cond": {"labels": LABELS}, "steps": EDMSteps(4, sigma_max=3.0)}
    options["churn"] = Churn(1.0)
    whole = sample(stack(), **options).x
    assert not whole.requires_grad
    torch.testing.assert_close(
        sample(stack(), execution=Execution(batch_size=3), **options).x, whole, rtol=1e-11, atol=1e-11
    )
    guided = ClassifierFree(WITH_NULL, 2.0, negative=NULL)
    steps = EDMSteps(64, 0.05, 3.0, terminal="sigma_min")
    there = encode(guided, 0.3 * X, cond={"labels": LABELS}, sampler=Sampler(steps))
    back = sample_from(guided, there.x, 3.0, cond={"labels": LABELS}, sampler=Sampler(steps)).x
    torch.testing.assert_close(back, 0.3 * X, rtol=0, atol=1e-3)


def test_gradients_go_through_all_of_them():
    latents = X[:2].clone().requires_grad_()
    steps = EDMSteps(2, sigma_max=1.0, sigma_min=0.3)

    def end(latents):
        cond = {"labels": LABELS[:2]}
        return sample(
            stack(), latents=latents, cond=cond, steps=steps, solver=Euler(), execution=Execution(grad=True)
        ).x

    assert torch.autograd.gradcheck(end, (latents,), rtol=1e-4)


def wrappers(denoiser):
    line, y = Matrix(torch.ones(1, 192)), torch.zeros(1, 1)
    return [
        ClassifierFree(denoiser, 2.0),
        AutoGuidance(denoiser, denoiser, 2.0),
        DynamicThresholding(denoiser),
        ClassifierGuidance(denoiser, lambda x, sigma, cond: -x.flatten(1).square().sum(1)),
        DPS(denoiser, line, y, 1.0),
        PiGDM(denoiser, line, y, 1.0, sigma_data=0.5),
        MMPS(denoiser, line, y, 1.0),
        Replacement(denoiser, torch.ones(8, 8, dtype=torch.bool), torch.zeros(())),
        DynamicThresholding(ClassifierFree(denoiser, 2.0)),
    ]


def test_optional_attributes_are_those_of_the_denoiser():
    model = make_denoiser(networks.ADM, IDDPMPreconditioning(), label_dim=2)
    sigma = torch.tensor([0.1, 0.7])
    for wrapper in wrappers(model):
        assert (wrapper.sigma_min, wrapper.sigma_max) == (model.sigma_min, model.sigma_max)
        assert wrapper.sample_shape == (3, 8, 8)
        assert torch.equal(wrapper.round_sigma(sigma), model.round_sigma(sigma))
        assert torch.equal(wrapper.weight(sigma), model.weight(sigma))
    loss = DenoisingLoss(LogNormal())
    images = torch.zeros(2, 3, 8, 8)
    losses = [
        loss(d, images, generator=torch.Generator().manual_seed(0))
        for d in (model, DynamicThresholding(model, 1.0, 1e9))
    ]
    assert torch.equal(*losses)
    plain = DynamicThresholding(lambda x, sigma, cond=None: x)
    assert not any(hasattr(plain, name) for name in ("sigma_min", "sigma_max", "sample_shape", "weight", "round_sigma"))
    with pytest.raises(AttributeError, match="nothing"):
        plain.nothing  # noqa: B018


def test_modules_inside_are_found():
    """Their device, their evaluation mode and their parameters; the guide's too."""
    model, guide = (make_denoiser(networks.DDPMpp, label_dim=2, dropout=0.5) for _ in range(2))
    for wrapper in [*wrappers(model), AutoGuidance(lambda x, sigma, cond=None: x, guide, 2.0)]:
        for inner in (model, guide):
            inner.train()
        cond = {"labels": torch.tensor([1])}
        options = {
            "shape": (3, 8, 8),
            "seeds": [0],
            "cond": cond,
            "steps": EDMSteps(1, sigma_max=2.0),
            "execution": Execution(dtype=torch.float32),
        }
        first, second = (sample(wrapper, **options).x for _ in range(2))
        assert torch.equal(first, second)
        assert model.training
        assert guide.training
        assert len(list(wrapper.parameters())) == len(list(model.parameters()))
        again = sample(copy.deepcopy(wrapper), **options).x
        assert torch.equal(again, first)
    elsewhere = DynamicThresholding(ClassifierFree(copy.deepcopy(model).to("meta"), 2.0))
    assert next(iter(sample_states(elsewhere, seeds=[0]))).x.device.type == "meta"


def test_wrappers_can_be_pickled():
    guided = ClassifierFree(make_denoiser(networks.DDPMpp, label_dim=2), Interval(2.0, 0.1, 3.0))
    x, sigma, cond = torch.ones(1, 3, 8, 8), torch.tensor(1.0), {"labels": torch.tensor([1])}
    with torch.no_grad():
        assert torch.equal(pickle.loads(pickle.dumps(guided))(x, sigma, cond), guided(x, sigma, cond))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_dtype_of_x_is_kept(dtype):
    x, sigma, cond = X.to(dtype), torch.tensor([0.2, 0.5, 1.0, 2.0]), {"labels": LABELS}
    line, y = Matrix(torch.ones(1, 2)), torch.zeros(1, 1)
    for wrapper in (
        ClassifierFree(WITH_NULL, Interval(2.0, 0.3, 1.0), negative=NULL),
        AutoGuidance(CLASSES, WITH_NULL, lambda s: 1 + s),
        DynamicThresholding(CLASSES),
        guided_by_classifier(),
        MMPS(CLASSES, line, y, 0.5),
        PiGDM(CLASSES, line, y, 0.5, sigma_data=0.5),
        DPS(CLASSES, line, y, 0.5),
        Replacement(CLASSES, torch.tensor([True, False]), torch.zeros(2, dtype=torch.float64)),
    ):
        with torch.no_grad():
            low, high = wrapper(x, sigma, cond), wrapper(X, sigma.double(), cond)
        assert low.dtype == dtype
        torch.testing.assert_close(low.double(), high, rtol=0, atol=60 * torch.finfo(dtype).eps)


def nothing(x, sigma, cond=None):
    return x


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DynamicThresholding(nothing, 99.5), "percentile: .* got 99.5"),
        (lambda: DynamicThresholding(nothing, math.nan), "percentile: .* got nan"),
        (lambda: DynamicThresholding(nothing, bound=0.0), "bound: .* got 0.0"),
        (lambda: ClassifierGuidance(nothing, classify, math.nan), "weight: .* got nan"),
        (
            lambda: ClassifierGuidance(nothing, lambda x, s, c: x)(X, torch.tensor(1.0)),
            r"log_prob: expected .* \(4,\), got \(4, 2\)",
        ),
        (
            lambda: ClassifierGuidance(nothing, lambda x, s, c: x.detach().sum(1))(X, torch.tensor(1.0)),
            "log_prob: its value has no gradient with respect to x",
        ),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
