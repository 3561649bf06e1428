"""What noise on the way does: Eq. 6 as the ODE and a Langevin term, forgotten errors, Algorithm 2 step by step."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from diffspace._shapes import Float, Tensor
from diffspace.oracles import GaussianMixture
from diffspace.protocols import Cond
from diffspace.sampling import Churn, EDMSteps, Execution, GeneralSDE, GivenSteps, Heun, Sampler, sample, sample_from
from diffspace.sampling.driver import make_grid
from diffspace.studies.problems import cumulative, log_space, states

_GRID = 256  # places where distribution functions are compared


@dataclass(frozen=True)
class Diffused:
    """Many states under Eq. 6 with β = η·σ̇/σ, from the first noise level to the last."""

    eta: float
    sigma: Float[Tensor, "levels"]
    x: Float[Tensor, "levels count"]

    def nearest(self, sigma: float) -> tuple[float, Float[Tensor, "count"]]:
        """The level of the run that is nearest to σ, and the states there."""
        k = int((self.sigma - sigma).abs().argmin())
        return float(self.sigma[k]), self.x[k]


def diffused(
    data: GaussianMixture,
    eta: float,
    *,
    sigma_max: float = 3.0,
    sigma_min: float = 0.03,
    num_steps: int = 40,
    count: int = 1000,
    shift: float = 0.0,
    seed: int = 0,
) -> Diffused:
    """Independent draws of p(x; σ_max), carried down to σ_min by dx = (1 + η)·(x − D)/σ dσ + √(2η/σ)·σ dω (Eq. 6).

    The same `seed` draws the same start and the same increments of the Brownian motion for every η: what differs is
    the rate β = η·σ̇/σ alone.

    Args:
        data: a mixture of single numbers.
        eta: β in units of σ̇/σ; 0 is the ODE, 1 Song's SDE.
        sigma_max, sigma_min: the range.
        num_steps: at equal ratios of σ, of `GeneralSDE` with two stages. The law of 10⁴ states takes 80 steps at η = 4.
        count: how many states.
        shift: an error, added to every state at σ_max.
        seed: of all draws.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(k: int, like: Tensor) -> Tensor:
        return torch.randn(like.shape, dtype=torch.float64, generator=generator, device="cpu")

    start = data.sample(count, generator=generator)
    start = start + sigma_max * draw(-1, start) + shift
    levels = log_space(sigma_max, sigma_min, num_steps + 1)
    sampler = Sampler(GivenSteps(tuple(levels.tolist())), GeneralSDE(eta, stages=2))
    execution = Execution(trajectory=True)
    run = sample_from(data, start, float(levels[0]), sampler=sampler, noise=draw, execution=execution)
    return Diffused(eta, levels, states(run)[:, :, 0])


def kolmogorov_smirnov(data: GaussianMixture, x: Float[Tensor, "count"], sigma: float) -> float:
    """sup |F_n − F| of independent numbers and p(x; σ): √n times it is above 1.63 by chance once in a hundred times."""
    level = torch.tensor(sigma, dtype=torch.float64, device="cpu")
    exact, n = cumulative(data, x.sort().values, level), len(x)
    steps = torch.arange(n + 1, dtype=torch.float64, device="cpu") / n
    return float(torch.maximum(steps[1:] - exact, exact - steps[:-1]).max())


def distances(data: GaussianMixture, states: Diffused) -> Float[Tensor, "levels"]:
    """How far the marginals are from p(x; σ): the Wasserstein distance ∫|F_n − F| dx at each level, unscaled."""
    mean, variance = data.moments()
    reach = torch.maximum((states.x - mean).abs().amax(1), 5 * (variance + states.sigma**2).sqrt())
    u = torch.linspace(-1, 1, _GRID, dtype=torch.float64, device="cpu")
    places = mean + reach[:, None] * u
    below = torch.searchsorted(states.x.sort(1).values, places, right=True) / states.x.shape[1]
    return torch.trapezoid((below - cumulative(data, places, states.sigma[:, None])).abs(), places, dim=1)


def churning(S_churn: float = 2.5, *, num_steps: int = 7) -> Sampler:
    """Algorithm 2 in few, long steps from σ = 2, of which those between S_tmin = 0.1 and S_tmax = 1.5 add noise.

    S_churn = 0 is Algorithm 1 with the same steps.
    """
    churn = Churn(S_churn, S_tmin=0.1, S_tmax=1.5, S_noise=1.003)
    return Sampler(EDMSteps(num_steps, 0.05, 2.0), Heun(), churn=churn)


@dataclass(frozen=True)
class AlgorithmSteps:
    """One sample's way through Algorithm 2: from (σ_i, x_i) noise leads up to (σ̂_i, x̂_i), and the solver down from it.

    `tried` is where Euler's part of the step ends, at which Heun's method takes its second slope: NaN in the last step
    and for other solvers of one evaluation. States are unscaled.
    """

    sigma: Float[Tensor, "levels"]
    x: Float[Tensor, "levels"]
    sigma_hat: Float[Tensor, "steps"]
    x_hat: Float[Tensor, "steps"]
    tried: Float[Tensor, "steps"]
    std: Float[Tensor, "steps"]
    """S_noise·√(σ̂² − σ²), the standard deviation of the noise that lifts x to x̂."""

    def columns(self) -> dict[str, list[float]]:
        """The steps as a table: where each begins, is lifted, and ends."""
        table = {"sigma": self.sigma, "x": self.x, "std": self.std, "sigma_hat": self.sigma_hat, "x_hat": self.x_hat}
        table |= {"euler": self.tried, "sigma_next": self.sigma[1:], "x_next": self.x[1:]}
        return {name: values[: len(self.std)].tolist() for name, values in table.items()}


class _Recording:
    """An oracle that keeps where it was asked."""

    def __init__(self, oracle: GaussianMixture) -> None:
        self.oracle, self.sample_shape, self.sigma_data = oracle, oracle.sample_shape, oracle.sigma_data
        self.asked: list[tuple[float, float]] = []

    def __call__(self, x: Tensor, sigma: Tensor, cond: Cond | None = None) -> Tensor:
        self.asked.append((float(sigma), float(x)))
        return self.oracle(x, sigma, cond)


def algorithm_steps(data: GaussianMixture, sampler: Sampler, *, seed: int = 0) -> AlgorithmSteps:
    """What `sample` does for one seed, seen from outside: its grid, its states, and where it evaluated D.

    Args:
        data: a mixture of single numbers.
        sampler: `Euler` or `Heun`, with or without churn.
        seed: of the sample, which has one stream for its start and one for each step.
    """
    oracle = _Recording(data)
    run = sample(oracle, seeds=[seed], sampler=sampler, execution=Execution(trajectory=True))
    grid = make_grid(oracle, sampler)
    # a step asks at x̂, and Heun's once more at the end of Euler's step
    each = sampler.solver.evaluations(False) or 1
    first, second = oracle.asked[::each], oracle.asked[1::each] if each == 2 else []
    tried = [x for _, x in second] + [torch.nan] * (len(first) - len(second))
    sigma_hat, x_hat = zip(*first, strict=True)
    std = [0.0 if kick is None else kick.std for kick in grid.kicks]
    columns = (torch.tensor(column, dtype=torch.float64, device="cpu") for column in (sigma_hat, x_hat, tried, std))
    return AlgorithmSteps(run.sigmas, states(run)[:, 0, 0], *columns)
