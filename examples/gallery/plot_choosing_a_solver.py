"""
Choosing and fitting a solver
=============================

Which solver ends nearest to the end of the ODE, with the evaluations that you can spend? Measure it; then fit one.
"""

import matplotlib.pyplot as plt

import diffspace as ds
from diffspace.data import named_oracle
from diffspace.solverlab import compare_solvers, default_samplers, moments, recommend

# %%
# The true ends come from many small steps, for seeds to choose and to fit with.

ring = named_oracle("ring")
fine = ds.Sampler(ds.EDMSteps(100), ds.AdamsBashforth(4, "x0"))
truth = ds.reference(ring, seeds=range(64), sampler=fine, execution=ds.Execution(trajectory=True))
samplers = default_samplers(*moments(truth), ["heun", "ab:k=4", "ipndm", "dpmpp2m"])
comparison = compare_solvers(ring, truth, samplers, (5, 8, 15, 25))
figure = comparison.show()

# %%
# The recommendation for each budget:

for choice in recommend(comparison):
    print(f"{choice.budget:3} evaluations: {choice.row.name}, error {choice.row.error.rms:.4f}")

# %%
# A fitted solver has noise levels and weights of its own. It is judged on other seeds than those of the fit.

fitted = ds.fit_solver(ring, 5, truth, iterations=6)
others = ds.reference(ring, seeds=range(1000, 1256), sampler=fine)
best = recommend(comparison)[0].row.sampler
rows = {"Heun, 35": ds.Sampler(ds.EDMSteps(18), ds.Heun()), "Heun, 5": ds.Sampler(ds.EDMSteps(3), ds.Heun())}
rows |= {"recommended, 5": best, "fitted, 5": fitted}
figure, axes = plt.subplots(1, 4, figsize=(10, 2.9), layout="constrained", sharex=True, sharey=True)
for ax, (name, sampler) in zip(axes, rows.items(), strict=True):
    x = ds.sample(ring, seeds=range(1000, 1256), sampler=sampler).x
    ax.scatter(*x.flatten(1).T, s=4, lw=0)
    ax.set(title=f"{name}\nRMS error {others.error_of(x).rms:.3f}", aspect="equal", xlim=(-1.7, 1.7), ylim=(-1.7, 1.7))

# %%
# Its noise levels are few. Keep it beside a model with ``ds.save_sampler``, and ``diffspace sample MODEL --sampler
# fitted-5`` draws with it.

levels = ds.sample(ring, seeds=[0], sampler=fitted).sigmas.tolist()
print("σ =", ", ".join(f"{sigma:.3g}" for sigma in levels))
