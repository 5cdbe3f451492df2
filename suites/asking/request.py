"""Turn a composed configuration into a `Request` that can run on this machine.

An error in the configuration is reported here, before any work starts, in one line with the fix.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from backends.base import BuildSpec, Shape
from backends.description import BackendDescription, SourceKind
from backends.inputs.lengths import Lengths
from backends.model.labels import HEAD_TASKS, head_fault, label_names_of_config
from backends.model.reference import ModelReference
from backends.options import BackendOptions
from backends.quantization_options import QuantizationOptions
from suites.asking.cache_folder import existing_cache, user_cache
from suites.asking.chosen_machine import machine_of
from suites.asking.interpreters import interpreter_path
from suites.asking.model_request import (
    NO_MODEL,
    beyond,
    check_calibration,
    local_config,
    model_name,
    model_reference,
    model_version,
    positions,
    tokenizer_digest,
)
from suites.asking.resolve_lengths import resolve_lengths
from suites.asking.resolve_options import backend_options, chosen_backend, quantization_of
from suites.asking.resolve_output import output_of
from suites.asking.suite_request import RequestContext, SuiteRequest
from suites.asking.user_folders import chosen_folder
from suites.measuring.clock import Effort
from suites.measuring.machine import Machine, cpu_quota
from suites.records.cell import CellFields, short_digest
from suites.schema.config import RunConfig
from suites.schema.enums import Precision, Weights
from suites.schema.refusals import Refused, no_such_choice, unwritten, writable
from suites.suite import Judging, Question, SuiteDescription, load_suite, part, suite_names
from suites.tasks.task import Task, load_task

LARGEST = 1 << 16
"""Largest batch size and largest sequence length. Larger values would fill the memory of any machine."""


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
        cell: fields of the cell that are known before the probe.
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
    cell: CellFields


def resolve(config: RunConfig, writes: bool = True) -> Request:
    """Check a configuration against itself and this machine.

    Args:
        writes: whether folders are created and digests are stored in the cache. A plan writes nothing.

    Raises:
        Refused: a requested item does not exist, is out of range or cannot be written.
    """
    backend, suite = chosen_backend(config.backend), chosen_suite(config.suite.name)
    model_name(config)
    # Errors in the request are reported before missing hardware.
    model_config = local_config(config)
    max_positions = positions(config, model_config)
    shapes, lengths, own_options = _shapes(config, max_positions), resolve_lengths(config), backend_options(config)
    task = load_task(config.task, _labels(config, model_config))
    context = RequestContext(config, shapes, lengths, max_positions, task)
    suite_request: SuiteRequest = part(config.suite.name, "request").suite_request(context)
    machine = machine_of(config, backend, own_options)
    results = (writable if writes else unwritten)("results", chosen_folder("results", config.results))
    cache = (user_cache if writes else existing_cache)(chosen_folder("cache", config.cache))
    quantized = quantizes(backend, config)
    check_calibration(config, max_positions)
    spec = BuildSpec(
        precision=config.precision.name,
        device=machine.device,
        shapes=suite_request.built_shapes,
        cuda_graph=config.cuda_graph and backend.cuda_graph and own_options.has_graphs(machine.device.kind),
        cache=cache,
        options=own_options,
        output=output_of(config, suite_request.output, model_config),
        threads=_threads(config),
        quantization=quantization_of(config, machine) if quantized else QuantizationOptions(),
    )
    model = model_reference(config, cache, writes)
    return Request(
        suite=config.suite.name,
        machine=machine,
        backend=backend.name,
        interpreter=_interpreter(config, config.backend_interpreter or backend.interpreter.key),
        main_interpreter=_interpreter(config, "main"),
        time_limit=config.time_limit or backend.time_limit_s,
        minimum_cosine=config.suite.minimum_cosine,
        until=config.until.name,
        repeats=config.repeats if suite.repeats else 1,
        rerun=config.rerun,
        results=results,
        cache=cache,
        source=backend.source.name,
        spec=spec,
        model=None if backend.source is SourceKind.none else model,
        lengths=lengths,
        texts=tuple(task.calibration),
        seed=config.seed,
        question=suite_request.question,
        judging=_judging(config, task),
        effort=_effort(config, suite_request.effort),
        cell=_cell(context, suite_request, spec, model),
    )


def quantizes(backend: BackendDescription, config: RunConfig) -> bool:
    """Return whether options of quantization apply: in int8 or fp8, for a backend that builds from ONNX.

    A backend that builds from a checkpoint quantizes with scheme=dynamic, and in the precisions that it calibrates.
    """
    from_checkpoint = config.quantization.dynamic or config.precision.name in backend.calibrates
    return config.precision in (Precision.int8, Precision.fp8) and (
        backend.source is SourceKind.onnx or (backend.source is SourceKind.checkpoint and from_checkpoint)
    )


def _cell(context: RequestContext, suite_request: SuiteRequest, spec: BuildSpec, model: ModelReference) -> CellFields:
    config = context.config
    backend = chosen_backend(config.backend)
    none, random = backend.source is SourceKind.none, config.weights is Weights.random
    calibration = {"calibration": Path(config.task.calibration).name} if config.task.calibration else {}
    quantization = {"quantization": spec.quantization.for_cell()} if quantizes(backend, config) else {}
    return {
        "suite": config.suite.name,
        "model": NO_MODEL if none else model_name(config),
        "weights": "none" if none else f"random (seed {config.seed})" if random else "trained",
        "model_version": model_version(config, model),
        "backend": backend.name,
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
            **spec.options_as(BackendOptions).for_cell(),
            **spec.output.for_cell(),
            "threads": config.threads,
            **quantization,
            **suite_request.options,
        },
    }


def _judging(config: RunConfig, task: Task) -> Judging:
    return Judging(task.kind, dict(task.targets), config.task.tolerance, config.layers.threshold)


def _effort(config: RunConfig, own: Mapping[str, float]) -> Effort:
    """Return the effort; `own` are the seconds of the suite's own measurements."""
    suite = config.suite
    return Effort(suite.warm_up_s, suite.seconds, suite.min_samples, suite.max_samples, suite.tolerance, **own)


