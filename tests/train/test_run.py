import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from small_runs import POINTS, begin_and_stop, begin_and_train, make_run, resume_and_train, same_weights

import diffspace as ds
from diffspace.averages import Snapshots
from diffspace.data import batches, load_data
from diffspace.loading import load
from diffspace.train import (
    LOG,
    Checkpoints,
    Measurement,
    Processes,
    Run,
    Validation,
    apply_overrides,
    make_recipe,
    read_log,
)


def test_a_run_leaves_a_model_that_loads(tmp_path):
    run = make_run(tmp_path / "run")
    reports = begin_and_train(run)
    assert reports[-1].images == 1000
    model = load(tmp_path / "run")
    inputs = (torch.randn(5, 2), torch.tensor(0.3), {"labels": torch.arange(5)})
    torch.testing.assert_close(model(*inputs), run.model()(*inputs))
    assert model.notes["images"] == 1000
    logged = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert logged[-1]["images"] == 1000
    assert ds.load is load


def test_an_existing_folder_is_left_alone(tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(ValueError, match="exists already"):
        make_run(tmp_path).begin()
    assert [p.name for p in tmp_path.iterdir()] == ["precious.txt"]


def test_stopped_in_the_middle_and_resumed_is_the_same_as_uninterrupted(tmp_path):
    whole = make_run(tmp_path / "whole")
    begin_and_train(whole)

    first = make_run(tmp_path / "parts")
    begin_and_stop(first, 4)
    assert first.trainer.step == 4
    second = make_run(tmp_path / "parts")
    resume_and_train(second)
    assert second.trainer.images == 1000
    assert same_weights(whole, second)


def test_the_recipe_of_a_run_that_begins_anew_is_written(tmp_path):
    first = make_run(tmp_path / "run")
    first.begin()
    first.close()  # killed before the first checkpoint
    told = []
    second = make_run(tmp_path / "run", "learning_rate=0.01", warn=told.append)
    second.resume()
    second.close()
    assert told == [f"{tmp_path / 'run'} has no checkpoint yet; beginning anew"]
    assert (tmp_path / "run" / "recipe.yaml").read_text() == second.recipe.to_yaml() != first.recipe.to_yaml()


def test_an_exception_in_the_consumer_saves_first(tmp_path):
    run = make_run(tmp_path / "run")
    run.begin()

    def interrupted():
        for _ in run.train():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert Checkpoints(tmp_path / "run").newest().images == 100
    load(tmp_path / "run")


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(tmp_path):
    run = make_run(tmp_path / "run")
    begin_and_train(run)
    before = (tmp_path / "run" / "model.safetensors").read_bytes()

    again = make_run(tmp_path / "run", "images=2000", "max_skipped=4")
    again.resume()
    with torch.no_grad():
        next(again.trainer.denoiser.parameters()).fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="learning_rate"):
        list(again.train())
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before
    kept = torch.load(tmp_path / "run" / "nonfinite-0.pt", weights_only=True)
    assert again.trainer.skipped == again.trainer.step - 10 == 4
    assert kept["x"].shape == kept["noise"].shape == (100, 2)


def nowhere(model, *_):
    raise FloatingPointError("denoiser: is not finite")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score": lambda model: {"frechet": float("nan"), "real": 1.0}}, "score/frechet: is nan after 200 images"),
        ({"score": nowhere}, "score: denoiser: is not finite"),
        ({"preview": nowhere}, "preview: denoiser: is not finite"),
    ],
)
def test_a_run_that_has_diverged_ends_with_advice_and_saves_nothing_more(tmp_path, options, message):
    (name,) = options
    run = make_run(tmp_path / "run", f"{name}_images=200", "checkpoint_images=100", report_seconds=0, **options)
    run.begin()
    with pytest.raises(FloatingPointError, match=f"{message}.*; a lower learning_rate or max_grad_norm=1 may help"):
        list(run.train())
    assert Checkpoints(tmp_path / "run").newest().images == load(tmp_path / "run").notes["images"] == 100


