import math

import pytest
import torch
from reference_pickle import write_snapshot
from small_networks import make_denoiser

import diffspace as ds
from diffspace.interop import convert


def outputs(denoiser, labels=None):
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return denoiser(x, torch.tensor(0.7), None if labels is None else {"labels": labels})


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_gives_the_same_model(tmp_path, protocol):
    denoiser = make_denoiser()
    model, report = convert(write_snapshot(tmp_path / "edm.pkl", denoiser, protocol))
    assert torch.equal(outputs(model), outputs(denoiser))
    assert report.tensors == len(denoiser.network.state_dict())
    assert report.parameters == sum(p.numel() for p in denoiser.network.parameters())


@pytest.mark.parametrize(
    "choice",
    [
        ds.EDMPreconditioning(0.6, 0.01, 50.0),
        ds.VPPreconditioning(19.0, 0.2, 1e-4, 500),
        ds.VEPreconditioning(0.03, 90.0),
        ds.IDDPMPreconditioning(100, 0.002, 0.009),
    ],
    ids=lambda choice: type(choice).__name__,
)
def test_every_preconditioning_with_its_settings(tmp_path, choice):
    denoiser = make_denoiser(choice=choice)
    model, report = convert(write_snapshot(tmp_path / "x.pkl", denoiser))
    if isinstance(choice, ds.IDDPMPreconditioning):  # the levels of the file, which are those of the formula in float32
        table = choice.times.levels.table().float()
        assert torch.equal(model.denoiser.levels.table(), table.double())
        choice = ds.EpsilonPrediction(ds.preconditioning.LevelIndex(ds.DiscreteLevels(tuple(table.tolist()))))
        denoiser = ds.Preconditioned(denoiser.network, choice)
    assert model.denoiser.preconditioning == choice
    assert torch.equal(outputs(model), outputs(denoiser))
    variance = [line for line in report.ignored if "learned variance" in line]
    assert len(variance) == (2 if isinstance(choice, ds.EpsilonPrediction) else 0)


@pytest.mark.parametrize("network", [ds.networks.DDPMpp, ds.networks.NCSNpp, ds.networks.ADM])
def test_every_architecture_with_classes_and_augmentation(tmp_path, network):
    denoiser = make_denoiser(network, label_dim=3, augment_dim=9, label_dropout=0.2, model_channels=64)
    model, report = convert(write_snapshot(tmp_path / "x.pkl", denoiser))
    assert type(model.denoiser.network) is network
    labels = torch.tensor([2, 0])
    assert torch.equal(outputs(model, labels), outputs(denoiser, labels))
    assert model.class_names == ("0", "1", "2")
    stated = {"attn_resolutions": [4]}
    if "encoder_type" in denoiser.network.config:
        stated |= {"encoder_type": denoiser.network.encoder_type}
    assert model.denoiser.network.config == denoiser.network.config | stated
    assert report.architecture == network.__name__.lower()
    assert "classes          3, trained without labels too" in report.lines()


@pytest.mark.parametrize("network", [ds.networks.DDPMpp, ds.networks.NCSNpp])
@pytest.mark.parametrize("encoder", ["standard", "skip", "residual"])
@pytest.mark.parametrize("decoder", ["standard", "skip"])
def test_every_encoder_and_decoder(tmp_path, network, encoder, decoder):
    types = {"encoder_type": encoder, "decoder_type": decoder}
    denoiser = make_denoiser(network, ds.IDDPMPreconditioning(100), (3, 16, 16), channel_mult=(1, 2, 1), **types)
    model, report = convert(write_snapshot(tmp_path / "x.pkl", denoiser, options=types))
    assert {name: model.denoiser.network.config[name] for name in types} == types
    x, c_noise = torch.randn(2, 3, 16, 16), torch.tensor([3.0, 70.0])
    with torch.no_grad():
        assert torch.equal(model.denoiser.network(x, c_noise), denoiser.network(x, c_noise))
    variances = [line for line in report.ignored if "learned variance" in line]
    assert len(variances) == (6 if decoder == "skip" else 2)  # of each output, weight and bias


