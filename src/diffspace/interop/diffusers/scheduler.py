"""A solver of ours as a scheduler of diffusers. Imports diffusers; `to_diffusers` imports this when it is called."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor

from diffspace._shapes import Tensor
from diffspace.config import from_config, to_config
from diffspace.interop.diffusers.convert import read_scheduler, scheduler_object
from diffspace.interop.diffusers.turned import Course, Plan, make_plan
from diffspace.preconditioning import Preconditioned
from diffspace.preconditioning.ddpm import ZeroSNR, index_or_time, without_variance
from diffspace.protocols import Solver, TimeSteps

__all__ = ["DiffspaceScheduler", "DiffspaceSchedulerOutput"]


@dataclass
class DiffspaceSchedulerOutput(BaseOutput):  # type: ignore[misc]
    """`prev_sample`, on which the network is evaluated next, and D, the estimate of x₀ that led there."""

    prev_sample: Tensor
    pred_original_sample: Tensor


class DiffspaceScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]
    """A solver and steps of ours for the pipelines of diffusers.

    A sample is what the network sees, c_in(σ)·x: x/√(σ² + 1) for ε-, v- and x₀-prediction, x/(1 + σ) for flow. So
    pipelines that scale the input and pipelines that do not (`DDPMPipeline`) both run it. At the end it is x itself.
    `timesteps` has one entry for each evaluation, of which Heun takes 2N − 1; `order` is the number in a step. Each
    call of `step` answers the next of them, in order. The state is kept in float64 between the calls, as in `sample`;
    where a pipeline has changed the sample between two steps (inpainting) its own is taken.

    `init_noise_sigma` is c_in(σ)·σ at the first level: a pipeline that multiplies its noise by it starts where
    `sample(latents=…)` does. One that does not, `DDPMPipeline`, starts at x = noise/c_in(σ).

    `solver` and `steps` are objects or their configs. With `num_inference_steps` a pipeline sets the number of steps.
    """

    _compatibles: ClassVar[list[str]] = [e.name for e in KarrasDiffusionSchedulers] + [
        "FlowMatchEulerDiscreteScheduler"
    ]

    _plan: Plan
    _times: list[float]  # of `timesteps`, where they need not be waited for
    _skips: list[float]
    _outputs: list[float]
    _inputs: list[float]
    _begin_index: int | None
    _index: int | None
    _course: Course | None

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
        choice = read_scheduler(trained, rounded=rounded, zero_snr=zero_snr)
        self._preconditioning = choice
        # what states the range and the rounding; its network is never called
        self._model = Preconditioned(torch.nn.Identity(), choice)

        inherited = {name: value for name, value in trained.config.items() if not name.startswith("_")}
        config: dict[str, Any] = {"rounded": rounded, "zero_snr": zero_snr}
        # a config does not always say of which class it is
        config["scheduler"] = dict(trained.config) | {"_class_name": type(trained).__name__}
        for family, thing in (("solver", self.solver), ("steps", self.steps)):
            try:
                config[family] = to_config(family, thing)
            except ValueError:  # of somebody else's making, which no file can name
                continue
        self.register_to_config(**inherited | config)
        self._set_plan(self.steps, None)

    @property
    def order(self) -> int:
        """Evaluations in a step that does not end at σ = 0."""
        return self.solver.evaluations(False) or 1

    @property
    def init_noise_sigma(self) -> float:
        return self._inputs[0] * self._plan.sigmas[0]

    @property
    def begin_index(self) -> int | None:
        """Where in `timesteps` a run begins."""
        return self._begin_index

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Begin with that of `timesteps`; it must be the first evaluation of a step."""
        if begin_index not in self._plan.first:
            raise ValueError(f"begin_index: {begin_index}; want the first evaluation of a step, {self._firsts()}")
        self._begin_index = begin_index

    def _firsts(self) -> str:
        firsts = list(self._plan.first)
        return f"one of {', '.join(map(str, firsts[:4]))}{', …' if len(firsts) > 4 else ''}"

    def set_timesteps(self, num_inference_steps: int | None = None, device: torch.device | str | None = None) -> None:
        """Place N = `num_inference_steps` steps, as many as `steps` has by itself where it is None."""
        steps: Any = self.steps
        if num_inference_steps is not None and num_inference_steps != steps.num_steps:
            if "num_steps" not in getattr(steps, "__dataclass_fields__", {}):
                raise ValueError(
                    f"num_inference_steps: {num_inference_steps}; {type(steps).__name__} has {steps.num_steps} steps"
                )
            steps = dataclasses.replace(steps, num_steps=num_inference_steps)
        self._set_plan(steps, device)

    def _set_plan(self, steps: TimeSteps, device: torch.device | str | None) -> None:
        self._plan = make_plan(self._model, self.solver, steps)
        levels = torch.tensor(self._plan.sigmas, dtype=torch.float64)
        coefficients = self._preconditioning.coefficients(levels)
        self._skips, self._outputs, self._inputs = (c.tolist() for c in coefficients)
        self.num_inference_steps = steps.num_steps
        self.sigmas = torch.tensor([*self._plan.sigmas, self._plan.grid.sigmas[-1]], dtype=torch.float64)
        times = index_or_time(self._preconditioning.c_noise(levels), self.rounded)
        self.timesteps = times.to(device) if self.rounded else times.to(device, torch.float32)
        self._times = self.timesteps.tolist()
        self._begin_index, self._index, self._course = None, None, None

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
        index = self._begin_index if self._index is None else self._index
        if index is None:
            index = self._find(time) or 0
        if index == len(self._times):
            raise ValueError("timestep: the run has ended; call set_timesteps for another")
        if self._times[index] != time:
            raise ValueError(
                f"timestep: {time:g}; want those of timesteps in order, of which {self._times[index]:g} is next"
            )
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
    ) -> DiffspaceSchedulerOutput | tuple[Tensor, Tensor]:
        """From the network's output at (sample, timestep) to the sample at which it is wanted next.

        `generator` draws the noise of a stochastic solver. `eta` and `use_clipped_model_output`, which some pipelines
        hand to every scheduler, are options of DDIM: here they must be 0 and false.
        """
        if eta != 0 or use_clipped_model_output:
            raise ValueError(f"eta, use_clipped_model_output: {eta}, {use_clipped_model_output}; options of DDIM alone")
        index = self._next(timestep)

        def noise(like: Tensor) -> Tensor:
            drawn: Tensor = randn_tensor(like.shape, generator=generator, device=sample.device, dtype=sample.dtype)
            return drawn.to(like)

        wide = torch.float32 if sample.device.type == "mps" else torch.float64
        x = sample.to(wide) / self._inputs[index]
        course = self._course
        asked = None if course is None else course.request
        if course is None or asked is None:
            if index not in self._plan.first:
                raise ValueError(f"timestep: {float(timestep):g}; want that of the first evaluation of a step")
            course = Course(self._plan, self._plan.first[index], x, noise)
        elif torch.equal((asked.x * self._inputs[index]).to(sample.dtype), sample):
            x = asked.x  # of which the sample is a rounding
        elif course.fresh:
            course.restart(x, noise)

        output = without_variance(model_output, sample.shape[1]).to(wide)
        denoised = self._skips[index] * x + self._outputs[index] * output
        asked = course.answer(denoised, noise)
        following = course.x if asked is None else asked.x * self._inputs[index + 1]
        self._index, self._course = index + 1, None if asked is None else course
        result = DiffspaceSchedulerOutput(following.to(sample.dtype), denoised.to(sample.dtype))
        return result if return_dict else (result.prev_sample, result.pred_original_sample)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """c_in(σ)·(x₀ + σ·ε) at the levels of `timesteps`, one for each sample."""
        times: list[float] = timesteps.flatten().tolist()
        indices = [index for index in map(self._find, times) if index is not None]
        if len(indices) != len(times):
            raise ValueError(f"timesteps: {times}; want some of those that set_timesteps made")
        shape = (-1,) + (1,) * (original_samples.ndim - 1)
        sigma, c_in = (
            torch.tensor([values[i] for i in indices], dtype=torch.float64).to(original_samples).reshape(shape)
            for values in (self._plan.sigmas, self._inputs)
        )
        return c_in * (original_samples + sigma * noise)

    def __len__(self) -> int:
        return int(self.config.num_train_timesteps)
