"""Random numbers by seed: the reference's order, addresses that do not collide, moments."""

import pytest
import torch
from hypothesis import given, strategies as st

from diffspace import initial_latents, random_labels, step_noise
from diffspace.sampling.streams import _mix

M32 = 2**32


def reference_draws(seed, shape, num_classes):
    """Latents, then a label, from one generator, as the reference implementation draws them."""
    generator = torch.Generator().manual_seed(seed % M32)
    return torch.randn(shape, generator=generator), torch.randint(num_classes, (), generator=generator)


@pytest.mark.parametrize("shape", [(2,), (3, 8, 8), (1,), (17,), ()])
def test_latents_and_label_are_the_first_draws_of_the_seed(shape):
    seeds = [0, 1, 7, 123456789]
    latents, labels = initial_latents(seeds, shape), random_labels(seeds, shape, 10)
    assert latents.dtype == torch.float32
    assert labels.dtype == torch.int64
    for i, seed in enumerate(seeds):
        expected, label = reference_draws(seed, shape, 10)
        assert torch.equal(latents[i], expected)
        assert labels[i] == label


def test_labels_are_uniform_over_the_classes():
    counts = torch.bincount(random_labels(range(4000), (2,), 4), minlength=4).double()
    assert float(((counts - 1000) ** 2 / 1000).sum()) < 21.1  # chi-square, 3 degrees of freedom, p = 1e-4


def test_a_draw_depends_on_its_own_seed_alone():
    seeds = list(range(40))
    together = step_noise(seeds, 3, (5,))
    assert torch.equal(step_noise(seeds[::-1], 3, (5,)), together.flip(0))
    assert torch.equal(step_noise([17], 3, (5,))[0], together[17])
    assert torch.equal(initial_latents([17], (5,))[0], initial_latents(seeds, (5,))[17])


def test_drawing_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    initial_latents(range(3), (2,)), step_noise(range(3), 0, (2,)), random_labels(range(3), (2,), 5)
    assert torch.equal(torch.get_rng_state(), before)


def unmix(value):
    """The inverse of the hash, step by step."""
    value ^= value >> 16
    value = (value * pow(0x846CA68B, -1, M32)) % M32
    value ^= (value >> 15) ^ (value >> 30)
    value = (value * pow(0x7FEB352D, -1, M32)) % M32
    return value ^ (value >> 16)


@given(st.integers(0, M32 - 1))
def test_the_hash_has_an_inverse(value):
    assert 0 <= _mix(value) < M32
    assert unmix(_mix(value)) == value


def test_no_two_samples_of_a_step_and_no_two_steps_of_a_sample_share_noise():
    across_samples = step_noise(range(3000), 4, (3,))
    across_steps = torch.cat([step_noise([11], step, (3,)) for step in range(3000)])
    for draws in (across_samples, across_steps):
        assert len(torch.unique(draws, dim=0)) == 3000


def moments(z):
    """The largest deviation of the first four moments from those of N(0, 1), in standard errors."""
    z = z.double()
    deviations = (z.mean(0), (z**2).mean(0) - 1, (z**3).mean(0), (z**4).mean(0) - 3)
    variances = (1, 2, 15, 96)  # of z, z², z³, z⁴
    return max(float(d.abs().max()) * (len(z) / v) ** 0.5 for d, v in zip(deviations, variances, strict=True))


SEEDS = range(10_000)


def test_latents_and_noise_have_the_moments_of_a_normal_distribution():
    assert moments(initial_latents(SEEDS, (3,))) < 4.5
    assert moments(step_noise(SEEDS, 0, (3,))) < 4.5
    assert moments(torch.cat([step_noise([3], step, (2,)) for step in range(5000)])) < 4.5


def test_streams_are_uncorrelated():
    """Latents, noise of several steps, and the noise of the next seed, all against each other."""
    draws = [initial_latents(SEEDS, (2,)), *(step_noise(SEEDS, step, (2,)) for step in (0, 1, 2, 17))]
    draws.append(step_noise(range(1, len(SEEDS) + 1), 0, (2,)))
    z = torch.cat(draws, dim=1).double()
    correlation = torch.corrcoef(z.T) - torch.eye(z.shape[1])
    assert float(correlation.abs().max()) < 4.5 / len(SEEDS) ** 0.5
    magnitudes = torch.corrcoef(z.T.abs()) - torch.eye(z.shape[1])
    assert float(magnitudes.abs().max()) < 4.5 / len(SEEDS) ** 0.5


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="seeds: expected at least one"):
        initial_latents([], (2,))
    with pytest.raises(ValueError, match="num_classes: expected an integer of at least 1, got 0"):
        random_labels([1], (2,), 0)
    for counts in ((1, 2), (0, 0, 0), (1, -1, 1)):
        with pytest.raises(ValueError, match="counts: expected 3 numbers"):
            random_labels([1], (2,), 3, counts)