def test_the_model_is_in_the_space_of_pixels_and_samples(tmp_path):
    model, _ = convert(write_snapshot(tmp_path / "x.pkl", make_denoiser()))
    samples = ds.sample(model, seeds=range(2), steps=ds.EDMSteps(2))
    assert model.decode(samples.x).dtype == torch.uint8
    assert (model.sigma_min, model.sigma_max) == (0.0, math.inf)
    assert model.transform.forward(torch.tensor([[0], [255]], dtype=torch.uint8)).tolist() == [[-1.0], [1.0]]


def test_the_report_names_what_is_left_out(tmp_path):
    model, report = convert(write_snapshot(tmp_path / "x.pkl", make_denoiser()))
    text = "\n".join(report.lines())
    for name in ("loss_fn", "augment_pipe", "dataset_kwargs", "source code", "use_fp16"):
        assert name in text
    assert report.source == model.notes["source"] == "x.pkl"
    assert len(model.notes["sha256"]) == 64


def test_defaults_of_the_reference_are_filled_in(tmp_path):
    # the reference attends at 16 where nothing is said, and names levels that the network does not have
    denoiser = make_denoiser(shape=(3, 16, 16), attn_resolutions=(16,))
    path = write_snapshot(tmp_path / "x.pkl", denoiser, options={"attn_resolutions": None, "label_dropout": None})
    assert convert(path)[0].denoiser.network.config["attn_resolutions"] == [16]
    path = write_snapshot(tmp_path / "y.pkl", make_denoiser(), options={"attn_resolutions": [4, 2, 1]})
    assert convert(path)[0].denoiser.network.config["attn_resolutions"] == [4]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder_type": "skip"}, "4x4_aux_down.resample_filter|4x4_aux_skip"),
        ({"encoder_type": "both"}, "encoder_type: expected standard or skip or residual, got 'both'"),
        ({"encoder_type": ["skip"]}, "encoder_type: expected standard or skip or residual, got"),
        ({"resample_filter": [1, 3, 3, 1]}, "resample_filter"),
        ({"embedding_type": "fourier"}, "channel_mult_noise: expected 2 as in ncsnpp, got 1"),
        ({"decoder_type": "skip"}, "4 missing, 'dec.4x4_aux_norm.weight' first"),
        ({"decoder_type": "residual"}, "decoder_type: expected standard or skip, got 'residual'"),
        ({"unheard_of": 1}, "unheard_of"),
        ({"num_blocks": 10**9}, "made of more than .* tensors"),
        ({"model_channels": 10**7}, "shape"),
        ({"model_channels": 16}, "shape"),
        ({"num_blocks": 2}, "missing"),
        ({"channel_mult": "12"}, "channel_mult"),
        ({"dropout": "much"}, "dropout"),
        ({"out_channels": 5}, "out_channels"),
        ({"in_channels": True}, "in_channels"),
    ],
)
def test_options_that_do_not_fit_are_named(tmp_path, options, message):
    path = write_snapshot(tmp_path / "x.pkl", make_denoiser(), options=options)
    with pytest.raises(ValueError, match=message) as error:
        convert(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_the_levels_of_the_file_are_used(tmp_path):
    denoiser = make_denoiser(choice=ds.IDDPMPreconditioning(100))
    path = write_snapshot(tmp_path / "x.pkl", denoiser, buffers={"u": torch.linspace(50, 0, 101)})
    model, _ = convert(path)
    assert torch.equal(model.round_sigma(torch.tensor([1.2, 40.1])), torch.tensor([1.0, 40.0]))
    for u in (torch.linspace(50, 0, 100), torch.linspace(50, 1, 101), torch.linspace(0, 50, 101).flip(0) * -1):
        with pytest.raises(ValueError, match=r"(u|sigmas): expected"):
            convert(write_snapshot(tmp_path / "x.pkl", denoiser, buffers={"u": u}))


def test_options_of_other_formats_have_no_effect_here(tmp_path):
    with pytest.raises(ValueError, match="betas: has no effect"):
        convert(write_snapshot(tmp_path / "x.pkl", make_denoiser()), betas="linear")
