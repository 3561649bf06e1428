"""Speed and memory of the U-Nets against the same network written plainly.

The plain network is what the paper's implementation computes, as it computes it: contiguous float32 tensors, einsum
attention, resampling by grouped convolutions, no compiler. It uses the same weights. All variants take turns in one
process, round after round; ratios are plain ÷ variant, the median over the rounds. The error is that of F, relative to
the plain network's.

    python benchmarks/network_speed.py                    # inference and training, CIFAR-10 DDPM++, batch of 8
    python benchmarks/network_speed.py --memory           # peak memory, each variant in a process of its own
    python benchmarks/network_speed.py --device cuda --batch 64 --flops 42.4 --peak 989
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffspace.networks import PAPER_NETWORKS, paper_network, use_winograd
from diffspace.networks.blocks import UNetBlock
from diffspace.networks.layers import Conv, Resample
from diffspace.networks.unet import UNet


def plain_resample(x: Tensor, layer: Resample, padding: int) -> Tensor:
    channels = x.shape[1]
    weight = layer.resample_filter.tile(channels, 1, 1, 1)
    if layer.resample == "down":
        return F.conv2d(x, weight, stride=2, padding=padding, groups=channels)
    return F.conv_transpose2d(x, 4 * weight, stride=2, padding=padding, groups=channels)


def plain_conv(x: Tensor, layer: nn.Module) -> Tensor:
    """The layer by separate operations: resampling, convolution, bias."""
    if isinstance(layer, nn.Identity):
        return x
    filter_padding = (layer.taps - 1) // 2
    if not isinstance(layer, Conv):
        return plain_resample(x, layer, filter_padding)
    if layer.fused:
        x = F.conv2d(x, layer.weight, padding=layer.kernel // 2 + filter_padding)
        return plain_resample(x, layer, 0) + layer.bias[:, None, None]
    if layer.resample is not None:
        x = plain_resample(x, layer, filter_padding)
    return F.conv2d(x, layer.weight, padding=layer.kernel // 2) + layer.bias[:, None, None]


def plain_block(block: UNetBlock, x: Tensor, emb: Tensor) -> Tensor:
    h = plain_conv(F.silu(block.norm0(x)), block.conv0)
    told = block.affine(emb)[:, :, None, None]
    if block.style.adaptive_scale:
        scale, shift = told.chunk(2, dim=1)
        h = F.silu(torch.addcmul(shift, block.norm1(h), scale + 1))
    else:
        h = F.silu(block.norm1(h + told))
    h = plain_conv(F.dropout(h, block.dropout, block.training), block.conv1)
    x = (h + plain_conv(x, block.skip)) * block.style.skip_scale
    if block.heads:
        batch, channels = x.shape[:2]
        qkv = plain_conv(block.norm2(x), block.qkv)
        q, k, v = qkv.reshape(batch * block.heads, channels // block.heads, 3, -1).unbind(2)
        weights = torch.einsum("ncq,nck->nqk", q, k / k.shape[1] ** 0.5).softmax(2)
        mixed = torch.einsum("nqk,nck->ncq", weights, v).reshape(x.shape)
        x = (x + plain_conv(mixed, block.proj)) * block.style.skip_scale
    return x


class Plain(nn.Module):
    """A U-Net of diffspace, computed plainly."""

    def __init__(self, network: UNet) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.contiguous_format)

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        network = self.network
        emb = network.embed(len(x), c_noise, {})
        skips: list[Tensor] = []
        residual = x
        for name, layer in network.enc.items():
            if name.endswith("_aux_residual"):
                x = residual = skips[-1] = (x + plain_conv(residual, layer)) / 2**0.5
                continue
            x = plain_block(layer, x, emb) if isinstance(layer, UNetBlock) else plain_conv(x, layer)
            skips.append(x)
        for name, layer in network.dec.items():
            if "_block" in name:
                x = torch.cat([x, skips.pop()], dim=1)
            if isinstance(layer, UNetBlock):
                x = plain_block(layer, x, emb)
            else:
                x = F.silu(layer(x)) if name.endswith("_aux_norm") else plain_conv(x, layer)
        if network.style.separate_output:
            x = plain_conv(F.silu(network.out_norm(x)), network.out_conv)
        return x


class Case:
    """One way to compute the network, for inference or for a training step."""

    def __init__(self, name: str, device: str, batch: int, variant: str, train: bool) -> None:
        torch.manual_seed(0)
        with torch.device(device):
            network = paper_network(name, augment_dim=0, label_dim=0, dropout=0.0)
            for p in network.parameters():  # some begin at zero, and would hide errors
                nn.init.normal_(p, std=p[0].numel() ** -0.5) if p.ndim > 1 else nn.init.normal_(p, 1.0, 0.1)
        network.train(train)
        c, *sides = network.config["shape"]
        generator = torch.Generator().manual_seed(1)
        self.x = torch.randn(batch, c, *sides, generator=generator).to(device)
        self.c_noise = torch.linspace(-1.5, 1.0, batch, device=device)
        self.device, self.training, self.variant = device, train, variant
        self.module: Callable[..., Tensor] = Plain(network) if variant.startswith("plain") else network
        self.parameters = list(network.parameters())
        self.dtype = torch.bfloat16 if "bf16" in variant else None
        if "pure bf16" in variant:
            network.to(torch.bfloat16)
            self.x, self.dtype = self.x.to(torch.bfloat16), None
        if "Winograd" in variant:
            use_winograd(network)
        if "compiled" in variant:
            self.module = torch.compile(network, fullgraph=True)

    @contextlib.contextmanager
    def _context(self) -> Iterator[None]:
        autocast = torch.autocast(self.device, self.dtype) if self.dtype else contextlib.nullcontext()
        tf32 = "TF32" in self.variant
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        with autocast, torch.set_grad_enabled(self.training):
            yield

    def __call__(self) -> Tensor:
        """The output, or after a training step the gradients, in one vector."""
        with self._context():
            output = self.module(self.x, self.c_noise)
        if not self.training:
            return output.float().flatten()
        output.float().square().mean().backward()
        grads = torch.cat([p.grad.float().flatten() for p in self.parameters])
        for p in self.parameters:
            p.grad = None
        return grads

    def seconds(self) -> float:
        self._wait()
        begin = time.perf_counter()
        self()
        self._wait()
        return time.perf_counter() - begin

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def variants(device: str, train: bool) -> list[str]:
    if train:
        names = ["plain float32", "diffspace float32", "diffspace bf16 autocast"]
    else:
        names = ["plain float32", "diffspace float32", "diffspace float32, compiled", "diffspace bf16 autocast"]
        names += ["diffspace pure bf16", "diffspace pure bf16, compiled"]
        if device == "cpu":
            names += ["diffspace Winograd", "diffspace Winograd, compiled"]
    if device == "cuda":
        names += ["plain TF32", "diffspace TF32", "diffspace TF32, compiled", "diffspace bf16 autocast, compiled"]
        names += ["plain bf16 autocast"]
    return names


def compare(options: argparse.Namespace, train: bool) -> None:
    names = variants(options.device, train)
    cases = [Case(options.network, options.device, options.batch, name, train) for name in names]
    exact = cases[0]()
    errors = [float((case() - exact).norm() / exact.norm()) for case in cases]
    times = [[case.seconds() for case in cases] for _ in range(options.rounds)]
    what = "forward and backward" if train else "inference"
    print(f"\n{options.network}, {what}, batch of {options.batch}, {options.rounds} rounds")
    print(f"{'':32}{'ms':>9}{'images/s':>10}{'ratio':>8}   {'quartiles':<14}{'error':>8}")
    for k, (name, error) in enumerate(zip(names, errors, strict=True)):
        seconds = statistics.median(row[k] for row in times)
        low, ratio, high = np.quantile([row[0] / row[k] for row in times], [0.25, 0.5, 0.75])
        share = ""
        if options.flops and options.peak:
            share = (
                f"{options.flops * (3 if train else 1) * options.batch / seconds / options.peak / 10:8.1f} % of peak"
            )
        print(
            f"{name:<32}{1e3 * seconds:9.1f}{options.batch / seconds:10.1f}{ratio:8.2f}"
            f"   {low:.2f} to {high:.2f}  {error:8.0e}{share}"
        )


def resident(field: str) -> float:
    """VmRSS, the memory that this process has, or VmHWM, the most it had since the last reset, in MB (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 2**10
    raise OSError(f"/proc/self/status has no {field}")


def peak_megabytes(options: argparse.Namespace, variant: str, train: bool) -> float:
    """The peak of the second run, weights included, over what the libraries take."""
    if options.device == "cuda":
        case = Case(options.network, options.device, options.batch, variant, train)
        case()
        torch.cuda.reset_peak_memory_stats()
        case()
        return torch.cuda.max_memory_allocated() / 2**20
    before = resident("VmRSS")
    case = Case(options.network, options.device, options.batch, variant, train)
    case()
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
    case()
    return resident("VmHWM") - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="cifar10-ddpmpp", choices=PAPER_NETWORKS)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--only", choices=["inference", "training"])
    parser.add_argument("--memory", action="store_true", help="peak memory instead of time")
    parser.add_argument("--measure", help=argparse.SUPPRESS)  # one variant, in the process that --memory starts
    parser.add_argument("--flops", type=float, help="GFLOP of an image, for the share of the peak")
    parser.add_argument("--peak", type=float, help="TFLOP/s of the device")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.device == "cpu":
        torch._inductor.config.freezing = True  # weights as constants, in the layout that the kernels like best
    modes = [train for train in (False, True) if options.only in (None, "training" if train else "inference")]
    if options.measure:
        print(peak_megabytes(options, options.measure, modes[0]))
        return
    print(f"torch {torch.__version__}, {options.device}, {torch.get_num_threads()} threads")
    for train in modes:
        if not options.memory:
            compare(options, train)
            continue
        what = "forward and backward" if train else "inference"
        print(f"\n{options.network}, peak memory of {what} with weights, batch of {options.batch}, MB")
        for name in variants(options.device, train):
            mode = "training" if train else "inference"
            command = [sys.executable, __file__, *sys.argv[1:], "--only", mode, "--measure", name]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            print(f"{name:<32}{float(done.stdout):9.0f}")


if __name__ == "__main__":
    main()
