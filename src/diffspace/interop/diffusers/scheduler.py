"""A solver as a scheduler of diffusers. Imports diffusers; `to_diffusers` imports this module when it is called."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.schedulers.scheduling_ddim import DDIMSchedulerOutput
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers
from diffusers.utils.torch_utils import randn_tensor

from diffspace._shapes import Tensor
from diffspace.config import from_config, to_config
from diffspace.interop.diffusers.parametrization import read_scheduler, scheduler_object
from diffspace.preconditioning import Preconditioned
from diffspace.preconditioning.ddpm import ZeroSNR, index_or_time, without_variance
from diffspace.protocols import Increment, Request, TimeSteps
from diffspace.sampling.driver import Grid, make_grid, run_steps
from diffspace.sampling.sampler import Sampler, State
from diffspace.sampling.solvers.base import Solver
from diffspace.sampling.steps import GivenTimes


def _zeros(of: object, like: Tensor) -> Tensor:
    return torch.zeros_like(like)


class _Plan(NamedTuple):
    """What is known of a run before it begins: σ of each evaluation, and which of them begins which step."""

    grid: Grid
    sigmas: list[float]
    first: dict[int, int]


def _make_plan(denoiser: object, solver: Solver, steps: TimeSteps | GivenTimes) -> _Plan:
    """The plan of a run within the range of `denoiser`, found by a run on a state of one number.

    ValueError where D decides how often it is evaluated, or where a step does not begin with D at its state.
    """
    name, solver = type(solver).__name__, solver.for_denoiser(denoiser)
    if solver.evaluations(False) is None:
        raise ValueError(f"solver: {name} chooses its evaluations by a tolerance; pipelines need a fixed number")
    grid = make_grid(denoiser, Sampler(steps, solver))
    x = torch.full((1, 1), grid.sigmas[0], dtype=torch.float64, device="cpu")
    run = run_steps(solver, grid, x, noise=_zeros, increment=_zeros)
    sigmas: list[float] = []
    first: dict[int, int] = {}
    for step in range(steps.num_steps):
        asked = next(run)
        if isinstance(asked, State) or asked.sigma != grid.sigmas[step] or not torch.equal(asked.x, x):
            raise ValueError(f"solver: {name} does not begin each step with D at its state, which pipelines need")
        first[len(sigmas)] = step
        while isinstance(asked, Request):
            sigmas.append(float(asked.sigma))
            asked = run.send(0.5 * asked.x)
        x = asked.x
    return _Plan(grid, sigmas, first)


class DiffspaceScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]
    """A solver and steps of diffspace for the pipelines of diffusers.

    A sample is what the network sees, c_in(σ)·x: x/√(σ² + 1) for ε-, v- and x₀-prediction, x/(1 + σ) for flow. So it
    works in pipelines that scale the input and in those that do not (`DDPMPipeline`). The last sample is x itself.
    `timesteps` has one entry for each evaluation, of which Heun takes 2N − 1; `order` is the number in a step. Each
    call of `step` answers the next of them, in order. The state is kept in float64 between the calls, as in `sample`;
    where a pipeline changes the sample between two steps (inpainting), the changed one is used.

    `init_noise_sigma` is c_in(σ)·σ at the first level: a pipeline that multiplies its noise by it starts where
    `sample(latents=…)` does. One that does not, `DDPMPipeline`, starts at x = noise/c_in(σ).
    The arguments are those of `to_diffusers`; all but the flags are objects or their configs.
    """

    _compatibles: ClassVar[list[str]] = [e.name for e in KarrasDiffusionSchedulers] + [
        "FlowMatchEulerDiscreteScheduler"
    ]

    begin_index: int | None
    """Where in `timesteps` a run begins."""
    _c_in: list[float]
    _index: int | None
    _run: Generator[Request | State, Tensor | None, None] | None
    _asked: Request | State | None
    _draw: Callable[[Tensor], Tensor]

    def __init__(
        self,
        solver: Solver | Mapping[str, Any],
        steps: TimeSteps | Mapping[str, Any],
        scheduler: object,
        rounded: bool = False,
        zero_snr: ZeroSNR | None = None,
    ) -> None:
        self.solver: Solver = from_config("solver", solver) if isinstance(solver, Mapping) else solver
        self.steps: TimeSteps = from_config("steps", steps) if isinstance(steps, Mapping) else steps
        self.rounded = rounded
        trained = scheduler_object(scheduler)
        self._preconditioning = read_scheduler(trained, rounded=rounded, zero_snr=zero_snr)
        # states the range and the rounding; its network is never called
        self._model = Preconditioned(torch.nn.Identity(), self._preconditioning)

        inherited = {name: value for name, value in trained.config.items() if not name.startswith("_")}
        config: dict[str, Any] = {"rounded": rounded, "zero_snr": zero_snr}
        # a config does not always name its class
        config["scheduler"] = dict(trained.config) | {"_class_name": type(trained).__name__}
        for family, thing in (("solver", self.solver), ("steps", self.steps)):
            try:
                config[family] = to_config(family, thing)
            except ValueError:  # a class that has no name in files
                continue
        self.register_to_config(**inherited | config)
        self._set_plan(self.steps, None)

    @property
    def order(self) -> int:
        """Evaluations in a step that does not end at σ = 0."""
        return self.solver.evaluations(False) or 1

    @property
    def init_noise_sigma(self) -> float:
        return self._c_in[0] * self._plan.sigmas[0]

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Begin with that of `timesteps`; it must be the first evaluation of a step."""
        if begin_index not in self._plan.first:
            firsts = list(self._plan.first)
            shown = f"{', '.join(map(str, firsts[:4]))}{', …' if len(firsts) > 4 else ''}"
            raise ValueError(f"begin_index: expected the first evaluation of a step ({shown}), got {begin_index}")
        self.begin_index = begin_index

    def set_timesteps(self, num_inference_steps: int | None = None, device: torch.device | str | None = None) -> None:
        """Place N = `num_inference_steps` steps; None leaves the number in `steps`."""
        sampler = Sampler(self.steps, self.solver)
        if num_inference_steps is not None:
            sampler = sampler.with_num_steps(num_inference_steps)
        self._set_plan(sampler.steps, device)

    def _set_plan(self, steps: TimeSteps | GivenTimes, device: torch.device | str | None) -> None:
        self._plan = _make_plan(self._model, self.solver, steps)
        levels = torch.tensor(self._plan.sigmas, dtype=torch.float64, device="cpu")
        coefficients = self._preconditioning.coefficients(levels)
        self._c_skip, self._c_out, self._c_in = (c.tolist() for c in coefficients)
        self.num_inference_steps = steps.num_steps
        self.sigmas = torch.tensor([*self._plan.sigmas, self._plan.grid.sigmas[-1]], dtype=torch.float64, device="cpu")
        times = index_or_time(self._preconditioning.c_noise(levels), self.rounded)
        self.timesteps = times.to(device) if self.rounded else times.to(device, torch.float32)
        self._times: list[float] = self.timesteps.tolist()  # as numbers, so that no step waits for the device
        self.begin_index, self._index, self._run, self._asked = None, None, None, None

    def scale_model_input(self, sample: Tensor, timestep: float | Tensor | None = None) -> Tensor:
        """The sample, which is scaled already."""
        return sample

    def _find(self, time: float) -> int | None:
        """The evaluation at a time, one that begins a step where there are several: rounded times may come twice."""
        candidates = (*self._plan.first, *range(len(self._times)))
        return next((i for i in candidates if self._times[i] == time), None)

    def _next(self, timestep: float | Tensor) -> int:
        """The index of the evaluation that is due, which `timestep` must be."""
        time = float(timestep)
        index = self.begin_index if self._index is None else self._index
        if index is None:
            index = self._find(time) or 0
        if index == len(self._times):
            raise ValueError("timestep: the run has ended; call set_timesteps for another")
        if self._times[index] != time:
            raise ValueError(f"timestep: expected {self._times[index]:g}, the next one of timesteps, got {time:g}")
        if self._run is None and index not in self._plan.first:
            raise ValueError(f"timestep: a run must begin with the first evaluation of a step, which {time:g} is not")
        return index

    def step(
        self,
        model_output: Tensor,
        timestep: float | Tensor,
        sample: Tensor,
        eta: float = 0.0,
        use_clipped_model_output: bool | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool = True,
    ) -> DDIMSchedulerOutput | tuple[Tensor, Tensor]:
        """From the network's output at (sample, timestep) to the sample at which it is evaluated next, and D.

        Args:
            model_output: of the shape of `sample`, or with twice the channels where the network learned a variance.
            timestep: the next one of `timesteps`.
            sample: c_in(σ)·x, (B, *dims).
            eta: an option of DDIM that some pipelines pass to every scheduler; must be 0.
            use_clipped_model_output: another one; must be false.
            generator: draws the noise of a stochastic solver.
            return_dict: return an object with named fields instead of a tuple.
        """
        if eta != 0 or use_clipped_model_output:
            raise ValueError(f"eta, use_clipped_model_output: {eta}, {use_clipped_model_output}; options of DDIM alone")
        index = self._next(timestep)
        device, dtype = sample.device, sample.dtype
        self._draw = lambda like: randn_tensor(like.shape, generator=generator, device=device, dtype=dtype).to(like)
        x = sample.to(torch.float32 if device.type == "mps" else torch.float64) / self._c_in[index]
        asked = self._asked
        if self._run is None or asked is None:
            first = self._plan.first[index]
            rest = Grid(self._plan.grid.points[first:], self._plan.grid.kicks[first:])
            solver = self.solver.for_denoiser(self._model)
            self._run = run_steps(solver, rest, x, noise=_zeros, increment=self._increment)
            asked = next(self._run)
        else:
            if torch.equal((asked.x * self._c_in[index]).to(dtype), sample):
                x = asked.x  # of which the sample is a rounding
            if isinstance(asked, State):
                asked = self._run.send(x)

        denoised = self._c_skip[index] * x + self._c_out[index] * without_variance(model_output, sample.shape[1]).to(x)
        self._asked = asked = self._run.send(denoised)
        self._index = index + 1
        if isinstance(asked, State) and asked.step == asked.num_steps:
            following, self._run, self._asked = asked.x, None, None
        else:
            following = asked.x * self._c_in[index + 1]
        result = (following.to(dtype), denoised.to(dtype))
        return DDIMSchedulerOutput(*result) if return_dict else result

    def _increment(self, of: Increment, like: Tensor) -> Tensor:
        """Noise from the generator of the present call."""
        return math.sqrt(abs(of.end - of.start)) * self._draw(like)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """c_in(σ)·(x₀ + σ·ε) at the levels of `timesteps`, one for each sample."""
        times: list[float] = timesteps.flatten().tolist()
        indices = [index for index in map(self._find, times) if index is not None]
        if len(indices) != len(times):
            raise ValueError(f"timesteps: expected times out of those of set_timesteps, got {times}")
        shape = (-1,) + (1,) * (original_samples.ndim - 1)
        sigma, c_in = (
            torch.tensor([values[i] for i in indices], dtype=torch.float64, device="cpu")
            .to(original_samples)
            .reshape(shape)
            for values in (self._plan.sigmas, self._c_in)
        )
        return c_in * (original_samples + sigma * noise)

    def __len__(self) -> int:
        return int(self.config.num_train_timesteps)
