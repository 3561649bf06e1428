"""Images of more than 8 bits: kept to the last bit, or refused, wherever they are read and written."""

import io
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import pixels, png, write_zip
from PIL import Image

import diffspace as ds
from diffspace.cli.sample_files import sample_writer
from diffspace.data import ImageFolder, ImageZip, encode_dataset, image_source, load_data, prepare
from diffspace.figures import to_pixels
from diffspace.transform import Transform

SCANS = np.random.default_rng(0).integers(0, 4096, (12, 6, 8)).astype(np.uint16)  # 12 bits in 16, as scanners give


def folder_of(path: Path, images, suffix: str = ".png") -> Path:
    path.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(path / f"{i:02d}{suffix}")
    return path


def png_of_colours(values: np.ndarray) -> bytes:
    """A PNG of (H, W, 3) in 16 bits, which Pillow does not write."""
    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows))]
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in (*chunks, (b"IEND", b"")):
        content += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return content


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jp2"])
@pytest.mark.parametrize("cache_mb", [0, 100])
def test_sixteen_bits_are_kept(tmp_path: Path, suffix: str, cache_mb: int) -> None:
    data = ImageFolder(folder_of(tmp_path / "x", SCANS, suffix), cache_mb=cache_mb).load()
    raw = data.raw()
    assert raw.dtype == torch.int32
    assert torch.equal(raw[:, 0], torch.from_numpy(SCANS.astype(np.int32)))
    x = data.batch().double()
    assert abs(float(x.mean())) < 1e-6
    assert abs(float(x.std(correction=0)) - 0.5) < 1e-6
    assert torch.equal(data.transform.inverse(data.batch()), raw)
    assert (data.transform.lowest, data.transform.highest) == (0, 65535)
    assert data.notes[-1] == "16 bits: each channel is standardised to mean 0 and standard deviation 0.5"
    assert data.split(3)[1].batch().shape == (3, 1, 6, 8)


def test_real_numbers_are_kept(tmp_path: Path) -> None:
    values = np.random.default_rng(1).normal(1e-4, 3e-5, (10, 5, 4)).astype(np.float32)
    folder = folder_of(tmp_path / "x", values, ".tif")
    data = load_data(folder)
    assert torch.equal(data.raw()[:, 0], torch.from_numpy(values))
    assert abs(float(data.batch().double().std(correction=0)) - 0.5) < 1e-5
    assert (data.transform.lowest, data.transform.highest, data.transform.kind) == (None, None, "real")
    Image.fromarray(pixels(1, 5, 4)[0]).save(folder / "z.png")
    with pytest.raises(ValueError, match=r"00\.tif has real numbers, z\.png has not"):
        load_data(folder)
    (folder / "z.png").unlink()
    with pytest.raises(ValueError, match="a PNG holds no real numbers"):
        prepare(image_source(folder), tmp_path / "out")
    with pytest.raises(ValueError, match="bits=8 is for whole numbers"):
        load_data(folder, bits=8)
    values[3, 0, 0] = np.nan
    Image.fromarray(values[3]).save(folder / "03.tif")
    with pytest.raises(ValueError, match="holds values that are not finite"):
        load_data(folder)


def test_a_mean_of_sixteen_bits_is_that_of_all_pixels(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "x", SCANS)
    small = load_data(folder, size=(3, 4), crop="none").raw()
    assert small.shape == (12, 1, 3, 4)
    assert abs(float(small.double().mean()) - SCANS.mean()) < 0.02 * SCANS.mean()
    padded = load_data(folder, size=10, crop="pad").raw()
    assert torch.equal(padded[:, 0, 2:8, 1:9], torch.from_numpy(SCANS.astype(np.int32)))


def test_eight_bits_among_sixteen_are_scaled(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "x", SCANS)
    other = pixels(1, 6, 8)[0]
    Image.fromarray(other).save(folder / "eight.png")
    assert torch.equal(load_data(folder).raw()[-1, 0], torch.from_numpy(other.astype(np.int32) * 257))
    colour = pixels(1, 6, 8, 3)[0]
    Image.fromarray(colour).save(folder / "eight.png")
    raw = load_data(folder).raw()
    assert torch.equal(raw[-1].permute(1, 2, 0), torch.from_numpy(colour.astype(np.int32) * 257))
    assert torch.equal(raw[0], torch.from_numpy(SCANS[0].astype(np.int32)).expand(3, 6, 8))
    assert load_data(folder, channels="RGBA").raw()[:, 3].unique().tolist() == [65535]
    with pytest.raises(ValueError, match="PNGs are written with one channel of them; pass channels='grayscale'"):
        prepare(image_source(folder), tmp_path / "out")


def hostile_to_pillow() -> dict[str, bytes]:
    """Files of colours with more than 8 bits."""
    colours = np.random.default_rng(2).integers(0, 65536, (4, 5, 3)).astype(np.uint16)
    tags = [(256, 4, 1, 5), (257, 4, 1, 4), (258, 3, 3, 134), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 140)]
    tags += [(277, 3, 1, 3), (278, 4, 1, 4), (279, 4, 1, 120), (339, 3, 1, 1)]
    tiff = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 10)
    tiff += b"".join(struct.pack("<HHII", *tag) for tag in tags) + struct.pack("<I", 0)
    tiff += struct.pack("<HHH", 16, 16, 16) + colours.astype("<u2").tobytes()
    return {
        "x.png": png_of_colours(colours),
        "x.ppm": b"P6\n5 4\n65535\n" + colours.astype(">u2").tobytes(),
        "x.tif": tiff,
    }


