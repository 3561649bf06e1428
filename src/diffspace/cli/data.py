"""`diffspace data`: prepare data sets in the format of the reference implementation, and check them."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from typer import Argument, Option

from diffspace.cli.options import Batch, Context, Device, Overwrite, Parts, check_effect, integer_option

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

data_app = typer.Typer(
    help="Prepare data sets of images, and check them.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

_IMAGES = (
    "A folder or .zip of images, an .npy/.npz of uint8, cifar-10-python.tar.gz, train-images-idx3-ubyte.gz, "
    "tar shards, an LMDB folder, or hf:owner/name."
)
_Images = Annotated[str, Argument(help=_IMAGES, show_default=False)]
_Size = Annotated[str | None, Option(metavar="HxW", help="Height and width of all images.")]
_Crop = Annotated[
    Literal["center", "square", "wide", "pad", "none"] | None,
    Option(help="How images get their size. Default: center."),
]
_Classes = Annotated[Literal["auto", "none"], Option(help="auto: from dataset.json, or sub-folders.")]
_OnError = Annotated[Literal["raise", "skip"], Option(help="What to do with unreadable images.")]
_Key = Annotated[str | None, Option(help="The array of images in an .npz that holds more.")]
_MaxImages = Annotated[int | None, integer_option("Take at most this number of images, the first ones.")]
_Bits = Annotated[int | None, integer_option("8 rounds images of more bits to 8. Default: they keep them.", "--bits")]


@data_app.command("prepare")
def prepare_command(
    source: _Images,
    destination: Annotated[Path, Argument(metavar="DEST", help="A .zip archive, or a folder.", show_default=False)],
    size: _Size = None,
    crop: _Crop = None,
    channels: Annotated[
        Literal["auto", "grayscale", "RGB", "RGBA"], Option(help="auto: grayscale if every image is.")
    ] = "auto",
    classes: _Classes = "auto",
    on_error: _OnError = "raise",
    bits: _Bits = None,
    key: _Key = None,
    max_images: _MaxImages = None,
    overwrite: Overwrite = False,
) -> None:
    """Write images as uncompressed PNGs of one size with their labels, as a .zip or a folder.

    Interrupted, it leaves DEST.partial, and the same command continues from there.
    """
    from diffspace.cli.console import Stages, err, out, progress_bar
    from diffspace.data import image_source, prepare

    given = {"size": _size(size), "crop": crop, "channels": channels, "classes": classes, "on_error": on_error}
    images = image_source(source, **given, bits=bits, key=key)
    with progress_bar("images") as bar:
        done = prepare(images, destination, max_images=max_images, overwrite=overwrite, track=Stages(bar))
    for note in done.notes:
        err.print(f"note: {note}")
    if names := done.left_out:
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        err.print(f"note: unreadable images left out: {len(names)}: {', '.join(names[:10])}{more}")
    labels = "with labels" if done.labelled else "without labels"
    shape = "×".join(map(str, done.shape))
    out.print(f"{done.path}: {done.images} images of {shape} {labels}; sha256 {done.sha256}")


@data_app.command("encode")
def encode_command(
    source: _Images,
    destination: Annotated[Path, Argument(metavar="DEST", help="A folder.", show_default=False)],
    encoder: Annotated[
        str, Option(help="An AutoencoderKL of diffusers: a folder or hf:owner/name; with :vae in its sub-folder.")
    ],
    size: _Size = None,
    crop: _Crop = None,
    classes: _Classes = "auto",
    on_error: _OnError = "raise",
    bits: _Bits = None,
    batch: Batch = 32,
    precision: Annotated[Literal["float16", "float32"], Option(help="How latents are stored.")] = "float16",
    mirror: Annotated[bool, Option("--mirror", help="The latents of mirror images as well.")] = False,
    device: Device = None,
    part: Parts = None,
    overwrite: Overwrite = False,
) -> None:
    """Write the latents of images, with their labels and the statistics of each channel, for training on them.

    Interrupted, it leaves DEST.partial, and the same command continues from there.
    """
    from diffspace.cli.console import Stages, err, out, progress_bar
    from diffspace.data import encode_dataset, image_source
    from diffspace.interop.diffusers import Autoencoder
    from diffspace.train import choose_device

    images = image_source(
        source, size=_size(size), crop=crop, channels="RGB", classes=classes, on_error=on_error, bits=bits
    )
    autoencoder = Autoencoder.load(encoder).to(choose_device(device))
    with progress_bar("images") as bar:
        stage = Stages(bar, "encoding")
        done = encode_dataset(
            images,
            autoencoder,
            destination,
            name=encoder,
            batch_size=batch,
            precision=precision,
            mirror=mirror,
            overwrite=overwrite,
            track=stage.show,
        )
    for note in done.notes:
        err.print(f"note: {note}")
    shape, moments = "×".join(map(str, done.shape)), done.moments
    mean, std = (" ".join(f"{v:.3g}" for v in values.tolist()) for values in (moments.mean, moments.var.sqrt()))
    out.print(f"{done.path}: latents of {shape} of {done.images} images; sha256 {done.sha256}")
    out.print(f"mean of each channel {mean}; standard deviation {std}")


@data_app.command("verify")
def verify_command(
    path: Annotated[Path, Argument(metavar="DEST", help="What `prepare` wrote.", show_default=False)],
) -> None:
    """Read every file and compare its hash with the manifest; the exit code is 1 if any differs."""
    from diffspace.cli.console import Stages, err, out, progress_bar
    from diffspace.data import verify

    with progress_bar("files") as bar:
        problems = verify(path, Stages(bar, "reading").show)
    for problem in problems:
        err.print(f"diffspace: {problem}")
    if problems:
        raise typer.Exit(1)
    out.print(f"{path}: every file matches the manifest")


@data_app.command("statistics")
def statistics_command(
    ctx: Context,
    source: Annotated[
        str, Argument(metavar="DATA", help=f"{_IMAGES} Or the name of images: digits, …", show_default=False)
    ],
    destination: Annotated[Path, Argument(metavar="OUT.npz", help="The file to write.", show_default=False)],
    features: Annotated[
        str, Option(help="inception, dinov2, efficientnet, a TorchScript file, or module:Class.")
    ] = "inception",
    weights: Annotated[
        str | None, Option(help="The file of published weights, or download. Default: those in the cache.")
    ] = None,
    size: _Size = None,
    crop: _Crop = None,
    on_error: _OnError = "raise",
    key: _Key = None,
    max_images: _MaxImages = None,
    batch: Batch = 32,
    device: Device = None,
    overwrite: Overwrite = False,
) -> None:
    """Write mean and covariance of the features of images, for Fréchet distances to them, as the reference's fid.py.

    Images are read a batch at a time, and are not kept.
    """
    import torch

    from diffspace.cli.console import Stages, duration, out, progress_bar
    from diffspace.data import image_source, load_data
    from diffspace.data.partial_work import check_destination
    from diffspace.metrics import FeatureStatistics, make_extractor, save_statistics
    from diffspace.parts import kinds
    from diffspace.train import choose_device

    if destination.suffix != ".npz":
        raise ValueError(f"OUT.npz: expected a name that ends in .npz, got {destination}")
    check_destination(destination, Path(source).expanduser(), overwrite)
    if features in ("classifier", "pca"):
        raise ValueError(f"--features: {features} is made from data and is another one each time; name a network")
    place, begin = choose_device(device), time.monotonic()
    options = {"size": _size(size), "crop": crop, "on_error": on_error, "key": key, "classes": "none"}
    named = source in kinds("source")
    if named:
        check_effect(ctx, f"on {source}, which has no such option", "size", "crop", "on_error", "key")
    data = load_data(source) if named else image_source(source, **options, cache_mb=0).load()
    total = min(len(data), max_images or len(data))
    numbers = torch.arange(total, dtype=torch.int64, device="cpu")
    extractor = make_extractor(
        features, transform=data.transform, train=data.batch(numbers[:2]), weights=weights, device=place
    )
    with progress_bar("images") as bar:
        stage = Stages(bar, extractor.name)

        def blocks() -> Iterator[torch.Tensor]:
            for part in torch.split(numbers, batch):
                yield extractor(data.batch(part))
                stage.show(int(part[-1]) + 1, total)

        statistics = FeatureStatistics.of_blocks(blocks(), extractor.name)
    save_statistics(destination, statistics)
    shape = "×".join(map(str, data.sample_shape))
    took = duration(time.monotonic() - begin)
    out.print(f"{destination}: {extractor.dim} features of {total} images of {shape}, {extractor.name}; {took}")


def _size(text: str | None) -> int | tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    if match is None:
        raise ValueError(f"--size: expected HEIGHTxWIDTH such as 64x64, or one number for both, got {text!r}")
    return int(match[1]) if match[2] is None else (int(match[1]), int(match[2]))
