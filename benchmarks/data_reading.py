"""Images a second from a ZIP archive of small PNGs: diffspace against a plain loop, and against rows in memory; and
what `batches` gives a trainer, of PNGs and of JPEGs that are scaled down, by the number of threads that decode.

    python benchmarks/data_reading.py

All read the same random batches in this process, in turns, and must agree. The plain loop opens one member after
the other with zipfile and Pillow, as the reference's loader does. Ratios are taken within a round. The figure to set
beside those of `batches` is the trainer's own images a second, which it prints.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diffspace.data import ImageZip, InMemory, batches, prepare
from diffspace.data.formats import ArrayImages


def plain_loop(path: Path) -> Callable[[Tensor], Tensor]:
    archive = zipfile.ZipFile(path)
    names = sorted(name for name in archive.namelist() if name.endswith(".png"))

    def read(indices: Tensor) -> Tensor:
        images = []
        for i in indices.tolist():
            with archive.open(names[i]) as file:
                images.append(np.array(Image.open(io.BytesIO(file.read()))).transpose(2, 0, 1))
        return torch.from_numpy(np.stack(images))

    return read


def images_per_second(read: Callable[[Tensor], Tensor], batches: list[Tensor]) -> float:
    start = time.perf_counter()
    for indices in batches:
        read(indices)
    return sum(map(len, batches)) / (time.perf_counter() - start)


def loader(options: argparse.Namespace, folder: Path) -> None:
    """Print what `batches` gives, the best of a few rounds: wall time, and the time of the processors."""
    print(f"\n{'loader':>24} {'workers':>8} {'images/s':>10} {'images/s of a core':>20}")
    for kind, side, size, count in (("PNG", 32, 32, 4000), ("JPEG", 256, 64, 800)):
        path = folder / f"{kind}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for i, image in enumerate(pictures(100, side)):
                file = io.BytesIO()
                Image.fromarray(image).save(file, kind)
                for copy in range(count // 100):
                    archive.writestr(f"{i}-{copy}.{kind.lower()}", file.getvalue())
        for workers in options.workers:
            data = ImageZip(path, size=size, cache_mb=0, workers=workers or None).load()
            rates = []
            for seed in range(3):
                stream = batches(data, 200, seed, prefetch=2)
                next(stream)  # while the reader runs ahead
                start, used = time.perf_counter(), time.process_time()
                for _ in range(count // 200):
                    next(stream)
                rates.append((count / (time.perf_counter() - start), count / (time.process_time() - used)))
                stream.close()  # type: ignore[attr-defined]
            wall, own = (max(rate[i] for rate in rates) for i in (0, 1))
            print(f"{f'{kind} {side}² to {size}²':>24} {workers or 'auto':>8} {wall:>10.0f} {own:>20.0f}")


def pictures(count: int, side: int) -> np.ndarray:
    """Smooth pictures with some noise, so that a decoder has something to do."""
    coarse = torch.randn(count, 3, 4, 4) * 40 + 128
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear")
    return (smooth + 8 * torch.randn_like(smooth)).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=32, help="height and width of the images (default 32)")
    parser.add_argument("--images", type=int, default=5000, help="images in the archive (default 5000)")
    parser.add_argument("--batch-size", type=int, default=256, help="images in a batch (default 256)")
    parser.add_argument("--rounds", type=int, default=15, help="rounds (default 15)")
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 0], help="threads; 0 is auto (default 1 2 0)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        array, path = Path(folder, "images.npy"), Path(folder, "images.zip")
        torch.manual_seed(0)
        np.save(array, pictures(options.images, options.side))
        prepare(ArrayImages(array), path)
        on_demand, in_memory = (ImageZip(path, cache_mb=mb).load().rows for mb in (0, 10_000))
        assert isinstance(in_memory, InMemory)
        readers = {
            "zipfile + Pillow": plain_loop(path),
            "diffspace, ZIP": on_demand.read,
            "diffspace, memory": in_memory.read,
        }
        some = [torch.from_numpy(rng.integers(0, options.images, options.batch_size)) for _ in range(4)]
        first, *others = (read(some[0]) for read in readers.values())
        assert all(torch.equal(first, other) for other in others)
        rates = [{name: images_per_second(read, some) for name, read in readers.items()} for _ in range(options.rounds)]
    print(f"{options.images} PNGs of 3×{options.side}×{options.side}, random batches of {options.batch_size}")
    print(f"{'':>18} {'images/s':>10} {'ratio':>8}   its quartiles")
    for name in readers:
        ratios = [rate[name] / rate["zipfile + Pillow"] for rate in rates]
        low, middle, high = statistics.quantiles(ratios, n=4)
        median = statistics.median(rate[name] for rate in rates)
        print(f"{name:>18} {median:>10.0f} {middle:>8.2f}   {low:.2f} to {high:.2f}")
    with tempfile.TemporaryDirectory() as folder:
        loader(options, Path(folder))


if __name__ == "__main__":
    main()
