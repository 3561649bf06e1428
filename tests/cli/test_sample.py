"""Guidance, images that are given and several processes: what `diffspace sample` draws is what the library draws."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image
from small_networks import make_denoiser

import diffspace as ds
from diffspace.cli.app import main
from diffspace.guidance import AutoGuidance, ClassifierFree, Interval, Replacement, repaint
from diffspace.sampler_files import save_sampler
from diffspace.sampling import initial_latents
from diffspace.transform import PIXELS

NAMES, LABELS = ("ant", "bee", "cat"), {"labels": torch.tensor([0, 2, 0, 2])}
CLASSES = ["--class", "ant,cat", "--seeds", "3-6", "--steps", "5"]


def save(folder, transform=None, names=NAMES, **options):
    ds.Model(make_denoiser(label_dim=len(names), **options), transform or ds.Transform(), names).save(folder)
    return str(folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A model of real numbers, one of pixels, and a smaller one of real numbers."""
    folder = tmp_path_factory.mktemp("models")
    small = save(folder / "small", model_channels=4)
    return save(folder / "real"), save(folder / "pixels", PIXELS), small


def drawn(tmp_path, *words):
    out = tmp_path / "x.npz"
    assert main(["sample", *map(str, words), "--out", str(out), "--overwrite"]) == 0
    with np.load(out) as arrays:
        return torch.from_numpy(arrays["x"])


def error_of(capsys, *words):
    capsys.readouterr()
    assert main(["sample", *map(str, words)]) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "wrapped"),
    [
        (["--guidance", "2.5"], lambda d, g: ClassifierFree(d, 2.5)),
        (["--guidance", "0"], lambda d, g: ClassifierFree(d, 0.0)),
        (["--guidance", "1"], lambda d, g: d),
        (["--guidance", "2:0.3,5"], lambda d, g: ClassifierFree(d, Interval(2.0, 0.3, 5.0))),
        (["--guidance", "1.7", "--guide", "SMALL"], lambda d, g: AutoGuidance(d, g, 1.7)),
        (["--guidance", "2:0.3,inf", "--guide", "SMALL"], lambda d, g: AutoGuidance(d, g, Interval(2.0, 0.3))),
    ],
)
def test_guidance_is_that_of_the_wrappers_bit_for_bit(models, tmp_path, options, wrapped):
    real, _, small = models
    words = [small if word == "SMALL" else word for word in options]
    denoiser = wrapped(ds.load(real), ds.load(small))
    expected = ds.sample(denoiser, seeds=range(3, 7), steps=ds.EDMSteps(5), cond=LABELS)
    found = drawn(tmp_path, real, *CLASSES, *words)
    assert torch.equal(found, ds.load(real).decode(expected.x))
    plain = drawn(tmp_path, real, *CLASSES)
    assert torch.equal(found, plain) == (words == ["--guidance", "1"])


def test_a_sampler_of_another_range_is_noted(models, tmp_path, capsys):
    for name, start in (("mine", 80.0), ("other", 14.0)):
        save_sampler(ds.Sampler(ds.GivenSteps((start, 1.0, 0.1, 0.0)), ds.Euler()), tmp_path, name)
    words = [models[0], "--class", "ant", "--seeds", "0", "--sampler"]
    drawn(tmp_path, *words, tmp_path / "samplers" / "mine.json")
    assert "warning" not in capsys.readouterr().err
    drawn(tmp_path, *words, tmp_path / "samplers" / "other.json")
    told = "other.json starts at σ = 14, where sampling from this model starts at 80; it may have been found for"
    assert told in " ".join(capsys.readouterr().err.split())


