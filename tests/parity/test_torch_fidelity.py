"""FID, KID, IS, precision and recall as torch-fidelity 0.4 has them; the figures come from `run_torch_fidelity.py`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import kaiming_inception
import pytest
import torch

from diffspace.metrics import Features, frechet, inception_score, kid, make_extractor, precision_recall
from diffspace.metrics.extractors.weights import PublishedWeights
from diffspace.transform import PIXELS

ROOT = Path(__file__).parents[2]
REFERENCE = "DIFFSPACE_TORCH_FIDELITY"  # the folder with torch-fidelity and torchvision


@pytest.fixture(scope="module")
def golden() -> dict:
    return json.loads((ROOT / "tests/golden/torch_fidelity.json").read_text())


@pytest.fixture
def extractor(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(PublishedWeights, "read", lambda self, path: kaiming_inception.state())
    return make_extractor("inception")


def scores(samples: Features, real: Features) -> dict[str, float]:
    precision, recall = precision_recall(samples, real)
    return {
        "frechet_inception_distance": frechet(samples, real).value,
        "kernel_inception_distance_mean": kid(samples, real, subsets=100, subset_size=200).value,
        "inception_score_mean": inception_score(samples).value,
        "precision": precision.value,
        "recall": recall.value,
    }


def agree(found: dict[str, float], exact: dict[str, float]) -> None:
    assert exact["frechet_inception_distance"] > 1
    assert 0.05 < exact["precision"] < 0.95
    assert 0.05 < exact["recall"] < 0.95
    assert found == pytest.approx({name: exact[name] for name in found}, rel=1e-4)


def test_scores_of_features(golden: dict) -> None:
    samples, real, logits = kaiming_inception.features()
    agree(scores(Features(samples, logits=logits), Features(real)), golden["features"])


def test_features_of_pictures(golden: dict, extractor) -> None:
    assert (extractor.name, extractor.dim) == ("inception-v3-2015-12-05 tf1-bilinear-299", 2048)
    x = torch.cat([kaiming_inception.pictures(name, 1) for name in golden["network"]])
    features, logits = extractor.features_and_logits(PIXELS.forward(x))
    assert (features.shape, logits.shape, features.dtype) == ((2, 2048), (2, 1008), torch.float32)
    for key, found in (("features", features), ("logits", logits)):
        exact = torch.tensor([each[key][0] for each in golden["network"].values()])
        torch.testing.assert_close(found[:, ::64], exact, rtol=1e-4, atol=1e-5 * float(exact.abs().max()))


@pytest.mark.slow
def test_scores_of_pictures(golden: dict, extractor) -> None:
    both = {
        name: extractor.features_and_logits(PIXELS.forward(kaiming_inception.pictures(name)))
        for name in kaiming_inception.SETS
    }
    samples, real = (Features(values, logits=logits) for values, logits in both.values())
    agree(scores(samples, real), golden["pictures"])


@pytest.mark.slow
@pytest.mark.skipif(REFERENCE not in os.environ, reason=f"{REFERENCE} is not set to the folder of torch-fidelity")
def test_the_figures_are_those_of_torch_fidelity(golden: dict) -> None:
    script, paths = ROOT / "tests/support/run_torch_fidelity.py", [ROOT / "src", ROOT / "tests/support"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))}
    command = [sys.executable, script, os.environ[REFERENCE]]
    found = json.loads(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout)
    for part in ("pictures", "features"):
        assert found[part] == pytest.approx(golden[part], rel=1e-5)