def test_a_held_out_loss_that_is_not_finite_is_no_reason_to_stop_early(tmp_path):
    words = ["learning_rate=1e30", "held_out_images=100", "patience_images=200"]
    recipe = make_recipe(apply_overrides(POINTS, [*words, "data.holdout=100"]))
    training, held_out = recipe.data.load()
    run = Run(recipe, training, tmp_path / "run", held_out=held_out, processes=Processes(torch.device("cpu")))
    with pytest.raises(FloatingPointError, match="held_out/loss: is inf after 100 images; a lower learning_rate"):
        begin_and_train(run)


def test_a_run_that_ends_with_steps_left_out_fails_and_saves(tmp_path):
    run = make_run(tmp_path / "run", "learning_rate=1e30", "images=600")
    with pytest.raises(FloatingPointError, match="loss: the gradients of the last steps, up to 6, are not finite"):
        begin_and_train(run)
    assert run.trainer.skipped > 1
    assert Checkpoints(tmp_path / "run").newest().images == 600


def test_a_snapshot_beyond_its_type_is_a_run_that_diverged(tmp_path):
    run = make_run(tmp_path / "run", "learning_rate=1e8", "ema_widths=[0.1]", "snapshot_images=100")
    with pytest.raises(FloatingPointError, match=r"snapshot: average: .* beyond the range .*; a lower learning_rate"):
        begin_and_train(run)


@pytest.mark.parametrize("name", ["log.jsonl", "run.lock", "checkpoints", "snapshots", "previews", "best"])
def test_a_link_in_a_run_is_refused_and_what_it_leads_to_is_left_alone(tmp_path, name):
    begin_and_train(make_run(tmp_path / "run"))
    precious = tmp_path / "precious"
    if name in ("log.jsonl", "run.lock"):
        precious.write_text("mine")
    else:
        precious.mkdir()
        (precious / "000000000001.pt").write_text("mine")
    place = tmp_path / "run" / name
    if place.exists():
        place.rename(tmp_path / "former")
    place.symlink_to(precious)
    with pytest.raises(ValueError, match=f"run/{name}:? is a .*link"):
        make_run(tmp_path / "run", "images=1100").resume()
    kept = precious if precious.is_file() else precious / "000000000001.pt"
    assert kept.read_text() == "mine"


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"recipe": 1}, "recipe is a int"),
        ({"step": -5}, "step: expected an integer of at least 0, got -5"),
        ({"images": "x"}, "images: expected an integer"),
        ({"hooks": {"score": "x"}}, "score is a str"),
        ({"hooks": 1}, "'int' object has no attribute 'keys'"),
        ({"skipped": [1.0]}, "shape"),
    ],
)
def test_a_checkpoint_of_others_is_refused_before_anything_changes(tmp_path, entries, message):
    begin_and_train(make_run(tmp_path / "run", "ema_widths=[0.1]", "snapshot_images=500"))
    place = Checkpoints(tmp_path / "run")
    state = place.newest().read()
    state["trainer"] |= entries
    place.save(1000, state)
    place.wait()
    files = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=f"resume: .* does not fit recipe.yaml: .*{message}"):
        make_run(tmp_path / "run", "ema_widths=[0.1]", "snapshot_images=500", "images=2000").resume()
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == files


def test_previews_come_at_their_interval(tmp_path):
    drawn = []
    run = make_run(tmp_path / "run", "preview_images=300", preview=lambda model, path: drawn.append(path.name))
    begin_and_train(run)
    assert drawn == [f"{images:012d}.png" for images in (300, 600, 900, 1000)]
    with pytest.raises(ValueError, match="preview_images"):
        make_run(tmp_path / "other", "preview_images=300")


