"""One image at a time: modes, orientation, resampling."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffspace.data import ImageFolder
from diffspace.data.images import image_suffixes


def load(folder: Path, **options: object) -> torch.Tensor:
    """The only image of a folder, (C, H, W)."""
    data = ImageFolder(folder, **options).load()
    assert len(data) == 1
    return data.raw()[0]


def pixels(image: torch.Tensor) -> list:
    """(C, H, W) as rows of pixels of channels."""
    return image.permute(1, 2, 0).tolist()


RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".pgm", ".gif", ".webp", ".tga", ".PNG", ".TiFF"])
def test_gray_files_stay_gray(tmp_path: Path, suffix: str) -> None:
    options = {"lossless": True} if suffix == ".webp" else {}
    Image.fromarray(RAMP).save(tmp_path / f"x{suffix}", **options)
    image = load(tmp_path)
    if suffix == ".webp":  # the format has no gray
        assert image.shape == (3, 16, 16)
    else:
        assert image.shape == (1, 16, 16)
    assert torch.equal(image[0], torch.from_numpy(RAMP))


def test_one_bit(tmp_path: Path) -> None:
    Image.fromarray(RAMP > 100).save(tmp_path / "x.png")
    assert torch.equal(load(tmp_path)[0], torch.from_numpy((RAMP > 100) * np.uint8(255)))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_sixteen_bits_are_rounded_to_eight_if_asked_for(tmp_path: Path, suffix: str) -> None:
    values = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    values[-1, -1] = 65535
    Image.fromarray(values).save(tmp_path / f"x{suffix}")
    expected = np.round(values / 257).astype(np.uint8)
    assert torch.equal(load(tmp_path, bits=8)[0], torch.from_numpy(expected))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([[0, 70_000]], dtype=np.int32), r"32-bit pixels in \[0, 70000\] have no known range"),
        (np.array([[-1, 5]], dtype=np.int32), r"32-bit pixels in \[-1, 5\]"),
    ],
)
def test_pixels_without_a_known_range_are_refused(tmp_path: Path, values: np.ndarray, message: str) -> None:
    Image.fromarray(values).save(tmp_path / "x.tif")
    with pytest.raises(ValueError, match=rf"x\.tif: cannot be read as an image: {message}"):
        ImageFolder(tmp_path).load()


def test_one_colour_among_gray_makes_all_colour(tmp_path: Path) -> None:
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    Image.new("RGB", (16, 16), (1, 2, 3)).save(tmp_path / "b.png")
    data = ImageFolder(tmp_path).load()
    assert data.sample_shape == (3, 16, 16)
    assert torch.equal(data.raw()[0], torch.from_numpy(RAMP).expand(3, 16, 16))
    gray = ImageFolder(tmp_path, channels="grayscale").load()
    assert gray.sample_shape == (1, 16, 16)
    assert gray.raw()[1].unique().tolist() == [2]  # 0.299·1 + 0.587·2 + 0.114·3


def test_a_palette_is_colour_unless_it_is_gray(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "x.png")
    assert pixels(load(tmp_path)) == [[[10, 20, 30], [40, 50, 60]]]
    image.putpalette([10, 10, 10, 40, 40, 40])
    image.save(tmp_path / "x.png")
    assert pixels(load(tmp_path)) == [[[10], [40]]]


def test_a_transparent_palette_entry_is_laid_on_white(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "x.png", transparency=1)
    assert pixels(load(tmp_path)) == [[[10, 20, 30], [255, 255, 255]]]
    assert pixels(load(tmp_path, channels="RGBA")) == [[[10, 20, 30, 255], [40, 50, 60, 0]]]


def test_alpha_is_laid_on_white_or_kept(tmp_path: Path) -> None:
    image = Image.new("RGBA", (3, 1), (100, 0, 200, 255))
    image.putpixel((1, 0), (100, 0, 200, 51))  # a fifth
    image.putpixel((2, 0), (100, 0, 200, 0))
    image.save(tmp_path / "x.png")
    assert pixels(load(tmp_path)) == [[[100, 0, 200], [224, 204, 244], [255, 255, 255]]]
    assert pixels(load(tmp_path, channels="RGBA"))[0][1] == [100, 0, 200, 51]


def test_gray_with_alpha(tmp_path: Path) -> None:
    image = Image.new("LA", (2, 1), (100, 255))
    image.putpixel((1, 0), (100, 51))
    image.save(tmp_path / "x.png")
    assert pixels(load(tmp_path)) == [[[100], [224]]]
    assert pixels(load(tmp_path, channels="RGBA")) == [[[100, 100, 100, 255], [100, 100, 100, 51]]]


def test_transparency_that_is_lost_is_told(tmp_path: Path) -> None:
    for name, colour in (("x", (1, 2, 3, 0)), ("y", (1, 2, 3, 255))):
        Image.new("RGBA", (1, 1), colour).save(tmp_path / f"{name}.png")
    Image.new("RGB", (1, 1)).save(tmp_path / "z.png")
    note = "images with transparency, laid on white: 2; channels=RGBA keeps it"
    assert ImageFolder(tmp_path).load().notes == (note,)
    assert ImageFolder(tmp_path, channels="RGBA").load().notes == ()


def test_opaque_images_in_rgba(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), (1, 2, 3)).save(tmp_path / "x.png")
    assert pixels(load(tmp_path, channels="RGBA")) == [[[1, 2, 3, 255]]]


def test_cmyk(tmp_path: Path) -> None:
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # red
    image.save(tmp_path / "x.jpg", quality=100, subsampling=0)
    assert (load(tmp_path).float().mean((1, 2)) - torch.tensor([255.0, 0, 0])).abs().max() < 4


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    for name in ("x.gif", "x.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        assert pixels(load(tmp_path))[0][0] == [255, 0, 0]
        assert ImageFolder(tmp_path).load().notes == (
            "images of several pages or frames, of which the first is read: 1",
        )
        (tmp_path / name).unlink()


# EXIF 2.3, tag 274, says which side of the picture the first row and the first column of what is stored are.
# From that: whether rows are stored as columns, and whether rows and columns then run backward.
ORIENTATIONS = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_images_are_turned_upright(tmp_path: Path, orientation: int, suffix: str) -> None:
    upright = np.zeros((8, 16, 3), dtype=np.uint8)
    upright[:4, :8] = 255  # the top left
    swapped, rows_backward, columns_backward = ORIENTATIONS[orientation]
    stored = upright.swapaxes(0, 1) if swapped else upright
    stored = stored[:: -1 if rows_backward else 1, :: -1 if columns_backward else 1]
    exif = Image.Exif()
    exif[274] = orientation
    options = {".png": {}, ".jpg": {"quality": 100, "subsampling": 0}, ".webp": {"lossless": True}}[suffix]
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / f"x{suffix}", exif=exif, **options)
    image = load(tmp_path)
    assert image.shape == (3, 8, 16)
    assert (image.permute(1, 2, 0).int() - torch.from_numpy(upright).int()).abs().max() < 4


def test_the_size_is_compared_upright(tmp_path: Path) -> None:
    Image.new("L", (6, 4)).save(tmp_path / "a.png")
    exif = Image.Exif()
    exif[274] = 6
    Image.new("L", (4, 6)).save(tmp_path / "b.png", exif=exif)
    assert ImageFolder(tmp_path).load().sample_shape == (1, 4, 6)


def test_the_size_that_it_has_leaves_an_image_alone(tmp_path: Path) -> None:
    Image.fromarray(RAMP).save(tmp_path / "x.png")
    for crop in (None, "center", "none"):
        assert torch.equal(load(tmp_path, size=16, crop=crop)[0], torch.from_numpy(RAMP))


def test_center_crop_keeps_the_middle(tmp_path: Path) -> None:
    wide = np.zeros((4, 8), dtype=np.uint8)
    wide[:, 2:6] = 200
    Image.fromarray(wide).save(tmp_path / "x.png")
    assert load(tmp_path, size=4).unique().tolist() == [200]
    Image.fromarray(wide.T).save(tmp_path / "x.png")
    assert load(tmp_path, size=4).unique().tolist() == [200]


def test_crop_none_keeps_the_whole(tmp_path: Path) -> None:
    wide = np.zeros((4, 8), dtype=np.uint8)
    wide[:, 4:] = 200
    Image.fromarray(wide).save(tmp_path / "x.png")
    image = load(tmp_path, size=(4, 2), crop="none")[0].float()
    assert (image[:, 0] < 20).all()
    assert (image[:, 1] > 180).all()


def test_an_odd_crop_is_centred_to_half_a_pixel(tmp_path: Path) -> None:
    ramp = np.tile(np.arange(0, 210, 30, dtype=np.uint8), (4, 1))  # 7 wide, 30 a pixel
    Image.fromarray(ramp).save(tmp_path / "x.png")
    image = load(tmp_path, size=4)[0, 0].double()
    assert abs(image.mean().item() - ramp[0].mean()) <= 1  # the middle of a ramp is its mean


@pytest.mark.parametrize("factor", [2, 5, 12])
def test_a_smaller_size_is_antialiased(tmp_path: Path, factor: int) -> None:
    fine = (np.indices((16 * factor, 16 * factor)).sum(0) % 2 * 255).astype(np.uint8)  # a board of single pixels
    Image.fromarray(fine).save(tmp_path / "x.png")
    image = load(tmp_path, size=16)[0].double()
    assert (image[2:-2, 2:-2] - 127.5).abs().max() < 4


def test_a_big_jpeg_keeps_its_content_when_it_is_decoded_smaller(tmp_path: Path) -> None:
    y, x = np.mgrid[:1024, :1536] / 1024
    smooth = np.stack([x / 1.5, y, (x + y) / 2.5], -1)
    Image.fromarray((smooth * 255).round().astype(np.uint8)).save(tmp_path / "x.jpg", quality=95)
    image = load(tmp_path, size=32).double() / 255
    v, u = np.mgrid[:32, :32]
    expected_x, expected_y = (256 + (u + 0.5) * 32) / 1024, (v + 0.5) * 32 / 1024
    expected = torch.from_numpy(np.stack([expected_x / 1.5, expected_y, (expected_x + expected_y) / 2.5]))
    assert (image - expected)[:, 1:-1, 1:-1].abs().max() < 0.01


def test_one_pixel(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), (1, 2, 3)).save(tmp_path / "x.png")
    assert pixels(load(tmp_path)) == [[[1, 2, 3]]]
    assert pixels(load(tmp_path, size=(3, 2)))[2][1] == [1, 2, 3]


def _png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("side", "message"), [(10_000, "10000×10000 pixels exceed"), (50_000, "exceeds limit")])
def test_a_decompression_bomb_is_named(tmp_path: Path, side: int, message: str) -> None:
    (tmp_path / "bomb.png").write_bytes(_png_header(side, side))
    with pytest.raises(ValueError, match=rf"bomb\.png: cannot be read as an image: .*{message}"):
        ImageFolder(tmp_path).load()


def test_damage_inside_is_named(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(file, "PNG")
    damaged = bytearray(file.getvalue())
    damaged[len(damaged) // 2] ^= 0xFF
    (tmp_path / "x.png").write_bytes(bytes(damaged))
    with pytest.raises(ValueError, match=r"x\.png: cannot be read as an image"):
        ImageFolder(tmp_path).load()


def test_the_name_need_not_tell_the_format(tmp_path: Path) -> None:
    Image.fromarray(RAMP).save(tmp_path / "x.jpg", "PNG")
    assert torch.equal(load(tmp_path)[0], torch.from_numpy(RAMP))


def test_postscript_is_not_run(tmp_path: Path) -> None:
    assert not image_suffixes() & {".eps", ".ps", ".pdf", ".h5", ".mpg", ".txt", ""}
    assert image_suffixes() >= {".png", ".jpg", ".jpeg", ".gif", ".webp", ".tif", ".bmp", ".avif"}
    Image.new("RGB", (4, 4)).save(tmp_path / "x.eps")
    (tmp_path / "x.eps").rename(tmp_path / "x.png")
    with pytest.raises(ValueError, match=r"x\.png: cannot be read as an image: cannot identify"):
        ImageFolder(tmp_path).load()


def random_image(tmp_path: Path, height: int, width: int) -> np.ndarray:
    image = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "x.png")
    return image


@pytest.mark.parametrize(("height", "width"), [(9, 14), (14, 9), (10, 13), (8, 8), (300, 201)])
def test_square_is_the_middle_at_whole_pixels(tmp_path: Path, height: int, width: int) -> None:
    image = random_image(tmp_path, height, width)
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    middle = Image.fromarray(image[top : top + side, left : left + side].copy())
    for size in ((8, 8), (4, 6)):
        expected = np.asarray(middle.resize(size[::-1], Image.Resampling.LANCZOS))
        assert pixels(load(tmp_path, size=size, crop="square")) == expected.tolist()


@pytest.mark.parametrize(("height", "width"), [(30, 41), (24, 32), (64, 48)])
def test_wide_is_a_strip_in_a_black_square(tmp_path: Path, height: int, width: int) -> None:
    image = random_image(tmp_path, height, width)
    rows = round(16 * height / width)  # of the source, as the reference counts them
    top = (height - rows) // 2
    strip = Image.fromarray(image[top : top + rows].copy()).resize((16, 12), Image.Resampling.LANCZOS)
    expected = np.zeros((16, 16, 3), dtype=np.uint8)
    expected[2:14] = strip
    assert pixels(load(tmp_path, size=(12, 16), crop="wide")) == expected.tolist()


def test_wide_leaves_out_what_is_smaller(tmp_path: Path) -> None:
    random_image(tmp_path, 30, 15)
    with pytest.raises(ValueError, match=r"x\.png: .*30×15 pixels are too few for 12×16 cut 'wide'"):
        load(tmp_path, size=(12, 16), crop="wide")
    with pytest.raises(ValueError, match=r"size: crop='wide' expects a width no less than the height, got \(16, 12\)"):
        ImageFolder(tmp_path, size=(16, 12), crop="wide")


def test_pad_puts_the_whole_on_black(tmp_path: Path) -> None:
    image = random_image(tmp_path, 5, 8)
    expected = np.zeros((10, 9, 3), dtype=np.uint8)
    expected[2:7, 0:8] = image
    assert pixels(load(tmp_path, size=(10, 9), crop="pad")) == expected.tolist()
    smaller = load(tmp_path, size=4, crop="pad")  # 5×8 is scaled to 2×4
    assert not smaller[:, [0, 3]].any()
    assert (smaller[:, 1:3] > 0).float().mean() > 0.9


def test_pad_is_transparent_where_there_is_alpha(tmp_path: Path) -> None:
    Image.new("RGBA", (1, 1), (1, 2, 3, 255)).save(tmp_path / "x.png")
    assert pixels(load(tmp_path, size=(1, 3), crop="pad", channels="RGBA")) == [[[0] * 4, [1, 2, 3, 255], [0] * 4]]
