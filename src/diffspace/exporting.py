"""Models as files that run without diffspace: `.pt2` of torch.export, and ONNX."""

from __future__ import annotations

import json
import logging
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch

from diffspace._shapes import Tensor
from diffspace._version import __version__
from diffspace.checks import check_type, first_line, require_package
from diffspace.files import atomic_path
from diffspace.model import Model
from diffspace.preconditioning import Preconditioned
from diffspace.protocols import Cond, check_cond, sampling_range
from diffspace.sampling import EDMSteps
from diffspace.sampling.steps import steps_for
from diffspace.tensors import evaluating
from diffspace.transform import Transform

SUFFIXES = (".pt2", ".onnx")
METADATA = "diffspace.json"
"""The name of the description within a file: an extra file of a .pt2, a property of the metadata of an .onnx."""

TOLERANCE, CHECKS, _BATCHES = 1e-5, 20, (1, 2, 7)
_LARGEST_ONNX = 2_000_000_000  # bytes, of which protobuf holds no more than 2³¹ in one file
_NO_CLASS = -1

_Run = Callable[[Sequence[Tensor]], Tensor]


@dataclass(frozen=True)
class Port:
    """A tensor that an exported denoiser takes or gives; the first of its dimensions is the batch, of any size."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str
    meaning: str


@dataclass(frozen=True)
class Exported:
    """What was written: the file, its inputs in their order, its output, and how far it is from the model.

    `transform` makes raw values of samples.

    `difference` is the largest over `checks` inputs, relative to the larger of D and c_out·F of the same sample.
    """

    path: Path
    inputs: tuple[Port, ...]
    output: Port
    transform: Transform
    difference: float
    checks: int

    def lines(self) -> list[str]:
        """The report as text, one fact per line."""
        kind = "ONNX" if self.path.suffix == ".onnx" else "torch.export"
        ports = [*(("takes", port) for port in self.inputs), ("gives", self.output)]
        batches = ", ".join(map(str, _BATCHES))
        return [
            f"written   {self.path}, {kind}, {self.path.stat().st_size / 1e6:.1f} MB",
            *(f"{verb}     {p.name}: {p.dtype} {_text(p.shape)}, {p.meaning}" for verb, p in ports),
            f"raw data  {_raw(self.transform)}",
            f"checked   {self.checks} inputs in batches of {batches}: at most {self.difference:.1g} from the model",
        ]


def export(model: Model, path: str | Path, *, cond: Cond | None = None) -> Exported:
    """Write D(x; σ) of a model as a file that runs without diffspace, and compare the two.

    "x.pt2" is a program of torch.export, called as D(x, sigma, cond); "x.onnx" needs the packages onnx, onnxscript and
    onnxruntime, and takes what cond holds by name. Both take any batch, and hold a description of their inputs and
    output, of the transform and of the range of σ (`METADATA`). ValueError for a network that cannot be traced,
    FloatingPointError, without a file, where the result differs from the model by more than 1e-5 for any of 20 inputs.

    Args:
        model: in float32, on the CPU.
        path: whose suffix says what is written.
        cond: an example of each condition, (1, …), for a network of another package that takes some; the networks of
            diffspace state theirs.
    """
    path = Path(path)
    check_type("model", model, Model)
    if path.suffix not in SUFFIXES:
        raise ValueError(f"path: expected a name that ends in {' or '.join(SUFFIXES)}, got {path}")
    check_packages(path)
    check_dtypes(model)
    with evaluating(model, grad=torch.is_grad_enabled()):
        return _export(model, path, cond)


def _export(model: Model, path: Path, cond: Cond | None) -> Exported:
    examples = dict(sorted((_examples(model) if cond is None else check_cond(cond)).items()))
    denoiser = _Exportable(model.denoiser, tuple(examples), _classes(model.denoiser))
    inputs = _inputs(model, examples)
    output = Port("denoised", ("batch", *model.sample_shape), "float32", "D(x; σ), the estimate of x₀")
    text = json.dumps(_description(model, inputs, output), ensure_ascii=False)
    program = _trace(denoiser, inputs, examples, model.sample_shape)
    with atomic_path(path) as temporary:
        if path.suffix == ".pt2":
            run = _save_pt2(program, temporary, tuple(examples), text)
        else:
            _save_onnx(program, temporary, inputs, output, text)
            run = _run_onnx(temporary, inputs)
        difference = max(_compare(model, denoiser, run, examples, k) for k in range(CHECKS))
        if not difference <= TOLERANCE:
            text = f"differs from the model by {difference:.1e}, more than {TOLERANCE:g}; nothing was written"
            raise FloatingPointError(f"{path}: the exported denoiser {text}")
    return Exported(path, inputs, output, model.transform, difference, CHECKS)


def check_dtypes(model: Model) -> None:
    """ValueError for weights that are not in float32 on the CPU."""
    for name, weight in model.named_parameters():
        if weight.dtype != torch.float32 or weight.device.type != "cpu":
            raise ValueError(f"model: expected float32 on the CPU, got {name} in {weight.dtype} on {weight.device}")


def check_packages(path: Path) -> None:
    """ValueError where a package is missing that a file of this suffix needs."""
    if path.suffix == ".onnx":
        for name in ("onnx", "onnxscript", "onnxruntime"):
            require_package(name, "export to ONNX")


class _Exportable(torch.nn.Module):
    """D(x; σ) with conditions in a mapping; class numbers are −1 for the null condition."""

    def __init__(self, denoiser: Preconditioned, names: tuple[str, ...], classes: int) -> None:
        super().__init__()
        self.denoiser, self.names, self.classes = denoiser, names, classes

    def forward(self, x: Tensor, sigma: Tensor, cond: dict[str, Tensor] | None = None) -> Tensor:
        given = dict(cond or {})
        if self.classes and "labels" in given:
            numbers = torch.arange(self.classes, dtype=torch.int64, device=x.device)
            given["labels"] = (given["labels"][:, None] == numbers).to(x.dtype)
        denoised: Tensor = self.denoiser(x, sigma, given or None)
        return denoised

    def call(self, values: Sequence[Tensor]) -> Tensor:
        """The result for x, σ and the conditions in their order."""
        x, sigma, *rest = values
        result: Tensor = self(x, sigma, *([dict(zip(self.names, rest, strict=True))] if rest else []))
        return result


def _classes(denoiser: Preconditioned) -> int:
    """The number of classes of a network of diffspace, 0 for others, which get the numbers themselves."""
    network = denoiser.network
    return int(getattr(network, "label_dim", 0)) if hasattr(network, "null_trained") else 0


def _examples(model: Model) -> dict[str, Tensor]:
    """One value of each condition of the model, except augmentation, which is null in inference."""
    network, found = model.denoiser.network, {}
    if _classes(model.denoiser) or model.class_names:
        found["labels"] = torch.zeros(1, dtype=torch.int64, device="cpu")
    for name, each in model.conditioning.items():
        shift = torch.tensor(each.shift, dtype=torch.float32, device="cpu")
        found[name] = shift.reshape(1, -1, *[1] * (len(each.shape) - 1)).expand(1, *each.shape).contiguous()
    if channels := getattr(network, "image_channels", 0):
        found["image"] = torch.zeros(1, channels, *model.sample_shape[1:], dtype=torch.float32, device="cpu")
    return found


def _inputs(model: Model, examples: Mapping[str, Tensor]) -> tuple[Port, ...]:
    """The inputs in their order."""
    low, high = _range(model)
    ports = [
        Port("x", ("batch", *model.sample_shape), "float32", "x₀ + σ·ε, without a scaling s(t)"),
        Port("sigma", ("batch",), "float32", f"σ of each sample; sampling goes from {high:g} to {low:g}"),
    ]
    null = getattr(model.denoiser.network, "null_trained", False)
    for name, value in examples.items():
        meaning = "as the network takes it"
        if name == "labels" and (count := _classes(model.denoiser) or len(model.class_names)):
            meaning = f"the number of the class, 0 to {count - 1}" + (f", or {_NO_CLASS} for none" if null else "")
        elif name in model.conditioning:
            meaning = str(model.conditioning[name]) + (", or NaN for none" if null else "")
        shape = ("batch", *value.shape[1:])
        ports.append(Port(name, shape, str(value.dtype).removeprefix("torch."), meaning))
    return tuple(ports)


def _range(model: Model) -> tuple[float, float]:
    """(σ_min, σ_max) of sampling."""
    steps: Any = steps_for(model, EDMSteps(2))
    return sampling_range(model) or (steps.sigma_min, steps.sigma_max)


def _description(model: Model, inputs: Sequence[Port], output: Port) -> dict[str, Any]:
    """What a program needs to know to sample, in JSON types."""
    low, high = _range(model)
    return {
        "format": "diffspace exported denoiser 1",
        "diffspace": __version__,
        "inputs": [asdict(port) for port in inputs],
        "outputs": [asdict(output)],
        "sigma_min": low,
        "sigma_max": high,
        "sigma_data": model.sigma_data,
        "class_names": list(model.class_names),
        "transform": asdict(model.transform),
        "notes": model.notes,
    }


def _trace(
    denoiser: _Exportable, inputs: Sequence[Port], examples: Mapping[str, Tensor], shape: Sequence[int]
) -> torch.export.ExportedProgram:
    """The program for a batch of any size."""
    batch = torch.export.Dim("batch")
    x = torch.zeros(2, *shape, dtype=torch.float32, device="cpu")
    cond = {name: torch.cat([value[:1], value[:1]]) for name, value in examples.items()}
    arguments = (x, torch.ones(2, dtype=torch.float32, device="cpu"), *([cond] if cond else []))
    dynamic = ({0: batch}, {0: batch}, *([{name: {0: batch} for name in cond}] if cond else []))
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's own internals
            return torch.export.export(denoiser, arguments, dynamic_shapes=dynamic, strict=False)
    except Exception as error:  # torch.export has many
        remedy = "write x.shape[0] instead of len(x), and no branches on values"
        raise ValueError(f"model: cannot be traced for a batch of any size; {remedy}: {first_line(error)}") from None


def _hypot(a: Tensor, b: Tensor) -> Tensor:
    return (a * a + b * b).sqrt()


def _searchsorted(table: Tensor, values: Tensor, **_: Any) -> Tensor:
    """The number of entries of a rising table that are below each value."""
    return (table < values.unsqueeze(-1)).sum(-1)


def _atan2(y: Tensor, x: Tensor) -> Tensor:
    """By atan in float32, which runtimes have, and a step of Newton's method, which makes it exact in float64."""
    angle = (y / x).to(torch.float32).atan().to(x.dtype) + torch.where(x < 0, y.sign() * math.pi, 0.0)
    cos, sin = angle.cos(), angle.sin()
    return angle + (y * cos - x * sin) / (x * cos + y * sin)


