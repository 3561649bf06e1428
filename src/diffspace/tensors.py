"""Checks of tensors that users hand in, and modules that are built whatever torch's global defaults are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from diffspace.checks import first_line


def check_floating(name: str, value: object, batch: bool = False) -> None:
    """Check that `value` is a tensor of real floating-point numbers, and with `batch` that it has rows."""
    if not isinstance(value, Tensor):
        raise ValueError(f"{name}: expected a tensor, got {type(value).__name__}; convert it with torch.as_tensor")
    if not value.dtype.is_floating_point:
        raise ValueError(f"{name}: expected floating-point numbers, got {value.dtype}")
    if batch and value.ndim == 0:
        raise ValueError(f"{name}: expected a batch (B, *dims), got a tensor without dimensions")


def check_device(device: torch.device | str) -> torch.device:
    """The device of this name; ValueError if there is no such device here."""
    try:
        found = torch.device(device)
        torch.zeros(1, device=found, dtype=torch.float32)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise ValueError(f"device: {str(device)!r} is not available: {first_line(error)}") from None
    return found


def are_values_hidden() -> bool:
    """Whether the values of tensors cannot be read, because torch.compile, torch.export or torch.func is at work."""
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()


def is_transformed(x: Tensor) -> bool:
    """Whether x goes through torch.func or forward differentiation, for which some fused kernels lack rules."""
    if torch.compiler.is_compiling():
        return False
    if torch._C._are_functorch_transforms_active():
        return True
    dual = unpack_dual(x)  # type: ignore[no-untyped-call]
    return dual.tangent is not None


def check_sigma(sigma: Tensor, batch: int, who: str = "sigma", *, positive: bool = False) -> None:
    """Check that σ has shape () or (batch,), and that no level is negative or not finite, or 0 where it is `positive`.

    The levels are read where that does not wait for a device; elsewhere `Preconditioned` returns NaN for such a σ.
    """
    if not isinstance(sigma, Tensor):
        raise ValueError(f"{who}: expected a tensor, got {type(sigma).__name__}; convert it with torch.tensor")
    if sigma.ndim > 1 or (sigma.ndim == 1 and sigma.shape[0] != batch):
        raise ValueError(f"{who}: expected shape () or ({batch},), one for each sample, got {tuple(sigma.shape)}")
    if sigma.device.type != "cpu" or not sigma.numel() or are_values_hidden():
        return
    levels = (sigma.item(),) if sigma.ndim == 0 else tuple(end.item() for end in sigma.detach().aminmax())
    for level in levels:
        if not 0 <= level < float("inf"):
            raise ValueError(f"{who}: expected finite noise levels of at least 0, got {level:g}")
        if positive and level == 0:
            raise ValueError(f"{who}: expected positive noise levels, got 0")


@contextlib.contextmanager
def plain_defaults(device: str = "cpu") -> Iterator[None]:
    """float32 on a device, whatever torch's global defaults are, for modules, whose layers follow these."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    # torch calls the mode of a default device at every operation, which doubles the time of small ones
    same = torch.get_default_device() == torch.device(device)
    try:
        with contextlib.nullcontext() if same else torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def evaluating(denoiser: torch.nn.Module | None, grad: bool) -> Iterator[None]:
    """Set the gradient mode, and evaluation mode for modules in training mode, so that there is no dropout."""
    training = [] if denoiser is None else [module for module in denoiser.modules() if module.training]
    for module in training:
        module.training = False
    try:
        with torch.set_grad_enabled(grad):
            yield
    finally:
        for module in training:
            module.training = True
