"""`diffspace data`: prepare data sets in the format of the reference implementation, and check them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Argument, Option

from diffspace.cli.options import Batch, Device, Overwrite, Parts, integer_option

data_app = typer.Typer(
    help="Prepare data sets of images, and check them.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

_Images = Annotated[
    str,
    Argument(
        help="A folder or .zip of images, an .npy/.npz of uint8, cifar-10-python.tar.gz, "
        "train-images-idx3-ubyte.gz, tar shards, an LMDB folder, or hf:owner/name.",
        show_default=False,
    ),
]
_Size = Annotated[str | None, Option(metavar="HxW", help="Height and width of all images.")]
_Crop = Annotated[
    Literal["center", "square", "wide", "pad", "none"] | None,
    Option(help="How images get their size. Default: center."),
]
_Classes = Annotated[Literal["auto", "none"], Option(help="auto: from dataset.json, or sub-folders.")]
_OnError = Annotated[Literal["raise", "skip"], Option(help="What to do with unreadable images.")]
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
    key: Annotated[str | None, Option(help="The array of images in an .npz that holds more.")] = None,
    max_images: Annotated[int | None, integer_option("Take at most this number of images, the first ones.")] = None,
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


def _size(text: str | None) -> int | tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    if match is None:
        raise ValueError(f"--size: expected HEIGHTxWIDTH such as 64x64, or one number for both, got {text!r}")
    return int(match[1]) if match[2] is None else (int(match[1]), int(match[2]))