def test_early_previews_come_after_doubling_times_and_change_nothing(tmp_path, monkeypatch):
    drawn, options = [], {"preview": lambda model, path: drawn.append(path.name), "report_seconds": 0}
    monkeypatch.setattr("diffspace.train.hooks.time.monotonic", lambda: run.trainer.images if begun else 0)
    begun = False
    run = make_run(tmp_path / "run", f"preview_minutes={200 / 60}", **options)
    begun = True  # a clock on which an image takes a second
    begin_and_train(run)
    assert drawn == ["000000000300.png", "000000000700.png"]  # the step after 200, and that after 2·300 seconds
    other = make_run(tmp_path / "other", preview=options["preview"])
    begin_and_train(other)
    assert len(drawn) == 2
    assert same_weights(run, other)


def test_a_damaged_checkpoint_is_named(tmp_path):
    run = make_run(tmp_path / "run")
    begin_and_train(run)
    (checkpoint,) = (tmp_path / "run" / "checkpoints").iterdir()
    checkpoint.write_bytes(b"PK not a checkpoint")
    with pytest.raises(ValueError, match=r"none in .* is whole: .*1000\.pt: is not what was written"):
        make_run(tmp_path / "run").resume()


def test_data_without_classes_train_an_unconditional_model(tmp_path):
    data = load_data("digits").subset(torch.arange(64))
    config = {**POINTS, "data": {"source": "digits"}, "images": 64, "batch_size": 32, "conditional": False}
    config["network"] = {"kind": "ddpmpp", "model_channels": 8, "channel_mult": [1], "num_blocks": 1}
    run = Run(make_recipe(config), data, tmp_path / "run", processes=Processes(torch.device("cpu")))
    begin_and_train(run)
    assert load(tmp_path / "run").class_names == ()


def test_a_run_begins_with_the_weights_of_a_model(tmp_path):
    first, second = make_run(tmp_path / "first"), make_run(tmp_path / "second", "seed=5")
    assert second.transfer(first.trainer.denoiser.network) == ()
    for module in (second.trainer.denoiser, second.trainer.averages[0].module):
        for a, b in zip(module.parameters(), first.trainer.denoiser.parameters(), strict=True):
            assert torch.equal(a, b)
    plain = make_run(tmp_path / "plain", "conditional=false")
    assert second.transfer(plain.trainer.denoiser.network) == ("map_label.weight", "map_label.bias")
    assert plain.transfer(first.trainer.denoiser.network) == ()  # what is left over there does not matter
    with pytest.raises(ValueError, match=r"transfer: \S+ has shape \(\d.* there and"):
        second.transfer(ds.networks.MLP((2,), width=32))
    with pytest.raises(ValueError, match="transfer: a Linear has no weight of a MLP"):
        second.transfer(torch.nn.Linear(2, 2))


IMAGES = {
    "data": {"source": "digits"},
    "network": {"kind": "ddpmpp", "model_channels": 64, "channel_mult": [1], "num_blocks": 1, "dropout": 0},
    "preconditioning": {"kind": "edm"},
    "noise": {"kind": "lognormal"},
    "images": 64,
    "batch_size": 16,
    "ramp_images": 0,
}


def losses_with(folder, *overrides):
    run = make_run(folder, *overrides, config=IMAGES)
    losses = [float(p.loss) for p in run.trainer.run(batches(run.data, 16, seed=0))]
    assert all(p.dtype == torch.float32 for p in run.trainer.denoiser.parameters())
    return torch.tensor(losses)


def test_precision_changes_the_losses_by_its_rounding(tmp_path):
    exact = losses_with(tmp_path)
    error = ((losses_with(tmp_path, "precision=bfloat16") - exact) / exact).abs().max()
    assert 1e-6 < error < 2e-2


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    run = make_run(tmp_path / "run", "images=1000")
    run.begin()
    run.save()
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    whole = run.trainer.run

    def breaking(*arguments):
        for progress in whole(*arguments):
            if progress.step == 3:
                next(run.trainer.denoiser.parameters()).data.fill_(float("nan"))
            if progress.step == 4:
                raise KeyboardInterrupt
            yield progress

    run.trainer.run = breaking
    with pytest.raises(KeyboardInterrupt):
        list(run.train())
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before


