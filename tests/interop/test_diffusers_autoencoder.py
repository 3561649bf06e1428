"""Autoencoders of diffusers as encoders: what they say, standardised and back."""

import pytest
import torch
from diffusers_models import autoencoder

from diffspace.interop.diffusers import Autoencoder
from diffspace.protocols import Encoder
from diffspace.transform import Transform

pytest.importorskip("diffusers")

CHANNELS = torch.arange(1.0, 5).reshape(4, 1, 1)


def images(n=4, seed=0, dtype=torch.float32):
    return torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 2 - 1


@pytest.fixture(scope="module")
def vae():
    return autoencoder(torch.float32)


@torch.no_grad()
def test_decoding_what_was_encoded_is_the_autoencoder_s_own(vae):
    encoder = Autoencoder(vae)
    assert isinstance(encoder, Encoder)
    x = images()
    own = vae.encode(x).latent_dist
    z = encoder.encode(x)
    torch.testing.assert_close(z, own.mode() * vae.config.scaling_factor, rtol=1e-6, atol=1e-7)
    measured = encoder.standardised([x])
    for round_trip in (encoder.decode(z), measured.decode(measured.encode(x))):
        torch.testing.assert_close(round_trip, vae.decode(own.mode()).sample, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_draw_from_the_posterior_is_the_autoencoder_s_own(vae):
    x = images()
    own = vae.encode(x).latent_dist.sample(torch.Generator().manual_seed(7))
    noise = torch.randn(own.shape, generator=torch.Generator().manual_seed(7))
    z = Autoencoder(vae).encode(x, noise)
    torch.testing.assert_close(z, own * vae.config.scaling_factor, rtol=1e-6, atol=1e-7)
    with pytest.raises(
        ValueError, match=r"noise: expected the shape of the latents, \(4, 4, 8, 8\), got \(4, 4, 8, 7\)"
    ):
        Autoencoder(vae).encode(x, noise[..., 1:])


@torch.no_grad()
@pytest.mark.parametrize("std", [0.5, 1.0])
def test_measured_statistics_standardise_each_channel(vae, std):
    data = [images(4, seed) for seed in range(3)] + [images(1, 9)]
    encoder = Autoencoder(vae).standardised(iter(data), std)
    z = torch.cat([encoder.encode(x) for x in data]).movedim(1, 0).flatten(1).double()
    torch.testing.assert_close(z.mean(1), torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-5)
    torch.testing.assert_close(z.std(1, correction=0), torch.full((4,), std, dtype=torch.float64), rtol=1e-5, atol=0)
    assert len(set(encoder.statistics.scale)) == 4


@torch.no_grad()
@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"scaling_factor": 1.5, "shift_factor": 0.06}, lambda raw: (raw - 0.06) * 1.5),
        (
            {"scaling_factor": 0.5, "latents_mean": [1.0, 2.0, 3.0, 4.0], "latents_std": [2.0, 4.0, 8.0, 16.0]},
            lambda raw: (raw - CHANNELS) * 0.5 / 2**CHANNELS,
        ),
    ],
)
def test_statistics_of_the_config(config, expected):
    vae = autoencoder(torch.float32, **config)
    encoder = Autoencoder(vae)
    x = images()
    raw = vae.encode(x).latent_dist.mean
    torch.testing.assert_close(encoder.encode(x), expected(raw), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(encoder.decode(encoder.encode(x)), vae.decode(raw).sample, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_it_computes_in_the_dtype_of_its_parameters():
    x = images(dtype=torch.float64)
    wide, narrow = (Autoencoder(autoencoder(dtype), Transform()) for dtype in (torch.float64, torch.bfloat16))
    z = narrow.encode(x)
    assert z.dtype == torch.float32
    assert narrow.decode(z).dtype == torch.bfloat16
    torch.testing.assert_close(z, wide.encode(x), rtol=0, atol=0.05)


def test_gradients_go_through_it(vae):
    encoder = Autoencoder(vae)
    x = images().requires_grad_()
    encoder.decode(encoder.encode(x)).square().sum().backward()
    assert float(x.grad.abs().max()) > 0


def test_input_is_checked(vae):
    with pytest.raises(ValueError, match="vae: expected an AutoencoderKL"):
        Autoencoder(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="chunks: expected at least one"):
        Autoencoder(vae).standardised([])
    with pytest.raises(ValueError, match="x: holds values that are not finite"):
        Autoencoder(vae).decode(torch.full((1, 4, 8, 8), float("nan")))
