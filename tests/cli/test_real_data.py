"""The real data that samples are compared with."""

import dataclasses

import torch

import diffspace as ds
from diffspace.cli.scores.real import RealData
from diffspace.data import DataSet
from diffspace.data.rows import InMemory
from diffspace.transform import PIXELS


def digits_by_class():
    """Digits whose parts are sorted by class, as a folder of classes is."""
    parts = ds.data.load_data("digits").split()
    return RealData(*(part.subset(part.labels.argsort(stable=True)) for part in parts))


def test_few_samples_take_the_conditions_of_all_classes():
    real = digits_by_class()
    labels = real.held_out.labels
    turns = real.turns(100, sets=2)
    assert torch.equal(turns[:100], turns[100:])
    assert len(set(turns[:100].tolist())) == 100
    share = torch.bincount(labels[turns[:100]], minlength=10)
    assert int(share.min()) >= 4  # the chance of that is some 90 %; the choice is fixed
    everyone = real.turns(2 * len(labels))
    assert torch.equal(everyone.sort().values, torch.arange(len(labels)).repeat_interleave(2))


def test_the_extractors_follow_the_kind_of_data(monkeypatch):
    digits = digits_by_class()
    assert digits.words == ("classifier", "identity")
    without = RealData(*(dataclasses.replace(part, labels=None, class_names=()) for part in digits.parts))
    assert without.words == ("identity",)
    rows = InMemory(torch.zeros(20, 3, 32, 32, dtype=torch.uint8))
    labels = torch.arange(20) % 2
    colour = DataSet("colour", rows, PIXELS, labels, ("a", "b"))
    assert RealData(colour, colour).words == ("efficientnet", "classifier")
    monkeypatch.setattr("diffspace.metrics.extractors.efficientnet.packaged_weights", lambda: None)
    assert RealData(colour, colour).words == ("classifier", "pca")