def test_a_checkpoint_of_another_network_is_refused_on_one_line(tmp_path):
    run = make_run(tmp_path / "run")
    run.begin()
    run.save()
    run.close()
    with pytest.raises(ValueError, match=r"network.width: 16 became 32, which cannot change within a run") as caught:
        make_run(tmp_path / "run", "network.width=32").resume()
    assert "\n" not in str(caught.value)


def test_a_run_whose_held_out_loss_no_longer_falls_ends_early_with_patience(tmp_path, monkeypatch):
    losses = iter([5.0, 4.0, 4.5, 4.2, 4.1, 3.0, 2.0, 1.0, 0.5, 0.1] * 2)
    measure = Validation.measure
    told = lambda self, denoiser: dataclasses.replace(measure(self, denoiser), loss=next(losses))  # noqa: E731
    monkeypatch.setattr(Validation, "measure", told)
    run = make_run(tmp_path / "run", "held_out_images=100", "patience_images=300")
    reports = begin_and_train(run)
    assert run.early_stop.stopped
    assert reports[-1].images == run.trainer.images == 500
    assert Checkpoints(tmp_path / "run").newest().images == 500
    losses = iter([4.0] * 10)
    patient = make_run(tmp_path / "patient", "held_out_images=100")
    assert begin_and_train(patient)[-1].images == 1000


