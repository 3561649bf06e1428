"""Scores of real, damaged and copied digits, and of Gaussians whose distances are known."""

import json
from statistics import fmean, stdev

import pytest
import torch
from real_digits import Digits
from scipy import stats

from diffspace.metrics import (
    Classifier,
    Features,
    FeatureStatistics,
    Identity,
    RecognisedScore,
    ScoreRow,
    Scores,
    Share,
    evaluate,
    frechet_distance,
)
from diffspace.metrics.evaluation import in_digits_of_error


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def score(classifier: Classifier, digits: Digits, samples: torch.Tensor) -> Scores:
    """Scores of 225 samples in the classes of the first half of the held-out digits, against the second."""
    return evaluate(
        samples,
        digits.train,
        digits.held_out[225:],
        seeds=range(225),
        labels=(digits.held_out_labels[:225], digits.train_labels, digits.held_out_labels[225:]),
        classifier=classifier,
    )


def of(scores: Scores, score: str, extractor: int = 0) -> ScoreRow:
    return [row for row in scores.scores if row.score == score][extractor]


def test_real_digits_score_as_real(classifier: Classifier, digits: Digits) -> None:
    scores = score(classifier, digits, digits.held_out[:225])
    assert [f.extractor for f in scores.frechet] == [classifier.name, "identity-64"]
    assert scores.by_class
    assert not any(row.outcome == "worse" for row in scores.scores)
    assert scores.recognised is not None
    right = int((classifier.predict(digits.held_out[:225]) == digits.held_out_labels[:225]).sum())
    assert scores.recognised.samples == Share(right, 225)
    assert scores.recognised.samples.value >= 0.98
    assert scores.recognised.verdict.startswith("not worse than real by more than ")
    assert scores.memorisation.clean
    assert scores.verdict.startswith("not told apart from real")
    assert scores.notes == ()


def test_wrong_classes_noise_and_copies_show(classifier: Classifier, digits: Digits) -> None:
    noisy = score(classifier, digits, digits.held_out[:225] + 0.5 * normal(225, 1, 8, 8))
    assert of(noisy, "frechet", 1).verdict.startswith("worse than real by ")
    assert "Fréchet distance" in noisy.verdict
    assert "(identity-64)" in noisy.verdict
    wrong = score(classifier, digits, digits.held_out[:225].roll(1, 0))
    assert wrong.recognised is not None
    assert wrong.recognised.samples.value < 0.3
    assert wrong.recognised.held_out.value > 0.98
    assert wrong.verdict == "worse than real by recognition (classifier)"
    copied = score(classifier, digits, digits.train[:225])
    assert len(copied.memorisation.copies) == 225
    assert not copied.memorisation.clean


def test_table_and_json_hold_what_is_needed_to_repeat(classifier: Classifier, digits: Digits) -> None:
    scores = score(classifier, digits, digits.held_out[:225])
    text = "\n".join(" ".join((r.name, r.value, r.reference, r.note)) for r in scores.rows())
    for part in ("seeds 0-224", "1 × 225", "225 held out", classifier.name, "identity-64", "1347", "floor"):
        assert part in text
    assert scores.memorisation.verdict in text
    assert scores.verdict in text
    assert max(len(r.name) for r in scores.rows()) <= 16
    assert max(len(r.value) for r in scores.rows()) <= 14
    stored = json.loads(json.dumps(scores.as_dict(), allow_nan=False))
    assert stored["frechet"][0]["value"] == scores.frechet[0].value
    first = stored["scores"][0]
    assert (first["score"], first["verdict"]) == ("frechet", scores.scores[0].verdict)
    assert first["samples"]["value"] == scores.frechet[0].value
    assert stored["recognised"]["samples"]["count"] == round(stored["recognised"]["samples"]["value"] * 225)
    assert stored["memorisation"]["clean"] is True
    assert json.dumps(score(classifier, digits, digits.held_out[:225]).as_dict()) == json.dumps(scores.as_dict())