_DECOMPOSED = {"hypot.default": _hypot, "searchsorted.Tensor": _searchsorted, "atan2.default": _atan2}
"""Operations of the preconditionings that ONNX, or the runtime in float64, does not have."""


def _save_onnx(
    program: torch.export.ExportedProgram, path: Path, inputs: Sequence[Port], output: Port, description: str
) -> None:
    """Write a program as ONNX, by operations that it has."""
    size = sum(value.nbytes for value in program.state_dict.values())
    if size > _LARGEST_ONNX:
        raise ValueError(f"path: the model has {size / 1e9:.1f} GB, and an .onnx holds 2; write a .pt2")
    table: dict[Any, Any] = {attrgetter(name)(torch.ops.aten): form for name, form in _DECOMPOSED.items()}
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    try:
        quiet.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = program.run_decompositions(table)
            made = torch.onnx.export(
                program,
                dynamo=True,
                input_names=[port.name for port in inputs],
                output_names=[output.name],
                verbose=False,
            )
    except Exception as error:  # of any operation of a network of one's own
        raise ValueError(f"model: has no form in ONNX: {first_line(error)}") from None
    finally:
        quiet.setLevel(level)
    if made is None:
        raise ValueError("model: has no form in ONNX")
    _name_batch(made.model.graph)
    made.model.metadata_props[METADATA] = description
    made.save(str(path))


