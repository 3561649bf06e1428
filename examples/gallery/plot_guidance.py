"""
Guidance
========

Classifier-free guidance and autoguidance where everything is known: two classes of points with exact denoisers.
"""

import matplotlib.pyplot as plt
import torch

import diffspace as ds
from diffspace.guidance import AutoGuidance, ClassifierFree, Interval
from diffspace.oracles import ByClass, GaussianMixture

# %%
# Each class is two strokes of points. Without its label, a point may be of either class.

means = torch.tensor([[[-0.6, 0.3], [0.2, 0.7]], [[0.6, -0.3], [0.0, -0.2]]], dtype=torch.float64)
spread = torch.tensor([0.18, 0.22], dtype=torch.float64)
classes = [GaussianMixture(each, spread) for each in means]
either = GaussianMixture(means.flatten(0, 1), spread.repeat(2))
by_class = ByClass(classes)


class WithNull(torch.nn.Module):
    """The denoiser of a class, and of all data where the label is 2."""

    def forward(self, x: torch.Tensor, sigma: torch.Tensor, cond: dict[str, torch.Tensor]) -> torch.Tensor:
        labels = cond["labels"]
        known = by_class(x, sigma, {"labels": labels.clamp(max=1)})
        return torch.where((labels == 2)[:, None], either(x, sigma), known)


null = {"labels": torch.tensor([2])}
cond = {"labels": torch.zeros(600, dtype=torch.int64)}

# %%
# The weight w goes from D without the class (0) to D with it (1) and beyond. Samples of class 0 get away from the other
# class, beyond the edge of their own. Guidance in an interval of noise levels leaves more of them where data are.

weights = {"1": 1.0, "3": 3.0, "3 where 0.2 < σ ≤ 1": Interval(3.0, low=0.2, high=1.0)}
figure, axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained", sharex=True, sharey=True)
background = either.sample(1500, generator=torch.Generator().manual_seed(0))
for ax, (name, weight) in zip(axes, weights.items(), strict=True):
    guided = ClassifierFree(WithNull(), weight, negative=null)
    x = ds.sample(guided, seeds=range(600), shape=(2,), cond=cond, steps=ds.EDMSteps(18)).x
    ax.scatter(*background.T, s=3, color="0.8", lw=0)
    ax.scatter(*x.T, s=4, lw=0)
    ax.set(title=f"w = {name}", aspect="equal")
    outside = float((either.log_prob(x, torch.tensor(0.01)) < -4).double().mean())
    print(f"w = {name}: spread {float(x.std(0).mean()):.3f}, {outside:.1%} where there are hardly any data")

# %%
# Autoguidance needs no classes: it leads away from a worse model of the same data. Here the worse one blurs.

blurred = GaussianMixture(means.flatten(0, 1), 2 * spread.repeat(2))
figure, axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained", sharex=True, sharey=True)
for ax, weight in zip(axes, (1.0, 1.5, 2.5), strict=True):
    x = ds.sample(AutoGuidance(either, blurred, weight), seeds=range(600), shape=(2,), steps=ds.EDMSteps(18)).x
    ax.scatter(*background.T, s=3, color="0.8", lw=0)
    ax.scatter(*x.T, s=4, lw=0, color="tab:orange")
    ax.set(title=f"w = {weight:g}", aspect="equal")
