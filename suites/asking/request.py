"""Turn a composed configuration into a `Request` that can run on this machine.

An error in the configuration is reported here, before any work starts, in one line with the fix.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from backends.base import BACKENDS, BuildSpec, Shape
from backends.inputs.lengths import Lengths
from backends.model.labels import label_names_of_config, single_label_fault
from backends.model.reference import ModelReference
from suites.asking.cache_folder import user_cache
from suites.asking.interpreters import interpreter_path
from suites.asking.model_request import (
    NO_MODEL,
    local_config,
    model_name,
    model_reference,
    model_version,
    positions,
    tokenizer_digest,
)
from suites.asking.resolve_lengths import resolve_lengths
from suites.asking.resolve_options import backend_options, libraries_by_digest, quantization_of
from suites.asking.suite_request import RequestContext, SuiteRequest
from suites.asking.user_folders import chosen_folder
from suites.measuring.clock import Effort
from suites.measuring.machine import Machine, cpu, cpu_quota, gpus
from suites.records.cell import short_digest
from suites.schema.config import RunConfig
from suites.schema.enums import Precision, SourceKind, TaskKind, Weights
from suites.schema.refusals import Refused, at_least, between, did_you_mean, positive, writable
from suites.suite import Judging, Question, load_suite, part, suite_names
from suites.tasks.task import Task, load_task

LARGEST = 1 << 16
"""Largest batch size and largest sequence length. Larger values would fill the memory of any machine."""

LARGEST_SEED = (1 << 63) - 1
"""Largest seed that random number generators accept."""


@dataclass(frozen=True)
class Request:
    """One cell with all settings resolved, except the release of the backend, which a worker reports.

    Attributes:
        interpreter, main_interpreter: Python of the backend, and Python with torch.
        time_limit: of a stage, in seconds.
        minimum_cosine: the cell fails below it.
        until: the last stage: export, build or measure.
        repeats: number of fresh processes that measure.
        rerun: whether an earlier record is not reused.
        source: name of a SourceKind.
        spec: settings that affect what is built or opened.
        model: None for a backend without a model.
        texts: sentences for calibration and, with a tokenizer, for inputs.
        seed: of inputs and calibration.
        question: the suite's own part of jobs.
        cell: fields of `Cell` that are known before the probe.
    """

    suite: str
    machine: Machine
    backend: str
    interpreter: str
    main_interpreter: str
    time_limit: float
    minimum_cosine: float
    until: str
    repeats: int
    rerun: bool
    results: Path
    cache: Path
    source: str
    spec: BuildSpec
    model: ModelReference | None
    lengths: Lengths
    texts: tuple[str, ...]
    seed: int
    question: Question
    judging: Judging
    effort: Effort
    cell: Mapping[str, Any]


def resolve(config: RunConfig) -> Request:
    """Check a configuration against itself and this machine.

    Raises:
        Refused: a requested item does not exist, is out of range or cannot be written.
    """
    _check_names(config)
    model_name(config)
    if at_least("seed", config.seed, 0) > LARGEST_SEED:
        raise Refused(f"seed={config.seed} is too large; a seed is at most {LARGEST_SEED}")
    repeats, suite = at_least("repeats", config.repeats, 1), load_suite(config.suite.name)
    # Errors in the request are reported before anything that this machine lacks.
    model_config = local_config(config)
    max_positions = positions(config, model_config)
    shapes, lengths, own_options = _shapes(config, max_positions), resolve_lengths(config), backend_options(config)
    task = load_task(config.task, _labels(config, model_config))
    context = RequestContext(config, shapes, lengths, max_positions, task)
    suite_request: SuiteRequest = part(config.suite.name, "request").suite_request(context)
    machine = _machine(config)
    results = writable("results", chosen_folder("results", config.results))
    cache = user_cache(chosen_folder("cache", config.cache))
    low = config.precision in (Precision.int8, Precision.fp8)
    quantized = low and config.backend.source is SourceKind.onnx
    spec = BuildSpec(
        precision=config.precision.name,
        device=machine.device,
        shapes=suite_request.built_shapes,
        cuda_graph=config.backend.cuda_graph and (machine.device.kind == "cuda" or config.null.gpu_ms > 0),
        cache=cache,
        options={**own_options, "threads": _threads(config)},
        quantization=quantization_of(config, machine) if quantized else {},
    )
    model = model_reference(config, cache)
    return Request(
        suite=config.suite.name,
        machine=machine,
        backend=config.backend.name,
        interpreter=_interpreter(config, config.backend.interpreter),
        main_interpreter=_interpreter(config, "main"),
        time_limit=positive("backend.time_limit", config.backend.time_limit),
        minimum_cosine=between("suite.minimum_cosine", config.suite.minimum_cosine, -1, 1),
        until=config.until.name,
        repeats=repeats if suite.repeats else 1,
        rerun=config.rerun,
        results=results,
        cache=cache,
        source=config.backend.source.name,
        spec=spec,
        model=None if config.backend.source is SourceKind.none else model,
        lengths=lengths,
        texts=tuple(task.calibration),
        seed=config.seed,
        question=suite_request.question,
        judging=_judging(config, task),
        effort=_effort(config, suite_request.effort),
        cell=_cell(context, suite_request, spec, model),
    )


def _cell(
    context: RequestContext, suite_request: SuiteRequest, spec: BuildSpec, model: ModelReference
) -> dict[str, Any]:
    config = context.config
    none, random = config.backend.source is SourceKind.none, config.weights is Weights.random
    calibration = {"calibration": Path(config.task.calibration).name} if config.task.calibration else {}
    quantization = {"quantization": spec.quantization} if spec.quantization else {}
    return {
        "suite": config.suite.name,
        "model": NO_MODEL if none else model_name(config),
        "weights": "none" if none else f"random (seed {config.seed})" if random else "trained",
        "model_version": model_version(config, model),
        "backend": config.backend.name,
        "precision": spec.precision,
        "device": spec.device.kind,
        "shapes": tuple((shape.batch, shape.sequence) for shape in suite_request.shapes),
        "lengths": {
            **context.lengths.settings(),
            "seed": config.seed,
            "texts": short_digest(list(context.task.calibration)),
            **calibration,
            **tokenizer_digest(model),
            **suite_request.lengths,
        },
        "options": {
            "cuda_graph": spec.cuda_graph,
            **libraries_by_digest(spec.options),
            "threads": config.threads,
            **quantization,
            **suite_request.options,
        },
    }


def _judging(config: RunConfig, task: Task) -> Judging:
    return Judging(
        kind=task.kind,
        targets=dict(task.targets),
        tolerance=positive("task.tolerance", config.task.tolerance),
        threshold=positive("layers.threshold", config.layers.threshold),
    )


def _effort(config: RunConfig, own: Mapping[str, float]) -> Effort:
    """Return the effort; `own` are the seconds of the suite's own measurements."""
    return Effort(
        warm_up_s=positive("suite.warm_up_s", config.suite.warm_up_s),
        seconds=positive("suite.seconds", config.suite.seconds),
        min_samples=at_least("suite.min_samples", config.suite.min_samples, 2),
        max_samples=at_least("suite.max_samples", config.suite.max_samples, 2),
        tolerance=positive("suite.tolerance", config.suite.tolerance),
        **own,
    )


