"""The statements of the article and the paper, each with its verdict from the numbers of the parts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from diffspace.metrics.sweep import Quality, SweepPoint, reach
from diffspace.reproduction.claims import Claim, Effect, alike, mean_of, paired, welch

Rows = Sequence[Mapping[str, Any]]

_TOLERANCE = 0.05  # a share of a score by which it may be higher and be called as good
_SEEDS, _SAMPLES, _BLOCKS = "spread over seeds", "over samples of one network", "over blocks of samples of one network"


def _quality(row: Mapping[str, Any]) -> Quality:
    return Quality(row["frechet"], tuple(row["blocks"]))


def _better(worse: Mapping[str, Any], better: Mapping[str, Any], factor: float = 1.0) -> Effect:
    """How much lower the Fréchet distance of `better` is than `factor` times that of `worse`, of the same seeds."""
    difference = _quality(better).above(_quality(worse), factor)
    return Effect(-difference.value, difference.standard_error, len(difference.blocks) - 1)


def _pair(worse: Mapping[str, Any], better: Mapping[str, Any]) -> str:
    return f"{worse['frechet']:.3g} → {better['frechet']:.3g}"


def _rms(squares: Sequence[float]) -> float:
    return math.sqrt(fmean(squares))


def _nearer(far: Sequence[float], near: Sequence[float]) -> Effect:
    """The mean difference of squared distances of the same samples."""
    return paired([a - b for a, b in zip(far, near, strict=True)])


def _find(rows: Rows, **wanted: Any) -> Mapping[str, Any]:
    return next(row for row in rows if all(row.get(name) == value for name, value in wanted.items()))


def table2(rows: Rows) -> list[Claim]:
    """Of each data set, the steps of Table 2 and what stochastic sampling adds to them."""
    return [claim for data in dict.fromkeys(row["data"] for row in rows) for claim in _table2_of(data, rows)]


def _table2_of(data: str, rows: Rows) -> list[Claim]:
    part = f"table2, {data}"
    runs = {name: [row for row in rows if row["data"] == data and row["configuration"] == name] for name in "ADEF"}
    scores = {name: [row["deterministic"]["frechet"] for row in found] for name, found in runs.items()}
    claims = []
    for before, after, says, paper in (
        ("D", "E", "our noise distribution and loss weight (D → E) improve the samples", "FID 2.09 → 1.88"),
        ("E", "F", "non-leaky augmentation (E → F) improves them", "FID 1.88 → 1.79"),
        ("A", "F", "all together (A → F) improve them", "FID 2.48 → 1.79; from C on, 2.08 → 1.79"),
    ):
        here = f"{mean_of(scores[before])} → {mean_of(scores[after])}"
        claims.append(Claim.of(part, says, paper, here, welch(scores[before], scores[after]), _SEEDS))
    change = welch(scores["D"], scores["A"])
    here = f"{mean_of(scores['A'])} → {mean_of(scores['D'])}"
    says = "our preconditioning alone (A → D) changes little for VP: here, by at most 10 %"
    claims.insert(
        0, Claim.of(part, says, "FID 2.08 → 2.09 (C → D)", here, alike(change, 0.1 * fmean(scores["A"])), _SEEDS)
    )
    for name, says, paper, sign in (
        ("A", "of the original training (A), stochastic sampling makes better samples", "", 1),
        ("F", "of the training with all improvements (F), it does not", "CIFAR-10: best at S_churn = 0", -1),
    ):
        gains = [row["deterministic"]["frechet"] - row["stochastic"]["frechet"] for row in runs[name]]
        here = f"{mean_of(scores[name])} → {mean_of([row['stochastic']['frechet'] for row in runs[name]])}"
        claims.append(Claim.of(part, says, paper, here, paired([sign * gain for gain in gains]), _SEEDS))
    known = {name: [row["deterministic"]["recognised"] for row in found] for name, found in runs.items()}
    says = (
        "augmentation does not leak: as many samples of F are recognised as of E, less 2 % (one that learnt less fails)"
    )
    here = f"{mean_of(known['E'])} → {mean_of(known['F'])}"
    leak = welch(known["F"], known["E"])
    claims.append(Claim.of(part, says, "", here, Effect(leak.value + 0.02, leak.error, leak.dof), _SEEDS))
    return [*claims, *_levels(part, runs)]


def _levels(part: str, runs: Mapping[str, Rows]) -> list[Claim]:
    """What is learnt at which noise level."""
    high = {name: [row["levels"]["mse"][-1] for row in found] for name, found in runs.items()}
    top = runs["A"][0]["levels"]["sigma"][-1]
    claims = [
        Claim.of(
            part,
            "where F predicts noise (A), its errors are amplified by σ: at high σ it errs more than with ours (D)",
            "",
            f"squared error at σ = {top:.3g}: {mean_of(high['A'])} and {mean_of(high['D'])}",
            welch([math.log(v) for v in high["A"]], [math.log(v) for v in high["D"]]),
            _SEEDS,
        )
    ]
    learnt = [[1 - value for value in row["levels"]["scaled"]] for row in runs["E"]]
    count = len(learnt[0])
    low, middle, far = (
        [fmean(run[a:b]) for run in learnt] for a, b in ((0, 3), (count // 2 - 1, count // 2 + 2), (count - 3, count))
    )
    excess = paired([b - max(a, c) for a, b, c in zip(low, middle, far, strict=True)])
    here = f"{mean_of(low)} at low, {mean_of(middle)} at middle, {mean_of(far)} at high levels"
    says = "training reduces the loss from its initial 1 at intermediate noise levels more than at both ends"
    claims.append(Claim.of(part, says, "Figure 5a", here, excess, _SEEDS))
    return claims


_SPEED = {"VP": "7.3", "VE": "300", "iDDPM": "3.2"}


def figure2(rows: Rows) -> list[Claim]:
    """Of each column, error and quality at equal evaluations, and the evaluations for equal quality."""
    claims: list[Claim] = []
    nfes = sorted({row["nfe"] for row in rows})
    at = 35 if 35 in nfes else nfes[-1]
    for column in dict.fromkeys(row["column"] for row in rows):
        part = f"figure2, {column}"
        own = [row for row in rows if row["column"] == column]
        lines = list(dict.fromkeys(row["line"] for row in own))
        points = [_find(own, line=line, nfe=at) for line in lines]
        for before, after in itertools.pairwise(points):
            says = f"{after['line']}: less error than before it, '{before['line']}', with {at} evaluations"
            here = f"RMS {_rms(before['squares']):.2g} → {_rms(after['squares']):.2g}"
            effect = _nearer(before["squares"], after["squares"])
            claims.append(Claim.of(part, says, "Figure 2", here, effect, _SAMPLES))
        says = f"our deterministic sampler makes better samples than the original with {at} evaluations"
        here = f"Fréchet {_pair(points[0], points[-1])}"
        claims.append(Claim.of(part, says, "Figure 2", here, _better(points[0], points[-1]), _BLOCKS))
        claims.append(_speed(part, column, own, lines))
        if at == nfes[-1]:
            continue
        best = _find(own, line=lines[-1], nfe=nfes[-1])
        says = f"{at} evaluations are as good as {nfes[-1]}, to within 5 %"
        effect = _better(best, points[-1], 1 + _TOLERANCE)
        here = f"Fréchet {_pair(best, points[-1])} with {at}"
        claims.append(Claim.of(part, says, "35 evaluations for CIFAR-10", here, effect, _BLOCKS))
    return claims


def _speed(part: str, column: str, rows: Rows, lines: Sequence[str]) -> Claim:
    """How many times fewer evaluations ours takes for the quality of its finest run."""
    points = [SweepPoint(row["line"], row["nfe"], row["nfe"], 0.0, 0.0, _quality(row)) for row in rows]
    target = max((point for point in points if point.method == lines[-1]), key=lambda point: point.nfe)
    found = {one.name: one for one in reach(points, target, _TOLERANCE)}
    ours, theirs = found[lines[-1]].possible or target, found[lines[0]].possible
    most = max(point.nfe for point in points)
    needed = f"{theirs.nfe}" if theirs is not None else f"more than {most}"
    ratio = (theirs.nfe if theirs is not None else most) / ours.nfe
    here = f"from {ours.nfe} evaluations on as good as its finest, to within 5 % or chance; the original from {needed}"
    here += f": {'' if theirs is not None else 'more than '}{ratio:.2g} times"
    before = _find(rows, line=lines[0], nfe=ours.nfe)
    after = _find(rows, line=lines[-1], nfe=ours.nfe)
    says = "our deterministic sampler needs fewer evaluations for the same quality"
    return Claim.of(
        part, says, f"{_SPEED[column]} times", here, _better(before, after), f"{_BLOCKS}, where ours is as good"
    )


def figure4(rows: Rows) -> list[Claim]:
    """What churn does to a poor and a good network."""
    claims, gains = [], {}
    grid = [row for row in rows if row["kind"] == "grid"]
    nfes, churns = sorted({row["nfe"] for row in grid}), sorted({row["churn"] for row in grid})
    middle = next(row["churn"] for row in rows if row["kind"] == "ablation")
    names = {"short": "imperfect", "good": "good"}
    for network, name in names.items():
        still, noisy = (_find(grid, network=network, nfe=nfes[-1], churn=c) for c in (0.0, middle))
        gains[network] = _better(still, noisy)
        says = (
            f"of the {name} network, S_churn = {middle:g} makes better samples than none, with {nfes[-1]} evaluations"
        )
        paper = "ImageNet-64: 2.66 → 1.55" if network == "short" else "CIFAR-10, ours: no gain"
        claims.append(Claim.of("figure4", says, paper, f"Fréchet {_pair(still, noisy)}", gains[network], _BLOCKS))
    poor, good = gains["short"], gains["good"]
    effect = Effect(poor.value - good.value, math.hypot(poor.error, good.error), poor.dof)
    says = "noise corrects the errors of the network: it helps the imperfect one more than the good one"
    here = f"gains {poor.value:+.3g} and {good.value:+.3g}"
    claims.append(Claim.of("figure4", says, "", here, effect, _BLOCKS))
    still, noisy = (_find(grid, network="good", nfe=nfes[0], churn=c) for c in (0.0, churns[-1]))
    says = f"noise needs evaluations: with {nfes[0]}, S_churn = {churns[-1]:g} makes worse samples than none"
    claims.append(
        Claim.of("figure4", says, "Figure 4", f"Fréchet {_pair(still, noisy)}", _better(noisy, still), _BLOCKS)
    )
    at = _find(grid, network="short", nfe=nfes[-1], churn=middle)
    for setting in ("S_tmin, S_tmax = 0, ∞", "S_noise = 1", "both"):
        row = _find(rows, network="short", kind="ablation", setting=setting)
        says = f"without the limits or the excess of the noise ({setting}) the samples are worse"
        here = f"Fréchet {_pair(row, at)} with all"
        claims.append(Claim.of("figure4", says, "Figure 4, ablations", here, _better(row, at), _BLOCKS))
    return claims


def tuning(rows: Rows) -> list[Claim]:
    """What the choice of the four parameters is worth."""
    claims = []
    for network, name in (("short", "imperfect"), ("good", "good")):
        own = [row for row in rows if row["network"] == network]
        trials = sorted((row for row in own if row["kind"] == "trial"), key=lambda row: float(row["frechet"]))
        still, tuned = _find(own, kind="deterministic"), _find(own, kind="tuned")
        best = ", ".join(f"{key} {tuned[key]:.3g}" for key in ("S_churn", "S_tmin", "S_tmax", "S_noise"))
        says = f"of the {name} network, tuned parameters make better samples than no noise"
        here = f"Fréchet {_pair(still, tuned)} on other seeds, with {best}"
        paper = "Table 5: 40, 0.05, 50, 1.003 for ImageNet-64; 30, 0.01, 1, 1.007 for CIFAR-10 VP"
        claims.append(Claim.of("tuning", says, paper, here, _better(still, tuned), f"{_BLOCKS}, of fresh seeds"))
        worst = trials[-1]
        says = f"of the {name} network, badly chosen parameters make worse samples than no noise"
        here = f"Fréchet of {len(trials)} trials {trials[0]['frechet']:.3g} to {worst['frechet']:.3g}; without noise "
        here += f"{still['frechet']:.3g}"
        a, b = _quality(worst), _quality(still)
        effect = Effect(a.value - b.value, math.hypot(a.standard_error, b.standard_error), len(a.blocks) - 1)
        claims.append(Claim.of("tuning", says, "", here, effect, f"{_BLOCKS}; the worst of {len(trials)}"))
    return claims


def augmentation(rows: Rows) -> list[Claim]:
    """What augmentation does where data are few."""
    claims = []
    for key, says in (
        ("held_out_loss", "augmentation lowers the loss of held-out data where data are few"),
        (
            "nearer",
            "it makes fewer copies, where more than 5 % are nearer to a training item than 95 % of held-out data are",
        ),
        ("frechet", "it makes samples more like held-out data"),
    ):
        without, with_ = ([row[key] for row in rows if row["augmented"] is augmented] for augmented in (False, True))
        here = f"{mean_of(without)} → {mean_of(with_)}"
        effects = [welch(without, with_)]
        if key == "nearer":  # there are copies to prevent where the share exceeds that of held-out data
            effects.append(paired([share - 0.05 for share in without]))
        weakest = min(effects, key=lambda effect: effect.value / (effect.critical * effect.error or math.inf))
        claims.append(Claim.of("augmentation", says, "", here, weakest, _SEEDS))
    return claims


def article(rows: Rows) -> list[Claim]:
    """What the article says of the ODE and of F's input and target."""
    found, part = rows[0], "article"
    spread = found["spread"]
    claims = []
    for key, says in (
        (
            "strange",
            "an unusual process (σ(t) that rises and falls, s(t) that swings) works: it leads to the same end points",
        ),
        (
            "vp",
            "the score depends on no σ(t), s(t): VP's ODE ends where ours does, of a network that was trained for ours",
        ),
    ):
        near = paired(found[key])
        here = (
            f"RMS distance {_rms(found[key]):.2g}, of data with standard deviation {spread:.2g}; at most 1 % is asked"
        )
        effect = Effect((0.01 * spread) ** 2 - near.value, near.error, near.dof)
        claims.append(Claim.of(part, says, "", here, effect, _SAMPLES))
    rho = {float(key): squares for key, squares in found["rho"].items()}
    says = "steps should become shorter with σ: ρ = 7 errs less than equal steps, ρ = 1, with 18 steps of Heun"
    here = ", ".join(f"ρ = {key:g}: RMS {_rms(squares):.2g}" for key, squares in rho.items())
    claims.append(
        Claim.of(
            part, says, "Figure 13: ρ = 3 equalises, 5 to 10 are best", here, _nearer(rho[1.0], rho[7.0]), _SAMPLES
        )
    )
    turning = found["turning"]
    shares = [b / (a + b + c) for a, b, c in zip(turning["low"], turning["middle"], turning["high"], strict=True)]
    half = paired(shares)
    says = "trajectories bend between low and high σ: more than half of their turning is from 0.2 to 5 σ_data"
    here = f"{100 * half.value:.0f} % of the turning, in {math.log(25) / math.log(40_000):.0%} of the range of ln σ"
    claims.append(Claim.of(part, says, "", here, Effect(half.value - 0.5, half.error, half.dof), _SAMPLES))
    for key, name in (
        ("input", "the input of F, c_in·(y + n),"),
        ("target", "its target, (y − c_skip·(y + n))/c_out,"),
    ):
        values = found["variance"][key]
        off, error = max((abs(v - 1), e) for v, e in zip(values, found["variance"][f"{key} error"], strict=True))
        says = f"{name} has variance 1 at every noise level, to within 5 % of digits"
        sigma = found["variance"]["sigma"]
        here = f"{min(values):.3f} to {max(values):.3f} from σ = {sigma[0]:.2g} to {sigma[-1]:.3g}"
        claims.append(Claim.of(part, says, "1, by construction", here, Effect(0.05 - off, error), "over real items"))
    return claims


_OF: Mapping[str, Callable[[Rows], list[Claim]]] = {
    "table2": table2,
    "figure2": figure2,
    "figure4": figure4,
    "tuning": tuning,
    "augmentation": augmentation,
    "article": article,
}


def statements(results: Mapping[str, Rows]) -> list[Claim]:
    """All that the measured parts say."""
    return [claim for part, rows in results.items() for claim in _OF[part](rows)]