def _name_batch(graph: Any) -> None:
    """Give the dimension of the batch its name, which torch.export numbers."""
    numbered = graph.inputs[0].shape[0]
    for value in (*graph.inputs, *(output for node in graph for output in node.outputs)):
        for axis, length in enumerate(value.shape or ()):
            if length == numbered:
                value.shape[axis] = "batch"


def _save_pt2(program: torch.export.ExportedProgram, path: Path, names: tuple[str, ...], description: str) -> _Run:
    """Write a program, and return what is read back: a function of x, σ and the conditions in their order."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own internals
        with path.open("wb") as file:
            torch.export.save(program, file, extra_files={METADATA: description})
        with path.open("rb") as written:
            module = torch.export.load(written).module()

    def run(values: Sequence[Tensor]) -> Tensor:
        x, sigma, *rest = values
        result: Tensor = module(x, sigma, *([dict(zip(names, rest, strict=True))] if rest else []))
        return result

    return run


def _run_onnx(path: Path, inputs: Sequence[Port]) -> _Run:
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # of an operation that the runtime does not have in this precision
        raise ValueError(f"model: ONNX Runtime cannot run it: {first_line(error)}") from None
    taken = {each.name for each in session.get_inputs()}

    def run(values: Sequence[Tensor]) -> Tensor:
        given = {port.name: value.numpy() for port, value in zip(inputs, values, strict=True) if port.name in taken}
        return torch.from_numpy(session.run(None, given)[0])

    return run


@torch.no_grad()
def _compare(model: Model, denoiser: _Exportable, run: _Run, examples: Mapping[str, Tensor], k: int) -> float:
    """The largest difference for the k-th input, relative to the larger of D and c_out·F of the same sample."""
    values = _draw(model, examples, k)
    expected, found = denoiser.call(values), run(values)
    if found.shape != expected.shape:
        return math.inf
    x, sigma = values[0].flatten(1), values[1]
    c_skip = model.denoiser.preconditioning.coefficients(sigma.to(torch.float64)).c_skip
    network = expected.flatten(1).to(torch.float64) - c_skip[:, None] * x
    scale = torch.maximum(expected.flatten(1).abs().amax(1), network.abs().amax(1)).clamp_min(1e-30)
    return float(((found - expected).flatten(1).abs().amax(1) / scale).amax().nan_to_num(math.inf))


def _draw(model: Model, examples: Mapping[str, Tensor], k: int) -> list[Tensor]:
    """The k-th of the inputs that are compared: noise levels over the whole range, random conditions, null ones too."""
    generator = torch.Generator("cpu").manual_seed(k)
    batch = _BATCHES[k % len(_BATCHES)]
    low, high = _range(model)
    share = (k + torch.rand(batch, dtype=torch.float64, device="cpu", generator=generator)) / CHECKS
    sigma = (low * (high / low) ** share).to(torch.float32)

    def normal(*shape: int) -> Tensor:
        return torch.randn(batch, *shape, dtype=torch.float32, device="cpu", generator=generator)

    spread = (sigma**2 + (model.sigma_data or 0.5) ** 2).sqrt().reshape(-1, *[1] * len(model.sample_shape))
    values, null = [normal(*model.sample_shape) * spread, sigma], getattr(model.denoiser.network, "null_trained", False)
    for name, example in examples.items():
        value = example[:1].expand(batch, *example.shape[1:])
        classes = _classes(model.denoiser) or len(model.class_names)
        if name == "labels" and classes and not value.is_floating_point():
            least = _NO_CLASS if null else 0
            value = torch.randint(least, classes, (batch,), device="cpu", dtype=value.dtype, generator=generator)
        elif value.is_floating_point():
            spreads = model.conditioning[name].scale if name in model.conditioning else (1.0,)
            scale = torch.tensor(spreads, dtype=value.dtype, device="cpu").reshape(-1, *[1] * (value.ndim - 2))
            value = value + normal(*example.shape[1:]) * scale
            if name in model.conditioning and null and k % 4 == 3:
                value = torch.full_like(value, math.nan)
        values.append(value.contiguous())
    return values


def _raw(transform: Transform) -> str:
    """How raw values follow from x."""
    pairs = list(zip(transform.scale, transform.shift, strict=True))
    text = "; ".join(f"{scale:g}·x + {shift:g}" for scale, shift in pairs)
    text = "x itself" if set(pairs) == {(1, 0)} else text
    text += " for each channel" if len(transform.scale) > 1 else ""
    if transform.kind == "integer":
        text += ", rounded"
    low = -math.inf if transform.lowest is None else transform.lowest
    high = math.inf if transform.highest is None else transform.highest
    if low > -math.inf or high < math.inf:
        text += f", within [{low:g}, {high:g}]"
    return f"{text}, {transform.dtype}"


def _text(shape: Sequence[int | str]) -> str:
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"
