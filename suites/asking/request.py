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

from backends.description import BackendDescription, SourceKind
from backends.json_codec import to_json
from backends.model.labels import label_names_of_config, single_label_fault
from suites.asking.cache_folder import user_cache
from suites.asking.interpreters import interpreter_path
from suites.asking.model_request import (
    NO_MODEL,
    local_config,
    model_job,
    model_name,
    model_version,
    positions,
    tokenizer_digest,
)
from suites.asking.resolve_options import backend_options, chosen_backend, lengths_of, quantization_of
from suites.asking.suite_request import ASKED, SuiteRequest
from suites.asking.user_folders import chosen_folder
from suites.measuring.machine import Machine, cpu, cpu_quota, gpus
from suites.records.cell import short_digest
from suites.schema.config import RunConfig
from suites.schema.enums import Precision, Suite, TaskKind, Weights
from suites.schema.refusals import Refused, no_such_choice, writable
from suites.tasks.task import Task, load_task

LARGEST = 1 << 16
"""Largest batch size and largest sequence length. Larger values would fill the memory of any machine."""


@dataclass(frozen=True)
class Request:
    """Resolved request for one cell. Only the release of the backend is missing; a worker finds it.

    Attributes:
        time_limit: longest duration of a stage in seconds.
        minimum_cosine: smallest cosine to the FP32 reference of a correct output.
        until: name of the last stage to run.
        repeats: number of fresh processes that measure.
        job: the input of workers, as JSON; see suites/worker.py.
        task: kind, targets, tolerance and threshold for judging outputs.
        cell: all fields of the `Cell` except the release.
        effort: duration and sample limits, see suites/measuring/clock.py.
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
    job: Mapping[str, Any]
    task: Mapping[str, Any]
    cell: Mapping[str, Any]
    effort: Mapping[str, Any]


def resolve(config: RunConfig) -> Request:
    """Check a configuration and resolve it for this machine.

    Raises:
        Refused: a requested value does not exist or is out of range, or a folder cannot be written.
    """
    backend = chosen_backend(config.backend)
    model_name(config)
    # Errors in the request are reported before missing hardware.
    model_config = local_config(config)
    max_positions = positions(config, model_config)
    shapes, lengths, own_options = _shapes(config, max_positions), lengths_of(config), backend_options(config)
    task = load_task(config.task, _labels(config, model_config))
    suite_request = ASKED[config.suite.name](config, shapes, lengths, max_positions, task)
    machine = _machine(config, backend)
    results = writable("results", chosen_folder("results", config.results))
    cache = user_cache(chosen_folder("cache", config.cache))
    eight_bit = config.precision.name in (Precision.int8, Precision.fp8)
    quantized = eight_bit and backend.source is SourceKind.onnx
    quantization = quantization_of(config, machine) if quantized else None
    graph = config.cuda_graph and backend.cuda_graph and own_options.has_graphs(machine.device.kind)
    job = {
        "suite": config.suite.name.name,
        "backend": backend.name,
        "source": backend.source.name,
        "precision": config.precision.name.name,
        "device": asdict(machine.device),
        "shapes": suite_request.held,
        "cuda_graph": graph,
        "cache": str(cache),
        "options": to_json(own_options),
        "threads": _threads(config),
        "model": model_job(config, cache),
        "lengths": lengths,
        "texts": list(task.calibration),
        "kind": task.kind,
        "readout": task.readout,
        "labels": task.labels,
        "reading": task.reading,
        "seed": config.seed,
        "quantization": to_json(quantization) if quantization else {},
        **suite_request.job,
    }
    cell_options = {
        "cuda_graph": graph,
        **own_options.for_cell(),
        "threads": config.threads,
        **({"quantization": quantization.for_cell()} if quantization else {}),
        **suite_request.options,
    }
    return Request(
        suite=config.suite.name.name,
        machine=machine,
        backend=backend.name,
        interpreter=_interpreter(config, config.backend_interpreter or backend.interpreter.key),
        main_interpreter=_interpreter(config, "main"),
        time_limit=config.time_limit or backend.time_limit_s,
        minimum_cosine=config.suite.minimum_cosine,
        until=config.until.name,
        repeats=config.repeats if config.suite.name is Suite.latency else 1,
        rerun=config.rerun,
        results=results,
        cache=cache,
        job=job,
        task=_judging(config, task),
        cell=_cell(config, suite_request, job, cell_options),
        effort={**_effort(config), **suite_request.effort},
    )


def _cell(
    config: RunConfig, suite_request: SuiteRequest, job: Mapping[str, Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    no_model, random = job["source"] == SourceKind.none.name, config.weights is Weights.random
    calibration = {"calibration": Path(config.task.calibration).name} if config.task.calibration else {}
    return {
        "suite": job["suite"],
        "model": NO_MODEL if no_model else model_name(config),
        "weights": "none" if no_model else f"random (seed {config.seed})" if random else "trained",
        "model_version": model_version(config, job["model"]),
        "backend": job["backend"],
        "precision": job["precision"],
        "device": job["device"]["kind"],
        "shapes": tuple((batch, sequence) for batch, sequence in suite_request.shapes),
        "lengths": {
            **job["lengths"],
            "seed": config.seed,
            "texts": short_digest(job["texts"]),
            **calibration,
            **tokenizer_digest(job["model"]),
            **suite_request.lengths,
        },
        "options": options,
    }


def _judging(config: RunConfig, task: Task) -> dict[str, Any]:
    return {
        "kind": task.kind,
        "targets": dict(task.targets),
        "tolerance": config.task.tolerance,
        "threshold": config.layers.threshold,
    }


def _effort(config: RunConfig) -> dict[str, Any]:
    names = ("warm_up_s", "seconds", "min_samples", "max_samples", "tolerance")
    return {name: getattr(config.suite, name) for name in names}


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


def _machine(config: RunConfig, backend: BackendDescription) -> Machine:
    supported, requested = backend.devices, config.device.name
    visible = gpus() if "cuda" in supported and requested != "cpu" else []
    if requested == "cpu" and "cpu" not in supported:
        raise Refused(f"backend={backend.name} runs on a GPU only; choose device=cuda or another backend")
    if requested == "cuda" and "cuda" not in supported:
        raise Refused(f"backend={backend.name} runs on the CPU only; choose device=cpu or another backend")
    if not visible and (requested == "cuda" or "cpu" not in supported):
        raise Refused(
            f"backend={backend.name} with device={requested} needs an NVIDIA GPU and none is visible here; "
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


def _shapes(config: RunConfig, positions: int) -> list[list[int]]:
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
    return [[batch, sequence] for sequence in sorted(set(config.sequence)) for batch in sorted(set(config.batch))]


def _labels(config: RunConfig, model_config: Mapping[str, Any]) -> dict[int, str] | None:
    """Return the labels of a local checkpoint with a head to judge, from its config.json; None for other requests."""
    judges_head = config.suite.name is Suite.accuracy and config.task.kind is TaskKind.sequence_classification
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
    given = vars(getattr(config, "interpreter"))  # noqa: B009  a group of the assembled schema
    if name not in given:
        raise Refused(no_such_choice("backend_interpreter", name, given))
    return interpreter_path(f"interpreter.{name}", given[name] or given["main"] or sys.executable)