def chosen_suite(name: str) -> SuiteDescription:
    """Return the description of a suite.

    Raises:
        Refused: there is no such suite; the message names the nearest one.
    """
    if name not in suite_names():
        raise Refused(no_such_choice("suite", name, suite_names()))
    return load_suite(name)


def _threads(config: RunConfig) -> int:
    """Return the number of CPU threads for the backend; 0 for the default of its library.

    Libraries ignore the limit of a cgroup, so with a limit the default is the limit.

    Raises:
        Refused: the machine has fewer CPUs, or the cgroup allows fewer.
    """
    requested, cores, quota = config.threads, len(os.sched_getaffinity(0)), cpu_quota()
    if requested > cores:
        raise Refused(f"threads={requested} is more than the {cores} CPUs of this machine; choose at most {cores}")
    allowed = max(1, int(min(quota, cores)))
    if requested > max(quota, 1):
        raise Refused(
            f"threads={requested} is more than the {quota:g} CPUs that the cgroup allows (cpu.max); "
            f"choose at most {allowed}, or raise the limit"
        )
    return allowed if not requested and quota < cores else requested


def _shapes(config: RunConfig, positions: int) -> tuple[Shape, ...]:
    for name, values, limit in (("batch", config.batch, None), ("sequence", config.sequence, positions)):
        if not values:
            raise Refused(f"{name}=[] is empty; give at least one value, e.g. {name}=[1,8]")
        for value in values:
            if value < (1 if name == "batch" else 2):
                raise Refused(f"{name}={value} is too small; a {name} is at least {1 if name == 'batch' else 2}")
            if limit is not None and value > limit:
                raise Refused(beyond(value, limit, model_name(config)))
            if value > LARGEST:
                raise Refused(f"{name}={value} is too large; a {name} is at most {LARGEST:,}")
    batches = sorted(set(config.batch))
    return tuple(Shape(batch, sequence) for sequence in sorted(set(config.sequence)) for batch in batches)


def _labels(config: RunConfig, model_config: Mapping[str, object]) -> dict[int, str] | None:
    """Return the labels of a local checkpoint with a head to judge, from its config.json; None for other requests."""
    judges_head = load_suite(config.suite.name).judges_tasks and config.task.kind.name in HEAD_TASKS
    if not model_config or not judges_head:
        return None
    try:
        problem, names = head_fault(model_config, config.task.kind.name), label_names_of_config(model_config)
    except ValueError as error:
        raise Refused(f"model.path={config.model.path}: {error}") from None
    if problem:
        raise Refused(f"model.path={config.model.path}: {problem}")
    return names


def _interpreter(config: RunConfig, name: str) -> str:
    given = vars(getattr(config, "interpreter"))  # noqa: B009  a group of the assembled schema
    if name not in given:
        raise Refused(no_such_choice("backend_interpreter", name, given))
    return interpreter_path(f"interpreter.{name}", given[name] or given["main"] or sys.executable)
