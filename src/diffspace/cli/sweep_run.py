"""The work of `diffspace sweep`: one score after another, each kept in a file, so that a killed sweep goes on."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

import diffspace as ds
from diffspace.checks import first_line
from diffspace.cli.console import Stages
from diffspace.cli.drawing import identity
from diffspace.cli.fitting import exact_ends
from diffspace.cli.guided import guide_model
from diffspace.cli.output import write_json
from diffspace.cli.scores.quality import Measure
from diffspace.cli.sweep_methods import Calibration, Candidate, Methods
from diffspace.config import to_options
from diffspace.files import read_json
from diffspace.metrics.evaluation import as_ranges
from diffspace.metrics.sweep import TARGET, TARGET_NFE, SweepPoint
from diffspace.protocols import Cond, Denoiser
from diffspace.sampler_files import find_sampler
from diffspace.sampling.driver import make_grid
from diffspace.solverlab import Reference

FORMAT = "diffspace sweep 1"
_ENDS = 64  # of the first seeds, the samples whose distance from the end points is measured


@dataclass(frozen=True)
class Request:
    """What is swept.

    Args:
        source: the folder of the run.
        budgets: evaluations of a sample.
        words: as `parse_methods` returns them.
        guidance: weights as typed, "" for none.
        churn: values of S_churn.
        seeds: of the samples that are scored.
        calibration: other seeds, for the recommended and the fitted samplers.
        choice: solvers and kinds of steps to recommend from.
        reference_steps: of the end points.
        execution: batch size and device.
    """

    source: str
    budgets: Sequence[int]
    words: Sequence[str]
    guidance: Sequence[str]
    churn: Sequence[float]
    seeds: Sequence[int]
    calibration: Sequence[int]
    choice: tuple[Sequence[str] | None, Sequence[str]]
    reference_steps: int
    execution: ds.Execution

    def denoisers(self, model: ds.Model, measure: Measure) -> dict[str, Denoiser]:
        """The model with each guidance around it."""
        sigmas, cond = make_grid(model, ds.Sampler()).sigmas, measure.real.cond(model, len(self.seeds))
        return {weight: guide_model(model, weight or None, None, sigmas, cond) for weight in self.guidance}

    def facts(self, model: ds.Model, measure: Measure) -> dict[str, Any]:
        """What every score depends on, in JSON types."""
        solvers, families = self.choice
        kept = ds.load_samplers(self.source)
        words = [word for word in self.words if word.endswith(".json") or word in kept]
        stored = {word: to_options(find_sampler(self.source, word)) for word in words}
        return {
            "model": identity(model),
            "data": dict(measure.real.held_out.fingerprint()),
            "score": measure.score,
            "features": measure.extractor.name,
            "seeds": as_ranges(self.seeds),
            "calibration": as_ranges(self.calibration),
            "solvers": None if solvers is None else list(solvers),
            "steps": list(families),
            "reference_steps": self.reference_steps,
        } | ({"stored": stored} if stored else {})


class Record:
    """The file of a sweep, or what it would hold: facts, found samplers, and a point for each score."""

    def __init__(self, path: Path | None, facts: Mapping[str, Any], overwrite: bool) -> None:
        self.path = path
        self.found: dict[str, dict[str, dict[str, Any]]] = {}
        self.points: list[SweepPoint] = []
        self.notes: dict[str, Any] = {}
        self._facts = dict(facts)
        if path is not None and path.is_file() and not overwrite:
            self._read(path)

    def _read(self, path: Path) -> None:
        record = read_json(path, format=str, request=dict, samplers=dict, points=list, notes=dict)
        there = record["request"]
        if record["format"] != FORMAT:
            raise ValueError(f"--json: {path} is no sweep of this version, but {record['format']!r}; add --overwrite")
        if different := [name for name, value in self._facts.items() if there.get(name) != value]:
            name = different[0]
            pair = f"{name} {there.get(name)!r:.60} there, {self._facts[name]!r:.60} here"
            raise ValueError(f"--json: {path} is of another sweep: {pair}; choose another name, or add --overwrite")
        try:
            self.points = [SweepPoint.from_dict(point) for point in record["points"]]
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(f"--json: {path} is damaged: {first_line(error)}; add --overwrite") from None
        self.found, self.notes = record["samplers"], record["notes"]

    @property
    def score(self) -> str:
        """The word of the score."""
        return str(self._facts["score"])

    def add(self, point: SweepPoint) -> None:
        """Keep a score."""
        self.points.append(point)
        self.write()

    def write(self, results: Any = None) -> None:
        """Write the file, where there is one."""
        if self.path is not None:
            points = [point.as_dict() for point in self.points]
            record = {"format": FORMAT, "request": self._facts, "samplers": self.found, "notes": self.notes}
            write_json(self.path, {**record, "points": points, "equal_quality": results or []})


@dataclass(frozen=True)
class SweepRun:
    """The work of a request on one model, guided by each weight: `run` measures what the record lacks."""

    request: Request
    model: ds.Model
    denoisers: Mapping[str, Denoiser]
    measure: Measure
    record: Record
    stage: Stages

    def run(self) -> None:
        """Calibrate, then draw and score each candidate that is missing, the target first."""
        request, record, seeds = self.request, self.record, self.request.seeds
        cond = self.measure.real.cond(self.model, len(seeds))
        if "real" not in record.notes:
            self.stage("features of real data")
            quality = self.measure.of_training(len(seeds))
            n = min(len(seeds), len(self.measure.real.training))
            real = {"value": quality.value, "standard_error": quality.standard_error, "n": n}
            record.notes = {"real": real, "n": len(seeds), "threads": torch.get_num_threads()}
            record.notes["device"] = str(request.execution.device)
        for guidance, denoiser in self.denoisers.items():
            methods = Methods(
                denoiser,
                self.model.sample_shape,
                request.source,
                request.words,
                request.budgets,
                request.churn,
                request.execution,
            )
            found = self._calibrate(methods, guidance)
            first = replace(methods, words=[TARGET], budgets=[TARGET_NFE], churn=[0.0]).candidates({})
            every = {each.key: each for each in (*first, *methods.candidates(found))}
            done = {(point.method, point.nfe, point.churn) for point in record.points if point.guidance == guidance}
            missing = [each for key, each in every.items() if key not in done]
            truth = self._end_points(denoiser, cond) if missing else None
            total, spent = sum(each.nfe for each in missing), 0
            for candidate in missing:
                self.stage(f"{candidate.method}, NFE {candidate.nfe}", spent, total)
                record.add(self._point(candidate, guidance, cond, truth))
                spent += candidate.nfe

    def _calibrate(self, methods: Methods, guidance: str) -> dict[str, dict[str, Any]]:
        """The recommended and the fitted samplers, those that the record lacks found now."""
        request, found = self.request, self.record.found.setdefault(guidance, {})
        if wanted := methods.missing(found):
            cond = self.measure.real.cond(self.model, len(request.calibration))
            calibration = Calibration(request.calibration, cond, request.reference_steps, *request.choice)
            execution = request.execution
            for name, sampler in calibration.find(methods.denoiser, methods.shape, wanted, execution, self.stage):
                found[name] = to_options(sampler)
                self.record.write()
        return found

    def _end_points(self, denoiser: Denoiser, cond: Cond | None) -> Reference:
        """Those of the first seeds."""
        self.stage("end points of the ODE")
        seeds, execution = self.request.seeds[:_ENDS], self.request.execution
        some = rows_of(cond, slice(len(seeds)))
        shape, steps = self.model.sample_shape, self.request.reference_steps
        return exact_ends(denoiser, seeds, some, steps, execution, self.stage, shape=shape)

    def _point(self, candidate: Candidate, guidance: str, cond: Cond | None, truth: Reference | None) -> SweepPoint:
        """Draw, time and score the samples of a candidate."""
        seeds, features, ends = self.request.seeds, [], []
        seconds, cpu, size = math.inf, math.inf, self.request.execution.batch_size or len(self.request.seeds)
        common: dict[str, Any] = {"guidance": guidance, "churn": candidate.churn, "sampler": candidate.words}
        what = candidate.method, candidate.budget, candidate.nfe
        try:
            for start in range(0, len(seeds), size):
                rows = slice(start, start + size)
                began, cpu_began = time.perf_counter(), time.process_time()
                x = candidate.draw(seeds[rows], rows_of(cond, rows)).cpu()
                # of the batch that other work disturbed least
                seconds = min(seconds, (time.perf_counter() - began) / len(x))
                cpu = min(cpu, (time.process_time() - cpu_began) / len(x))
                features.append(self.measure.features(self.model, x))
                ends.append(x[: max(0, _ENDS - start)])
            rms = None if truth is None or candidate.adds_noise else truth.error_of(torch.cat(ends)).rms
            return SweepPoint(*what, seconds, cpu, self.measure.quality(torch.cat(features)), rms, **common)
        except (ValueError, ArithmeticError) as error:
            return SweepPoint(*what, 0.0, 0.0, None, failure=first_line(error), **common)


def rows_of(cond: Cond | None, rows: slice) -> Cond | None:
    """Some rows of conditions."""
    return cond and {name: value[rows] for name, value in cond.items()}