def test_a_classifier_without_labels_says_what_is_not_measured(classifier: Classifier, digits: Digits) -> None:
    scores = evaluate(
        digits.held_out[:20], digits.train[:40], digits.held_out[20:60], seeds=range(20), classifier=classifier
    )
    assert scores.recognised is None
    assert any("recognises is not measured: it needs the labels" in note for note in scores.notes)


def test_distances_of_points_are_those_of_their_moments() -> None:
    samples, train, held_out = normal(40, 2), normal(300, 2, seed=1), normal(70, 2, seed=2) + 1
    scores = evaluate(samples, train, held_out, seeds=[7, 8, 9, 3, *range(20, 56)])
    (f,) = scores.frechet
    exact = frechet_distance(FeatureStatistics.of(samples), FeatureStatistics.of(held_out))
    assert (f.extractor, f.n, f.held_out_n, f.subsets, f.by_class) == ("identity-2", 40, 70, 1, False)
    assert f.value == pytest.approx(exact, rel=1e-14)
    assert scores.seeds == "7-9, 3, 20-55"
    assert scores.recognised is None


def test_classes_of_training_items_are_those_of_the_samples() -> None:
    # three items of class 0, two of class 2, as many as there are: the set is known
    train = normal(20, 2)
    train_labels = torch.tensor([0, 2, 0, 2, 0, *[1] * 15])
    held_out = normal(30, 2, seed=1)
    (f,) = evaluate(
        normal(5, 2, seed=2),
        train,
        held_out,
        seeds=range(5),
        scores=["frechet"],
        labels=(torch.tensor([2, 0, 0, 2, 0]), train_labels, torch.zeros(30, dtype=torch.int64)),
    ).frechet
    exact = frechet_distance(FeatureStatistics.of(train[:5]), FeatureStatistics.of(held_out))
    assert f.by_class
    assert f.real == pytest.approx(exact, rel=1e-12)


def test_notes_say_what_was_given_up() -> None:
    train, held_out = normal(30, 2), normal(20, 2, seed=1)
    scores = evaluate(normal(50, 2, seed=2), train, held_out, seeds=range(50))
    (f,) = scores.frechet
    exact = frechet_distance(FeatureStatistics.of(train), FeatureStatistics.of(held_out))
    assert (f.n, f.subsets, f.real_std) == (30, 1, None)
    assert f.real == pytest.approx(exact, rel=1e-13)
    assert scores.notes == ("The last 20 of 50 samples are not in the scores.",)
    assert scores.memorisation.n == 50

    zeros = torch.zeros(10, dtype=torch.int64)
    scores = evaluate(
        normal(10, 2, seed=2), train, held_out, seeds=range(10), labels=(zeros, torch.arange(30), torch.arange(20))
    )
    assert not scores.by_class
    assert scores.notes == ("Training items are chosen without regard to classes: one has fewer of them than samples.",)


def test_several_sets_of_samples_are_averaged() -> None:
    samples, train, held_out = normal(70, 2), normal(50, 2, seed=3), normal(40, 2, seed=1)
    target = FeatureStatistics.of(held_out)
    each = [frechet_distance(FeatureStatistics.of(part), target) for part in samples[:60].split(20)]
    scores = evaluate(samples, train, held_out, n=20, seeds=range(70))
    (f,) = scores.frechet
    assert (f.n, f.sets, f.subsets) == (20, 3, 2)
    assert f.value == pytest.approx(fmean(each), rel=1e-13)
    assert f.value_std == pytest.approx(stdev(each), rel=1e-12)
    assert scores.scores[0].best == pytest.approx(min(each), rel=1e-13)
    assert scores.notes == ("The last 10 of 70 samples are not in the scores.",)


def test_few_items_for_many_features_are_noted() -> None:
    sets = normal(40, 6, 6), normal(60, 6, 6, seed=1), normal(30, 6, 6, seed=2)
    scores = evaluate(*sets, seeds=range(40))
    assert scores.frechet[0].extractor == "identity-36"
    assert len(scores.notes) == 1
    assert scores.notes[0].startswith("30 items do not span the 36 features of identity-36")


