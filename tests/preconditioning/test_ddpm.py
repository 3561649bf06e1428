"""Functions of (x, t) with a table of ᾱ: given exactly what they ought to predict, they are the exact denoiser."""

import pytest
import torch

from diffspace import EDMSteps, Heun, sample
from diffspace.oracles import Gaussian
from diffspace.preconditioning import InterpolatedIndex, LevelIndex, ddpm_preconditioning, from_ddpm
from diffspace.process import DiscreteLevels, IDDPMLevels

MEAN = torch.tensor([[0.3, -0.1, 0.2]], dtype=torch.float64)
ROOT = torch.tensor([[0.5, 0, 0], [0.2, 0.3, 0], [-0.4, 0.1, 0.6]], dtype=torch.float64)
DATA = Gaussian(MEAN, ROOT @ ROOT.T)
ALPHAS = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
TABLE = ((1 - ALPHAS) / ALPHAS).sqrt()


def exact(predicts, table=TABLE):
    """What a perfect network says at times n, whole or not: the levels between are geometric."""

    def function(x, t):
        lower = t.double().floor().long().clamp(0, len(table) - 2)
        share = t.double() - lower
        sigma = table[lower] ** (1 - share) * table[lower + 1] ** share
        column = sigma[:, None, None]
        x = x.double() * (1 + column**2).sqrt()
        denoised = DATA(x, sigma)
        noise = (x - denoised) / column
        return {"epsilon": noise, "x0": denoised, "v": (noise - column * denoised) / (1 + column**2).sqrt()}[predicts]

    return function


def states(sigma):
    generator = torch.Generator().manual_seed(0)
    x0 = DATA.sample(len(sigma), generator=generator)
    return x0 + sigma[:, None, None] * torch.randn(x0.shape, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("predicts", ["epsilon", "v", "x0"])
@pytest.mark.parametrize("rounded", [False, True])
def test_an_exact_function_is_the_exact_denoiser(predicts, rounded):
    denoiser = from_ddpm(exact(predicts), ALPHAS, predicts=predicts, rounded=rounded, dtype=torch.float64)
    sigma = denoiser.round_sigma(torch.tensor([0.0101, 0.1, 0.77, 3.0, 40.0, 157.0], dtype=torch.float64))
    x = states(sigma)
    torch.testing.assert_close(denoiser(x, sigma), DATA(x, sigma), rtol=1e-9, atol=1e-9)
    assert (denoiser.sigma_min, denoiser.sigma_max) == (float(TABLE[0]), float(TABLE[-1]))
    assert denoiser.levels == DiscreteLevels.from_alphas_cumprod(ALPHAS)


def test_it_is_sampled_as_the_exact_denoiser_is():
    steps = EDMSteps(20, sigma_min=0.02, sigma_max=80)
    ours = from_ddpm(exact("epsilon"), ALPHAS, shape=(1, 3), dtype=torch.float64)
    given = {"seeds": range(4), "steps": steps, "solver": Heun()}
    torch.testing.assert_close(sample(ours, **given).x, sample(DATA, **given).x, rtol=1e-9, atol=1e-9)


def test_a_function_is_told_integers_where_sigma_is_rounded_and_conditions_where_there_are_any():
    calls = []

    def function(x, t, *rest):
        calls.append((x.dtype, t.dtype, t.tolist(), *rest))
        return torch.cat([x, 1e6 * torch.ones_like(x)], 1)  # the second half is a variance

    x, sigma, labels = torch.ones(2, 1, 4, dtype=torch.float64), TABLE[[7, 999]], torch.tensor([3, 1])
    for rounded in (True, False):
        denoised = from_ddpm(function, ALPHAS, rounded=rounded)(x, sigma, {"labels": labels})
        factor = 1 - sigma / (1 + sigma**2).sqrt()  # the function answers its input
        torch.testing.assert_close(denoised, x * factor[:, None, None], rtol=1e-6, atol=1e-6)
    from_ddpm(function, ALPHAS, dtype=torch.float64)(x, sigma)
    (first, second, third) = calls
    assert first[:3] == (torch.float32, torch.int64, [7, 999])
    assert second[:2] == (torch.float32, torch.float32)
    assert second[2] == pytest.approx([7, 999], abs=1e-4)
    assert first[3]["labels"] is labels
    assert third[:2] == (torch.float64, torch.float64)
    assert len(third) == 3


def test_a_module_computes_in_its_own_dtype():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor(0.5, dtype=torch.float16))

        def forward(self, x, t):
            assert x.dtype == torch.float16
            assert t.dtype == torch.float32
            return self.scale * x

    denoiser = from_ddpm(Net(), ALPHAS)
    assert len(list(denoiser.parameters())) == 1
    assert denoiser(torch.ones(2, 1, 4), torch.tensor(1.0)).dtype == torch.float32
    with pytest.raises(ValueError, match=r"dtype: torch.float64 has no effect"):
        from_ddpm(Net(), ALPHAS, dtype=torch.float64)


