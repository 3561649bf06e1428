"""The parts of the reproduction: each trains and measures, and returns its numbers as rows."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch

from diffspace import presets
from diffspace.checks import MissingPackageError, require_package
from diffspace.metrics import memorisation
from diffspace.model import Model
from diffspace.objective import InverseVariance, loss_by_sigma
from diffspace.objective.loss import Weight
from diffspace.preconditioning import EDMPreconditioning
from diffspace.reproduction.bench import Bench
from diffspace.reproduction.geometry import geometry
from diffspace.sampling import Churn, EDMSteps, Heun, Sampler

Rows = list[dict[str, Any]]

_VP = {"preconditioning": {"kind": "vp"}, "noise": {"kind": "vp"}}
_AUGMENTED = {"augment": {"kind": "edm", "probability": 0.12}}
CONFIGURATIONS: Mapping[str, tuple[Mapping[str, Any], Weight | None]] = MappingProxyType(
    {"A": (_VP, None), "D": ({"noise": {"kind": "vp"}}, InverseVariance()), "E": ({}, None), "F": (_AUGMENTED, None)}
)
"""Of Table 2: what differs from configuration E, and λ(σ) where it is not 1/c_out²."""
CIFAR_VP = (30.0, 0.01, 1.0, 1.007)
IMAGENET = (40.0, 0.05, 50.0, 1.003)
"""S_churn, S_tmin, S_tmax and S_noise of Table 5: of CIFAR-10 with VP (18 steps), and of ImageNet-64 (256 steps)."""
_MOST_GAMMA = 0.4142  # of Algorithm 2: more S_churn has no effect
_TUNING_SEED, _FRESH_SEED = 10_000, 20_000


def churn(bench: Bench, s_churn: float, low: float, high: float, noise: float) -> Churn:
    """The parameters of Table 5 with noise levels moved to these data."""
    return Churn(s_churn, bench.unit * low, bench.unit * high, noise)


def stochastic(bench: Bench, steps: int, parameters: Churn) -> Sampler:
    """The paper's own sampler with N steps and churn."""
    return Sampler(bench.sampler.with_num_steps(steps).steps, Heun(), churn=parameters)


def configured(bench: Bench, name: str, seed: int) -> Model:
    """The model of a configuration of Table 2."""
    changes, weight = CONFIGURATIONS[name]
    return bench.train(f"{name}-{seed}", seed, changes, weight=weight)


def by_level(bench: Bench, key: str, model: Model) -> dict[str, Any]:
    """The held-out error at each noise level, in units of the variance of F's target: 1 where nothing is learnt."""

    def take() -> dict[str, Any]:
        sigma = bench.unit * torch.logspace(-2.3, 1.6, 14, dtype=torch.float64, device="cpu")
        numbers = torch.arange(len(bench.held_out), dtype=torch.int64, device="cpu")[:512]
        x, cond = bench.held_out.batch(numbers), bench.held_out.cond(numbers)
        mse = loss_by_sigma(model, x, cond, sigmas=sigma).mse
        scale = EDMPreconditioning(bench.sigma_data).coefficients(sigma).c_out ** 2
        return {"sigma": sigma.tolist(), "mse": mse.tolist(), "scaled": (mse / scale).tolist()}

    return dict(bench.store.once(f"{bench.source}/{key}/by-level", take))


def table2(bench: Bench) -> Rows:
    """Configurations A, D, E, F with deterministic and stochastic sampling."""
    rows: Rows = []
    for seed in range(bench.scale.seeds):
        for name in CONFIGURATIONS:
            key, model = f"{name}-{seed}", configured(bench, name, seed)
            noisy = stochastic(bench, 18, churn(bench, *CIFAR_VP))
            rows.append(
                {
                    "data": bench.source,
                    "configuration": name,
                    "seed": seed,
                    "seconds": bench.store.measured[f"training/{bench.source}/{key}"]["seconds"],
                    "deterministic": bench.quality(f"{key}/deterministic", model, bench.sampler),
                    "stochastic": bench.quality(f"{key}/stochastic", model, noisy),
                    "levels": by_level(bench, key, model),
                }
            )
    return rows