def test_an_image_is_where_sampling_goes_on_from(models, tmp_path, capsys):
    real, pixels, _ = models
    model = ds.load(real)
    arrays = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    for given in (arrays, arrays[0]):
        np.save(tmp_path / "given.npy", given)
        x = given.reshape(-1, 3, 8, 8)[[0, -1, 0, -1]] + 0.7 * initial_latents([3, 4, 5, 6], (3, 8, 8))
        sampler = ds.Sampler(ds.EDMSteps(5), churn=ds.Churn(2))
        expected = ds.sample_from(model, x, 0.7, seeds=[3, 4, 5, 6], sampler=sampler, cond=LABELS)
        words = ["--init", tmp_path / "given.npy", "--sigma-start", 0.7, "--S-churn", 2, "--batch", 4]
        assert torch.equal(drawn(tmp_path, real, *CLASSES, *words), expected.x.float())
    # a picture is cropped and resized where it must be, and said to be
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "same.png")
    Image.fromarray(image.repeat(2, 0).repeat(2, 1)).save(tmp_path / "large.webp", lossless=True)
    capsys.readouterr()
    words = [pixels, "--seeds", "0-1", "--class", "bee", "--steps", "2", "--sigma-start", "0.003", "--init"]
    same = drawn(tmp_path, *words, tmp_path / "same.png")
    assert capsys.readouterr().err.strip() == ""
    x = PIXELS.forward(torch.from_numpy(image).permute(2, 0, 1)[None]) + 0.003 * initial_latents([0, 1], (3, 8, 8))
    cond, two = {"labels": torch.tensor([1, 1])}, ds.Sampler(ds.EDMSteps(2))
    expected = ds.sample_from(ds.load(pixels), x, 0.003, sampler=two, cond=cond)
    assert torch.equal(same, PIXELS.inverse(expected.x))
    assert drawn(tmp_path, *words, tmp_path / "large.webp").shape == same.shape
    told = " ".join(capsys.readouterr().err.split())
    assert "large.webp has 16×16 pixels (height×width); its middle is resized to 8×8" in told


def test_inpainting_keeps_the_rest_to_the_bit(models, tmp_path):
    real, pixels, _ = models
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    white = np.zeros((8, 8), np.uint8)
    white[2:5, 3:] = 255
    Image.fromarray(image).save(tmp_path / "image.png")
    Image.fromarray(white).save(tmp_path / "mask.png")
    anew = torch.from_numpy(white > 0)
    known = torch.from_numpy(image).permute(2, 0, 1)[None].contiguous()
    words = ["--inpaint", tmp_path / "image.png", "--mask", tmp_path / "mask.png", "--resamplings", 3]
    found = drawn(tmp_path, pixels, *CLASSES, *words, "--guidance", 2)
    assert torch.equal(found.masked_fill(anew, 0), known.masked_fill(anew, 0).expand(4, -1, -1, -1))
    replaced = Replacement(ClassifierFree(ds.load(pixels), 2.0), ~anew, PIXELS.forward(known))
    sampler = ds.Sampler(ds.EDMSteps(5))
    expected = repaint(replaced, seeds=range(3, 7), sampler=sampler, resamplings=3, cond=LABELS)
    assert torch.equal(found, PIXELS.inverse(expected.x))
    # arrays, whose last bits do not survive noise and arithmetic
    values = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(1)) * 1e3
    np.save(tmp_path / "values.npy", values)
    np.save(tmp_path / "mask.npy", anew)
    words = ["--inpaint", tmp_path / "values.npy", "--mask", tmp_path / "mask.npy", "--resamplings", 1]
    found = drawn(tmp_path, real, *CLASSES, *words)
    assert torch.equal(found.masked_fill(anew, 0), values.masked_fill(anew, 0).expand(4, -1, -1, -1))
    # a mask is reduced with its image, and nothing of what it covers is kept
    Image.fromarray(image.repeat(4, 0).repeat(4, 1)).save(tmp_path / "image.png")
    large = np.zeros((32, 32), np.uint8)
    large[9:19, 13:] = 255
    Image.fromarray(large).save(tmp_path / "mask.png")
    words = ["--inpaint", tmp_path / "image.png", "--mask", tmp_path / "mask.png", "--resamplings", 1]
    found = drawn(tmp_path, pixels, *CLASSES, *words)
    changed = (found != found[:1]).any(0).any(0)
    assert changed[2:5, 3:].all()
    assert not changed[6:].any()
    assert not changed[:, :2].any()


