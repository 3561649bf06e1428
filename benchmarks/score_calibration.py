"""How often samples of an oracle are called worse than real data, and how often damaged ones are.

python benchmarks/score_calibration.py --trials 200 --out calibration.json

Trial i draws the reference, "real" items and samples of one oracle with seed i. In half of the comparisons a tenth of
the samples has noise of standard deviation 0.5 added. "any score" is worse where one score is at 5 % divided by their
number.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

import diffspace as ds
from diffspace.metrics import Features
from diffspace.metrics.comparison import LEAST
from diffspace.metrics.exchanges import Splits
from diffspace.metrics.judgement import LEVEL, judge, tolerance_of

MEASURED = tuple(score for score in LEAST if score != "inception")  # which needs classes
ANY = "any score"


def mixture() -> ds.oracles.Oracle:
    """Ten isotropic components in 64 dimensions; the standard deviation of the data is 0.5."""
    generator = torch.Generator().manual_seed(0)
    means = 0.4 * torch.randn(10, 64, generator=generator, dtype=torch.float64)
    return ds.oracles.GaussianMixture(means, torch.full((10,), 0.3, dtype=torch.float64))


def images() -> ds.oracles.Oracle:
    """8×8 images near ten affine spaces of eight dimensions, of smooth patterns; standard deviation 0.5."""
    generator = torch.Generator().manual_seed(1)
    waves = torch.linspace(0, torch.pi, 8, dtype=torch.float64)
    patterns = torch.stack([torch.outer((i * waves).cos(), (j * waves).cos()) for i in range(4) for j in range(4)])
    patterns = patterns.flatten(1)
    means = 0.25 * torch.randn(10, 16, generator=generator, dtype=torch.float64) @ patterns
    axes = torch.randn(10, 8, 16, generator=generator, dtype=torch.float64) @ patterns * 0.25
    covariances = axes.transpose(1, 2) @ axes / 4 + 1e-4 * torch.eye(64, dtype=torch.float64)
    return ds.oracles.GaussianMixture(means.reshape(10, 1, 8, 8), covariances=covariances)


ORACLES = {"mixture": mixture, "images": images}


def trial(
    oracle: ds.oracles.Oracle,
    seed: int,
    n: int,
    reference_n: int,
    damaged: bool,
    scores: Sequence[str] = MEASURED,
    permutations: int = 199,
) -> dict[str, str]:
    """The outcome of each score, and of all together."""
    generator = torch.Generator().manual_seed(seed)
    x = oracle.sample(2 * n + reference_n, generator=generator).flatten(1)
    samples, real, reference = x.split([n, n, reference_n])
    if damaged:
        tenth = n // 10
        noise = 0.5 * torch.randn(tenth, x.shape[1], generator=generator, dtype=torch.float64)
        samples = torch.cat([samples[:tenth] + noise, samples[tenth:]])
    known = Features(reference.float())
    splits = Splits.of([Features(samples.float())], [Features(real.float())], permutations, n, generator)
    found = {s: judge(splits.differences(s, known), tolerance_of(s, known, 0.0)) for s in scores}
    outcomes = {score: str(each.outcome) for score, each in found.items()}
    worse = min(each.p_value for each in found.values()) <= LEVEL / len(found)
    return outcomes | {ANY: "worse" if worse else "no worse"}


def measure(oracle: str, n: int, reference_n: int, damaged: bool, seeds: range) -> Iterator[dict[str, object]]:
    """One record for each score: the share of each outcome."""
    made = ORACLES[oracle]()
    found = [trial(made, seed, n, reference_n, damaged) for seed in seeds]
    for score in (*MEASURED, ANY):
        counts = Counter(each[score] for each in found)
        shares = {outcome: counts[outcome] / len(found) for outcome in ("worse", "no worse", "better", "too small")}
        yield {"oracle": oracle, "n": n, "reference": reference_n, "damaged": damaged, "score": score} | shares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--oracle", choices=ORACLES, action="append")
    parser.add_argument("--n", type=int, action="append")
    parser.add_argument("--reference", type=int, default=1000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    records = []
    for oracle in options.oracle or ORACLES:
        for n in options.n or (200, 1000):
            for damaged in (False, True):
                start = time.process_time()
                for record in measure(oracle, n, options.reference, damaged, range(options.trials)):
                    records.append(record | {"trials": options.trials})
                    print(*(f"{v:.3g}" if isinstance(v, float) else v for v in record.values()), flush=True)
                print(f"{time.process_time() - start:.0f} s of CPU time", flush=True)
                if options.out:
                    options.out.write_text(json.dumps(records, indent=1) + "\n")


if __name__ == "__main__":
    main()
