"""Small runs of training that the tests of several commands share."""

import pytest

from diffspace.cli.app import main


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    """A model of digits that was trained for a moment."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    small = ["network.model_channels=8", "network.channel_mult=[1]", "network.attn_resolutions=[8]"]
    assert main(["train", "digits", "images=512", "batch_size=64", "--out", str(folder), *small]) == 0
    return folder


@pytest.fixture(scope="module")
def points_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "roll"
    assert main(["train", "swissroll", "data.n=500", "images=2000", "--out", str(folder)]) == 0
    return folder