def test_held_out_data_lie_behind_lines_and_points(tmp_path, monkeypatch):
    data = ["swissroll", "data.n=200", "network.width=8", "images=100", "batch_size=50", "ramp_images=0"]
    assert main(["train", *data, "--out", str(tmp_path / "run")]) == 0
    seen = []
    monkeypatch.setattr(
        "diffspace.cli.sample_files.save_samples", lambda *args: seen.append(args[-1]) or args[0].touch()
    )
    for source in ("run", "alone"):
        words = [str(tmp_path / source), "--steps", "2", "--out", str(tmp_path / f"{source}.png")]
        assert main(["sample", *words]) == 0
        ds.load(tmp_path / "run").save(tmp_path / "alone")
    _, held_out = ds.data.load_data("swissroll", n=200).split()
    assert torch.equal(seen[0].sort(0).values, held_out.raw().sort(0).values)
    assert seen[1] is None


class TestMistakes:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--guidance", "x"], "--guidance: expected W or W:low,high such as 2 or 2:0.3,5, got 'x'"),
            (["--guidance", "2:5"], "got '2:5': 1 ends of an interval"),
            (["--guidance", "2:5,1"], "got '2:5,1': low, high: expected 0 ≤ low < high"),
            (["--guidance", "inf"], "W: expected a number in (-inf, inf), got inf"),
            (["--guidance", "2:90,100"], "--guidance: 2:90,100 has no effect on steps from σ = 80 to 0.002"),
            (["--guide", "SMALL"], "--guide: has no effect without --guidance W"),
            (["--sigma-start", "1"], "--sigma-start: has no effect without --init"),
            (["--init", "a.png"], "--init: has no effect without --sigma-start"),
            (["--init", "a.png", "--inpaint", "a.png"], "--init, --inpaint: expected one of the two"),
            (["--inpaint", "a.png"], "--inpaint: has no effect without --mask"),
            (["--mask", "a.png"], "--mask: has no effect without --inpaint"),
            (["--resamplings", "3"], "--resamplings: has no effect without --inpaint"),
            (["--init", "a.png", "--sigma-start", "0"], "--sigma-start: expected a number in (0, inf), got 0"),
            (
                ["--init", "a.png", "--sigma-start", "0.001"],
                "--sigma-start: expected a level above sigma_min = 0.002, at most inf, got 0.001",
            ),
            (["--init", "b.png", "--sigma-start", "1"], "--init: b.png is missing: there is no file b.png"),
            (["--init", "a.npy", "--sigma-start", "1"], "--init: a.npy has the shape 3×4; expected 3×8×8, or several"),
            (["--init", ".", "--sigma-start", "1"], "--init: . is a folder; expected an image or an array"),
            (["--init", "text.png", "--sigma-start", "1"], "text.png: cannot be read as an image"),
            (["--init", "f.npy", "--sigma-start", "1"], "--init: f.npy has fractions; expected whole numbers"),
            (
                ["--init", "h.npy", "--sigma-start", "1"],
                "h.npy: raw: expected values in the transform's bounds [0, 255]",
            ),
            (["--inpaint", "a.png", "--mask", "black.png"], "is black everywhere, so that nothing is drawn anew"),
            (["--inpaint", "a.png", "--mask", "white.png"], "is white everywhere, so that everything is drawn anew"),
            (["--inpaint", "a.png", "--mask", "6.png"], "--mask: 6.png has 6×6 pixels (height×width); expected 8×8"),
            (["--inpaint", "a.png", "--mask", "a.png", "--S-churn", "3"], "--inpaint: churn is not supported"),
            (["--processes", "2"], "--processes: 2, but the seeds are 1 batches of 64; lower --batch"),
        ],
    )
    def test_one_line_and_nothing_written(self, models, tmp_path, monkeypatch, capsys, options, message):
        monkeypatch.chdir(tmp_path)
        gray = np.zeros((8, 8), np.uint8)
        gray[0] = 200
        for name, pixels in (("a", gray), ("black", gray * 0), ("white", gray * 0 + 255), ("6", gray[:6, :6])):
            Image.fromarray(pixels).save(f"{name}.png")
        for name, values in (("a", np.zeros((3, 4))), ("f", np.full((3, 8, 8), 0.5)), ("h", np.full((3, 8, 8), 256))):
            np.save(f"{name}.npy", values)
        (tmp_path / "text.png").write_text("text")
        before = sorted(tmp_path.iterdir())
        words = [models[2] if word == "SMALL" else word for word in options]
        found = error_of(capsys, models[1], *words)
        assert message in found
        assert found.count("\n") == 1
        assert sorted(tmp_path.iterdir()) == before

    def test_models_that_cannot_be_guided_or_guide(self, models, tmp_path, capsys):
        real, pixels, _ = models
        out = ["--seeds", "0-3", "--steps", "2", "--out", tmp_path / "x.npz"]
        never = save(tmp_path / "never", label_dropout=0.0)
        message = error_of(capsys, never, "--guidance", 2, *out)
        assert "--guidance: there is no null condition to guide from: it was trained with labels only" in message
        assert "train with network.label_dropout=0.1; or use --guide MODEL" in message
        assert main(["sample", never, "--guidance", "2", "--guide", real, *map(str, out)]) == 0
        without = save(tmp_path / "without", names=())
        assert "the samples have no condition, such as a class; or use --guide" in error_of(
            capsys, without, "--guidance", 2, *out, "--overwrite"
        )
        for guide, told in (
            (
                save(tmp_path / "wide", shape=(3, 8, 16), attn_resolutions=()),
                "--guide: its samples are 3×8×16; expected 3×8×8",
            ),
            (without, "--guide: has no classes; expected those of the model, 3 classes (ant, bee, cat"),
            (save(tmp_path / "dogs", names=("ant", "dog", "cat")), "--guide: has 3 classes (ant, dog, cat"),
            (pixels, "--guide: has Transform(shift=(127.5,)"),
        ):
            assert told in error_of(capsys, real, "--guidance", 2, "--guide", guide, *out, "--overwrite")

    def test_processes_that_are_not_all_described(self, models, tmp_path, monkeypatch, capsys):
        monkeypatch.setenv("WORLD_SIZE", "2")
        assert "RANK: is not set, but WORLD_SIZE is 2" in error_of(capsys, models[0], "--out", tmp_path / "x.npz")
        monkeypatch.setenv("WORLD_SIZE", "4")
        words = [models[0], "--out", tmp_path / "x.npz", "--batch", 8, "--processes", 2]
        assert "--processes: 2, but 4 were started together" in error_of(capsys, *words)


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.skipif(os.name != "posix", reason="starts processes as POSIX does")
def test_two_processes_write_the_files_of_one(models, tmp_path):
    words = [models[1], "--seeds", "0-44", "--batch", "10", "--steps", "3", "--guidance", "2", "--device", "cpu"]
    assert main(["sample", *words, "--out", str(tmp_path / "one")]) == 0
    assert main(["sample", *words, "--out", str(tmp_path / "two"), "--processes", "2"]) == 0
    assert len(files(tmp_path / "one")) == 47
    assert files(tmp_path / "two") == files(tmp_path / "one")


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_two_processes_that_are_stopped_go_on_to_the_thousand_files_of_one(models, tmp_path, number):
    words = [models[1], "--seeds", "0-999", "--batch", "16", "--steps", "4", "--guidance", "2", "--subdirs"]
    assert main(["sample", *words, "--device", "cpu", "--out", str(tmp_path / "one")]) == 0
    out = tmp_path / "two"
    several = ["sample", *words, "--device", "cpu", "--processes", "2", "--out", str(out)]
    process = subprocess.Popen([sys.executable, "-m", "diffspace", *several], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while len(list(out.glob("*/0*.png"))) < 32:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)  # which lasts until all have ended
    assert "Traceback" not in told
    assert told.count("interrupted") == (number == signal.SIGINT)
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}.get(number, -number)
    assert 32 <= len(list(out.glob("*/0*.png"))) < 1000
    assert main(several) == 0
    assert files(out) == files(tmp_path / "one")


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="limits of POSIX")
def test_a_disk_that_is_full_for_one_of_two_processes_is_told_once(models, tmp_path):
    import resource

    words = [models[1], "--seeds", "0-99", "--batch", "10", "--steps", "3", "--device", "cpu", "--processes", "2"]
    command = [sys.executable, "-m", "diffspace", "sample", *words, "--out", str(tmp_path / "x.npz")]

    def nearly_full():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))  # a batch has 2048 bytes

    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=nearly_full, timeout=120)
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, done.stderr
    assert "000000.npy: File too large" in lines[0]
    assert main(["sample", *words, "--out", str(tmp_path / "x.npz")]) == 0
    assert not list(tmp_path.glob(".*"))