def _check_names(config: RunConfig) -> None:
    if config.suite.name not in suite_names():
        near = did_you_mean(config.suite.name, suite_names())
        raise Refused(f"suite={config.suite.name} does not exist; {near}choices: {', '.join(suite_names())}")
    _check_backend(config)


def _check_backend(config: RunConfig) -> None:
    if config.backend.name not in BACKENDS:
        raise Refused(f"backend.name={config.backend.name} is not a backend; choices: {', '.join(BACKENDS)}")


def _threads(config: RunConfig) -> int:
    """Return the number of CPU threads for the backend; 0 for the default of its library.

    Libraries ignore the limit of a cgroup, so with a limit the default is the limit.

    Raises:
        Refused: the machine has fewer CPUs, or the cgroup allows fewer.
    """
    requested, cores, quota = at_least("threads", config.threads, 0), len(os.sched_getaffinity(0)), cpu_quota()
    if requested > cores:
        raise Refused(f"threads={requested} is more than the {cores} CPUs of this machine; choose at most {cores}")
    allowed = max(1, int(min(quota, cores)))
    if requested > max(quota, 1):
        raise Refused(
            f"threads={requested} is more than the {quota:g} CPUs that the cgroup allows (cpu.max); "
            f"choose at most {allowed}, or raise the limit"
        )
    return allowed if not requested and quota < cores else requested