@pytest.mark.parametrize("name", ["x.png", "x.ppm", "x.tif"])
def test_colours_of_sixteen_bits_are_refused_or_rounded_on_request(tmp_path: Path, name: str) -> None:
    source = write_zip(tmp_path / "in.zip", {name: hostile_to_pillow()[name]})
    for read in (lambda: load_data(source), lambda: prepare(ImageZip(source), tmp_path / "out.zip")):
        with pytest.raises(ValueError, match=r"it has 16 bits in a channel, of which Pillow keeps 8; pass bits=8"):
            read()
    assert load_data(source, bits=8).raw().shape == (1, 3, 4, 5)


def test_a_deep_image_that_the_sample_did_not_show_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffspace.data.stored_images._MANY", 5)
    monkeypatch.setattr("diffspace.data.stored_images._SAMPLE", 1)
    images = {f"{i}.png": png(image) for i, image in enumerate(pixels(20, 6, 8))}
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name, content in images.items():
            archive.writestr(name, content if name != "7.png" else png(SCANS[0]))
    with pytest.raises(ValueError, match=r"7\.png: .* it has 16 bits and the images examined 8 bits; pass bits=8"):
        load_data(tmp_path / "x.zip", cache_mb=0).raw()


@pytest.mark.parametrize("destination", ["out", "out.zip"])
def test_prepare_writes_sixteen_bits(tmp_path: Path, destination: str) -> None:
    folder = folder_of(tmp_path / "x", SCANS[:6])
    for i in range(6, 12):
        Image.fromarray(SCANS[i]).save(folder / f"{i:02d}.tif")
    prepare(image_source(folder), tmp_path / destination)
    assert torch.equal(load_data(tmp_path / destination).raw(), load_data(folder).raw())
    if destination == "out":  # a PNG that needs no change keeps its bytes
        assert (tmp_path / "out/00000/img00000000.png").read_bytes() == (folder / "00.png").read_bytes()
    prepare(image_source(folder, bits=8), tmp_path / "eight.zip")
    assert load_data(tmp_path / "eight.zip").raw().dtype == torch.uint8


def test_samples_are_written_with_sixteen_bits(tmp_path: Path) -> None:
    data = load_data(folder_of(tmp_path / "x", SCANS))

    def model(transform: Transform, shape: tuple[int, ...]) -> ds.Model:
        network = ds.networks.MLP(shape, width=4, depth=1)
        return ds.Model(ds.Preconditioned(network, ds.EDMPreconditioning(0.5)), transform)

    with sample_writer(tmp_path / "out", model(data.transform, data.sample_shape), range(12)) as writer:
        writer.add(0, data.transform.inverse(data.batch()))
    assert torch.equal(load_data(tmp_path / "out").raw(), data.raw())
    for transform, shape in ((data.transform, (3, 6, 8)), (Transform(), (1, 6, 8))):
        with pytest.raises(ValueError, match=r"--out: PNGs would lose bits of samples of \w+; write them to an \.npz"):
            sample_writer(tmp_path / "colours", model(transform, shape), range(12))
    picture = to_pixels(data.raw(), data.transform)
    assert (picture.min(), picture.max()) == (0, 255)  # for the eye


def test_an_encoder_gets_sixteen_bits_in_its_range(tmp_path: Path) -> None:
    class Mean:
        def encode(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3), keepdim=True)

        def decode(self, x: torch.Tensor) -> torch.Tensor:
            return x

    source = ImageFolder(folder_of(tmp_path / "x", SCANS))
    encode_dataset(source, Mean(), tmp_path / "latents", name="mean", precision="float32")
    expected = torch.from_numpy(SCANS.astype(np.float64)).mean((1, 2)) / 32767.5 - 1
    assert torch.allclose(load_data(tmp_path / "latents").raw().flatten().double(), expected, atol=1e-6)


def test_depths_of_jpeg_2000_and_avif_are_seen() -> None:
    from diffspace.data.images import _stored_bits

    file = io.BytesIO()
    Image.fromarray(pixels(1, 16, 16, 3)[0]).save(file, "JPEG2000")
    image = Image.open(file)
    assert _stored_bits(file, image) == 8
    content = bytearray(file.getvalue())
    content[content.index(b"\xff\x4f\xff\x51") + 42] = 11  # 12 bits in the first channel
    assert _stored_bits(io.BytesIO(content), image) == 12
    file = io.BytesIO()
    Image.fromarray(pixels(1, 16, 16, 3)[0]).save(file, "AVIF")
    image = Image.open(file)
    assert _stored_bits(file, image) == 8
    content = bytearray(file.getvalue())
    content[content.index(b"av1C") + 6] |= 64
    assert _stored_bits(io.BytesIO(content), image) == 10
