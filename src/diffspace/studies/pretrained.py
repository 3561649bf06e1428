"""A pretrained DDPM under other samplers: an exact one and one trained here, and how far from the ODE each ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from diffspace._shapes import Float, Tensor
from diffspace.data import DataSet
from diffspace.objective import NoiseDistribution
from diffspace.oracles import GaussianMixture, Oracle
from diffspace.preconditioning import Preconditioned, ddpm_preconditioning, from_ddpm
from diffspace.process import DiscreteLevels, NoiseLevels, round_to_levels
from diffspace.sampling import EDMSteps, Euler, Execution, GivenSteps, Heun, LevelSteps, Sampler, Samples, sample
from diffspace.solverlab import REFERENCE_SAMPLER, Reference, fit_multistep, reference
from diffspace.studies.training import train_small


def ddpm_table(M: int = 1000) -> Float[Tensor, "levels"]:
    """ᾱ_n = Π_{m≤n} (1 − β_m) with β from 10⁻⁴ to 0.02 in M equal steps (Ho et al. 2020): σ from 0.01 to 157."""
    return (1 - torch.linspace(1e-4, 0.02, M, dtype=torch.float64, device="cpu")).cumprod(0)


@dataclass(frozen=True)
class UniformLevels(NoiseDistribution):
    """σ = σ_n, n ~ U{0, …, M − 1}: what a DDPM is trained on."""

    levels: NoiseLevels

    def quantile(self, u: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        table = self.levels.table().to(u)
        return table[(u * len(table)).long().clamp(0, len(table) - 1)]


def exact_ddpm(oracle: Oracle, alphas_cumprod: Float[Tensor, "levels"]) -> Preconditioned:
    """The DDPM that an unlimited network would become: ε(x, n) = (y − D(y; σ_n))/σ_n at y = √(σ_n² + 1)·x.

    It is known by its function of (x, n) and its table alone, as a pretrained one is. Between the levels, ln σ is
    linear in n.
    """
    logs = ((1 - alphas_cumprod) / alphas_cumprod).sqrt().log()

    def epsilon(x: Tensor, n: Tensor) -> Tensor:
        low = n.long().clamp(0, len(logs) - 2)
        sigma = torch.lerp(logs[low], logs[low + 1], (n - low).to(logs)).exp()
        level = sigma.reshape(-1, *[1] * (x.ndim - 1))
        y = (level**2 + 1).sqrt() * x
        return (y - oracle(y, sigma)) / level

    return from_ddpm(epsilon, alphas_cumprod, shape=oracle.sample_shape, dtype=torch.float64)


def trained_ddpm(
    data: Float[Tensor, "n *dims"],
    alphas_cumprod: Float[Tensor, "levels"],
    *,
    steps: int = 2500,
    batch: int = 64,
    seed: int = 0,
    progress: Callable[[str], None] = lambda text: None,
) -> Preconditioned:
    """A small DDPM: a network that predicts ε, trained by E‖ε − F(x_n, n)‖² at the levels of the table alone.

    Args:
        data: in the model's space.
        alphas_cumprod: the falling table of ᾱ.
        steps, batch, seed, progress: as in `train_small`.
    """
    choice = ddpm_preconditioning(alphas_cumprod)
    noise = UniformLevels(DiscreteLevels.from_alphas_cumprod(alphas_cumprod))
    return train_small(
        data, choice, noise=noise, steps=steps, batch=batch, shares=(1.0,), seed=seed, progress=progress
    ).trained


def classes_oracle(data: DataSet) -> GaussianMixture:
    """A Gaussian for each class of a data set, with the mean and the covariance of its samples, as one mixture."""
    if data.labels is None:
        raise ValueError("data: expected a data set with classes, got one without")
    x, counts = data.batch().double(), data.class_counts
    parts = [x[data.labels == k] for k, count in enumerate(counts) if count > 0]
    return GaussianMixture(
        torch.stack([part.mean(0) for part in parts]),
        weights=torch.tensor([len(part) for part in parts], dtype=torch.float64, device="cpu"),
        covariances=torch.stack([part.flatten(1).T.cov(correction=0) for part in parts]),
    )


@dataclass(frozen=True, eq=False)
class DDPMComparison:
    """One DDPM under several samplers from the same latents, against the end points of its ODE."""

    reference: Reference
    samplers: Mapping[str, tuple[Sampler, ...]]
    """By name, each with rising NFE."""
    samples: Mapping[str, tuple[Samples, ...]]

    def errors(self) -> dict[str, tuple[list[int], list[float]]]:
        """For each name the NFE and the RMS distance of the ends."""
        return {
            name: ([run.nfe for run in runs], [self.reference.error_of(run.x).rms for run in runs])
            for name, runs in self.samples.items()
        }

    def at(self, name: str, nfe: int) -> Samples:
        """The run of a sampler with that NFE."""
        return next(run for run in self.samples[name] if run.nfe == nfe)


def ddpm_samplers(levels: NoiseLevels, nfes: Sequence[int]) -> dict[str, tuple[Sampler, ...]]:
    """Samplers that visit the trained levels alone, each with N so that it takes given odd numbers of evaluations.

    DDIM, which is Euler's method with σ = t and s = 1, and Heun's method take levels evenly by index; Heun's method
    also the levels nearest to EDM steps over their range (Eq. 5).
    """
    table = levels.table()

    def nearest(num_steps: int) -> GivenSteps:
        exact = EDMSteps(num_steps, float(table[0]), float(table[-1])).sigmas()
        return GivenSteps(tuple(round_to_levels(table, exact).tolist()))

    return {
        "DDIM": tuple(Sampler(LevelSteps(nfe, levels=levels), Euler()) for nfe in nfes),
        "Heun": tuple(Sampler(LevelSteps((nfe + 1) // 2, levels=levels), Heun()) for nfe in nfes),
        "Heun, EDM steps": tuple(Sampler(nearest((nfe + 1) // 2), Heun()) for nfe in nfes),
    }


def compare_ddpm(
    denoiser: Preconditioned,
    *,
    nfes: Sequence[int] = (7, 11, 15, 25, 49, 99),
    fitted: Sequence[int] = (7, 11, 15),
    count: int = 64,
    progress: Callable[[str], None] = lambda text: None,
) -> DDPMComparison:
    """The samplers of `ddpm_samplers` and solvers fitted on other seeds, each from seeds 0 to count − 1.

    Args:
        denoiser: a DDPM with its table of levels.
        nfes: evaluations, odd.
        fitted: evaluations of the solvers that are fitted, each on `count` further seeds.
        count: samples.
        progress: called with what comes next.
    """
    levels = denoiser.levels
    if levels is None:
        raise ValueError("denoiser: expected a DDPM with its table of noise levels, got one without")
    table = levels.table()
    fine = replace(REFERENCE_SAMPLER, steps=EDMSteps(400, float(table[0]), float(table[-1])))
    progress("solving the ODE of the DDPM")
    truth = reference(denoiser, seeds=range(count), sampler=fine)
    known = reference(denoiser, seeds=range(count, 2 * count), sampler=fine, execution=Execution(trajectory=True))
    samplers = ddpm_samplers(levels, nfes)
    for nfe in fitted:
        progress(f"fitting a solver of {nfe} evaluations")
        samplers["fitted"] = (*samplers.get("fitted", ()), fit_multistep(denoiser, nfe, known, iterations=4))
    samples = {
        name: tuple(sample(denoiser, latents=truth.latents, sampler=sampler) for sampler in group)
        for name, group in samplers.items()
    }
    return DDPMComparison(truth, samplers, samples)