def _machine(config: RunConfig) -> Machine:
    supported, requested = config.backend.devices, config.device.name
    visible = gpus() if "cuda" in supported and requested != "cpu" else []
    if requested == "cpu" and "cpu" not in supported:
        raise Refused(f"backend={config.backend.name} runs on a GPU only; choose device=cuda or another backend")
    if requested == "cuda" and "cuda" not in supported:
        raise Refused(f"backend={config.backend.name} runs on the CPU only; choose device=cpu or another backend")
    if not visible and (requested == "cuda" or "cpu" not in supported):
        raise Refused(
            f"backend={config.backend.name} with device={requested} needs an NVIDIA GPU and none is visible here; "
            "run on a machine with a GPU (nvidia-smi must list it)"
            + ("" if "cpu" not in supported else ", or choose device=cpu")
        )
    if not visible and config.gpu == 0:
        return cpu()
    if not 0 <= config.gpu < len(visible):
        raise Refused(
            f"gpu={config.gpu} is not one of the {len(visible)} GPUs visible to this backend; the first is gpu=0"
            if visible
            else f"gpu={config.gpu}: no GPU is visible to this backend; use the default, gpu=0"
        )
    return visible[config.gpu]


def _shapes(config: RunConfig, positions: int) -> tuple[Shape, ...]:
    for name, values, limit in (("batch", config.batch, None), ("sequence", config.sequence, positions)):
        if not values:
            raise Refused(f"{name}=[] is empty; give at least one value, e.g. {name}=[1,8]")
        for value in values:
            if value < (1 if name == "batch" else 2):
                raise Refused(f"{name}={value} is too small; a {name} is at least {1 if name == 'batch' else 2}")
            if limit is not None and value > limit:
                raise Refused(f"sequence={value} is beyond the {limit} positions of {model_name(config)}")
            if value > LARGEST:
                raise Refused(f"{name}={value} is too large; a {name} is at most {LARGEST:,}")
    batches = sorted(set(config.batch))
    return tuple(Shape(batch, sequence) for sequence in sorted(set(config.sequence)) for batch in batches)


def _labels(config: RunConfig, model_config: Mapping[str, Any]) -> dict[int, str] | None:
    """Return the labels of a local checkpoint with a head to judge, from its config.json; None for other requests."""
    judges_head = load_suite(config.suite.name).judges_tasks and config.task.kind is TaskKind.sequence_classification
    if not model_config or not judges_head:
        return None
    try:
        problem, names = single_label_fault(model_config), label_names_of_config(model_config)
    except ValueError as error:
        raise Refused(f"model.path={config.model.path}: {error}") from None
    if problem:
        raise Refused(f"model.path={config.model.path}: {problem}")
    return names


def _interpreter(config: RunConfig, name: str) -> str:
    interpreters: dict[str, str] = asdict(config.interpreter)
    if name not in interpreters:
        raise Refused(f"backend.interpreter={name} is not an interpreter; choices: {', '.join(interpreters)}")
    path = interpreters[name] or interpreters["main"] or sys.executable
    return interpreter_path(f"interpreter.{name}", path)
