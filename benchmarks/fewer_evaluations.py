"""The picture of the README: the same seeds by Heun with 35 and with 5 evaluations, and by a fitted solver with 5.

    diffspace train --recipe recipes/mnist-5k.yaml --out runs/mnist
    diffspace solvers runs/mnist --nfe 5 --solvers heun --steps edm --fit --fit-seeds 1000-1063 --seeds 0-15 \\
        --reference-steps 40
    python benchmarks/fewer_evaluations.py runs/mnist --out docs/images

The samples of the last two rows are compared with those of the first, on these seeds alone, none of which was used in
the fit.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from matplotlib.colors import LinearSegmentedColormap

import diffspace as ds
from diffspace.figures.samples import to_pixels
from diffspace.figures.style import new_figure, using

BUDGET = 5


def rows(model: ds.Model, folder: str, count: int) -> dict[str, torch.Tensor]:
    """Samples of the seeds 0, 1, … in the classes 0, 1, …, by name."""
    samplers = {
        "Heun, 35 evaluations": ds.Sampler(ds.EDMSteps(18), ds.Heun()),
        f"Heun, {BUDGET}": ds.Sampler(ds.EDMSteps((BUDGET + 1) // 2), ds.Heun()),
        f"fitted, {BUDGET}": ds.load_samplers(folder)[f"fitted-{BUDGET}"],
    }
    cond = {"labels": torch.arange(count) % len(model.class_names)}
    found = {}
    for name, sampler in samplers.items():
        samples = ds.sample(model, seeds=range(count), cond=cond, sampler=sampler)
        found[name] = samples.x
        print(f"{name}: {samples.nfe} evaluations")
    return found


def draw(pixels: dict[str, np.ndarray], path: Path, name: str) -> None:
    """A row of digits for each name, ink on the paper of the theme."""
    with using(name) as theme:
        shades = LinearSegmentedColormap.from_list(name, [theme.paper, theme.ink])
        figure = new_figure(8.0, 2.6)
        axes = figure.subplots(len(pixels), 1)
        for ax, (title, images) in zip(axes, pixels.items(), strict=True):
            strip = np.concatenate(list(np.pad(images, ((0, 0), (1, 1), (1, 1)))), axis=1)
            ax.imshow(strip, cmap=shades, vmin=0, vmax=255, interpolation="nearest")
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
            ax.set_ylabel(title, rotation=0, ha="right", va="center")
        figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description="the picture of the README")
    parser.add_argument("model")
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    options = parser.parse_args()
    model = ds.load(options.model)
    found = rows(model, options.model, options.count)
    first, *others = found.items()
    spread = float(first[1].std())
    for name, x in others:
        error = float((x - first[1]).square().mean().sqrt())
        print(
            f"{name}: RMS difference from the first row {error:.3f}, of the first row's standard deviation {spread:.3f}"
        )
    pixels = {name: to_pixels(model.decode(x), model.transform) for name, x in found.items()}
    (options.out / "dark").mkdir(parents=True, exist_ok=True)
    draw(pixels, options.out / "fewer-evaluations.png", "light")
    draw(pixels, options.out / "dark" / "fewer-evaluations.png", "dark")


if __name__ == "__main__":
    main()