def test_a_classifier_that_knows_too_little_is_no_measure() -> None:
    unsure = RecognisedScore("conv", Share(40, 100), Share(64, 100))
    assert unsure.verdict == "the classifier recognises 64 % of real data: not a measure here"
    worse = RecognisedScore("conv", Share(80, 100), Share(95, 100))
    table = [[80, 20], [95, 5]]
    assert worse.p_value == pytest.approx(stats.fisher_exact(table, alternative="less").pvalue, rel=1e-9)
    assert worse.verdict == "worse than real by 3.3 standard errors"
    few = RecognisedScore("conv", Share(9, 10), Share(10, 10))
    assert few.verdict.startswith("n is too small to tell: may be worse by ")


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [(0.28483, 0.0251, "0.285 ± 0.025"), (1234.5, 56.7, "1234 ± 57"), (12345, 678, "12340 ± 680"), (-2.0, 0, "-2")],
)
def test_values_have_two_digits_of_their_error(value: float, error: float, text: str) -> None:
    assert in_digits_of_error(value, error) == text


def test_share_has_the_posterior_standard_deviation() -> None:
    assert str(Share(446, 450)) == "99.1 ± 0.5 %"
    for count in (0, 7, 450):
        exact = stats.beta(count + 1, 450 - count + 1).std()
        assert Share(count, 450).standard_error == pytest.approx(exact, rel=1e-9)


def test_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = normal(10, 2), torch.zeros(10, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"seeds: .* 10 samples, got 3"):
        evaluate(x, x, x, seeds=range(3))
    for n in (1, 11):
        with pytest.raises(ValueError, match=f"n: .* from 2 to 10, got {n}"):
            evaluate(x, x, x, seeds=range(10), n=n)
    with pytest.raises(ValueError, match=r"scores: expected .* got 'inception'"):
        evaluate(x, x + 1, x - 1, seeds=range(10), scores=["inception"])
    with pytest.raises(ValueError, match=r"held_out: .* got 1"):
        evaluate(x, x, x[:1], seeds=range(10))
    with pytest.raises(ValueError, match="samples: 2 of 10 items have values that are not finite"):
        evaluate(torch.cat([x[:8], x[8:] / 0]), x, x, seeds=range(10))
    with pytest.raises(ValueError, match=r"labels of train: .* lowest -1"):
        evaluate(x, x, x, seeds=range(10), labels=(y, y - 1, y))
    with pytest.raises(ValueError, match=r"expected items of 3 elements"):
        evaluate(x, x, x, seeds=range(10), extractors=[Identity(3)])
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
    with pytest.raises(ValueError, match=r"samples: expected items of shape \(2,\) as in train, got shape \(10, 3\)"):
        evaluate(normal(10, 3), x, x, seeds=range(10))
    with pytest.raises(ValueError, match=r"labels of held_out: .* got shape \(9,\)"):
        evaluate(x, x, x, seeds=range(10), labels=(y, y, y[:9]))


def test_features_of_more_items_than_are_kept() -> None:
    x, train, held_out = (normal(200, 4, seed=seed) for seed in range(3))
    whole = evaluate(x, train, held_out, seeds=range(200))
    parts = [Features(each, "identity-4") for each in (x, train, held_out)]
    first = evaluate(x[:50], train[:80], held_out, seeds=range(200), features=[tuple(parts)])
    assert [row.samples for row in first.scores] == [row.samples for row in whole.scores]
    assert (first.samples_n, first.train_n, first.memorisation.n, first.memorisation.train_n) == (200, 200, 50, 80)
    assert "of the first 50 of 200 items of samples" in first.notes[0]
    parts[1] = Features(train[:80], "identity-4")
    with pytest.raises(ValueError, match="features: expected those of 200 items of train, got 80"):
        evaluate(x, train, held_out, seeds=range(200), features=[tuple(parts)])


@pytest.mark.parametrize(("n", "small"), [(2, 5), (4, 4), (6, 2), (7, 0)])
def test_scores_for_which_n_is_too_small_are_left_out(n: int, small: int) -> None:
    found = evaluate(normal(n, 2), normal(20, 2, seed=1), normal(20, 2, seed=2), seeds=range(n))
    assert len(found.scores) == 7 - small
    assert any(note.startswith(f"n = {n} is too small for") for note in found.notes) == bool(small)
