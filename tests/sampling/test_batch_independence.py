"""Sample i is the same alone, in a batch of 7 and in a batch of 64."""

import pytest
import torch

import edmkit as ek

CHURN = ek.Churn(S_churn=4, S_noise=1.003)


def run(denoiser, shape, seeds, **options):
    return ek.sample(denoiser, shape=shape, seeds=seeds, steps=ek.EDMSteps(6), **options).x


def in_batches(denoiser, shape, **options):
    alone = torch.cat([run(denoiser, shape, [seed], **options) for seed in range(64)])
    sevens = torch.cat([run(denoiser, shape, range(i, min(i + 7, 64)), **options) for i in range(0, 64, 7)])
    return alone, sevens, run(denoiser, shape, range(64), **options)


@pytest.mark.parametrize("churn", [None, CHURN], ids=["ode", "churn"])
@pytest.mark.parametrize("dims", [(1,), (2,), (3, 5), (1, 8, 8)], ids=str)
@pytest.mark.parametrize("components", [1, 3, 10])
def test_isotropic_mixtures_to_the_last_bit(dims, components, churn):
    means = torch.randn(components, *dims, generator=torch.Generator().manual_seed(0))
    oracle = ek.oracles.GaussianMixture(means, stds=torch.linspace(0.1, 0.4, components))
    alone, sevens, all_at_once = in_batches(oracle, dims, churn=churn)
    assert torch.equal(alone, all_at_once)
    assert torch.equal(sevens, all_at_once)


@pytest.mark.parametrize("churn", [None, CHURN], ids=["ode", "churn"])
def test_oracles_with_matrix_products(churn):
    generator = torch.Generator().manual_seed(1)
    root = torch.randn(4, 6, 6, generator=generator, dtype=torch.float64)
    full = ek.oracles.GaussianMixture(torch.randn(4, 6, generator=generator), covariances=root @ root.mT / 20)
    data = ek.oracles.FiniteData(torch.randn(50, 6, generator=generator))
    for oracle in (full, data, ek.oracles.Gaussian(torch.zeros(6), root[0] @ root[0].T)):
        alone, sevens, all_at_once = in_batches(oracle, (6,), churn=churn)
        torch.testing.assert_close(alone, all_at_once, rtol=0, atol=1e-12)
        torch.testing.assert_close(sevens, all_at_once, rtol=0, atol=1e-12)


def test_through_a_network():
    torch.manual_seed(0)
    network = ek.networks.DDPMpp((1, 8, 8), model_channels=8, channel_mult=(1, 2), num_blocks=1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    denoiser = ek.Preconditioned(network, ek.EDMPreconditioning()).eval()
    alone, sevens, all_at_once = in_batches(denoiser, (1, 8, 8), churn=CHURN)
    scale = float(all_at_once.abs().max())
    assert float((alone - all_at_once).abs().max()) < 1e-5 * scale
    assert float((sevens - all_at_once).abs().max()) < 1e-5 * scale


def test_large_requests_in_batches_with_their_conditions(mixture):
    def shifted(x, sigma, cond=None):
        return mixture(x - cond["shift"][:, None], sigma) + cond["shift"][:, None]

    shift = torch.linspace(-1, 1, 23, dtype=torch.float64)
    options = {"cond": {"shift": shift}, "churn": CHURN, "trajectory": True, "shape": (2,), "seeds": range(23)}
    whole = ek.sample(shifted, steps=ek.EDMSteps(5), **options)
    parts = ek.sample(shifted, steps=ek.EDMSteps(5), batch_size=6, **options)
    assert torch.equal(whole.x, parts.x)
    assert torch.equal(whole.trajectory.x, parts.trajectory.x)
    assert torch.equal(whole.trajectory.denoised, parts.trajectory.denoised)
    assert whole.nfe == parts.nfe == 9


def test_latents_and_labels_come_in_the_order_of_the_reference():
    seeds, shape = [0, 5, 2**32 + 5, 123456789012], (3, 4, 4)
    latents, labels = ek.initial_latents(seeds, shape), ek.random_labels(seeds, shape, 10)
    for k, seed in enumerate(seeds):
        generator = torch.Generator().manual_seed(seed % 2**32)
        assert torch.equal(latents[k], torch.randn(shape, generator=generator))
        assert int(labels[k]) == int(torch.randint(10, (), generator=generator))


def test_step_noise_is_white_and_never_shared():
    noise = torch.stack([ek.step_noise(range(200), step, (16,)) for step in range(20)])
    n = noise.numel()
    assert abs(float(noise.mean())) < 4 / n**0.5
    assert abs(float(noise.var()) - 1) < 4 * (2 / n) ** 0.5
    flat = noise.reshape(-1, 16)
    correlations = torch.corrcoef(flat) - torch.eye(len(flat))
    assert float(correlations.abs().max()) < 0.97  # equal noise would give 1
    latents = ek.initial_latents(range(200), (16,))
    assert float((noise - latents).abs().flatten(2).amax(2).min()) > 0.1
    assert torch.equal(ek.step_noise([7], 3, (16,))[0], noise[3, 7])