def columns(bench: Bench) -> dict[str, tuple[Model, dict[str, Callable[[int], Sampler]]]]:
    """For each column of Figure 2 its trained model, and its samplers for a number of evaluations."""
    found = {}
    for name, preset in (("VP", presets.VP), ("VE", presets.VE), ("iDDPM", presets.IDDPM)):
        if name == "VP":
            model = configured(bench, "A", 0)
        else:
            kinds = {"ve": {"kind": "loguniform"}, "iddpm": {"kind": "iddpm"}}[preset.name]
            model = bench.train(preset.name, 0, {"preconditioning": {"kind": preset.name}, "noise": kinds})
        original: Any = preset.sampler.steps
        low, high = original.default_range()
        lines: dict[str, Callable[[int], Sampler]] = {
            "original": functools.partial(_euler, preset.sampler, low, high),
            "+ Heun and our steps": functools.partial(_heun, preset.sampler, low, high),
        }
        if preset is not presets.IDDPM:  # whose σ(t) and s(t) are ours already
            lines["+ our σ(t), s(t)"] = functools.partial(_heun, Sampler(), low, high)
        found[name] = model, lines
    return found


def _euler(of: Sampler, low: float, high: float, nfe: int) -> Sampler:
    steps: Any = of.steps
    return Sampler(type(steps)(nfe, low, high), of.solver, of.process)


