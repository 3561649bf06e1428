"""The classifier on real digits: accuracy on held-out ones, determinism, and consistency of its outputs."""

import pytest
import torch
from real_digits import Digits

from diffspace.metrics import Classifier, FeatureExtractor, train_classifier


def test_recognises_held_out_digits(classifier: Classifier, digits: Digits) -> None:
    assert classifier.accuracy(digits.held_out, digits.held_out_labels) >= 0.985


def test_perceptron_recognises_digits_as_vectors(digits: Digits) -> None:
    classifier = train_classifier(digits.train.flatten(1), digits.train_labels, 10)
    assert classifier.name.startswith("mlp-64 seed 0 ")
    assert classifier.accuracy(digits.held_out.flatten(1), digits.held_out_labels) >= 0.96


def test_outputs_agree(classifier: Classifier, digits: Digits) -> None:
    x = digits.held_out
    features, head = classifier(x), classifier.network[-1]
    assert torch.equal(classifier.predict(x), head(features).argmax(1))
    right = int((classifier.predict(x) == digits.held_out_labels).sum())
    assert classifier.accuracy(x, digits.held_out_labels) == right / len(x)
    assert features.shape == (len(x), classifier.dim)
    assert torch.equal(classifier(x), features)
    torch.testing.assert_close(classifier(x[7:8]), features[7:8], rtol=1e-4, atol=1e-5)


def test_is_an_extractor_named_by_its_weights(classifier: Classifier, digits: Digits) -> None:
    assert isinstance(classifier, FeatureExtractor)
    few = digits.train[:20], digits.train_labels[:20], 10
    first, again, other = (train_classifier(*few, seed=seed, epochs=1) for seed in (1, 1, 2))
    assert first.name == again.name != other.name
    assert first.name.startswith("conv-64 seed 1 ")
    other.network.load_state_dict(first.network.state_dict())
    assert torch.equal(other(digits.held_out), first(digits.held_out))


def test_global_random_state_is_neither_read_nor_changed(digits: Digits) -> None:
    few = digits.train[:20], digits.train_labels[:20], 10
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = train_classifier(*few, epochs=2)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    with torch.no_grad():
        assert train_classifier(*few, epochs=2).name == first.name


def test_results_carry_no_gradient(classifier: Classifier, digits: Digits) -> None:
    x = digits.held_out[:3].clone().requires_grad_()
    assert not classifier(x).requires_grad
    assert not any(p.requires_grad for p in classifier.network.parameters())


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 5, 17), (3, 20, 12), (4, 10), (7,), (1, 2, 3, 4)])
def test_learns_data_of_any_shape(shape: tuple[int, ...]) -> None:
    labels = torch.arange(60) % 2
    noise = torch.randn(60, *shape, generator=torch.Generator().manual_seed(0))
    x = noise + 6.0 * labels.reshape(60, *[1] * len(shape))
    classifier = train_classifier(x, labels, 2, epochs=8, batch_size=20)
    assert classifier.accuracy(x, labels) >= 0.95


def test_constant_elements_do_no_harm() -> None:
    x = torch.tensor([[0.0, 5.0], [1.0, 5.0]]).repeat(20, 1)
    labels = torch.tensor([0, 1]).repeat(20)
    assert train_classifier(x, labels, 2, epochs=30).accuracy(x, labels) == 1


def test_errors(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = torch.zeros(4, 2), torch.tensor([0, 1, 0, 1])
    with pytest.raises(ValueError, match=r"x: expected shape \(n, 1, 8, 8\) .* got \(4, 2\)"):
        classifier.predict(x)
    with pytest.raises(ValueError, match=r"num_classes: expected .* at least 2, got 1"):
        train_classifier(x, y, 1)
    with pytest.raises(ValueError, match="labels: expected 0 to 1, got 0 to 2"):
        train_classifier(x, y * 2, 2)
    with pytest.raises(ValueError, match="x: has values that are not finite"):
        train_classifier(x / 0, y, 2)
    with pytest.raises(ValueError, match=r"epochs: .* got 0"):
        train_classifier(x, y, 2, epochs=0)
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
    with pytest.raises(ValueError, match=r"labels: .* got 3 for 4 items"):
        train_classifier(x, y[:3], 2)
