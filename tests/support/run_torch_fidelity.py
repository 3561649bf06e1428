"""torch-fidelity's figures, as JSON, for the weights and pictures of `kaiming_inception`; run in a process of its own.

    pip install --no-deps --target FOLDER torch-fidelity==0.4.0 torchvision==0.28.0
    PYTHONPATH=src:tests/support python tests/support/run_torch_fidelity.py FOLDER > tests/golden/torch_fidelity.json

torchvision of the same release as torch; its operators in C++ are not needed, and two that it names are declared here.
"""

import json
import sys
import tempfile
from pathlib import Path

import kaiming_inception
import torch

sys.path.append(sys.argv[1])
stubs = torch.library.Library("torchvision", "DEF")
for operator in ("nms", "qnms"):
    stubs.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import torch_fidelity  # noqa: E402
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3  # noqa: E402
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric  # noqa: E402
from torch_fidelity.metric_isc import isc_features_to_metric  # noqa: E402
from torch_fidelity.metric_kid import kid_features_to_metric  # noqa: E402
from torch_fidelity.metric_prc import prc_features_to_metric  # noqa: E402

SETTINGS = {"kid_subset_size": 200, "samples_shuffle": False, "verbose": False}


class Pictures(torch.utils.data.Dataset):
    def __init__(self, name: str) -> None:
        self.pixels = kaiming_inception.pictures(name)

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, number: int) -> torch.Tensor:
        return self.pixels[number]


def whole(weights: Path) -> dict[str, float]:
    """FID, KID, IS, precision and recall from pictures."""
    found = torch_fidelity.calculate_metrics(
        input1=Pictures("samples"),
        input2=Pictures("real"),
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(weights),
        fid=True,
        kid=True,
        isc=True,
        prc=True,
        cuda=False,
        cache=False,
        batch_size=16,
        **SETTINGS,
    )
    return {name: float(value) for name, value in found.items()}


def single(weights: Path) -> dict[str, dict[str, list[float]]]:
    """Some features and logits of the first two pictures of each set."""
    network = FeatureExtractorInceptionV3("x", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(weights))
    result = {}
    for name in kaiming_inception.SETS:
        features, logits = network(kaiming_inception.pictures(name, 2))
        result[name] = {"features": features[:, ::64].tolist(), "logits": logits[:, ::64].tolist()}
    return result


def of_features() -> dict[str, float]:
    """The same figures from features of a seed, whose scores the fast tests can take."""
    samples, real, logits = kaiming_inception.features()
    statistics = [fid_features_to_statistics(part) for part in (samples, real)]
    return {
        **fid_statistics_to_metric(*statistics, verbose=False),
        **kid_features_to_metric(samples, real, **SETTINGS),
        **isc_features_to_metric(logits, splits=10, shuffle=False),
        **prc_features_to_metric(samples, real, **SETTINGS),
    }


with tempfile.TemporaryDirectory() as folder:
    file = Path(folder) / "weights.pth"
    torch.save(kaiming_inception.state(), file)
    content = {"versions": {"torch-fidelity": torch_fidelity.__version__, "torch": torch.__version__}}
    content |= {"pictures": whole(file), "network": single(file), "features": of_features()}
json.dump(content, sys.stdout, indent=1)