def _heun(of: Sampler, low: float, high: float, nfe: int) -> Sampler:
    return Sampler(EDMSteps((nfe + 1) // 2, low, high), Heun(), of.process)


def figure2(bench: Bench) -> Rows:
    """Distance from the end points of the ODE, and Fréchet distance, over evaluations."""
    rows: Rows = []
    for column, (model, lines) in columns(bench).items():
        some = next(iter(lines.values()))(bench.scale.budgets[0])
        truth = functools.cache(functools.partial(bench.ends, column, model, some))
        for line, make in lines.items():
            for nfe in bench.scale.budgets:
                found = bench.quality(f"{column}/{line}/{nfe}", model, make(nfe), truth=truth)
                rows.append({"column": column, "line": line, "nfe": nfe, **found})
    return rows


def medium(churns: Sequence[float], steps: int) -> float:
    """The S_churn nearest to the paper's 40 for 256 steps, for N steps: γ depends on S_churn/N."""
    return min((c for c in churns if c > 0), key=lambda c: abs(c - IMAGENET[0] / 256 * steps))


def networks(bench: Bench) -> dict[str, Model]:
    """Configuration E, imperfect on purpose and good."""
    lengths = {"short": bench.scale.short_images, "good": bench.scale.long_images}
    return {name: bench.train(name, 0, images=images) for name, images in lengths.items()}


def figure4(bench: Bench) -> Rows:
    """Stochastic sampling of a network that is imperfect on purpose and of a good one."""
    rows: Rows = []
    steps = bench.scale.churn_steps
    for name, model in networks(bench).items():
        for n in steps:
            for s_churn in bench.scale.churns:
                sampler = stochastic(bench, n, churn(bench, s_churn, *IMAGENET[1:]))
                found = bench.quality(f"{name}/churn-{s_churn:g}/{n}", model, sampler)
                rows.append({"network": name, "kind": "grid", "nfe": 2 * n - 1, "churn": s_churn, **found})
        _, low, high, noise = IMAGENET
        s_churn = medium(bench.scale.churns, steps[-1])
        ablations = {
            "S_tmin, S_tmax = 0, ∞": Churn(s_churn, S_noise=noise),
            "S_noise = 1": churn(bench, s_churn, low, high, 1.0),
            "both": Churn(s_churn),
        }
        for setting, parameters in ablations.items():
            found = bench.quality(f"{name}/{setting}", model, stochastic(bench, steps[-1], parameters))
            ablation = {"network": name, "kind": "ablation", "nfe": 2 * steps[-1] - 1, "setting": setting}
            rows.append({**ablation, "churn": s_churn, **found})
    return rows


def tuning(bench: Bench) -> Rows:
    """A search for the four parameters with optuna, for both networks of Figure 4; judged on other seeds."""
    optuna = require_package("optuna", "the search for S_churn, S_tmin, S_tmax and S_noise")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rows: Rows = []
    n = bench.scale.churn_steps[len(bench.scale.churn_steps) // 2]
    for name, model in networks(bench).items():
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=8))
        best: tuple[float, Churn] | None = None
        for number in range(bench.scale.trials):
            trial = study.ask()
            values = {
                "S_churn": trial.suggest_float("S_churn", 0.0, _MOST_GAMMA * n),
                "S_tmin": trial.suggest_float("S_tmin", 0.01, 1.0, log=True),
                "S_tmax": trial.suggest_float("S_tmax", 1.0, 80.0, log=True),
                "S_noise": trial.suggest_float("S_noise", 0.99, 1.02),
            }
            parameters = churn(bench, *values.values())
            sampler, key = stochastic(bench, n, parameters), f"{name}/trial-{number}"
            found = bench.quality(key, model, sampler, first_seed=_TUNING_SEED)
            study.tell(trial, found["frechet"])
            best = min(best or (found["frechet"], parameters), (found["frechet"], parameters), key=lambda pair: pair[0])
            rows.append({"network": name, "kind": "trial", "nfe": 2 * n - 1, **values, **found})
        for kind, parameters in (("deterministic", Churn()), ("tuned", best[1] if best else Churn())):
            sampler = stochastic(bench, n, parameters)
            found = bench.quality(f"{name}/{kind}", model, sampler, first_seed=_FRESH_SEED)
            chosen = {key: getattr(parameters, key) for key in ("S_churn", "S_noise")}
            chosen |= {"S_tmin": parameters.S_tmin / bench.unit, "S_tmax": min(parameters.S_tmax / bench.unit, 1e6)}
            rows.append({"network": name, "kind": kind, "nfe": 2 * n - 1, **chosen, **found})
    return rows


def augmentation(bench: Bench) -> Rows:
    """Few training items, with and without augmentation."""
    rows: Rows = []
    few = bench.training.subset(bench.training.sample_numbers(bench.scale.few).sort().values)
    for seed in range(bench.scale.seeds):
        for augmented in (False, True):
            key = f"few-{'augmented' if augmented else 'plain'}-{seed}"
            changes = _AUGMENTED if augmented else {}
            model = bench.train(key, seed, changes, data=few, images=bench.scale.few_images)

            def copies(key: str = key, model: Model = model) -> dict[str, Any]:
                x = bench.draw(key, model, bench.sampler, range(len(bench.held_out))).to(torch.float32)
                stored = model.transform.forward(model.decode(x))
                found = memorisation(stored, few.batch(), bench.held_out.batch())
                near = found.closeness[-1]
                return {"median": found.median, "real_median": found.held_out_median, "nearer": near.observed}

            levels = by_level(bench, key, model)
            rows.append(
                {
                    "augmented": augmented,
                    "seed": seed,
                    "held_out_loss": sum(levels["scaled"]) / len(levels["scaled"]),
                    **bench.quality(f"{key}/score", model, bench.sampler),
                    **bench.store.once(f"{bench.source}/{key}/copies", copies),
                }
            )
    return rows


def article(bench: Bench) -> Rows:
    """What the article says of the ODE, its steps and its coefficients, on a trained model."""
    model = configured(bench, "E", 0)
    return [dict(bench.store.once(f"{bench.source}/article", lambda: geometry(bench, model)))]


PARTS: Mapping[str, Callable[[Bench], Rows]] = MappingProxyType(
    {
        "table2": table2,
        "figure2": figure2,
        "figure4": figure4,
        "tuning": tuning,
        "augmentation": augmentation,
        "article": article,
    }
)
"""The parts by name."""


def measure(names: list[str], benches: Mapping[str, Bench], note: Callable[[str], None]) -> dict[str, Rows]:
    """The rows of some parts; `note` is called with a line if a part is skipped because its package is missing."""
    results: dict[str, Rows] = {}
    first = next(iter(benches.values()))
    for name in names:
        part = PARTS[name]
        if name == "table2":
            results[name] = [row for bench in benches.values() for row in part(bench)]
            continue
        try:
            results[name] = part(first)
        except MissingPackageError as error:
            note(f"{name} is left out: {error}")
    return results