def test_the_best_model_and_its_checkpoint_are_kept(tmp_path):
    scores = iter([3.0, 1.0, 2.0, 5.0, 4.0])
    run = make_run(tmp_path / "run", "score_images=200", score=lambda model: {"frechet": next(scores), "real": 0.5})
    begin_and_train(run)
    assert load(tmp_path / "run" / "best").notes["images"] == 400
    assert load(tmp_path / "run").notes["images"] == 1000
    kept = sorted(int(path.stem) for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == [400, 800, 1000]
    logged = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [r["score"]["frechet"] for r in logged if "score" in r][-1] == 4.0


def test_what_was_measured_is_logged_and_the_same_after_an_interruption(tmp_path):
    whole = make_run(tmp_path / "whole", "held_out_images=200", report_seconds=0)
    begin_and_train(whole)
    first = make_run(tmp_path / "parts", "held_out_images=200", report_seconds=0)
    begin_and_stop(first, 5)
    second = make_run(tmp_path / "parts", "held_out_images=200", report_seconds=0)
    resume_and_train(second)
    texts = [(tmp_path / name / "log.jsonl").read_text() for name in ("whole", "parts")]
    logs = [[json.loads(line) for line in text.splitlines()] for text in texts]
    assert [(r["step"], r["loss"], r.get("held_out")) for r in logs[0]] == [
        (r["step"], r["loss"], r.get("held_out")) for r in logs[1]
    ]
    assert [r["images"] for r in logs[0] if "held_out" in r] == [200, 400, 600, 800, 1000]
    counts = [sum(r["loss_by_sigma"]["count"]) for r in logs[0]]
    assert counts == [100] * 10


def test_a_step_that_is_torn_is_not_saved(tmp_path):
    whole = make_run(tmp_path / "whole")
    begin_and_train(whole)
    run = make_run(tmp_path / "run", "checkpoint_images=200")
    run.begin()
    follow = run.trainer.averages[0].follow

    def interrupted(*arguments):
        if run.trainer.step == 5:
            raise KeyboardInterrupt
        follow(*arguments)

    run.trainer.averages[0].follow = interrupted
    with pytest.raises(KeyboardInterrupt):
        list(run.train())
    assert Checkpoints(tmp_path / "run").newest().images == 400
    again = make_run(tmp_path / "run", "checkpoint_images=200")
    resume_and_train(again)
    assert same_weights(whole, again)


def test_data_that_have_changed_are_refused_on_resume_and_known_to_the_model(tmp_path):
    values = torch.randn(60, 2).numpy()
    np.save(tmp_path / "x.npy", values)
    config = POINTS | {"data": {"source": str(tmp_path / "x.npy"), "normalize": "none"}}
    begin_and_stop(make_run(tmp_path / "run", config=config), 4)
    resumed = make_run(tmp_path / "run", config=config)
    resumed.resume()
    assert load(tmp_path / "run").notes["fingerprint"]["held-out"]["count"] == 12
    resumed.close()
    for changed, message in (
        (values[1:], r"data: have changed since this run began: .* part has \d+ samples?, \d+ then.*--transfer"),
        (np.concatenate([values[:59], values[59:] + 1e-6]), "as many samples as then, but not the same"),
    ):
        np.save(tmp_path / "x.npy", changed)
        with pytest.raises(ValueError, match=message):
            make_run(tmp_path / "run", config=config).resume()


class Mean(Measurement):
    name = "mean"

    def measure(self, model):
        return np.mean([0.5])  # which is a float, and no type that checkpoints hold


class Score(Measurement):
    """Stops the run instead."""

    name = "other"

    def measure(self, model):
        self.run.stop()


def scored(folder, *options, stop_at=None):
    """A run whose first score is its best, and which a measurement at `stop_at` stops, as a signal does."""

    def score(model):
        images = model.notes["images"]
        if images == stop_at:
            run.stop()
        return {"frechet": {200: 1.0, 400: 2.0}[images]}

    run = make_run(folder, "score_images=200", "images=400", *options, score=score)
    return run


@pytest.mark.parametrize("stop_at", [200, 400])
def test_a_measurement_that_a_stop_interrupts_is_made_up_for(tmp_path, stop_at):
    begin_and_train(scored(tmp_path / "whole"))
    begin_and_train(scored(tmp_path / "stopped", stop_at=stop_at))
    assert (tmp_path / "stopped" / "best").is_dir() == (stop_at == 400)
    resume_and_train(scored(tmp_path / "stopped"))
    for name in ("whole", "stopped"):
        assert load(tmp_path / name / "best").notes["images"] == 200
        scores = [(r["images"], r["score"]["frechet"]) for r in read_log(tmp_path / name / LOG) if "score" in r]
        assert scores == [(200, 1.0), (400, 2.0)]
    assert resume_and_train(scored(tmp_path / "stopped")) == []


def test_what_is_no_longer_measured_is_owed_no_more(tmp_path):
    means = [Mean(200), Score(200)]
    first = make_run(tmp_path / "run", "images=200", measurements=means)
    means[1].run = first
    assert begin_and_train(first)[-1].measured == {"mean": 0.5}
    assert resume_and_train(make_run(tmp_path / "run", "images=200", measurements=[Mean(200)]))[-1].images == 200
    assert resume_and_train(make_run(tmp_path / "run", "images=200", measurements=[Mean(200)])) == []


def test_who_leaves_at_a_report_leaves_a_run_that_goes_on_as_it_would_have(tmp_path):
    run = scored(tmp_path / "run", "ema_widths=[0.1]", "snapshot_images=100")
    run.begin()
    for report in run.train():
        if report.images == 200:
            break
    assert load(tmp_path / "run" / "best").notes["images"] == 200
    assert [snapshot.images for snapshot in Snapshots(tmp_path / "run").all()] == [100, 200]
    resume_and_train(scored(tmp_path / "run", "ema_widths=[0.1]", "snapshot_images=100"))
    assert load(tmp_path / "run" / "best").notes["images"] == 200


def test_who_begins_anew_does_not_mix_the_snapshots_of_two_runs(tmp_path):
    """As after a process was killed before its first checkpoint."""
    first = make_run(tmp_path / "run", "ema_widths=[0.1]", "snapshot_images=100", "images=300")
    begin_and_train(first)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    second = make_run(tmp_path / "run", "ema_widths=[0.1]", "snapshot_images=200", "images=400", "seed=5")
    resume_and_train(second)
    assert [snapshot.images for snapshot in Snapshots(tmp_path / "run").all()] == [200, 400]
