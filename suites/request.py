"""From a composed configuration to a `Request` that can run here.

Whatever is wrong with it is said here, before any work starts, in one line that tells the fix.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from backends.base import BACKENDS
from suites.config import Precision, RunConfig, SourceKind, Weights, plain
from suites.machine import Machine, cpu, gpus

ROOT = Path(__file__).resolve().parent.parent


class Refused(Exception):
    """The request cannot run as it stands; the message is one line that says what to do."""


@dataclass(frozen=True)
class Request:
    """One cell asked for, with everything resolved but the release of the backend, which a worker knows.

    Attributes:
        job: what workers are told, as JSON; see suites/worker.py.
        cell: the fields of the `Cell` that are known already.
        effort: seconds and caps for suites/clock.py.
    """

    suite: str
    machine: Machine
    backend: str
    interpreter: str
    main_interpreter: str
    time_limit: float
    minimum_cosine: float
    until: str
    rerun: bool
    results: Path
    cache: Path
    job: Mapping[str, Any]
    cell: Mapping[str, Any]
    effort: Mapping[str, Any]


def resolve(config: RunConfig) -> Request:
    """Check a configuration against itself and this machine.

    Raises:
        Refused: something asked for does not exist, is out of range or cannot be written.
    """
    _named(config)
    machine = _machine(config)
    shapes = _shapes(config)
    results, cache = _writable("results", config.results), _writable("cache", config.cache)
    low = config.precision.name in (Precision.int8, Precision.fp8)
    quantized = low and config.backend.source is SourceKind.onnx
    quantization = _quantization(config, machine) if quantized else {}
    graph = config.backend.cuda_graph and (machine.device.kind == "cuda" or config.null.gpu_ms > 0)
    options = {**_own_options(config), "threads": _at_least("threads", config.threads, 0)}
    texts = _lines("task.path", config.task.path)
    lengths = _lengths(config)
    job = {
        "suite": config.suite.name.name,
        "backend": config.backend.name,
        "source": config.backend.source.name,
        "precision": config.precision.name.name,
        "device": asdict(machine.device),
        "shapes": shapes,
        "cuda_graph": graph,
        "cache": str(cache),
        "options": options,
        "model": _model(config),
        "lengths": lengths,
        "texts": texts,
        "seed": _at_least("seed", config.seed, 0),
        "quantization": quantization,
    }
    none, random = config.backend.source is SourceKind.none, config.weights is Weights.random
    return Request(
        suite=config.suite.name.name,
        machine=machine,
        backend=config.backend.name,
        interpreter=_interpreter(config, config.backend.interpreter),
        main_interpreter=_interpreter(config, "main"),
        time_limit=_positive("backend.time_limit", config.backend.time_limit),
        minimum_cosine=config.suite.minimum_cosine,
        until=config.until.name,
        rerun=config.rerun,
        results=results,
        cache=cache,
        job=job,
        cell={
            "suite": config.suite.name.name,
            "model": "none" if none else config.model.name,
            "weights": "none" if none else f"random (seed {config.seed})" if random else "trained",
            "model_version": _model_version(config),
            "backend": config.backend.name,
            "precision": config.precision.name.name,
            "device": machine.device.kind,
            "shapes": tuple((batch, sequence) for batch, sequence in shapes),
            "lengths": {**lengths, "seed": config.seed, "texts": _digest(texts)},
            "options": {"cuda_graph": graph, **options, **({"quantization": quantization} if quantization else {})},
        },
        effort={
            "warm_up_s": _positive("suite.warm_up_s", config.suite.warm_up_s),
            "seconds": _positive("suite.seconds", config.suite.seconds),
            "min_samples": _at_least("suite.min_samples", config.suite.min_samples, 2),
            "max_samples": _at_least("suite.max_samples", config.suite.max_samples, 2),
            "tolerance": _positive("suite.tolerance", config.suite.tolerance),
        },
    )


def _named(config: RunConfig) -> None:
    """Names that conf/ gives and a command line can overwrite."""
    if config.backend.name not in BACKENDS:
        raise Refused(f"backend.name={config.backend.name} is no backend; choices: {', '.join(BACKENDS)}")
    if not re.fullmatch(r"[\w.-]+", config.model.name):
        raise Refused(f"model.name={config.model.name} would name a file; use letters, digits, '.', '_' and '-'")


def _machine(config: RunConfig) -> Machine:
    able, wanted = config.backend.devices, config.device.name
    visible = gpus() if "cuda" in able and wanted != "cpu" else []
    if wanted == "cpu" and "cpu" not in able:
        raise Refused(f"backend={config.backend.name} runs on a GPU only; choose device=cuda or another backend")
    if wanted == "cuda" and "cuda" not in able:
        raise Refused(f"backend={config.backend.name} runs on the CPU only; choose device=cpu or another backend")
    if not visible and (wanted == "cuda" or "cpu" not in able):
        raise Refused(
            f"backend={config.backend.name} with device={wanted} needs an NVIDIA GPU and none is visible here; "
            "run on a machine with one (nvidia-smi must list it)"
            + ("" if "cpu" not in able else ", or choose device=cpu")
        )
    if not visible and config.gpu == 0:
        return cpu()
    if not 0 <= config.gpu < len(visible):
        raise Refused(
            f"gpu={config.gpu} is not one of the {len(visible)} GPUs visible to this backend, numbered from 0"
        )
    return visible[config.gpu]


def _shapes(config: RunConfig) -> list[list[int]]:
    for name, values, most in (("batch", config.batch, None), ("sequence", config.sequence, _positions(config))):
        if not values:
            raise Refused(f"{name}=[] asks for nothing; give at least one, e.g. {name}=[1,8]")
        for value in values:
            if value < (1 if name == "batch" else 2):
                raise Refused(f"{name}={value} is too small; a {name} starts at {1 if name == 'batch' else 2}")
            if most is not None and value > most:
                raise Refused(f"sequence={value} is beyond the {most} positions of {config.model.name}")
    return [[batch, sequence] for sequence in sorted(set(config.sequence)) for batch in sorted(set(config.batch))]


def _model_config(config: RunConfig) -> dict[str, Any]:
    """config.json of a local model folder, once the folder is known to be whole; {} for any other model."""
    if config.weights is Weights.random or not config.model.path:
        return {}
    folder = Path(config.model.path)
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise Refused(
                f"model.path={folder} has no {name}; give a folder with config.json and model.safetensors, "
                "or weights=random for latency alone"
            )
    try:
        found: dict[str, Any] = json.loads((folder / "config.json").read_text())
    except ValueError as error:
        raise Refused(f"{folder / 'config.json'} is not JSON: {error}") from None
    return found


def _positions(config: RunConfig) -> int:
    found = _model_config(config)
    if not found:
        return config.model.positions
    # RoBERTa numbers its positions from padding_idx + 1.
    offset = found.get("pad_token_id", 1) + 1 if "roberta" in found.get("model_type", "") else 0
    return int(found.get("max_position_embeddings", 512)) - offset


def _model(config: RunConfig) -> dict[str, Any]:
    model = plain(asdict(config.model))
    path = str(Path(config.model.path).resolve()) if config.model.path else ""
    if config.weights is Weights.random and not model["architecture"]:
        raise Refused(f"weights=random needs model.architecture, which model={config.model.name} does not give")
    return {**model, "path": path, "weights": config.weights.name, "seed": config.seed}


def _model_version(config: RunConfig) -> str:
    """What tells this model from another of its name: the architecture of random weights, the digest of local
    ones, the revision of those on a hub. Nothing of a path gets into a cell."""
    if config.backend.source is SourceKind.none:
        return ""
    if config.weights is Weights.random:
        return _digest(plain(config.model.architecture))
    if _model_config(config):
        from backends.cache import digest_of

        return digest_of(Path(config.model.path) / "model.safetensors")[:16]
    return f"{config.model.hub}@{config.model.revision}"


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _quantization(config: RunConfig, machine: Machine) -> dict[str, Any]:
    """The settings with `auto` resolved.

    On a GPU activations are signed and symmetric, which is what TensorRT reads too. x86 CPUs multiply
    unsigned by signed bytes; without VNNI the 16-bit sums of two such products can saturate, which 7-bit
    weights avoid (onnxruntime's quantization guide).
    """
    chosen = plain(asdict(config.quantization))
    on_cpu = machine.device.kind == "cpu"
    if chosen["activation"] == "auto":
        chosen["activation"] = "uint8" if on_cpu else "int8"
    if chosen["placement"] == "auto" and config.backend.name != "trt_plugin":
        chosen["placement"] = "all_but_ffn_residual" if config.backend.name == "trt" else "gemm"
    saturates = on_cpu and not {"avx_vnni", "avx512_vnni", "asimddp"} & set(machine.device.features)
    switch = chosen["reduce_range"]
    chosen["reduce_range"] = saturates if switch == "auto" else switch == "on"
    if chosen["scheme"] == "implicit" and chosen["method"] == "percentile":
        raise Refused("quantization.method=percentile has no implicit form; use minmax or entropy")
    _at_least("quantization.samples", chosen["samples"], 1)
    _at_least("quantization.sequence", chosen["sequence"], 2)
    if not 50 < chosen["percentile"] <= 100:
        raise Refused(f"quantization.percentile={chosen['percentile']} must lie above 50 and at most at 100")
    return chosen  # type: ignore[no-any-return]


def _own_options(config: RunConfig) -> dict[str, Any]:
    """The backend's own options, and no other's: they are part of the cell."""
    name = config.backend.name
    owners: dict[str, Any] = {"null": config.null, "ort": config.ort, "torch_compile": config.torch}
    if name == "trt":
        return _tensorrt(config)
    if name == "trt_plugin":
        return {**_tensorrt(config), "layout": config.layout.name, **plain(asdict(config.plugin))}
    return plain(asdict(owners[name])) if name in owners else {}


def _tensorrt(config: RunConfig) -> dict[str, Any]:
    """TensorRT's options with the range of the dynamic profile resolved, as [batch, sequence]."""
    chosen = plain(asdict(config.trt))
    largest = [max(config.batch), max(config.sequence)]
    chosen["min"] = chosen["min"] or [1, min(16, *config.sequence)]
    chosen["max"] = chosen["max"] or largest
    chosen["opt"] = chosen["opt"] or chosen["max"]
    for name in ("min", "opt", "max"):
        if len(chosen[name]) != 2 or min(chosen[name]) < 1:
            raise Refused(f"trt.{name}={chosen[name]} must be a batch and a sequence length, e.g. trt.{name}=[1,128]")
    for axis, (least, best, most) in enumerate(zip(chosen["min"], chosen["opt"], chosen["max"], strict=True)):
        if not least <= best <= most:
            of = ("batch", "sequence")[axis]
            raise Refused(f"trt.min, trt.opt and trt.max must not fall; their {of} is {least}, {best}, {most}")
    if not 0 <= chosen["optimization_level"] <= 5:
        raise Refused(f"trt.optimization_level={chosen['optimization_level']} must lie between 0 and 5")
    _at_least("trt.workspace_mb", chosen["workspace_mb"], 0)
    _at_least("trt.aux_streams", chosen["aux_streams"], -1)
    return {"profiles": config.profiles.name, "keep_fp32": list(config.keep_fp32), **chosen}


def _lengths(config: RunConfig) -> dict[str, Any]:
    """The distribution and what it needs, nothing else: it is part of the cell."""
    lengths = plain(asdict(config.lengths))
    kind = lengths["distribution"]
    chosen = {name: lengths[name] for name in ("distribution", "tokens", "low")}
    _at_least("lengths.low", lengths["low"], 2)
    if kind == "lognormal":
        mean, sigma = (_positive(f"lengths.{name}", lengths[name]) for name in ("mean", "sigma"))
        return {**chosen, "mean": mean, "sigma": sigma}
    if kind == "histogram":
        values, counts = lengths["values"], lengths["counts"]
        if not values or len(values) != len(counts) or min(values) < 2 or min(counts) < 0 or not sum(counts):
            raise Refused("lengths.values and lengths.counts must be lists of one size, the lengths from 2 on")
        return {**chosen, "values": values, "counts": counts}
    if kind != "file":
        return chosen
    values, path = [], lengths["path"]
    for number, line in enumerate(_lines("lengths.path", path), 1):
        if not line.isdigit() or int(line) < 2:
            raise Refused(f"{path}, line {number}: {line!r} is not a length of 2 or more tokens")
        values.append(int(line))
    return {**chosen, "values": values}


def _lines(key: str, path: str) -> list[str]:
    """The lines of a text file that are not empty; a relative path is looked for here and in the project."""
    for candidate in (Path(path), ROOT / path):
        if path and candidate.is_file():
            lines = [line.strip() for line in candidate.read_text().splitlines()]
            found = [line for line in lines if line]
            if found:
                return found
            raise Refused(f"{key}={path} is empty; give a file with one entry a line")
    raise Refused(f"{key}={path or '(nothing)'} is not a file; give one with an entry a line")


def _interpreter(config: RunConfig, name: str) -> str:
    known: dict[str, str] = asdict(config.interpreter)
    if name not in known:
        raise Refused(f"backend.interpreter={name} is no interpreter; choices: {', '.join(known)}")
    path = known[name] or known["main"] or sys.executable
    if not os.access(path, os.X_OK):
        raise Refused(
            f"interpreter.{name}={path} is no executable Python; "
            "set it on the command line or in conf/interpreter/local.yaml"
        )
    return path


def _writable(key: str, path: str) -> Path:
    folder = Path(path) if Path(path).is_absolute() else Path.cwd() / path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"0" * 4096)
    except OSError as error:
        raise Refused(f"{key}={path} cannot be written ({error.strerror}); choose another folder") from None
    return folder


def _positive(key: str, value: float) -> float:
    if not value > 0:
        raise Refused(f"{key}={value} must be greater than 0")
    return value


def _at_least(key: str, value: int, least: int) -> int:
    if value < least:
        raise Refused(f"{key}={value} must be at least {least}")
    return value