def test_the_level_without_signal():
    zero = ALPHAS.clone()
    zero[-1] = 0
    for predicts, greatest in (("epsilon", float(TABLE[-2])), ("v", (2**24 - 1) ** 0.5), ("x0", (2**24 - 1) ** 0.5)):
        choice = ddpm_preconditioning(zero, predicts=predicts)
        assert choice.sigma_range == pytest.approx((float(TABLE[0]), greatest), rel=1e-12)
    assert ddpm_preconditioning(zero, predicts="v", zero_snr="leave_out").sigma_range[1] == float(TABLE[-2])
    clipped = ddpm_preconditioning(zero, zero_snr="clip")
    assert float(clipped.c_noise(torch.tensor(4096.0, dtype=torch.float64))) == 999
    steep = zero[zero != zero[-2]]
    steep[-2] = 1e-9  # its level is above 4096
    top = ddpm_preconditioning(steep, predicts="v").times.levels.sigmas
    assert top[-1] == pytest.approx(2 * top[-2], rel=1e-6)
    # at its level a perfect v-network still gives the exact denoiser
    table = torch.cat([TABLE[:-1], TABLE.new_tensor([(2**24 - 1) ** 0.5])])
    denoiser = from_ddpm(exact("v", table), zero, predicts="v", dtype=torch.float64)
    sigma = table[-1:]
    x = states(sigma)
    torch.testing.assert_close(denoiser(x, sigma), DATA(x, sigma), rtol=1e-6, atol=1e-6)


def test_input_is_checked(monkeypatch):
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
    with pytest.raises(ValueError, match=r"predicts: expected .* got 'score'"):
        ddpm_preconditioning(ALPHAS, predicts="score")
    with pytest.raises(ValueError, match=r"zero_snr: expected .* got 'drop'"):
        ddpm_preconditioning(ALPHAS, zero_snr="drop")
    with pytest.raises(ValueError, match="zero_snr: 'clip' has no effect"):
        ddpm_preconditioning(ALPHAS, zero_snr="clip")
    with pytest.raises(ValueError, match="alphas_cumprod: expected falling numbers"):
        ddpm_preconditioning(ALPHAS.flip(0))


@pytest.mark.parametrize("levels", [DiscreteLevels(tuple(TABLE.tolist())), IDDPMLevels(), IDDPMLevels(2)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-3)])
def test_an_interpolated_index_is_whole_at_levels_and_even_in_ln_sigma_between(levels, dtype, tolerance):
    times, table = InterpolatedIndex(levels), levels.table()
    n = torch.arange(len(table), dtype=torch.float64)
    torch.testing.assert_close(times.c_noise(table.to(dtype)).double(), n, rtol=0, atol=tolerance)
    between = table[:-1] ** 0.75 * table[1:] ** 0.25
    torch.testing.assert_close(times.c_noise(between.to(dtype)).double(), n[:-1] + 0.25, rtol=0, atol=tolerance)
    assert times.sigma_range == LevelIndex(levels).sigma_range
    ends = times.c_noise(torch.tensor([0.0, 1e-9, 1e9], dtype=dtype))
    assert ends.tolist() == [0, 0, len(table) - 1]
    sigma = torch.tensor([[0.3]], dtype=dtype)
    assert times.round_sigma(sigma) is sigma
    assert times.c_noise(sigma).shape == (1, 1)


def test_an_interpolated_index_of_one_level():
    times = InterpolatedIndex(DiscreteLevels((0.5,)))
    assert times.c_noise(torch.tensor([0.1, 0.5, 2.0])).tolist() == [0, 0, 0]


def test_an_interpolated_index_has_a_gradient():
    sigma = torch.tensor([0.5, 2.0], dtype=torch.float64, requires_grad=True)
    times = InterpolatedIndex(DiscreteLevels((0.1, 1.0, 10.0)))
    assert torch.autograd.gradcheck(times.c_noise, (sigma,))
