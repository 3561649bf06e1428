"""Training runs of a second on the CPU."""

import torch

from diffspace.train import Processes, Run, apply_overrides, make_recipe

POINTS = {
    "data": {"source": "eight-gaussians", "n": 500},
    "network": {"kind": "mlp", "width": 16},
    "preconditioning": {"kind": "edm", "sigma_data": 0.7},
    "noise": {"kind": "lognormal"},
    "images": 1000,
    "batch_size": 100,
    "ramp_images": 0,
    "ema_halflife_images": 0,
}


def make_run(folder, *overrides, config=POINTS, **options):
    recipe = make_recipe(apply_overrides(config, overrides))
    training, held_out = recipe.data.load()
    return Run(recipe, training, folder, held_out=held_out, processes=Processes(torch.device("cpu")), **options)


def begin_and_train(run):
    run.begin()
    return list(run.train())


def resume_and_train(run):
    run.resume()
    return list(run.train())


def begin_and_stop(run, steps):
    """Train, and stop after a number of steps."""
    original = run.trainer.run

    def stopping(*arguments):
        for step in original(*arguments):
            if step.step == steps:
                run.stop()
            yield step

    run.trainer.run = stopping
    return begin_and_train(run)


def same_weights(a, b):
    weights, others = a.model().state_dict(), b.model().state_dict()
    return weights.keys() == others.keys() and all(torch.equal(weights[name], others[name]) for name in weights)
